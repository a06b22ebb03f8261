//! A meter: `on_calls` brings the calls that ended, `collect` answers the totals.

wit_bindgen::generate!({ path: "wit", world: "metering" });

use std::cell::RefCell;
use std::collections::BTreeMap;

use exports::meshwright::plugin::{lifecycle, meter};

/// Positions in the list that `describe` answers.
const CALLS: u32 = 0;
const FAILURES: u32 = 1;
/// Services and tools that are told apart; calls of further ones are not counted.
const SERIES_MAX: usize = 500;

#[derive(Default)]
struct Total {
    calls: u64,
    failures: u64,
}

thread_local! {
    /// By service and tool. Totals in memory begin anew when the plugin is replaced; `kv` keeps what must not.
    // An instance of a plugin is never entered twice at a time, so that a cell is enough.
    static TOTALS: RefCell<BTreeMap<(String, String), Total>> = const { RefCell::new(BTreeMap::new()) };
}

struct {{CamelName}};

impl lifecycle::Guest for {{CamelName}} {
    /// Name, version and summary, as TOML.
    fn metadata() -> String {
        concat!(
            "name = \"", env!("CARGO_PKG_NAME"), "\"\n",
            "version = \"", env!("CARGO_PKG_VERSION"), "\"\n",
            "summary = \"", env!("CARGO_PKG_DESCRIPTION"), "\"\n",
        )
        .into()
    }

    /// Called before anything below; there is nothing to configure yet.
    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        if config_json.trim() == "{}" {
            return Ok(());
        }
        Err(vec![lifecycle::Issue { path: String::new(), message: "There are no settings.".into() }])
    }

    /// Run at load; a failure keeps the plugin out.
    fn self_test() -> Result<(), String> {
        Ok(())
    }
}

impl meter::Guest for {{CamelName}} {
    fn describe() -> (Vec<meter::Metric>, Vec<meter::Panel>) {
        let counter = |name: &str, help: &str| meter::Metric {
            name: name.into(),
            help: help.into(),
            unit: String::new(),
            kind: meter::Kind::Counter,
            labels: vec!["service".into(), "tool".into()],
            series_max: SERIES_MAX as u32,
        };
        let metrics = vec![
            counter("{{snake_name}}_calls_total", "Calls that are over."),
            counter("{{snake_name}}_failures_total", "Calls that were answered with a status of 400 or more."),
        ];
        let panel = meter::Panel {
            title: "Calls and failures".into(),
            chart: meter::Chart::Line,
            metrics: vec![CALLS, FAILURES],
            unit: "calls/s".into(),
        };
        (metrics, vec![panel])
    }

    fn on_calls(calls: Vec<meter::Finished>, _dropped: u32) {
        TOTALS.with_borrow_mut(|totals| {
            for call in calls {
                let key = (call.service, call.tool);
                if totals.len() >= SERIES_MAX && !totals.contains_key(&key) {
                    continue;
                }
                let total = totals.entry(key).or_default();
                total.calls += 1;
                total.failures += u64::from(call.status >= 400);
            }
        });
    }

    fn collect(_now_ms: u64) -> Vec<meter::Point> {
        TOTALS.with_borrow(|totals| {
            let points = totals.iter().flat_map(|((service, tool), total)| {
                [(CALLS, total.calls), (FAILURES, total.failures)].map(|(metric, value)| meter::Point {
                    metric,
                    labels: vec![service.clone(), tool.clone()],
                    value: value as f64,
                })
            });
            points.collect()
        })
    }
}

export!({{CamelName}});
