//! Calls that are over, in the form in which a component can be asked about them again.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::Pages;
use super::answer::json;
use crate::telemetry::journal::Record;

#[derive(Serialize)]
struct Recording {
    items: Vec<RecordedView>,
    /// The services as routers know them now.
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct RecordedView {
    call_id: String,
    at_ms: i64,
    service: String,
    tool: String,
    method: String,
    client: String,
    /// Sixteen hexadecimal digits, as of `affinity`.
    random: String,
    affinity: String,
    size: u32,
    deadline_ms: u64,
    /// What each router said, by its name.
    verdicts: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct ServiceView {
    name: String,
    tags: Vec<String>,
    tools: Vec<String>,
    instances: u32,
    healthy: u32,
}

pub(super) fn page(pages: &Pages, limit: usize, service: Option<&str>) -> Response {
    let items =
        pages.journal.newest(limit, service).iter().map(|record| RecordedView::from(&**record)).collect();
    let snapshot = pages.registry.snapshot();
    let services = snapshot.catalog.services.iter().map(|service| ServiceView {
        name: service.name.to_string(),
        tags: service.tags.iter().map(ToString::to_string).collect(),
        tools: service.tools.clone(),
        instances: service.instances,
        healthy: service.healthy,
    });
    json(StatusCode::OK, &Recording { items, services: services.collect() })
}

impl From<&Record> for RecordedView {
    fn from(record: &Record) -> Self {
        let call = &record.call;
        let verdicts = record.opinions.iter().map(|opinion| {
            let verdict = opinion.decision.as_ref().map(|decision| decision.verdict.to_string());
            (opinion.by.name.to_string(), verdict.unwrap_or_else(|| "fault".to_owned()))
        });
        Self {
            call_id: call.id.to_string(),
            at_ms: call.at.as_millis(),
            service: call.service.to_string(),
            tool: call.tool.to_string(),
            method: call.method.to_string(),
            client: call.client.to_string(),
            random: format!("{:016x}", call.random),
            affinity: format!("{:016x}", call.affinity),
            size: call.size,
            deadline_ms: u64::try_from(call.time_left.as_millis()).unwrap_or(u64::MAX),
            verdicts: verdicts.collect(),
        }
    }
}
