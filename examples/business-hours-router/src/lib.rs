//! A router that keeps chosen tools closed outside business hours. `hours` has the logic; this file connects it to
//! the contract in `wit/plugin.wit`.

mod hours;

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{catalog, lifecycle, router};
use hours::Hours;

// Generates a trait `Guest` for each interface that a router exports, and `export!`, which exports an implementation.
#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "routing" });

    #[cfg(target_arch = "wasm32")]
    export!(BusinessHours with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::BusinessHours;
}

thread_local! {
    // An instance of a plugin is never entered twice at a time, so that a cell is enough.
    static HOURS: RefCell<Hours> = RefCell::new(Hours::default());
}

struct BusinessHours;

impl lifecycle::Guest for BusinessHours {
    /// Name, version and summary from `Cargo.toml`.
    fn metadata() -> String {
        meshwright_sdk::metadata!().into()
    }

    /// The host calls this before anything below, with `{}` when nothing is configured.
    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Hours::read(&config_json) {
            Ok(hours) => {
                HOURS.set(hours);
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
        hours::self_test()
    }
}

impl catalog::Guest for BusinessHours {
    /// Hours do not depend on which services there are.
    fn on_catalog(_services: Vec<catalog::Service>) {}
}

impl router::Guest for BusinessHours {
    fn route(call: router::Call) -> router::Decision {
        let closed_ms = HOURS.with_borrow(|hours| hours.closed_ms(&call.tool, call.now_ms));
        match closed_ms {
            None => router::Decision { verdict: router::Verdict::Pass, why: String::new(), reuse: None },
            Some(ms) => router::Decision {
                verdict: router::Verdict::Reject(router::Refusal {
                    reason: format!("`{}` is closed outside business hours", call.tool),
                    retry_after_ms: Some(ms),
                }),
                why: "outside business hours".into(),
                reuse: None,
            },
        }
    }
}
