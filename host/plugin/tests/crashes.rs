//! Inputs on which a router crashes: calls like them go on without it, all others do not.

use std::sync::Arc;

use super::support::{Bench, SETTLED, catalog, facts, guest, name, until};
use crate::mesh::time::Mono;
use crate::mesh::verdict::{CallFacts, Decision};
use crate::policy::status::PluginState;
use crate::policy::{PolicyFault, PolicySet};

/// Asks until the instance that the last fault ended is replaced.
fn ask(set: &PolicySet, call: &CallFacts<'_>) -> Result<Arc<Decision>, PolicyFault> {
    until("a repair", || match set.routers[0].route(call, &catalog(1, 3)) {
        Err(PolicyFault::Busy(_)) => None,
        answer => Some(answer),
    })
}

fn at(secs: u64) -> CallFacts<'static> {
    CallFacts { now: Mono::from_secs(secs), ..facts() }
}

#[test]
fn what_crashed_twice_is_skipped_until_it_works_again() {
    let (bench, set) = Bench::of("route-fail-thrice");
    let (trap, skipped) = (Err(PolicyFault::Trap(name("guest"))), Err(PolicyFault::Skipped(name("guest"))));
    assert_eq!((ask(&set, &at(0)), ask(&set, &at(1))), (trap.clone(), trap.clone()));
    assert_eq!((ask(&set, &at(2)), ask(&set, &at(300))), (skipped.clone(), skipped.clone()));
    let status = bench.only();
    assert_eq!((status.state, status.faults, status.skipped), (PluginState::Loaded, 2, 2));
    assert!(status.fallbacks >= 4, "{status:?}");
    let kinds = bench.kinds_of_events();
    assert_eq!(kinds, ["plugin_loaded", "plugin_input_skipped"]);
    let said = bench.events.lock().unwrap()[1].clone();
    assert_eq!(said.service, Some(name("docs")));
    for part in ["`guest`", "`search` of `docs`", "`alice`", "300 s", "one of three"] {
        assert!(said.detail.contains(part), "{}", said.detail);
    }

    assert_eq!(ask(&set, &at(301)), trap, "one call tries again");
    assert_eq!(
        (ask(&set, &at(302)), ask(&set, &at(600))),
        (skipped.clone(), skipped),
        "and the others do not"
    );
    assert_eq!(bench.only().state, PluginState::Loaded, "which is no strike");
    assert!(ask(&set, &at(601)).is_ok());
    assert!(ask(&set, &at(602)).is_ok());
    assert_eq!((bench.only().faults, bench.only().skipped), (3, 4));
    assert_eq!(bench.kinds_of_events(), kinds, "that is not said again");
}

#[test]
fn a_disk_that_hangs_keeps_no_instance_from_being_replaced() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::kept_in(data.path());
    bench.put("guest.wasm", &guest("route-trap"));
    let (set, _) = bench.plugins.reload(SETTLED);
    let plugin = Arc::clone(&bench.plugins.reloader.lock().unwrap().in_force["guest"].loaded.plugin);
    // Whoever writes a capsule notes it here, and so waits as long as for a disk.
    let hanging = plugin.capsules.newest.lock().unwrap();
    for client in ["a", "b", "c", "d"] {
        let call = CallFacts { client, ..facts() };
        assert_eq!(ask(&set, &call), Err(PolicyFault::Trap(name("guest"))), "{client}");
    }
    drop(hanging);
    until("a capsule", || plugin.capsules.newest());
}

#[test]
fn a_router_that_crashes_on_everything_rests() {
    let (bench, set) = Bench::of("route-trap");
    let crash = |tool| ask(&set, &CallFacts { tool, ..facts() });
    let said = ["a", "b", "c"].map(crash);
    assert!(said.iter().all(|answer| *answer == Err(PolicyFault::Trap(name("guest")))), "{said:?}");
    assert_eq!(crash("d"), Err(PolicyFault::Quarantined(name("guest"))));
    assert_eq!((bench.only().state, bench.only().skipped), (PluginState::Quarantined, 0));
}

#[test]
fn a_tool_that_crashes_for_everybody_is_skipped_and_the_router_does_not_rest() {
    let (bench, set) = Bench::of("route-trap");
    let calls = |client| ask(&set, &CallFacts { client, ..facts() });
    for client in ["a", "b", "c", "d"] {
        assert_eq!(calls(client), Err(PolicyFault::Trap(name("guest"))), "{client}");
    }
    assert_eq!(calls("e"), Err(PolicyFault::Skipped(name("guest"))));
    assert_eq!((bench.only().state, bench.only().faults), (PluginState::Loaded, 4));
}
