//! What alerters and meters are told, and what they answer.

use std::sync::Arc;

use super::ids::{CallId, Name};
use super::story::Story;
use super::time::Wall;

/// One call that is over, whatever its end.
#[derive(Clone, Debug)]
pub struct Finished {
    pub id: CallId,
    pub at: Wall,
    pub service: Name,
    /// The instance that answered, or was tried last.
    pub instance: Option<Name>,
    pub tool: Arc<str>,
    pub client: Arc<str>,
    pub latency_us: u32,
    /// Of the last attempt alone; 0 when there was none.
    pub attempt_us: u32,
    /// HTTP status that the caller got.
    pub status: u16,
    pub request_bytes: u32,
    pub response_bytes: u32,
    pub story: Story,
}

/// What may happen to the mesh.
pub const EVENT_KINDS: [&str; 22] = [
    "breaker_state",
    "child_parked",
    "configuration_changed",
    "configuration_refused",
    "expiry_held",
    "instance_deregistered",
    "instance_drained",
    "instance_draining",
    "instance_expired",
    "instance_registered",
    "instance_renewed",
    "instance_state",
    "instance_undrained",
    "plugin_input_skipped",
    "plugin_loaded",
    "plugin_pending",
    "plugin_quarantined",
    "plugin_refused",
    "plugin_removed",
    "plugin_rolled_back",
    "service_panic",
    "startup",
];

/// Something that happened to the mesh, for alerters and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Wall,
    /// One of [`EVENT_KINDS`].
    pub kind: &'static str,
    pub service: Option<Name>,
    pub instance: Option<Name>,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Last,
    Min,
    Max,
    Mean,
    P50,
    P95,
    P99,
    Rate,
    Count,
    Slope,
}

/// A series that an alerter wants, aggregated over a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    pub series: String,
    pub aggregate: Aggregate,
    /// 1-600.
    pub window_s: u32,
}

/// Label names and values, in the series' own order.
pub type Labels = Vec<(String, String)>;

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Index into the alerter's wants.
    pub want: u32,
    pub labels: Labels,
    pub value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// What [`Self::as_str`] calls so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Info, Self::Warning, Self::Error, Self::Critical]
            .into_iter()
            .find(|severity| severity.as_str() == name)
    }
}

/// A condition that holds now, or is held between its two thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    pub rule: String,
    pub severity: Severity,
    pub labels: Labels,
    pub title: String,
    pub detail: String,
    pub value: f64,
    pub threshold: f64,
    pub for_s: u32,
    pub resolve_at: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: String,
    pub help: String,
    pub unit: String,
    pub kind: MetricKind,
    pub labels: Vec<String>,
    pub series_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chart {
    Line,
    Bar,
    Stat,
    Table,
}

impl Chart {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Bar => "bar",
            Self::Stat => "stat",
            Self::Table => "table",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    pub title: String,
    pub chart: Chart,
    /// Indices into the meter's metrics.
    pub metrics: Vec<u32>,
    pub unit: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeterDescription {
    pub metrics: Vec<Metric>,
    pub panels: Vec<Panel>,
}

/// The value of one series of a meter. Counters carry their total.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Index into the meter's metrics.
    pub metric: u32,
    /// Values of the metric's labels, in their order.
    pub labels: Vec<String>,
    pub value: f64,
}
