//! An alerter for the host's tests: every event that it was ever told of fires, with its kind as the rule.

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{alerter, lifecycle};

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "alerting" });

    #[cfg(target_arch = "wasm32")]
    export!(Herald);
    #[cfg(target_arch = "wasm32")]
    use super::Herald;
}

thread_local! {
    static HEARD: RefCell<Vec<alerter::Firing>> = const { RefCell::new(Vec::new()) };
}

struct Herald;

impl lifecycle::Guest for Herald {
    fn metadata() -> String {
        "name = \"herald\"\nversion = \"1.0.0\"\n".into()
    }

    fn configure(_config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        Ok(())
    }

    fn self_test() -> Result<(), String> {
        Ok(())
    }
}

impl alerter::Guest for Herald {
    fn wants() -> Vec<alerter::Want> {
        Vec::new()
    }

    fn evaluate(
        _now_ms: u64,
        _samples: Vec<alerter::Sample>,
        events: Vec<alerter::Event>,
    ) -> Vec<alerter::Firing> {
        HEARD.with_borrow_mut(|heard| {
            heard.extend(events.into_iter().map(firing));
            heard.clone()
        })
    }
}

fn firing(event: alerter::Event) -> alerter::Firing {
    let labels = [("service", event.service), ("instance", event.instance), ("detail", event.detail)];
    alerter::Firing {
        rule: event.kind,
        severity: alerter::Severity::Info,
        labels: labels.map(|(name, text)| (name.to_owned(), text)).into(),
        title: "it happened".to_owned(),
        detail: String::new(),
        value: 1.0,
        threshold: 1.0,
        for_s: 0,
        resolve_at: 1.0,
    }
}
