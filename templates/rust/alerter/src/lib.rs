//! An alerter: `wants` names the figures, `evaluate` says what deserves attention now.

wit_bindgen::generate!({ path: "wit", world: "alerting" });

use exports::meshwright::plugin::{alerter, lifecycle};

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

impl alerter::Guest for {{CamelName}} {
    /// The position in this list is a sample's `want`.
    fn wants() -> Vec<alerter::Want> {
        vec![alerter::Want {
            series: "meshwright_service_instances_available".into(),
            aggregate: alerter::Aggregate::Last,
            window_s: 15,
        }]
    }

    /// All that holds now, each time: the host compares and remembers.
    fn evaluate(
        _now_ms: u64,
        samples: Vec<alerter::Sample>,
        _events: Vec<alerter::Event>,
    ) -> Vec<alerter::Firing> {
        let without = samples.into_iter().filter(|sample| sample.want == 0 && sample.value < 1.0);
        without.map(firing).collect()
    }
}

fn firing(sample: alerter::Sample) -> alerter::Firing {
    let service = sample.labels.iter().find(|(name, _)| name == "service");
    let service = service.map_or("a service", |(_, value)| value);
    alerter::Firing {
        rule: "nobody-left".into(),
        severity: alerter::Severity::Critical,
        title: format!("{service} has no instance left"),
        detail: String::new(),
        labels: sample.labels,
        value: sample.value,
        // A lower bound: fires once the value was at most 0 for `for_s`, and ends when it is at least 1.
        threshold: 0.0,
        resolve_at: 0.5,
        for_s: 30,
    }
}

export!({{CamelName}});
