//! Balancer that plans: the host's own two choices, with zones, weights, health and failures; `choices` has the logic
//! and knows no bindings.

mod choices;
mod settings;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bindings::exports::meshwright::plugin::{lifecycle, planner};
use choices::Member;
use settings::Settings;

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "planning" });

    #[cfg(target_arch = "wasm32")]
    export!(ZoneBalancer with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::ZoneBalancer;
}

/// A plan outlives some rounds that are missed, and then the host's own balancer takes over.
const TTL_MS: u32 = 10_000;

thread_local! {
    static SETTINGS: RefCell<Settings> = RefCell::new(Settings::default());
}

struct ZoneBalancer;

impl lifecycle::Guest for ZoneBalancer {
    fn metadata() -> String {
        meshwright_sdk::metadata!(schema: "config.schema.json").into()
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Settings::read(&config_json) {
            Ok(settings) => {
                SETTINGS.replace(settings);
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    fn self_test() -> Result<(), String> {
        choices::self_test()
    }
}

impl planner::Guest for ZoneBalancer {
    /// Sessions are kept together by the host, so that nothing here looks at them.
    fn compile(
        _pool: u32,
        _service: String,
        members: Vec<planner::Member>,
        loads: Vec<planner::Load>,
    ) -> Option<planner::Plan> {
        let scores: BTreeMap<u32, u8> = loads.iter().map(|load| (load.slot, load.score)).collect();
        let members: Vec<Member<'_>> = members
            .iter()
            .map(|member| Member {
                zone: &member.zone,
                weight: member.weight,
                // Members are taken to be well until the first load arrives.
                score: scores.get(&member.slot).copied().unwrap_or(100),
            })
            .collect();
        SETTINGS.with_borrow(|settings| {
            let choices = choices::choices(&members, settings)?.into_iter();
            let choices = choices.map(|choice| planner::Choice {
                share: choice.share,
                price: choice.price,
                first: choice.first,
            });
            let failure_us = settings.failure_penalty_ms.saturating_mul(1_000);
            Some(planner::Plan {
                strategy: planner::Strategy::TwoChoices(planner::TwoChoices {
                    choices: choices.collect(),
                    failure_us,
                }),
                ttl_ms: TTL_MS,
                why: settings.zone.as_ref().map_or_else(
                    || "the less loaded of two".to_owned(),
                    |zone| format!("the less loaded of two, zone `{zone}` first"),
                ),
            })
        })
    }
}
