//! Alerter with thresholds; `plan` has the logic and knows no bindings. Keeps nothing between two evaluations.

mod plan;

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{alerter, lifecycle};
use plan::{Aggregate, Firing, Plan, Sample, Severity};

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "alerting" });

    #[cfg(target_arch = "wasm32")]
    export!(ThresholdAlerts with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::ThresholdAlerts;
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::new(Plan::default());
}

struct ThresholdAlerts;

impl lifecycle::Guest for ThresholdAlerts {
    fn metadata() -> String {
        meshwright_sdk::metadata!(schema: "config.schema.json").into()
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Plan::read(&config_json) {
            Ok(plan) => {
                PLAN.set(plan);
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    fn self_test() -> Result<(), String> {
        plan::self_test()
    }
}

impl alerter::Guest for ThresholdAlerts {
    fn wants() -> Vec<alerter::Want> {
        let want = |want: &plan::Want| alerter::Want {
            series: want.series.clone(),
            aggregate: aggregate(want.aggregate),
            window_s: want.window_s,
        };
        PLAN.with_borrow(|plan| plan.wants().iter().map(want).collect())
    }

    fn evaluate(
        _now_ms: u64,
        samples: Vec<alerter::Sample>,
        _events: Vec<alerter::Event>,
    ) -> Vec<alerter::Firing> {
        let samples: Vec<_> = samples
            .into_iter()
            .map(|sample| Sample { want: sample.want, labels: sample.labels, value: sample.value })
            .collect();
        PLAN.with_borrow(|plan| plan.evaluate(&samples).into_iter().map(firing).collect())
    }
}

fn firing(firing: Firing) -> alerter::Firing {
    alerter::Firing {
        rule: firing.rule,
        severity: match firing.severity {
            Severity::Info => alerter::Severity::Info,
            Severity::Warning => alerter::Severity::Warning,
            Severity::Error => alerter::Severity::Error,
            Severity::Critical => alerter::Severity::Critical,
        },
        labels: firing.labels,
        title: firing.title,
        detail: firing.detail,
        value: firing.value,
        threshold: firing.threshold,
        for_s: firing.for_s,
        resolve_at: firing.resolve_at,
    }
}

fn aggregate(aggregate: Aggregate) -> alerter::Aggregate {
    match aggregate {
        Aggregate::Last => alerter::Aggregate::Last,
        Aggregate::Min => alerter::Aggregate::Min,
        Aggregate::Max => alerter::Aggregate::Max,
        Aggregate::Mean => alerter::Aggregate::Mean,
        Aggregate::P50 => alerter::Aggregate::P50,
        Aggregate::P95 => alerter::Aggregate::P95,
        Aggregate::P99 => alerter::Aggregate::P99,
        Aggregate::Rate => alerter::Aggregate::Rate,
        Aggregate::Count => alerter::Aggregate::Count,
        Aggregate::Slope => alerter::Aggregate::Slope,
    }
}
