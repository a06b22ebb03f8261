//! Balancer: peak-EWMA power of two choices with zones; `pool` has the logic and knows no bindings.

mod pool;
mod settings;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bindings::exports::meshwright::plugin::{balancer, lifecycle};
use bindings::meshwright::plugin::live;
use pool::{Figures, Load, Member, Pool};
use settings::Settings;

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "balancing" });

    #[cfg(target_arch = "wasm32")]
    export!(ZoneBalancer with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::ZoneBalancer;
}

/// What the contract returns for "somebody else's turn".
const NOBODY: u32 = u32::MAX;

#[derive(Default)]
struct State {
    settings: Settings,
    pools: BTreeMap<u32, Pool>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

struct ZoneBalancer;

impl lifecycle::Guest for ZoneBalancer {
    fn metadata() -> String {
        meshwright_sdk::metadata!(schema: "config.schema.json").into()
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Settings::read(&config_json) {
            Ok(settings) => {
                STATE.with_borrow_mut(|state| {
                    for pool in state.pools.values_mut() {
                        pool.rebuild(&settings);
                    }
                    state.settings = settings;
                });
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    fn self_test() -> Result<(), String> {
        pool::self_test()
    }
}

impl balancer::Guest for ZoneBalancer {
    fn on_pool(pool: u32, _service: String, members: Vec<balancer::Member>) {
        STATE.with_borrow_mut(|state| {
            if members.is_empty() {
                state.pools.remove(&pool);
                return;
            }
            let members = members
                .into_iter()
                .map(|member| Member { slot: member.slot, zone: member.zone, weight: member.weight })
                .collect();
            state.pools.entry(pool).or_default().set_members(members, &state.settings);
        });
    }

    fn on_load(pool: u32, loads: Vec<balancer::Load>) {
        STATE.with_borrow_mut(|state| {
            let Some(known) = state.pools.get_mut(&pool) else { return };
            let loads = loads.into_iter().map(|load| {
                let errors_permille = load.errors_permille;
                (load.slot, Load { ewma_us: load.ewma_us, errors_permille, score: load.score })
            });
            known.set_loads(loads, &state.settings);
        });
    }

    /// Sessions are kept together by the host, so that the affinity has no say here.
    fn pick(pool: u32, _affinity: u64, random: u64, tried: u64) -> u32 {
        let figures =
            |slot| Figures { in_flight: live::in_flight(pool, slot), ewma_us: live::ewma_us(pool, slot) };
        STATE.with_borrow(|state| {
            let picked = state.pools.get(&pool).and_then(|pool| pool.pick(random, tried, figures));
            picked.unwrap_or(NOBODY)
        })
    }
}
