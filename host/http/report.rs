//! `GET /services/{name}/status`, and the same of all services: `GET /api/v1/status`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::answer::{Document, Refusal, document};
use super::reliability::Reliability;
use super::services::condition;
use super::{Complaint, Pages};
use crate::mesh::child::ChildState;
use crate::mesh::lease::LeasePhase;
use crate::registry::{Departed, Instance, Service, Snapshot};
use crate::supervisor::Children;

#[derive(Serialize)]
pub(super) struct Status {
    service: String,
    status: &'static str,
    available: bool,
    /// Of a process that the proxy starts, or whose pid is known: whether it lives. `null` when no pid was given.
    process_running: Option<bool>,
    /// One of its instances is in the mesh now, well or not.
    mesh_registration: bool,
    reason: String,
    instances: usize,
    instances_available: usize,
    /// `null` of what has no instance.
    reliability: Option<Reliability>,
}

#[derive(Serialize)]
struct Report {
    items: Vec<Status>,
    next_cursor: Option<String>,
}

pub(super) async fn one(State(pages): State<Pages>, Path(name): Path<String>) -> Result<Response, Refusal> {
    Ok(status(&pages, &pages.registry.snapshot(), &name)?.into_response())
}

/// Whether a service can be called, be it there or only known.
pub(super) fn status(pages: &Pages, snapshot: &Snapshot, name: &str) -> Result<Document, Refusal> {
    let left_out = || (pages.complaints)().into_iter().find_map(|complaint| left_out(complaint, name));
    let status = match (snapshot.service(name), snapshot.departed(name)) {
        (Some(service), _) => of_service(service, &pages.children),
        (None, Some(departed)) => of_departed(departed),
        (None, None) => left_out().ok_or_else(|| Refusal::unknown_service(name, None))?,
    };
    Ok(document(StatusCode::OK, &status))
}

/// All that are there, that were there and are remembered, and that the configuration names in vain.
pub(super) async fn all(State(pages): State<Pages>) -> Response {
    let snapshot = pages.registry.snapshot();
    let mut items = BTreeMap::new();
    for complaint in (pages.complaints)() {
        let Some(name) = complaint.service.clone() else { continue };
        items.extend(left_out(complaint, &name).map(|status| (name.clone(), status)));
    }
    items.extend(
        snapshot.all_departed().map(|departed| (departed.service.to_string(), of_departed(departed))),
    );
    for service in snapshot.services() {
        items.insert(service.name.to_string(), of_service(service, &pages.children));
    }
    document(StatusCode::OK, &Report { items: items.into_values().collect(), next_cursor: None })
        .into_response()
}

fn of_service(service: &Service, children: &Children) -> Status {
    let (status, reason) = condition(service);
    let pids: Vec<u32> = service.instances.iter().filter_map(|instance| instance.spec.pid).collect();
    let children = children.of(service.name.as_str());
    let running = match (children.is_empty(), pids.is_empty()) {
        (false, _) => Some(children.iter().any(|child| child.pid.is_some())),
        (true, false) => Some(pids.into_iter().any(is_running)),
        (true, true) => None,
    };
    Status {
        service: service.name.to_string(),
        status,
        available: service.available() > 0,
        process_running: running,
        mesh_registration: service.instances.iter().any(|instance| is_registered(instance)),
        reason,
        instances: service.instances.len(),
        instances_available: service.available(),
        reliability: Some(Reliability::of_service(service)),
    }
}

/// Who registered is; an instance of the configuration once it was seen, unless it is skipped or parked since.
fn is_registered(instance: &Instance) -> bool {
    let is_given_up =
        instance.child.is_some_and(|(state, _)| matches!(state, ChildState::Skipped | ChildState::Fatal));
    !instance.configured || instance.phase != LeasePhase::Restored && !is_given_up
}

fn of_departed(departed: &Departed) -> Status {
    absent(departed.service.to_string(), departed.to_string())
}

/// What the configuration says of a service and cannot mean.
fn left_out(complaint: Complaint, name: &str) -> Option<Status> {
    let service = complaint.service.filter(|service| service == name)?;
    Some(absent(service, format!("left out of the configuration: {}", complaint.why)))
}

fn absent(service: String, reason: String) -> Status {
    Status {
        service,
        status: "unavailable",
        available: false,
        process_running: None,
        mesh_registration: false,
        reason,
        instances: 0,
        instances_available: 0,
        reliability: None,
    }
}

/// Whether a process of that number is there; one of another user counts.
fn is_running(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}
