//! What an operator lets a plugin use up.

use std::time::Duration;

use super::support::{Bench, SETTLED, budgeted, catalog, config, facts, guest};
use crate::mesh::allowance::Allowance;
use crate::mesh::time::Wall;
use crate::plugin::PluginConfig;
use crate::policy::PolicySet;
use crate::policy::status::{BudgetStatus, PluginState};

fn allow(bench: &Bench, limits: Allowance) -> (PolicySet, bool) {
    let settings = PluginConfig { limits, ..config("{}") };
    bench.plugins.set_config([("guest".to_owned(), settings)].into());
    bench.plugins.reload(SETTLED)
}

fn memory(mib: usize) -> Allowance {
    Allowance { memory_bytes_max: Some(mib << 20), ..Allowance::default() }
}

/// What went wrong when it routed, if something did.
fn routed(bench: &Bench, set: &PolicySet) -> Option<String> {
    let answer = set.routers[0].route(&facts(), &catalog(1, 1));
    answer.is_err().then(|| bench.only().last_fault.expect("a fault"))
}

#[test]
fn more_memory_lets_a_plugin_live_that_needs_it_and_less_ends_one() {
    let (bench, set) = Bench::of("route-feast-40");
    let fault = routed(&bench, &set).expect("too much");
    assert!(fault.starts_with("it wanted more than 32 MiB of memory"), "{fault}");
    let (set, changed) = allow(&bench, memory(64));
    assert!(changed);
    assert_eq!(routed(&bench, &set), None);
    assert_eq!(bench.only().generation, 2);
    assert!(!allow(&bench, memory(64)).1, "nothing has changed");

    let (bench, set) = Bench::of("route-feast-20");
    assert_eq!(routed(&bench, &set), None);
    let (set, _) = allow(&bench, memory(16));
    let fault = routed(&bench, &set).expect("too much");
    assert!(fault.starts_with("it wanted more than 16 MiB of memory"), "{fault}");
}

#[test]
fn a_build_that_was_refused_for_its_memory_is_tried_again_with_more() {
    let bench = Bench::new();
    bench.put("guest.wasm", &guest("configure-feast-40"));
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().state, PluginState::Refused, "{:?}", bench.only());
    assert!(bench.only().reason.contains("more than 32 MiB"), "{}", bench.only().reason);
    assert!(allow(&bench, memory(64)).1);
    assert_eq!(bench.only().state, PluginState::Loaded);
}

#[test]
fn answers_have_the_time_that_the_operator_allows() {
    let (bench, set) = Bench::of("route-loop");
    assert_eq!(routed(&bench, &set).as_deref(), Some("it took longer than 5 ms"));
    let limits = Allowance { ask: Some(Duration::from_millis(150)), ..Allowance::default() };
    let (set, _) = allow(&bench, limits);
    assert_eq!(routed(&bench, &set).as_deref(), Some("it took longer than 150 ms"));

    let (bench, _) = Bench::of("evaluate-loop");
    let limits = Allowance { background: Some(Duration::from_millis(40)), ..Allowance::default() };
    let (set, _) = allow(&bench, limits);
    assert!(set.alerters[0].evaluate(Wall::from_millis(0), &[], &[]).is_err());
    assert_eq!(bench.only().last_fault.as_deref(), Some("it took longer than 40 ms"));
}

#[test]
fn a_latency_budget_is_the_operators_or_else_the_plugins_and_ends_where_answers_do() {
    let bench = Bench::new();
    let budget = |route_us, pick_us| BudgetStatus { route_us: Some(route_us), pick_us: Some(pick_us) };
    bench.put("guest.wasm", &budgeted("nothing", "budgets.route-us = 1e9"));
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().budget, budget(5_000.0, 1_000.0));
    let limits = Allowance {
        ask: Some(Duration::from_millis(20)),
        pick: Some(Duration::from_micros(300)),
        ..Allowance::default()
    };
    allow(&bench, limits);
    assert_eq!(bench.only().budget, budget(20_000.0, 300.0));
}

#[test]
fn a_budget_that_is_none_is_refused_with_a_sentence() {
    let bench = Bench::new();
    for (said, shown) in [("nan", "NaN"), ("-1", "-1"), ("0", "0"), ("inf", "inf")] {
        bench.put("guest.wasm", &budgeted("nothing", &format!("budgets.route-us = {said}")));
        bench.plugins.reload(SETTLED);
        let reason = format!(
            "its budget `route-us` is {shown}, and a budget is a number of microseconds, more than 0"
        );
        assert_eq!(bench.only().reason, reason);
    }
}
