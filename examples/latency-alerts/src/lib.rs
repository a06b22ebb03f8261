//! An alerter that compares the latency of services with objectives. `objectives` has the logic; this file connects
//! it to the contract in `wit/plugin.wit`.

mod objectives;

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{alerter, lifecycle};
use objectives::{Alert, Figure, Objectives, Sample};

// Generates a trait `Guest` for each interface that an alerter exports, and `export!`, which exports an
// implementation.
#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "alerting" });

    #[cfg(target_arch = "wasm32")]
    export!(LatencyAlerts with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::LatencyAlerts;
}

const SERIES: &str = "meshwright_instance_latency_seconds";

thread_local! {
    // An instance of a plugin is never entered twice at a time, so that a cell is enough.
    static OBJECTIVES: RefCell<Objectives> = RefCell::new(Objectives::default());
}

struct LatencyAlerts;

impl lifecycle::Guest for LatencyAlerts {
    /// Name, version and summary from `Cargo.toml`.
    fn metadata() -> String {
        meshwright_sdk::metadata!().into()
    }

    /// The host calls this before anything below, with `{}` when nothing is configured.
    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Objectives::read(&config_json) {
            Ok(objectives) => {
                OBJECTIVES.set(objectives);
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    /// A plugin whose self-test fails is not loaded.
    fn self_test() -> Result<(), String> {
        objectives::self_test()
    }
}

impl alerter::Guest for LatencyAlerts {
    /// What the host has to bring along: the position in this list is a sample's `want`.
    fn wants() -> Vec<alerter::Want> {
        let window_s = OBJECTIVES.with_borrow(|objectives| objectives.window_s);
        [alerter::Aggregate::Mean, alerter::Aggregate::P99]
            .map(|aggregate| alerter::Want { series: SERIES.into(), aggregate, window_s })
            .into()
    }

    /// Returns all that holds now, each time; the host remembers what it has already told.
    fn evaluate(
        _now_ms: u64,
        samples: Vec<alerter::Sample>,
        _events: Vec<alerter::Event>,
    ) -> Vec<alerter::Firing> {
        let samples: Vec<_> = samples
            .into_iter()
            .map(|sample| Sample {
                figure: if sample.want == 0 { Figure::Mean } else { Figure::P99 },
                labels: sample.labels,
                seconds: sample.value,
            })
            .collect();
        OBJECTIVES.with_borrow(|objectives| objectives.alerts(&samples).into_iter().map(firing).collect())
    }
}

fn firing(alert: Alert) -> alerter::Firing {
    let (rule, severity, name) = match alert.figure {
        Figure::Mean => ("mean-over-objective", alerter::Severity::Warning, "mean"),
        Figure::P99 => ("p99-over-objective", alerter::Severity::Error, "p99"),
    };
    let ms = |seconds: f64| (seconds * 1000.0).round();
    alerter::Firing {
        rule: rule.into(),
        severity,
        title: format!("`{}` is slower than its objective", alert.service),
        detail: format!(
            "{name} latency {} ms at `{}`, objective {} ms",
            ms(alert.seconds),
            alert.slowest,
            ms(alert.objective_s)
        ),
        labels: vec![("service".into(), alert.service)],
        value: alert.seconds,
        threshold: alert.objective_s,
        for_s: 30,
        resolve_at: alert.resolve_at_s,
    }
}
