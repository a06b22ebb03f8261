//! `GET /api/v1/processes`, and what can be asked of a service's processes: logs, start, stop, restart.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::answer::{Refusal, json, read};
use super::{Complaint, Pages};
use crate::clock;
use crate::mesh::ids::Name;
use crate::registry::Found;
use crate::supervisor::{ChildStatus, Order, OrderError, Startup};

/// Lines that are shown unless told otherwise, and at most.
const LINES: usize = 200;
const LINES_MAX: usize = 5000;
const LEFT_OUT: &str = "left_out";

#[derive(Serialize)]
struct Processes {
    items: Vec<ProcessView>,
    next_cursor: Option<String>,
    startup: StartupView,
}

/// What became of the services at the start.
#[derive(Serialize)]
struct StartupView {
    started: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<String>,
    idle: Vec<String>,
    pending: Vec<String>,
}

#[derive(Default, Serialize)]
struct ProcessView {
    service: String,
    instance: String,
    command: String,
    /// `stopped`, `starting`, `installing`, `ready`, `stopping`, `idle`, `backoff`, `fatal`, `skipped`; `left_out` of a service
    /// that is wrong in the configuration.
    state: &'static str,
    reason: String,
    /// What to do about it.
    fix: Option<String>,
    pid: Option<u32>,
    uptime_s: Option<f64>,
    restarts: u64,
    next_try_s: Option<f64>,
    required: bool,
    /// Something that it needs is not there.
    degraded: bool,
    /// Lines on standard output that were not of the protocol.
    noise_lines: u64,
}

impl From<&ChildStatus> for ProcessView {
    fn from(child: &ChildStatus) -> Self {
        let now = clock::mono();
        Self {
            service: child.service.to_string(),
            instance: child.instance.to_string(),
            command: child.command.clone(),
            state: child.state.as_str(),
            reason: child.reason.clone(),
            fix: child.fix.clone(),
            pid: child.pid,
            uptime_s: child.running_since.map(|since| now.since(since).as_secs_f64()),
            restarts: child.restarts,
            next_try_s: child.next_try.map(|next| next.since(now).as_secs_f64()),
            required: child.required,
            degraded: child.lacks,
            noise_lines: child.log.as_ref().map_or(0, |log| log.noise()),
        }
    }
}

/// A service that the configuration leaves out has no process, and is missed by whoever wrote it there.
fn left_out(complaint: Complaint) -> Option<ProcessView> {
    let service = complaint.service?;
    Some(ProcessView {
        instance: service.clone(),
        service,
        state: LEFT_OUT,
        reason: complaint.why,
        fix: Some(
            "mend that line, which takes effect at once; `meshwright config check` shows it".to_owned(),
        ),
        ..ProcessView::default()
    })
}

pub(super) async fn list(State(pages): State<Pages>) -> Response {
    let children = pages.children.all();
    let mut left_out: Vec<ProcessView> = (pages.complaints)().into_iter().filter_map(left_out).collect();
    let Startup { started, failed, skipped, idle, pending } = Startup::of(&children);
    let names = |names: Vec<Name>| names.iter().map(Name::to_string).collect::<Vec<_>>();
    let mut skipped = names(skipped);
    skipped.extend(left_out.iter().map(|left| left.service.clone()));
    let mut items: Vec<ProcessView> = children.iter().map(ProcessView::from).collect();
    items.append(&mut left_out);
    let view = Processes {
        items,
        next_cursor: None,
        startup: StartupView {
            started: names(started),
            failed: names(failed),
            skipped,
            idle: names(idle),
            pending: names(pending),
        },
    };
    json(StatusCode::OK, &view)
}

#[derive(Deserialize)]
pub(super) struct Range {
    /// Numbers of the last lines that were seen, one for each process, as the answer before gave them.
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Lines {
    items: Vec<LineView>,
    next_cursor: String,
}

#[derive(Serialize)]
struct LineView {
    instance: String,
    at: String,
    stream: &'static str,
    text: String,
}

/// The newest lines of a service's processes, the oldest of them first; with a cursor those that are new since.
pub(super) async fn logs(
    State(pages): State<Pages>,
    Path(name): Path<String>,
    Query(range): Query<Range>,
) -> Result<Response, Refusal> {
    let snapshot = pages.registry.snapshot();
    let instances = match snapshot.find(&name) {
        Some(Found::Service(service)) => service.instances.iter().collect(),
        Some(Found::Instance(_, instance)) => vec![instance],
        None => Vec::new(),
    };
    let logs: Vec<_> = instances.iter().filter_map(|one| Some((one.name(), one.peer.log()?))).collect();
    if logs.is_empty() {
        return Err(no_child(&OrderError::NoChild(name)));
    }
    let limit = range.limit.unwrap_or(LINES).min(LINES_MAX);
    let cursor = range.cursor.unwrap_or_default();
    let mut seen = cursor.split(',').map(|number| number.parse::<u64>().unwrap_or(0));
    let (mut lines, mut next) = (Vec::new(), Vec::new());
    for (instance, log) in logs {
        // Whoever saw more than was written saw the log of another process, which a change of the service has ended.
        let after = seen.next().filter(|after| *after <= log.written()).unwrap_or(0);
        let new = log.since(after, limit);
        next.push(new.last().map_or(after, |line| line.number).to_string());
        lines.extend(new.into_iter().map(|line| (instance.clone(), line)));
    }
    lines.sort_by_key(|(_, line)| line.at);
    let items = lines.drain(lines.len().saturating_sub(limit)..).map(|(instance, line)| LineView {
        instance: instance.to_string(),
        at: clock::iso(line.at),
        stream: line.stream.as_str(),
        text: line.text.into(),
    });
    Ok(json(StatusCode::OK, &Lines { items: items.collect(), next_cursor: next.join(",") }))
}

pub(super) async fn start(
    pages: State<Pages>,
    name: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    order(&pages, &name, &headers, &body, Order::Start).await
}

pub(super) async fn stop(
    pages: State<Pages>,
    name: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    order(&pages, &name, &headers, &body, Order::Stop).await
}

pub(super) async fn restart(
    pages: State<Pages>,
    name: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    order(&pages, &name, &headers, &body, Order::Restart).await
}

#[derive(Serialize)]
struct Ordered {
    items: Vec<ProcessView>,
}

/// Answers with the processes as they are when the order was taken.
async fn order(
    pages: &Pages,
    name: &str,
    headers: &HeaderMap,
    body: &Bytes,
    order: Order,
) -> Result<Response, Refusal> {
    read::<IgnoredAny>(headers, body, "invalid_order", "send {}")?;
    pages.children.order(name, order).await.map_err(|error| no_child(&error))?;
    let items = pages.children.of(name).iter().map(ProcessView::from).collect();
    Ok(json(StatusCode::ACCEPTED, &Ordered { items }))
}

fn no_child(error: &OrderError) -> Refusal {
    match error {
        OrderError::NoChild(_) => Refusal::new(
            StatusCode::NOT_FOUND,
            "unknown_process",
            error.to_string(),
            "`GET /api/v1/processes` lists those that it starts",
        ),
        OrderError::Stopping => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            error.to_string(),
            "try again after the restart",
        ),
    }
}
