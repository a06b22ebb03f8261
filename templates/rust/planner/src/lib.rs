//! A planner: `compile` makes a plan that the host's own balancer follows until the next one.

wit_bindgen::generate!({ path: "wit", world: "planning" });

use exports::meshwright::plugin::{lifecycle, planner};

/// A plan outlives a few missed rounds.
const TTL_MS: u32 = 5_000;

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

impl planner::Guest for {{CamelName}} {
    /// Each member gets calls by its weight, less what fails. No members: nothing to plan.
    fn compile(
        _pool: u32,
        _service: String,
        members: Vec<planner::Member>,
        loads: Vec<planner::Load>,
    ) -> Option<planner::Plan> {
        if members.is_empty() {
            return None;
        }
        let weight = |member: &planner::Member| {
            let load = loads.iter().find(|load| load.slot == member.slot);
            let well = load.map_or(1000, |load| 1000 - u32::from(load.errors_permille.min(1000)));
            u32::from(member.weight) * well / 1000
        };
        Some(planner::Plan {
            strategy: planner::Strategy::Weighted(members.iter().map(weight).collect()),
            ttl_ms: TTL_MS,
            why: "by weight and errors".into(),
        })
    }
}

export!({{CamelName}});
