//! Calls that are over, and why they went where they went.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Pages;
use super::answer::{Refusal, json};
use super::recorded;
use crate::clock;
use crate::mesh::ids::CallId;
use crate::mesh::retry::Failure;
use crate::mesh::story::{Fate, Figures, Opinion, Picker, TriedEnd};
use crate::mesh::verdict::{Source, Verdict};
use crate::telemetry::journal::{Attempt, RECORDED_WITHIN, Record, Unknown};

const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1_000;
/// Digits of a component's hash that tell builds apart.
const SHA_DIGITS: usize = 12;

#[derive(Deserialize)]
pub(super) struct Wanted {
    limit: Option<String>,
    service: Option<String>,
    /// `replay`: what a component needs to be asked again.
    detail: Option<String>,
}

#[derive(Serialize)]
struct List {
    items: Vec<CallView>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct CallView {
    call_id: String,
    at: String,
    asked: AskedView,
    /// The router that decided; `null` when all passed.
    ruling: Option<OpinionView>,
    /// What each router said, in order.
    routers: Vec<OpinionView>,
    /// Where it went.
    service: String,
    tool: String,
    instance: Option<String>,
    attempts: Vec<AttemptView>,
    /// For an instance to have room, of `latency_us`.
    waited_us: u64,
    status: u16,
    /// What the caller was told instead of an answer; empty for what a tool said itself.
    error: String,
    latency_us: u32,
    response_bytes: u32,
}

#[derive(Serialize)]
struct AskedView {
    service: String,
    tool: String,
    method: String,
    client: String,
    /// Sixteen hexadecimal digits, as of `random`.
    affinity: String,
    random: String,
    size: u32,
    deadline_ms: u64,
}

#[derive(Serialize)]
struct SourceView {
    plugin: String,
    version: String,
    generation: u64,
    /// The first digits.
    sha256: String,
}

#[derive(Serialize)]
struct OpinionView {
    #[serde(flatten)]
    by: SourceView,
    /// `pass`, `forward` or `reject`; `null` when it gave no answer.
    verdict: Option<&'static str>,
    /// What the verdict says, such as the service that it forwards to.
    detail: Option<String>,
    why: Option<String>,
    /// `passed`, `holds`, `overruled`, `faulted` or `skipped`.
    fate: &'static str,
}

#[derive(Serialize)]
struct AttemptView {
    instance: String,
    /// `caller`, `session`, `native`, `panic`, `trial` or `plugin`.
    picked_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<SourceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// How many could be picked.
    candidates: u32,
    #[serde(flatten)]
    figures: FiguresView,
    /// Some of the others that could be picked.
    alternatives: Vec<AlternativeView>,
    /// Begun beside the one before, which was slow.
    hedges: bool,
    /// Before it, for an instance to have room, and how many calls were before this one then.
    waited_us: u64,
    waited_behind: u32,
    us: u32,
    /// `answered`, `not sent`, `unanswered`, `error`, `outrun` or `caller left`.
    outcome: &'static str,
}

#[derive(Serialize)]
struct FiguresView {
    in_flight: u32,
    ewma_us: u32,
    share_permille: u32,
}

#[derive(Serialize)]
struct AlternativeView {
    instance: String,
    #[serde(flatten)]
    figures: FiguresView,
}

pub(super) async fn list(
    State(pages): State<Pages>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let limit = match wanted.limit.as_deref() {
        None => LIMIT,
        Some(text) => text.parse().map_err(|_| wrong("limit", text, "a number of calls"))?,
    };
    let service = wanted.service.as_deref();
    match wanted.detail.as_deref() {
        None => {}
        Some("replay") => return Ok(recorded::page(&pages, limit, service)),
        Some(text) => return Err(wrong("detail", text, "`replay`")),
    }
    let newest = pages.journal.newest(limit.min(LIMIT_MAX), service);
    let items = newest.iter().map(|record| CallView::from(&**record)).collect();
    Ok(json(StatusCode::OK, &List { items, next_cursor: None }))
}

fn wrong(what: &str, text: &str, wanted: &str) -> Refusal {
    let detail = format!("`{what}={text}` is not {wanted}");
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_filter", detail, "leave it out for the usual")
}

pub(super) async fn one(State(pages): State<Pages>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let number = u64::from_str_radix(&id, 16).ok().filter(|_| id.len() == 16).ok_or_else(|| {
        let detail = format!("`{id}` is no call's id: that has 16 hexadecimal digits");
        Refusal::new(StatusCode::NOT_FOUND, "unknown_call", detail, HINT)
    })?;
    let mut found = pages.journal.find(CallId(number));
    if found.as_ref().err() == Some(&Unknown::Never) {
        // It may have ended a moment ago.
        tokio::time::sleep(RECORDED_WITHIN).await;
        found = pages.journal.find(CallId(number));
    }
    match found {
        Ok(record) => Ok(json(StatusCode::OK, &CallView::from(&*record))),
        Err(Unknown::TooOld) => {
            let detail = format!("the call `{id}` is too old: only the newest calls are remembered");
            Err(Refusal::new(StatusCode::NOT_FOUND, "call_forgotten", detail, HINT))
        }
        Err(Unknown::Never) => {
            let detail = format!(
                "no call `{id}` is known: it is not over, asked for nothing that exists, or was never made here \
                 since the start at {}",
                clock::iso(pages.started)
            );
            Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_call", detail, HINT))
        }
    }
}

const HINT: &str = "answers carry the id as `call_id` and in the header `Meshwright-Call-Id`; `GET /api/v1/calls` lists the newest";

impl From<&Record> for CallView {
    fn from(record: &Record) -> Self {
        let call = &record.call;
        let asked = AskedView {
            service: call.service.to_string(),
            tool: call.tool.to_string(),
            method: call.method.to_string(),
            client: call.client.to_string(),
            affinity: format!("{:016x}", call.affinity),
            random: format!("{:016x}", call.random),
            size: call.size,
            deadline_ms: u64::try_from(call.time_left.as_millis()).unwrap_or(u64::MAX),
        };
        let ruling = record.opinions.iter().find(|opinion| opinion.fate == Fate::Holds);
        Self {
            call_id: call.id.to_string(),
            at: clock::iso(call.at),
            asked,
            ruling: ruling.map(OpinionView::from),
            routers: record.opinions.iter().map(OpinionView::from).collect(),
            service: record.service.to_string(),
            tool: record.tool.to_string(),
            instance: record.instance.as_ref().map(ToString::to_string),
            attempts: record.attempts.iter().map(AttemptView::from).collect(),
            waited_us: micros(record.waited),
            status: record.status,
            error: record.error.to_string(),
            latency_us: record.latency_us,
            response_bytes: record.response_bytes,
        }
    }
}

impl From<&Source> for SourceView {
    fn from(source: &Source) -> Self {
        let mut sha256 = hex::encode(source.component);
        sha256.truncate(SHA_DIGITS);
        Self {
            plugin: source.name.to_string(),
            version: source.version.clone(),
            generation: source.generation,
            sha256,
        }
    }
}

impl From<&Opinion> for OpinionView {
    fn from(opinion: &Opinion) -> Self {
        let (verdict, detail) = match opinion.decision.as_ref().map(|decision| &decision.verdict) {
            None => (None, None),
            Some(Verdict::Pass) => (Some("pass"), None),
            Some(Verdict::Reject(refusal)) => (Some("reject"), Some(refusal.reason.clone())),
            Some(Verdict::Forward(target)) => (Some("forward"), Some(target.to_string())),
        };
        let why = opinion.decision.as_ref().map(|decision| decision.why.to_string());
        Self { by: (&*opinion.by).into(), verdict, detail, why, fate: opinion.fate.as_str() }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        let (picked_by, plugin, why) = match &attempt.by {
            Picker::Caller => ("caller", None, None),
            Picker::Session => ("session", None, None),
            Picker::Native => ("native", None, None),
            Picker::Panic => ("panic", None, None),
            Picker::Trial => ("trial", None, None),
            Picker::Plugin { by, why } => {
                ("plugin", Some((&**by).into()), why.as_ref().map(|why| why.to_string()))
            }
        };
        let alternatives = attempt.rivals.iter().map(|(instance, figures)| AlternativeView {
            instance: instance.to_string(),
            figures: (*figures).into(),
        });
        Self {
            instance: attempt.instance.to_string(),
            picked_by,
            plugin,
            why,
            candidates: attempt.candidates,
            figures: attempt.figures.into(),
            alternatives: alternatives.collect(),
            hedges: attempt.hedges,
            waited_us: micros(attempt.waited.time),
            waited_behind: attempt.waited.ahead,
            us: attempt.us,
            outcome: match attempt.end {
                TriedEnd::Answered => "answered",
                TriedEnd::Left => "caller left",
                TriedEnd::Outrun => "outrun",
                TriedEnd::Failed(Failure::NotSent) => "not sent",
                TriedEnd::Failed(Failure::Unanswered) => "unanswered",
                TriedEnd::Failed(Failure::Answered) => "error",
            },
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<Figures> for FiguresView {
    fn from(figures: Figures) -> Self {
        Self {
            in_flight: figures.in_flight,
            ewma_us: figures.ewma_us,
            share_permille: figures.share_permille,
        }
    }
}
