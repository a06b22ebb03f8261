//! A build is asked about recorded calls before it comes into force.

use std::sync::Arc;
use std::time::Duration;

use super::support::{Bench, SETTLED, altered, ask, catalog, guest, name, pool};
use crate::mesh::ids::{CallId, Slot};
use crate::mesh::story::{RecordedCall, Recording};
use crate::mesh::time::Wall;
use crate::policy::status::PluginState;

const CALLS: u64 = 150;

pub fn recording() -> Recording {
    let call = |number| RecordedCall {
        id: CallId(number),
        at: Wall::from_millis(1_700_000_000_000),
        service: name("docs"),
        tool: "search".into(),
        method: "tools/call".into(),
        client: "alice".into(),
        random: number,
        affinity: number,
        size: 120,
        time_left: Duration::from_secs(60),
    };
    Recording {
        calls: (1..=CALLS).map(|number| (call(number), name("docs"))).collect(),
        catalog: catalog(1, 3),
        pools: vec![Arc::new(pool(0, 1, 2))],
    }
}

/// With `before` in force and `after` in its place in the folder.
fn replaced(before: &str, after: &[u8]) -> Bench {
    let bench = Bench::recorded(Arc::new(recording));
    bench.put("guest.wasm", &guest(before));
    assert!(bench.plugins.reload(SETTLED).1);
    let first = bench.only().replay.expect("a report");
    // All calls are forwarded instead of passed on; what it picks and plans has nothing beside it.
    assert_eq!((first.compared, first.changed), (150, 150));
    assert_eq!((first.p99_us_before, &first.fault), (None, &None));
    bench.put("guest.wasm", after);
    bench.plugins.reload(SETTLED);
    bench
}

#[test]
fn a_build_that_decides_otherwise_comes_into_force_and_says_so() {
    let bench = replaced("nothing", &guest("long-reason"));
    let status = bench.only();
    assert_eq!((status.state, status.generation), (PluginState::Loaded, 2));
    let replay = status.replay.expect("a report");
    // Each call was routed, picked for and planned for again; only what routes has changed.
    assert_eq!((replay.compared, replay.changed, replay.unrepeatable), (450, 150, 0));
    assert!(replay.p99_us > 0.0 && replay.p99_us_before > Some(0.0), "{replay:?}");
    assert_eq!(replay.examples.len(), 5);
    let example = &replay.examples[0];
    assert_eq!((example.call, example.before.as_str()), (CallId(1), "forward to docs"));
    assert!(example.after.starts_with("reject: rrr"), "{example:?}");
    let events = bench.events.lock().unwrap();
    let last = events.last().expect("an event");
    assert!(last.detail.ends_with("it decides 150 of the last 450 calls otherwise"), "{last:?}");
}

#[test]
fn a_build_of_other_bytes_that_decides_alike_changes_nothing() {
    let bench = replaced("nothing", &altered(guest("nothing"), 1));
    let replay = bench.only().replay.expect("a report");
    assert_eq!((replay.compared, replay.changed, replay.examples.len()), (450, 0, 0));
}

#[test]
fn a_build_that_faults_on_a_recorded_call_stays_out() {
    for (after, words) in [
        (
            "route-trap",
            "asked again about the recorded call 0000000000000001 (`search` of `docs`): it trapped",
        ),
        ("pick-trap", "it trapped"),
        ("route-loop", "it took longer than 5 ms"),
        ("bad-service", "it answered nonsense"),
        ("compile-trap", "asked for a plan of `docs`: it trapped"),
        ("plan-short", "asked for a plan of `docs`: it answered nonsense"),
    ] {
        let bench = replaced("nothing", &guest(after));
        let status = bench.only();
        assert_eq!((status.state, status.generation, status.faults), (PluginState::Loaded, 1, 0), "{after}");
        let refused = status.refused.expect("the new build was refused");
        assert!(refused.reason.contains(words), "{after}: {}", refused.reason);
        assert_eq!(bench.kinds_of_events(), ["plugin_loaded", "plugin_refused"]);
        assert!(!bench.plugins.reload(SETTLED).1, "it is not tried again");
    }
}

#[test]
fn a_build_that_mends_one_that_faults_is_compared_with_it_on_all_calls() {
    let after_of = |before: &str| {
        let bench = Bench::recorded(Arc::new(recording));
        bench.put("guest.wasm", &guest(before));
        bench.plugins.reload(SETTLED);
        bench.put("guest.wasm", &guest("nothing"));
        assert!(bench.plugins.reload(SETTLED).1);
        bench.only().replay.expect("a report")
    };
    let mended = after_of("trap-at-times");
    // Three of 150 routes trapped; nothing else is another.
    assert_eq!((mended.compared, mended.changed, mended.uncompared), (450, 3, 0));
    assert_eq!((mended.examples[0].call, mended.examples[0].after.as_str()), (CallId(40), "forward to docs"));
    assert!(mended.examples[0].before.starts_with("it trapped"), "{mended:?}");

    let mended = after_of("route-trap");
    // It is not renewed for ever: its routes are counted instead.
    assert_eq!((mended.compared, mended.changed, mended.uncompared), (306, 6, 144));
    let mended = after_of("compile-trap");
    assert_eq!((mended.compared, mended.changed, mended.uncompared), (300, 0, 150));
}

#[test]
fn a_build_that_was_kept_out_is_looked_at_again_once_its_file_was_taken_away() {
    let bench = replaced("nothing", &guest("route-trap"));
    assert!(bench.only().refused.is_some());
    bench.remove("guest.wasm");
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", &guest("route-trap"));
    assert!(bench.plugins.reload(SETTLED).1, "as a first build it is of use for other calls");
    assert!(bench.only().replay.is_some_and(|replay| replay.fault.is_some()));
}

#[test]
fn a_build_that_is_slower_than_its_budget_stays_out() {
    let bench = replaced("nothing", &guest("route-dawdle"));
    let status = bench.only();
    assert_eq!(status.generation, 1);
    let reason = status.refused.expect("the new build was refused").reason;
    assert!(
        reason.starts_with("over its budget: 99 of 100 answers of `route` about 130 recorded"),
        "{reason}"
    );
    assert!(reason.ends_with("and 1000 µs are allowed"), "{reason}");
}

#[test]
fn calls_that_another_plan_gives_to_another_member_are_counted() {
    let bench = replaced("nothing", &guest("plan"));
    let replay = bench.only().replay.expect("a report");
    assert_eq!((replay.compared, replay.changed), (450, 150));
    let example = &replay.examples[0];
    // The second of two has all the weight.
    assert_eq!(
        (example.before.as_str(), example.after.as_str()),
        ("left to the next", "docs-1"),
        "{example:?}"
    );
}

#[test]
fn a_first_build_that_faults_on_a_recorded_call_says_so_and_decides_the_others() {
    for (behaviour, words) in [
        (
            "route-trap",
            "asked again about the recorded call 0000000000000001 (`search` of `docs`): it trapped",
        ),
        ("compile-trap", "asked for a plan of `docs`: it trapped"),
    ] {
        let bench = Bench::recorded(Arc::new(recording));
        bench.put("guest.wasm", &guest(behaviour));
        assert!(bench.plugins.reload(SETTLED).1, "{behaviour}");
        let status = bench.only();
        assert_eq!((status.state, status.generation, status.faults), (PluginState::Loaded, 1, 0));
        let replay = status.replay.expect("a report");
        let fault = replay.fault.as_deref().expect("the fault");
        assert!(fault.starts_with(words), "{fault}");
        let events = bench.events.lock().unwrap();
        assert!(events.last().is_some_and(|event| event.detail.contains(words)), "{events:?}");
    }
}

#[test]
fn a_first_build_that_is_slower_than_its_budget_stays_out() {
    let bench = Bench::recorded(Arc::new(recording));
    bench.put("guest.wasm", &guest("route-dawdle"));
    bench.plugins.reload(SETTLED);
    let status = bench.only();
    assert_eq!(status.state, PluginState::Refused);
    assert!(status.reason.starts_with("over its budget"), "{}", status.reason);
}

#[test]
fn a_replay_leaves_no_trace_in_what_the_plugin_remembers() {
    let bench = replaced("nothing", &guest("count"));
    assert!(bench.only().replay.expect("a report").changed > 0);
    let (set, _) = bench.plugins.reload(SETTLED);
    let picked = set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask());
    assert_eq!(picked, Ok(Some(Slot(110))), "one pool, one load: as if it had never been asked before");
}
