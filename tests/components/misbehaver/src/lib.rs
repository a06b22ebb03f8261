//! Hostile component for the host's tests. One build serves them all: a test overwrites the marker in the built
//! file to choose name, version and behaviour. README.md lists the behaviours.

mod havoc;
mod marker;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bindings::exports::meshwright::plugin::{balancer, catalog, lifecycle, router};
use bindings::meshwright::plugin::kv;
use marker::{Behaviour, Marker};

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package tests:misbehaver;
            world misbehaving {
                include meshwright:plugin/routing@0.1.0;
                include meshwright:plugin/balancing@0.1.0;
            }
        ",
        world: "tests:misbehaver/misbehaving",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    export!(Misbehaver with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::Misbehaver;
}

const NOBODY: u32 = u32::MAX;

thread_local! {
    static SLOTS: RefCell<BTreeMap<u32, Vec<u32>>> = const { RefCell::new(BTreeMap::new()) };
}

struct Misbehaver;

fn more_metadata(behaviour: Option<Behaviour>) -> String {
    let schema = match behaviour {
        Some(Behaviour::Schema) => r#"{"type": "object", "additionalProperties": false, "properties": {
                "mood": {"enum": ["calm", "cross"]}, "share": {"type": "integer", "maximum": 10}}}"#
            .to_owned(),
        Some(Behaviour::SchemaBroken) => r#"{"properties": {"mood": {"type": "strnig"}}}"#.to_owned(),
        Some(Behaviour::SchemaEndless) => r##"{"$ref": "#"}"##.to_owned(),
        Some(Behaviour::SchemaExplodes) => exploding_schema(),
        Some(Behaviour::Asks) => return "grants = [\"arguments\"]\n".to_owned(),
        Some(Behaviour::AsksForTheMoon) => return "grants = [\"moon\"]\n".to_owned(),
        _ => return String::new(),
    };
    format!("config-schema = '''{schema}'''\n")
}

/// Each definition asks for the next one twice: 2^60 checks.
fn exploding_schema() -> String {
    let level = |at: u32| {
        let next = at + 1;
        format!(r##""d{at}": {{"allOf": [{{"$ref": "#/$defs/d{next}"}}, {{"$ref": "#/$defs/d{next}"}}]}}, "##)
    };
    let levels: String = (0..60).map(level).collect();
    format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{levels}"d60": {{"type": "object"}}}}}}"##)
}

impl lifecycle::Guest for Misbehaver {
    fn metadata() -> String {
        let marker = Marker::read();
        if marker.behaviour == Some(Behaviour::TrapInMetadata) {
            havoc::trap();
        }
        format!(
            "name = \"{}\"\nversion = \"{}\"\nsummary = \"Misbehaves for tests\"\n{}",
            marker.name,
            marker.version,
            more_metadata(marker.behaviour)
        )
    }

    fn configure(_config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Marker::read().behaviour {
            Some(Behaviour::ConfigureRefuses) => Err(vec![lifecycle::Issue {
                path: "/mood".into(),
                message: "No configuration is good enough.".into(),
            }]),
            Some(Behaviour::TrapInConfigure) => havoc::trap(),
            Some(Behaviour::LoopInConfigure) => havoc::spin(),
            _ => Ok(()),
        }
    }

    fn self_test() -> Result<(), String> {
        let marker = Marker::read();
        match marker.behaviour {
            Some(Behaviour::SelfTestFails) => Err("the self-test fails on purpose".into()),
            Some(Behaviour::TrapInSelfTest) => havoc::trap(),
            Some(Behaviour::LoopInSelfTest) => havoc::spin(),
            Some(_) => Ok(()),
            // A misspelt behaviour must not look like a well-behaved plugin.
            None => Err("the marker names no behaviour that there is".into()),
        }
    }
}

impl catalog::Guest for Misbehaver {
    fn on_catalog(_services: Vec<catalog::Service>) {}
}

impl router::Guest for Misbehaver {
    fn route(call: router::Call) -> router::Decision {
        let marker = Marker::read();
        let behaviour = match &marker.only {
            Some(only) if *only != call.tool => {
                marker.behaviour.filter(|doing| *doing == Behaviour::TrapOrAnswer).map(|_| Behaviour::Answer)
            }
            _ => marker.behaviour,
        };
        let who = format!("{} {}", marker.name, marker.version);
        let pass = |why: String| router::Decision { verdict: router::Verdict::Pass, why, reuse: None };
        let forward = |service: &str, why: String| {
            let target = router::Target {
                service: service.into(),
                tag: None,
                tool: None,
                timeout_ms: None,
                mirror: None,
            };
            router::Decision { verdict: router::Verdict::Forward(target), why, reuse: None }
        };
        match behaviour {
            Some(Behaviour::Loop) => havoc::spin(),
            Some(Behaviour::Trap | Behaviour::TrapOrAnswer) => havoc::trap(),
            Some(Behaviour::Recurse) => pass(havoc::recurse(call.id).to_string()),
            Some(Behaviour::Allocate) => havoc::hoard(),
            Some(Behaviour::BigWhy) => pass("w".repeat(10 << 20)),
            Some(Behaviour::UnknownService) => forward("no-such-service", who),
            Some(Behaviour::BadName) => forward("../x", who),
            Some(Behaviour::LogFlood) => pass(havoc::flood_log()),
            Some(Behaviour::Remember) => {
                let for_good = kv::add("calls", 1, 0).unwrap_or_default();
                let briefly = kv::add("calls-briefly", 1, 3).unwrap_or_default();
                forward(&call.service, format!("call {for_good}, {briefly} of late"))
            }
            Some(Behaviour::KvFlood) => pass(havoc::flood_kv()),
            Some(Behaviour::Answer | Behaviour::Asks | Behaviour::Schema) => forward(&call.service, who),
            Some(Behaviour::Reject) => {
                let refusal = router::Refusal { reason: who.clone(), retry_after_ms: None };
                router::Decision { verdict: router::Verdict::Reject(refusal), why: who, reuse: None }
            }
            _ => pass(String::new()),
        }
    }
}

impl balancer::Guest for Misbehaver {
    fn on_pool(pool: u32, _service: String, members: Vec<balancer::Member>) {
        SLOTS.with_borrow_mut(|slots| {
            slots.insert(pool, members.into_iter().map(|member| member.slot).collect());
        });
    }

    fn on_load(_pool: u32, _loads: Vec<balancer::Load>) {}

    fn pick(pool: u32, _affinity: u64, _random: u64, tried: u64) -> u32 {
        match Marker::read().behaviour {
            Some(Behaviour::LoopInPick) => havoc::spin(),
            Some(Behaviour::TrapInPick) => havoc::trap(),
            Some(Behaviour::AllocateInPick) => havoc::hoard(),
            Some(Behaviour::NonsenseSlot) => 4_000_000_000,
            Some(Behaviour::PickFirst) => SLOTS.with_borrow(|slots| {
                let free = |slot: &u32| *slot >= 64 || tried >> slot & 1 == 0;
                let slots = slots.get(&pool).into_iter().flatten();
                slots.copied().filter(free).min().unwrap_or(NOBODY)
            }),
            _ => NOBODY,
        }
    }
}
