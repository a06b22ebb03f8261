//! A balancer: `pick` is asked for each attempt. Here the less busy of two members taken at random wins.

wit_bindgen::generate!({ path: "wit", world: "balancing" });

use std::cell::RefCell;
use std::collections::BTreeMap;

use exports::meshwright::plugin::{balancer, lifecycle};
use meshwright::plugin::live;

/// Leaves the call to the next balancer.
const NOBODY: u32 = u32::MAX;

thread_local! {
    /// The slots of each pool that may be picked.
    // An instance of a plugin is never entered twice at a time, so that a cell is enough.
    static POOLS: RefCell<BTreeMap<u32, Vec<u32>>> = const { RefCell::new(BTreeMap::new()) };
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

impl balancer::Guest for {{CamelName}} {
    /// The whole membership of a pool, before the first pick and after each change. No members: it is gone.
    fn on_pool(pool: u32, _service: String, members: Vec<balancer::Member>) {
        POOLS.with_borrow_mut(|pools| {
            if members.is_empty() {
                pools.remove(&pool);
            } else {
                pools.insert(pool, members.into_iter().map(|member| member.slot).collect());
            }
        });
    }

    /// About once a second: a score of 0 means that the host will not route there now.
    fn on_load(pool: u32, loads: Vec<balancer::Load>) {
        let usable = loads.into_iter().filter(|load| load.score > 0).map(|load| load.slot).collect();
        POOLS.with_borrow_mut(|pools| pools.insert(pool, usable));
    }

    fn pick(pool: u32, _affinity: u64, random: u64, tried: u64) -> u32 {
        POOLS.with_borrow(|pools| {
            let slots = pools.get(&pool).map_or(&[][..], Vec::as_slice);
            let free: Vec<u32> =
                slots.iter().copied().filter(|slot| *slot >= 64 || tried >> slot & 1 == 0).collect();
            if free.is_empty() {
                return NOBODY;
            }
            let count = free.len() as u64;
            let (one, other) = (free[(random % count) as usize], free[((random >> 32) % count) as usize]);
            if live::in_flight(pool, other) < live::in_flight(pool, one) { other } else { one }
        })
    }
}

export!({{CamelName}});
