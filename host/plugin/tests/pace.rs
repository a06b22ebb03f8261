//! Whoever does not keep its latency budget rests.

use std::sync::Arc;
use std::time::Duration;

use super::support::{Bench, SETTLED, altered, ask, budgeted, catalog, facts, pool};
use crate::policy::status::PluginState;
use crate::policy::{PolicyFault, PolicySet};

/// Calls in a window, as one in eight is timed.
const WINDOW: u32 = 1_600;

/// What takes some microseconds of processor time at least, and far less than a millisecond.
const BUSY: &str = "use-wasi";

fn in_force(component: &[u8]) -> (Bench, PolicySet) {
    let bench = Bench::new();
    bench.put("guest.wasm", component);
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed, "{:?}", bench.plugins.status());
    (bench, set)
}

fn route(bench: &Bench, set: &PolicySet, windows: u32) {
    for _ in 0..windows {
        (0..WINDOW).for_each(|_| drop(set.routers[0].route(&facts(), &catalog(1, 1))));
        bench.plugins.judge_pace();
    }
}

fn pick(bench: &Bench, set: &PolicySet, windows: u32) {
    let pool = Arc::new(pool(1, 1, 2));
    for _ in 0..windows {
        (0..WINDOW).for_each(|_| drop(set.balancers.last().expect("it picks").pick(&pool, ask())));
        bench.plugins.judge_pace();
    }
}

#[test]
fn a_plugin_over_its_budget_in_two_windows_in_a_row_rests() {
    let (bench, set) = in_force(&budgeted(&format!("route-{BUSY}"), "budgets.route-us = 1"));
    route(&bench, &set, 2);
    assert_eq!(bench.only().state, PluginState::Loaded, "one window to find out, and one over");
    route(&bench, &set, 1);
    let status = bench.only();
    assert_eq!(status.state, PluginState::Quarantined);
    let (begin, end) = ("over its latency budget: p99 ", " µs of 1 µs in `route`");
    assert!(status.reason.starts_with(begin) && status.reason.ends_with(end), "{}", status.reason);
    let answer = set.routers[0].route(&facts(), &catalog(1, 1));
    assert!(matches!(answer, Err(PolicyFault::Quarantined(_))), "{answer:?}");
    assert_eq!(status.faults, 0, "slow is not broken");
    let event = bench.events.lock().unwrap().last().expect("an event").clone();
    assert_eq!(event.kind, "plugin_quarantined");
    assert!(event.detail.contains("rests for 30 s: over its latency budget"), "{}", event.detail);
}

#[test]
fn a_plugin_within_its_budget_goes_on() {
    let (bench, set) = in_force(&budgeted("nothing", ""));
    route(&bench, &set, 6);
    pick(&bench, &set, 6);
    let status = bench.only();
    assert_eq!((status.state, status.fallbacks), (PluginState::Loaded, 0), "{status:?}");
}

#[test]
fn each_question_has_a_budget_of_its_own() {
    let (bench, set) = in_force(&budgeted(&format!("route-{BUSY}"), "budgets.pick-us = 1"));
    route(&bench, &set, 4);
    assert_eq!(bench.only().state, PluginState::Loaded, "{:?}", bench.only());
    let budgets = "budgets={route-us=5000,pick-us=1}";
    let (bench, set) = in_force(&budgeted(&format!("pick-{BUSY}"), budgets));
    pick(&bench, &set, 3);
    let reason = bench.only().reason;
    assert!(reason.ends_with("µs of 1 µs in `pick`"), "{reason}");
}

#[test]
fn on_probation_a_router_is_not_judged_by_the_budget_of_its_picks() {
    let bench = Bench::tried(Duration::from_secs(60));
    bench.put("guest.wasm", &budgeted("nothing", ""));
    bench.plugins.reload(SETTLED);
    let component = budgeted(&format!("route-{BUSY}"), "budgets.pick-us = 1");
    bench.put("guest.wasm", &altered(component, 1));
    let (set, _) = bench.plugins.reload(SETTLED);
    route(&bench, &set, 1);
    assert!(!bench.plugins.has_probation_to_end());
    pick(&bench, &set, 1);
    assert!(bench.plugins.reload(SETTLED).1, "but its picks are");
    let reason = bench.only().refused.expect("rolled back").reason;
    assert!(reason.contains("99 of 100 answers of `pick`"), "{reason}");
}

#[test]
fn a_first_build_over_its_budget_is_not_let_off_by_its_probation() {
    let bench = Bench::tried(Duration::from_secs(60));
    bench.put("guest.wasm", &budgeted(&format!("route-{BUSY}"), "budgets.route-us = 1"));
    let (set, _) = bench.plugins.reload(SETTLED);
    route(&bench, &set, 3);
    assert_eq!(bench.only().state, PluginState::Quarantined, "{:?}", bench.only());
}
