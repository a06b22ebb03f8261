//! A router: `route` is asked about each call. Replace the rules in it by your own.

wit_bindgen::generate!({ path: "wit", world: "routing" });

use std::cell::RefCell;

use exports::meshwright::plugin::{catalog, lifecycle, router};
use serde::Deserialize;

/// What the configuration may say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Tools that nobody may call.
    refuse: Vec<String>,
    /// Only instances with this tag take so many of 1000 calls.
    canary: Option<String>,
    canary_permille: u64,
}

#[derive(Default)]
struct State {
    settings: Settings,
    services: Vec<catalog::Service>,
}

thread_local! {
    // An instance of a plugin is never entered twice at a time, so that a cell is enough.
    static STATE: RefCell<State> = RefCell::new(State::default());
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

    /// Called before anything below, and again with a changed configuration: what is refused changes nothing.
    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match serde_json::from_str(&config_json) {
            Ok(settings) => {
                STATE.with_borrow_mut(|state| state.settings = settings);
                Ok(())
            }
            Err(error) => Err(vec![lifecycle::Issue { path: String::new(), message: error.to_string() }]),
        }
    }

    /// Run at load; a failure keeps the plugin out.
    fn self_test() -> Result<(), String> {
        Ok(())
    }
}

impl catalog::Guest for {{CamelName}} {
    /// The services that there are, before the next call when they changed.
    fn on_catalog(services: Vec<catalog::Service>) {
        STATE.with_borrow_mut(|state| state.services = services);
    }
}

impl router::Guest for {{CamelName}} {
    fn route(call: router::Call) -> router::Decision {
        STATE.with_borrow(|state| state.decide(&call))
    }
}

impl State {
    fn decide(&self, call: &router::Call) -> router::Decision {
        let Settings { refuse, canary, canary_permille } = &self.settings;
        if refuse.contains(&call.tool) {
            let refusal = router::Refusal {
                reason: format!("`{}` may not be called here", call.tool),
                retry_after_ms: None,
            };
            return decision(router::Verdict::Reject(refusal), "a tool that is refused");
        }
        if let Some(tag) = canary
            && call.random % 1000 < *canary_permille
            && self.has_tag(&call.service, tag)
        {
            let target = router::Target {
                service: call.service.clone(),
                tag: Some(tag.clone()),
                tool: None,
                timeout_ms: None,
                mirror: None,
            };
            return decision(router::Verdict::Forward(target), "canary");
        }
        decision(router::Verdict::Pass, "")
    }

    fn has_tag(&self, service: &str, tag: &str) -> bool {
        self.services.iter().any(|known| known.name == service && known.tags.iter().any(|other| other == tag))
    }
}

fn decision(verdict: router::Verdict, why: &str) -> router::Decision {
    router::Decision { verdict, why: why.into(), reuse: None }
}

export!({{CamelName}});
