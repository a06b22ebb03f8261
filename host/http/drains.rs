//! `POST /api/v1/instances/{instance}/drain` and `/undrain`.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Pages;
use super::answer::{Refusal, json, read};
use super::services::InstanceView;
use crate::clock;
use crate::mesh::drain::{Order, SESSIONS_KEPT, SESSIONS_KEPT_MAX};
use crate::mesh::ids::Name;
use crate::registry::{Instance, RegistryError, Snapshot};

const EXAMPLE: &str = r#"send {} or {"reason": "maintenance", "sessions_s": 300}"#;
/// Longest reason, in characters.
const REASON_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    #[serde(default)]
    reason: String,
    /// How long sessions of clients that are with it go on.
    sessions_s: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct DrainView<'a> {
    since: String,
    reason: &'a str,
    /// Calls that have yet to end there.
    calls: u32,
    /// Sessions of clients that are with it.
    sessions: u32,
    /// How long these go on.
    sessions_left_s: u64,
}

impl<'a> DrainView<'a> {
    pub(super) fn of(instance: &'a Instance) -> Option<Self> {
        let drain = instance.drain.as_ref()?;
        Some(Self {
            since: clock::iso(drain.order.since),
            reason: &drain.order.reason,
            calls: instance.core.live.in_flight(),
            sessions: instance.sessions(),
            sessions_left_s: drain.sessions_until.since(clock::mono()).as_secs(),
        })
    }
}

pub(super) async fn drain(
    State(pages): State<Pages>,
    Path(instance): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Body { reason, sessions_s } = read(&headers, &body, "invalid_drain", EXAMPLE)?;
    let sessions_kept = sessions_s.map_or(SESSIONS_KEPT, Duration::from_secs);
    let wrong = |detail| Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_drain", detail, EXAMPLE));
    if sessions_kept > SESSIONS_KEPT_MAX {
        return wrong("`sessions_s` is more than 86400, which is a day");
    }
    if reason.chars().count() > REASON_MAX || reason.contains(char::is_control) {
        return wrong("`reason` is longer than 200 characters, or has control characters");
    }
    order(&pages, &instance, Some(Order { reason, sessions_kept, since: clock::wall() })).await
}

pub(super) async fn undrain(
    State(pages): State<Pages>,
    Path(instance): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    read::<IgnoredAny>(&headers, &body, "invalid_drain", "send {}")?;
    order(&pages, &instance, None).await
}

/// Answers with the instance as it is then.
async fn order(pages: &Pages, wanted: &str, order: Option<Order>) -> Result<Response, Refusal> {
    let name = named(&pages.registry.snapshot(), wanted).ok_or_else(|| unknown(wanted))?;
    pages.registry.drain(name.clone(), order).await?;
    let snapshot = pages.registry.snapshot();
    let gone = || Refusal::from(RegistryError::UnknownInstance(name.clone()));
    let instance = snapshot.instance(name.as_str()).ok_or_else(gone)?;
    Ok(json(StatusCode::OK, &InstanceView::from(&**instance)))
}

/// The instance of that name, or of that `instance_id`.
fn named(snapshot: &Snapshot, wanted: &str) -> Option<Name> {
    let by_name = snapshot.instance(wanted);
    let by_id = || {
        let id: u64 = wanted.strip_prefix("i-")?.parse().ok()?;
        snapshot.instances().find(|instance| instance.id == id)
    };
    by_name.or_else(by_id).map(|instance| instance.name().clone())
}

fn unknown(wanted: &str) -> Refusal {
    let detail = format!("no instance is called `{wanted}`");
    let hint = "`GET /services/NAME` lists a service's instances";
    Refusal::new(StatusCode::NOT_FOUND, "unknown_instance", detail, hint)
}
