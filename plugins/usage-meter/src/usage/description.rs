//! The metrics and panels that the meter offers.

pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub unit: &'static str,
    pub is_counter: bool,
    /// Whether it has the configured labels; otherwise it has none.
    pub by_series: bool,
}

#[derive(Clone, Copy)]
pub enum Chart {
    Line,
    Bar,
    Table,
}

pub struct Panel {
    pub title: &'static str,
    pub chart: Chart,
    pub metrics: &'static [u32],
    pub unit: &'static str,
}

const fn counter(name: &'static str, help: &'static str, unit: &'static str) -> Metric {
    Metric { name, help, unit, is_counter: true, by_series: true }
}

pub const CALLS: u32 = 0;
pub const ERRORS: u32 = 1;
pub const REQUEST_BYTES: u32 = 2;
pub const RESPONSE_BYTES: u32 = 3;
pub const TIME_SECONDS: u32 = 4;
pub const RESPONSE_BYTES_MEAN: u32 = 5;
pub const DROPPED: u32 = 6;

/// In the order of the constants above.
pub const METRICS: [Metric; 7] = [
    counter("meshwright_usage_calls_total", "Calls that are over.", ""),
    counter("meshwright_usage_errors_total", "Calls that were answered with a status of 400 or more.", ""),
    counter("meshwright_usage_request_bytes_total", "Bytes of request bodies.", "bytes"),
    counter("meshwright_usage_response_bytes_total", "Bytes of response bodies.", "bytes"),
    counter("meshwright_usage_time_seconds_total", "Time that calls took.", "seconds"),
    Metric {
        name: "meshwright_usage_response_bytes_mean",
        help: "Bytes of a response body on average.",
        unit: "bytes",
        is_counter: false,
        by_series: true,
    },
    Metric {
        name: "meshwright_usage_dropped_total",
        help: "Calls that are missing from the figures, since there were too many at once.",
        unit: "",
        is_counter: true,
        by_series: false,
    },
];

pub const PANELS: [Panel; 5] = [
    Panel { title: "Calls", chart: Chart::Line, metrics: &[CALLS], unit: "calls/s" },
    Panel { title: "Errors", chart: Chart::Line, metrics: &[ERRORS], unit: "errors/s" },
    Panel {
        title: "Traffic",
        chart: Chart::Line,
        metrics: &[REQUEST_BYTES, RESPONSE_BYTES],
        unit: "bytes/s",
    },
    Panel { title: "Time spent", chart: Chart::Bar, metrics: &[TIME_SECONDS], unit: "seconds" },
    Panel { title: "Response size", chart: Chart::Table, metrics: &[RESPONSE_BYTES_MEAN], unit: "bytes" },
];
