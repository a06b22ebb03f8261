//! `GET /services`, `/services/{name}`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Pages;
use super::answer::{Document, Refusal, document};
use super::drains::DrainView;
use super::reliability::Reliability;
use crate::clock;
use crate::mesh::health::HealthState;
use crate::mesh::ids::Name;
use crate::mesh::offer::Kind;
use crate::mesh::stats::{CallCounts, LatencyHistogram};
use crate::mesh::time::Mono;
use crate::registry::{Instance, Service, Snapshot};

/// Of many instances that are not well, so many are named with their reasons.
const UNWELL_NAMED: usize = 5;

#[derive(Deserialize)]
pub(super) struct Filter {
    status: Option<String>,
}

/// `healthy`, `degraded` or `unavailable`, with the reason.
pub(super) fn condition(service: &Service) -> (&'static str, String) {
    let total = service.wanted();
    let draining = service.instances.len() - total;
    let healthy =
        service.instances.iter().filter(|i| i.is_routable() && i.health == HealthState::Healthy).count();
    let (available, free) = (service.available(), service.unhampered());
    if total == 0 {
        ("unavailable", format!("all of its {draining} instances are taken out of use"))
    } else if available == 0 {
        ("unavailable", format!("none of {total} instances is available{}", of_unwell(service)))
    } else if service.core.panics.load(Ordering::Relaxed) {
        let of = service.expected();
        ("degraded", format!("{free} of {of} instances are available: calls may go to all that are not dead"))
    } else if healthy < total {
        ("degraded", format!("{healthy} of {total} instances are healthy{}", of_unwell(service)))
    } else if free < available {
        ("degraded", format!("{} of {total} instances are behind a breaker", available - free))
    } else if draining > 0 {
        ("healthy", format!("{draining} of {} instances are taken out of use", total + draining))
    } else {
        ("healthy", String::new())
    }
}

/// What instances that are not well have to say, but for those that somebody took out of use.
fn of_unwell(service: &Service) -> String {
    let wanted = service.instances.iter().filter(|instance| instance.drain.is_none());
    let unwell: Vec<_> =
        wanted.filter(|one| !one.is_routable() || one.health != HealthState::Healthy).collect();
    let mut words: Vec<String> = unwell
        .iter()
        .take(UNWELL_NAMED)
        .map(|instance| match instance.why() {
            why if why.is_empty() => format!("`{}` {}", instance.name(), instance.state()),
            why => format!("`{}` {} ({why})", instance.name(), instance.state()),
        })
        .collect();
    if unwell.len() > UNWELL_NAMED {
        words.push(format!("and {} more", unwell.len() - UNWELL_NAMED));
    }
    let colon = if words.is_empty() { "" } else { ": " };
    format!("{colon}{}", words.join(", "))
}

#[derive(Serialize)]
struct List<'a> {
    services: Vec<Summary<'a>>,
}

#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    status: &'static str,
    reason: String,
    instances: usize,
    available: usize,
    tools: usize,
    registered_at: String,
    message_count: u64,
    reliability: Reliability,
}

pub(super) async fn list(
    State(pages): State<Pages>,
    Query(filter): Query<Filter>,
) -> Result<Response, Refusal> {
    Ok(listing(&pages.registry.snapshot(), filter.status.as_deref(), |_| true)?.into_response())
}

/// All services that `sees` lets through, or those of them in one state.
pub(super) fn listing(
    snapshot: &Snapshot,
    status: Option<&str>,
    sees: impl Fn(&Name) -> bool,
) -> Result<Document, Refusal> {
    let known = ["healthy", "degraded", "unavailable"];
    if let Some(status) = status
        && !known.contains(&status)
    {
        let detail = format!("`status={status}` is none of healthy, degraded, unavailable");
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid_filter",
            detail,
            "leave it out to see all",
        ));
    }
    let seen = snapshot.services().into_iter().filter(|service| sees(&service.name));
    let services = seen.map(|service| {
        let (status, reason) = condition(service);
        Summary {
            name: service.name.as_str(),
            status,
            reason,
            instances: service.instances.len(),
            available: service.available(),
            tools: service.offer.tools().len(),
            registered_at: clock::iso(service.since),
            message_count: service.core.counters.messages.load(Ordering::Acquire),
            reliability: Reliability::of_service(service),
        }
    });
    let wanted = services.filter(|service| status.is_none_or(|status| status == service.status));
    Ok(document(StatusCode::OK, &List { services: wanted.collect() }))
}

#[derive(Serialize)]
pub(super) struct Counts {
    messages: u64,
    ok: u64,
    tool_errors: u64,
    failed: u64,
    refused: u64,
    retries: u64,
    request_bytes: u64,
    response_bytes: u64,
}

impl From<CallCounts> for Counts {
    fn from(counts: CallCounts) -> Self {
        let CallCounts { messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes } =
            counts;
        Self { messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes }
    }
}

/// Microseconds since the start.
#[derive(Serialize)]
struct Latency {
    count: u64,
    mean_us: u64,
    p50_us: u32,
    p95_us: u32,
    p99_us: u32,
}

impl From<&LatencyHistogram> for Latency {
    fn from(histogram: &LatencyHistogram) -> Self {
        let seen = histogram.snapshot();
        Self {
            count: seen.count(),
            mean_us: seen.sum_us() / seen.count().max(1),
            p50_us: seen.quantile(0.5),
            p95_us: seen.quantile(0.95),
            p99_us: seen.quantile(0.99),
        }
    }
}

#[derive(Serialize)]
struct Detail<'a> {
    name: &'a str,
    status: &'static str,
    reason: String,
    registered_at: String,
    message_count: u64,
    reliability: Reliability,
    counts: Counts,
    latency: Latency,
    tools: Vec<&'a RawValue>,
    prompts: Vec<&'a RawValue>,
    resources: Vec<&'a RawValue>,
    resource_templates: Vec<&'a RawValue>,
    instances: Vec<InstanceView<'a>>,
}

#[derive(Serialize)]
pub(super) struct InstanceView<'a> {
    instance_name: &'a str,
    instance_id: String,
    url: String,
    /// `healthy`, `degraded`, `unhealthy`, `dead`; `draining` while it is taken out of use; of a supervised process
    /// that is not ready, what it is; `restored` until a probe proved it after a restart, `starting` until one proved
    /// an instance of the configuration.
    state: &'static str,
    reason: String,
    since: String,
    /// `none` for an instance of the configuration.
    lease: &'static str,
    epoch: u64,
    heartbeat_age_s: f64,
    registered_at: String,
    score: u8,
    share_permille: u32,
    breaker: &'static str,
    /// What brought it into that state; empty while it never opened.
    breaker_reason: String,
    breaker_trips: u64,
    probe_failures: u32,
    in_flight: u32,
    /// Of clients, that are with it.
    sessions: u32,
    draining: Option<DrainView<'a>>,
    ewma_us: u32,
    reliability: Reliability,
    counts: Counts,
    latency: Latency,
    era: Option<&'static str>,
    protocol_version: Option<String>,
    server: Option<String>,
    pid: Option<u32>,
    zone: Option<&'a str>,
    weight: u16,
    tags: Vec<&'a str>,
    metadata: Option<&'a RawValue>,
}

impl<'a> From<&'a Instance> for InstanceView<'a> {
    fn from(instance: &'a Instance) -> Self {
        let core = &instance.core;
        let spec = &instance.spec;
        let heartbeat_at = Mono::from_micros(core.heartbeat_at.load(Ordering::Relaxed));
        let spoken = instance.peer.spoken();
        Self {
            instance_name: spec.name.as_str(),
            instance_id: format!("i-{}", instance.id),
            url: spec.endpoint.to_string(),
            state: instance.state(),
            reason: instance.why(),
            since: clock::iso(instance.since),
            lease: if instance.configured { "none" } else { instance.phase.as_str() },
            epoch: instance.epoch,
            heartbeat_age_s: clock::mono().since(heartbeat_at).as_secs_f64(),
            registered_at: clock::iso(instance.registered_at),
            score: core.live.score(),
            share_permille: core.live.share_permille(),
            breaker: core.guard.state().as_str(),
            // One that was never opened has no reason to be closed.
            breaker_reason: core.guard.reason().unwrap_or_default(),
            breaker_trips: core.trips(),
            probe_failures: core.probe_failures.load(Ordering::Relaxed),
            in_flight: core.live.in_flight(),
            sessions: instance.sessions(),
            draining: DrainView::of(instance),
            ewma_us: core.live.ewma_us(),
            reliability: Reliability::of_instance(instance),
            counts: core.counters.snapshot().into(),
            latency: (&core.latency).into(),
            era: spoken.as_ref().map(|spoken| spoken.era.as_str()),
            protocol_version: spoken.as_ref().and_then(|s| s.version.to_str().ok().map(str::to_owned)),
            server: spoken.as_ref().map(|spoken| spoken.server.clone()),
            pid: spec.pid,
            zone: spec.zone.as_ref().map(|zone| zone.as_str()),
            weight: spec.weight,
            tags: spec.tags.iter().map(|tag| tag.as_str()).collect(),
            metadata: serde_json::from_str(&spec.metadata).ok(),
        }
    }
}

pub(super) async fn one(State(pages): State<Pages>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let snapshot = pages.registry.snapshot();
    Ok(info(found(&snapshot, &name)?).into_response())
}

fn found<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Arc<Service>, Refusal> {
    snapshot.service(name).ok_or_else(|| Refusal::unknown_service(name, snapshot.departed(name)))
}

/// All that is known of a service.
pub(super) fn info(service: &Service) -> Document {
    let (status, reason) = condition(service);
    let list = |kind| {
        service.offer.of(kind).iter().filter_map(|item| serde_json::from_str(&item.json).ok()).collect()
    };
    let counts = service.core.counters.snapshot();
    let detail = Detail {
        name: service.name.as_str(),
        status,
        reason,
        registered_at: clock::iso(service.since),
        message_count: counts.messages,
        reliability: Reliability::of_service(service),
        counts: counts.into(),
        latency: (&service.core.latency).into(),
        tools: list(Kind::Tool),
        prompts: list(Kind::Prompt),
        resources: list(Kind::Resource),
        resource_templates: list(Kind::Template),
        instances: service.instances.iter().map(|instance| (&**instance).into()).collect(),
    };
    document(StatusCode::OK, &detail)
}
