//! How the proxy itself is: health, statistics, plugins, alerts, metrics.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{StatusCode, header::ALLOW};
use serde::Serialize;

use super::Pages;
use super::answer::{Refusal, json};
use super::services::{Counts, condition};
use crate::clock;
use crate::mesh::ids::Name;
use crate::mesh::stats::CallCounts;
use crate::policy::status::{PluginState, PluginStatus};
use crate::proxy::MirrorCounts;
use crate::registry::Service;
use crate::telemetry::account::total_messages;
use crate::telemetry::metrics::{MEDIA_TYPE, Scrape};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Index {
    name: &'static str,
    version: &'static str,
    paths: &'static [&'static str],
}

pub(super) async fn index() -> Response {
    let paths: &[&str] = &[
        "POST /register",
        "POST /heartbeat",
        "POST /deregister",
        "POST /call",
        "GET /services",
        "GET /services/{name}",
        "GET /services/{name}/status",
        "GET /health",
        "GET /stats",
        "GET /plugins",
        "POST /api/v1/instances/{instance}/drain",
        "POST /api/v1/instances/{instance}/undrain",
        "GET /api/v1/status",
        "GET /api/v1/processes",
        "GET /api/v1/services/{name}/logs",
        "POST /api/v1/services/{name}/start",
        "POST /api/v1/services/{name}/stop",
        "POST /api/v1/services/{name}/restart",
        "GET /api/v1/alerts",
        "GET /api/v1/calls",
        "GET /api/v1/calls/{call_id}",
        "POST /api/v1/plugins/{name}/rollbacks",
        "GET /metrics",
        "GET /livez",
        "GET /readyz",
    ];
    json(StatusCode::OK, &Index { name: "meshwright", version: VERSION, paths })
}

pub(super) async fn call_is_post() -> Response {
    let detail = "a call is a POST";
    let hint = r#"send {"target_instance": "…", "tool_name": "…", "arguments": {…}} with POST"#;
    let mut response =
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail, hint).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

#[derive(Serialize)]
struct Health {
    /// `ok`, `degraded`, or `draining`.
    status: &'static str,
    version: &'static str,
    uptime_s: f64,
    reasons: Vec<String>,
    services: ByCondition,
    plugins: PluginCounts,
    persistence_degraded: bool,
    calls_in_flight: usize,
}

#[derive(Default, Serialize)]
struct ByCondition {
    total: usize,
    healthy: usize,
    degraded: usize,
    unavailable: usize,
}

#[derive(Serialize)]
struct PluginCounts {
    in_force: usize,
    quarantined: usize,
    refused: usize,
}

pub(super) async fn health(State(pages): State<Pages>) -> Response {
    let snapshot = pages.registry.snapshot();
    let mut services = ByCondition::default();
    let mut reasons = Vec::new();
    for service in snapshot.services() {
        services.total += 1;
        let (status, reason) = condition(service);
        match status {
            "healthy" => services.healthy += 1,
            "degraded" => services.degraded += 1,
            _ => services.unavailable += 1,
        }
        if status != "healthy" {
            reasons.push(format!("service `{}` is {status}: {reason}", service.name));
        }
    }
    reasons.extend((pages.complaints)().iter().map(ToString::to_string));
    reasons.extend((pages.plugins_folder)());
    let plugins = (pages.plugins)();
    for plugin in &plugins {
        reasons.extend(complaint(plugin));
    }
    let persistence = (pages.persistence)();
    reasons.extend(persistence.as_ref().map(|reason| format!("nothing can be written down: {reason}")));
    let count = |state| plugins.iter().filter(|plugin| plugin.state == state).count();
    let view = Health {
        status: match (pages.is_draining(), reasons.is_empty()) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        },
        version: VERSION,
        uptime_s: clock::mono().since(pages.started_mono).as_secs_f64(),
        reasons,
        services,
        plugins: PluginCounts {
            in_force: plugins.iter().filter(|plugin| plugin.generation > 0).count(),
            quarantined: count(PluginState::Quarantined),
            refused: count(PluginState::Refused)
                + plugins.iter().filter(|plugin| plugin.refused.is_some()).count(),
        },
        persistence_degraded: persistence.is_some(),
        calls_in_flight: pages.proxy.in_flight(),
    };
    json(StatusCode::OK, &view)
}

fn complaint(plugin: &PluginStatus) -> Option<String> {
    let name = &plugin.name;
    if plugin.stops_calls {
        if plugin.state == PluginState::Loaded {
            return Some(format!(
                "no call passes without router `{name}`, and the build of that name is none"
            ));
        }
        let (state, reason) = (plugin.state.as_str(), &plugin.reason);
        return Some(format!("no call passes without plugin `{name}`, which is {state}: {reason}"));
    }
    if let Some(pending) = &plugin.pending {
        return Some(format!("plugin `{name}` {} waits: {}", pending.version, pending.reason));
    }
    match (&plugin.state, &plugin.refused) {
        (PluginState::Quarantined, _) => Some(format!("plugin `{name}` rests: {}", plugin.reason)),
        (PluginState::Refused, _) => Some(format!("plugin `{name}` was refused: {}", plugin.reason)),
        (_, Some(refused)) => Some(format!("a new build of plugin `{name}` was refused: {}", refused.reason)),
        _ => None,
    }
}

#[derive(Serialize)]
struct Stats<'a> {
    total_services: usize,
    total_messages: u64,
    last_updated: String,
    started_at: String,
    services: Vec<ServiceStats<'a>>,
    /// Over all services that ever were.
    counts: Counts,
    /// Calls that meters and per-tool latencies did not see; they are counted all the same.
    records_dropped: u64,
    /// Copies of calls that routers wanted sent elsewhere as well.
    mirrors: Vec<MirrorView>,
    mirrors_dropped: u64,
}

#[derive(Serialize)]
struct MirrorView {
    service: String,
    mirror: String,
    same: u64,
    different: u64,
    failed: u64,
}

#[derive(Serialize)]
struct ServiceStats<'a> {
    name: &'a str,
    registered_at: String,
    message_count: u64,
    counts: Counts,
}

fn service_stats(service: &Service) -> ServiceStats<'_> {
    let counts = service.core.counters.snapshot();
    ServiceStats {
        name: service.name.as_str(),
        registered_at: clock::iso(service.since),
        message_count: counts.messages,
        counts: counts.into(),
    }
}

pub(super) async fn stats(State(pages): State<Pages>) -> Response {
    let snapshot = pages.registry.snapshot();
    let services: Vec<ServiceStats<'_>> = snapshot.services().into_iter().map(|s| service_stats(s)).collect();
    let mut all = CallCounts::default();
    for (_, core) in snapshot.totals() {
        let counts = core.counters.snapshot();
        all.messages += counts.messages;
        all.ok += counts.ok;
        all.tool_errors += counts.tool_errors;
        all.failed += counts.failed;
        all.refused += counts.refused;
        all.retries += counts.retries;
        all.request_bytes += counts.request_bytes;
        all.response_bytes += counts.response_bytes;
    }
    let view = Stats {
        total_services: services.len(),
        total_messages: total_messages(&snapshot),
        last_updated: clock::iso(clock::wall()),
        started_at: clock::iso(pages.started),
        services,
        counts: all.into(),
        records_dropped: pages.proxy.finished_dropped(),
        mirrors: pages.mirrors.counts().into_iter().map(mirror_view).collect(),
        mirrors_dropped: pages.proxy.copies_dropped(),
    };
    json(StatusCode::OK, &view)
}

fn mirror_view((service, mirror, counts): (Name, Name, MirrorCounts)) -> MirrorView {
    let MirrorCounts { same, different, failed } = counts;
    MirrorView { service: service.to_string(), mirror: mirror.to_string(), same, different, failed }
}

#[derive(Serialize)]
struct AlertList {
    items: Vec<AlertView>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct AlertView {
    plugin: String,
    rule: String,
    labels: std::collections::BTreeMap<String, String>,
    state: &'static str,
    since: String,
    severity: &'static str,
    title: String,
    detail: String,
    value: f64,
    threshold: f64,
    /// The alerter faulted since it last said so.
    stale: bool,
}

pub(super) async fn alerts(State(pages): State<Pages>) -> Response {
    let alerts = pages.alerts.load_full();
    let items = alerts.iter().map(|alert| AlertView {
        plugin: alert.fingerprint.source.to_string(),
        rule: alert.fingerprint.rule.clone(),
        labels: alert.fingerprint.labels.iter().cloned().collect(),
        state: alert.state.as_str(),
        since: clock::iso(alert.since),
        severity: alert.severity.as_str(),
        title: alert.title.clone(),
        detail: alert.detail.clone(),
        value: alert.value,
        threshold: alert.threshold,
        stale: alert.stale,
    });
    json(StatusCode::OK, &AlertList { items: items.collect(), next_cursor: None })
}

pub(super) async fn metrics(State(pages): State<Pages>) -> Result<Response, Refusal> {
    let scrape = Scrape {
        snapshot: pages.registry.snapshot(),
        plugins: (pages.plugins)(),
        readings: pages.readings.load_full(),
        in_flight: pages.proxy.in_flight(),
        mirrors: pages.mirrors.counts(),
        mirrors_dropped: pages.proxy.copies_dropped(),
        persistence_degraded: (pages.persistence)().is_some(),
    };
    let text = scrape.text().map_err(|_| {
        let detail = "the metrics cannot be written";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, "the log tells more")
    })?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], text).into_response())
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.draining.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}
