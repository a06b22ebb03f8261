//! `GET /plugins`, and what operators decide: `POST /api/v1/plugins/{name}/grants` and `/enabled`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Pages;
use super::answer::{Refusal, json, read};
use crate::clock;
use crate::mesh::ids::Name;
use crate::mesh::ruling::{self, Grant, Ruling};
use crate::policy::status::{PendingBuild, PluginState, PluginStatus, ProbationStatus, Replay};

const GRANTS_EXAMPLE: &str =
    r#"send {"sha256": "…", "grants": ["arguments"]}, as `pending` of `GET /plugins` has them"#;
const ENABLED_EXAMPLE: &str = r#"send {"enabled": false}"#;

/// Writes rulings down and has them in force when it answers.
pub type Rule =
    Arc<dyn Fn(Vec<Ruling>) -> Pin<Box<dyn Future<Output = Result<(), NotRuled>> + Send>> + Send + Sync>;

#[derive(Debug, Error)]
#[error("what was decided cannot be written down")]
pub struct NotRuled(#[source] pub Box<dyn std::error::Error + Send + Sync>);

#[derive(Serialize)]
struct PluginsView {
    plugins: Vec<PluginView>,
}

#[derive(Serialize)]
struct PluginView {
    name: String,
    /// `embedded`, or the file, or `none`.
    source: String,
    version: String,
    summary: String,
    kinds: Vec<&'static str>,
    state: &'static str,
    reason: String,
    /// No call passes, as it is not in force and must agree.
    stops_calls: bool,
    sha256: String,
    size_bytes: usize,
    /// Whether this run `compiled` it or found it `cached`.
    code: Option<&'static str>,
    code_ms: Option<f64>,
    generation: u64,
    order: i32,
    loaded_at: Option<String>,
    calls: u64,
    faults: u64,
    reused: u64,
    fallbacks: u64,
    /// Of these, because it crashed on such calls.
    skipped: u64,
    p99_us: f64,
    budget_us: BudgetView,
    memory_bytes: usize,
    last_fault: Option<String>,
    /// The newest file in `capsules` of the data folder with which a fault can be repeated.
    capsule: Option<String>,
    /// What it was given.
    grants: Vec<&'static str>,
    refused: Option<RefusedView>,
    pending: Option<PendingView>,
    /// SHA-256 of the build that is being compiled while this one is in force.
    building: Option<String>,
    /// What became of recorded calls before it took the place of another build.
    replay: Option<ReplayView>,
    probation: Option<ProbationView>,
    panels: Vec<PanelView>,
}

/// What 99 of 100 answers may take; `null` of what it is not asked.
#[derive(Serialize)]
struct BudgetView {
    route: Option<f64>,
    pick: Option<f64>,
}

#[derive(Serialize)]
struct RefusedView {
    sha256: String,
    reason: String,
    at: String,
}

#[derive(Serialize)]
struct PendingView {
    sha256: String,
    version: String,
    grants: Vec<&'static str>,
    reason: String,
}

#[derive(Serialize)]
struct ReplayView {
    compared: usize,
    changed: usize,
    unrepeatable: usize,
    uncompared: usize,
    examples: Vec<ReplayExampleView>,
    p99_us: f64,
    p99_us_before: Option<f64>,
    fault: Option<String>,
}

#[derive(Serialize)]
struct ProbationView {
    until: String,
    previous: PreviousView,
}

#[derive(Serialize)]
struct PreviousView {
    version: String,
    generation: u64,
}

impl From<ProbationStatus> for ProbationView {
    fn from(probation: ProbationStatus) -> Self {
        let (version, generation) = (probation.previous_version, probation.previous_generation);
        Self { until: clock::iso(probation.until), previous: PreviousView { version, generation } }
    }
}

#[derive(Serialize)]
struct ReplayExampleView {
    call_id: String,
    service: String,
    tool: String,
    before: String,
    after: String,
}

impl From<&Replay> for ReplayView {
    fn from(replay: &Replay) -> Self {
        let examples = replay.examples.iter().map(|example| ReplayExampleView {
            call_id: example.call.to_string(),
            service: example.service.clone(),
            tool: example.tool.clone(),
            before: example.before.clone(),
            after: example.after.clone(),
        });
        Self {
            compared: replay.compared,
            changed: replay.changed,
            unrepeatable: replay.unrepeatable,
            uncompared: replay.uncompared,
            examples: examples.collect(),
            p99_us: replay.p99_us,
            p99_us_before: replay.p99_us_before,
            fault: replay.fault.clone(),
        }
    }
}

#[derive(Serialize)]
struct PanelView {
    title: String,
    chart: &'static str,
    metrics: Vec<u32>,
    unit: String,
}

fn names(grants: &[Grant]) -> Vec<&'static str> {
    grants.iter().map(|grant| grant.as_str()).collect()
}

impl From<PendingBuild> for PendingView {
    fn from(build: PendingBuild) -> Self {
        let grants = names(&build.grants);
        Self { sha256: build.sha256, version: build.version, grants, reason: build.reason }
    }
}

impl From<PluginStatus> for PluginView {
    fn from(plugin: PluginStatus) -> Self {
        Self {
            source: match plugin.file {
                Some(file) => file.display().to_string(),
                None if plugin.state == PluginState::Missing => "none".to_owned(),
                None => "embedded".to_owned(),
            },
            loaded_at: (plugin.generation > 0).then(|| clock::iso(plugin.loaded_at)),
            name: plugin.name,
            version: plugin.version,
            summary: plugin.summary,
            kinds: plugin.kinds,
            state: plugin.state.as_str(),
            reason: plugin.reason,
            stops_calls: plugin.stops_calls,
            sha256: plugin.sha256,
            size_bytes: plugin.size_bytes,
            code: plugin.made.map(|made| made.origin.as_str()),
            code_ms: plugin.made.map(|made| made.took.as_secs_f64() * 1_000.0),
            generation: plugin.generation,
            order: plugin.order,
            calls: plugin.calls,
            faults: plugin.faults,
            reused: plugin.reused,
            fallbacks: plugin.fallbacks,
            skipped: plugin.skipped,
            p99_us: plugin.p99_us,
            budget_us: BudgetView { route: plugin.budget.route_us, pick: plugin.budget.pick_us },
            memory_bytes: plugin.memory_bytes,
            last_fault: plugin.last_fault,
            capsule: plugin.capsule,
            grants: names(&plugin.grants),
            pending: plugin.pending.map(PendingView::from),
            building: plugin.building,
            refused: plugin.refused.map(|build| RefusedView {
                sha256: build.sha256,
                reason: build.reason,
                at: clock::iso(build.at),
            }),
            replay: plugin.replay.as_deref().map(ReplayView::from),
            probation: plugin.probation.map(ProbationView::from),
            panels: plugin
                .panels
                .into_iter()
                .map(|panel| PanelView {
                    title: panel.title,
                    chart: panel.chart.as_str(),
                    metrics: panel.metrics,
                    unit: panel.unit,
                })
                .collect(),
        }
    }
}

pub(super) async fn list(State(pages): State<Pages>) -> Response {
    let plugins = (pages.plugins)().into_iter().map(PluginView::from).collect();
    json(StatusCode::OK, &PluginsView { plugins })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsBody {
    sha256: String,
    grants: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnabledBody {
    enabled: bool,
}

/// Gives a build what it waits for, and answers with the plugin as it is then.
pub(super) async fn grants(
    State(pages): State<Pages>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let body: GrantsBody = read(&headers, &body, "invalid_grants", GRANTS_EXAMPLE)?;
    let grants: Option<Vec<Grant>> = body.grants.iter().map(|name| Grant::named(name)).collect();
    let grants = grants.filter(|grants| !grants.is_empty()).ok_or_else(|| {
        let detail = format!("`grants` is a list of some of {}", ruling::list(&Grant::ALL));
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_grants", detail, GRANTS_EXAMPLE)
    })?;
    let (plugin, before) = known(&pages, &name)?;
    let waits = (pages.plugins)().into_iter().any(|status| {
        let pending = status.pending.filter(|pending| pending.sha256 == body.sha256);
        let has = status.sha256 == body.sha256 && grants.iter().all(|grant| status.grants.contains(grant));
        status.name == name && (has || pending.is_some())
    });
    let sha256: Option<[u8; 32]> = hex::decode(&body.sha256).ok().and_then(|bytes| bytes.try_into().ok());
    let Some(sha256) = sha256.filter(|_| waits) else {
        let detail =
            format!("no build of `{name}` with that `sha256` waits for a grant; the file may have changed");
        return Err(Refusal::new(StatusCode::CONFLICT, "not_pending", detail, GRANTS_EXAMPLE));
    };
    let rulings =
        grants.into_iter().map(|grant| Ruling::Granted { plugin: plugin.clone(), sha256, grant }).collect();
    rule(&pages, &before, rulings).await
}

/// Switches a plugin on or off, and answers with the plugin as it is then.
pub(super) async fn enabled(
    State(pages): State<Pages>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let EnabledBody { enabled } = read(&headers, &body, "invalid_switch", ENABLED_EXAMPLE)?;
    let (plugin, before) = known(&pages, &name)?;
    rule(&pages, &before, vec![Ruling::Switched { plugin, enabled }]).await
}

/// Answers with what became of the one that was `before`.
async fn rule(pages: &Pages, before: &PluginStatus, rulings: Vec<Ruling>) -> Result<Response, Refusal> {
    let name = before.name.as_str();
    (pages.rule)(rulings).await.map_err(|error| {
        tracing::warn!(error = %crate::upstream::chain(&error), plugin = name, "ruling not taken");
        let hint = "nothing has changed; free the disk of the data folder and try again";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "persistence_degraded", error.to_string(), hint)
    })?;
    let mut of_name = (pages.plugins)().into_iter().filter(|status| status.name == name);
    // Of several that are not in force, the one that was is meant.
    let off = of_name.find(|status| status.file == before.file && status.state == PluginState::Disabled);
    let status = match off {
        Some(status) => status,
        None => known(pages, name)?.1,
    };
    Ok(json(StatusCode::OK, &PluginView::from(status)))
}

/// The plugin of that name: the one in force, if there are several.
fn known(pages: &Pages, name: &str) -> Result<(Name, PluginStatus), Refusal> {
    let of_name = (pages.plugins)().into_iter().filter(|status| status.name == name);
    let found = of_name.max_by_key(|status| status.generation);
    Name::new(name).ok().zip(found).ok_or_else(|| {
        let detail = format!("no plugin is called `{name}`");
        Refusal::new(StatusCode::NOT_FOUND, "unknown_plugin", detail, "`GET /plugins` lists them")
    })
}
