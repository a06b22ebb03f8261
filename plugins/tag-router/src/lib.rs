//! Router that decides by rules from its configuration; `rules` has the logic and knows no bindings.

mod rules;

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{catalog, lifecycle, router};
use rules::{Outcome, Rules, Terms};

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "routing" });

    #[cfg(target_arch = "wasm32")]
    export!(TagRouter with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::TagRouter;
}

thread_local! {
    static RULES: RefCell<Rules> = RefCell::new(Rules::default());
}

struct TagRouter;

impl lifecycle::Guest for TagRouter {
    fn metadata() -> String {
        meshwright_sdk::metadata!(schema: "config.schema.json").into()
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Rules::read(&config_json) {
            Ok(read) => {
                RULES.with_borrow_mut(|rules| rules.replace(read));
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    fn self_test() -> Result<(), String> {
        rules::self_test()
    }
}

impl catalog::Guest for TagRouter {
    fn on_catalog(services: Vec<catalog::Service>) {
        let services = services.into_iter().map(|service| rules::Service {
            name: service.name,
            tags: service.tags,
            healthy: service.healthy,
        });
        RULES.with_borrow_mut(|rules| rules.set_catalog(services.collect()));
    }
}

impl router::Guest for TagRouter {
    fn route(call: router::Call) -> router::Decision {
        let asked = rules::Call {
            random: call.random,
            affinity: call.affinity,
            service: &call.service,
            tool: &call.tool,
            method: &call.method,
            client: &call.client,
        };
        RULES.with_borrow(|rules| {
            let reuse = rules.terms(&asked).map(reuse);
            match rules.decide(&asked) {
                None => router::Decision { verdict: router::Verdict::Pass, why: String::new(), reuse },
                Some((why, outcome)) => {
                    router::Decision { verdict: verdict(outcome, &call.service), why: why.into(), reuse }
                }
            }
        })
    }
}

/// Rules know no time: what was decided holds for as long as it may.
const REUSE_MS: u32 = 60_000;

fn reuse(terms: Terms) -> router::Reuse {
    let depends = [
        (terms.tool, router::Vary::TOOL),
        (terms.client, router::Vary::CLIENT),
        (terms.affinity, router::Vary::AFFINITY),
    ];
    let vary = depends.into_iter().filter(|(depends, _)| *depends).map(|(_, flag)| flag);
    router::Reuse { ttl_ms: REUSE_MS, vary: vary.fold(router::Vary::empty(), |all, flag| all | flag) }
}

fn verdict(outcome: &Outcome, asked: &str) -> router::Verdict {
    match outcome {
        Outcome::Forward(forward) => router::Verdict::Forward(router::Target {
            service: forward.service.clone().unwrap_or_else(|| asked.to_owned()),
            tag: forward.tag.clone(),
            tool: forward.tool.clone(),
            timeout_ms: forward.timeout_ms,
            mirror: forward.mirror.as_ref().map(|mirror| router::Mirror {
                service: mirror.service.clone(),
                permille: mirror.permille,
                any_tool: mirror.any_tool,
            }),
        }),
        Outcome::Reject(refusal) => router::Verdict::Reject(router::Refusal {
            reason: refusal.reason.clone(),
            retry_after_ms: refusal.retry_after_ms,
        }),
    }
}
