use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::mesh::ids::CallId;
use crate::mesh::time::Wall;

fn call<'a>(tool: &'a str, client: &'a str, size: u32, at_s: u64) -> CallFacts<'a> {
    CallFacts {
        id: CallId(1),
        arrived: Wall::from_millis(0),
        now: Mono::from_secs(at_s),
        random: at_s,
        affinity: at_s,
        service: "s",
        tool,
        method: "tools/call",
        client,
        size,
        time_left: Duration::from_secs(1),
        arguments: b"{}",
    }
}

#[test]
fn an_input_that_crashed_twice_is_skipped_and_others_are_not() {
    let mut crashes = Crashes::default();
    let first = crashes.crash(&call("t", "c", 100, 1));
    assert_eq!(first, Crash { strikes: true, skips: None });
    assert!(!crashes.skips_any());
    let second = crashes.crash(&call("t", "c", 70, 2));
    assert_eq!(second, Crash { strikes: true, skips: Some(Scope::Input) }, "of about the same size");
    assert!(crashes.skips_any());
    assert_eq!(crashes.course(&call("t", "c", 127, 3)), Course::Skip);
    for other in [call("u", "c", 100, 3), call("t", "d", 100, 3), call("t", "c", 128, 3)] {
        assert_eq!(crashes.course(&other), Course::Ask, "{other:?}");
    }
    let elsewhere = CallFacts { service: "z", ..call("t", "c", 100, 3) };
    assert_eq!(crashes.course(&elsewhere), Course::Ask);
    let otherwise = CallFacts { method: "prompts/get", ..call("t", "c", 100, 3) };
    assert_eq!(crashes.course(&otherwise), Course::Ask);
}

#[test]
fn a_tool_that_crashes_for_every_client_is_skipped_for_all() {
    let mut crashes = Crashes::default();
    let said = ["a", "b", "c", "d"].map(|client| crashes.crash(&call("t", client, 100, 1)));
    assert_eq!(said.map(|crash| crash.strikes), [true, true, false, false]);
    assert_eq!(said.map(|crash| crash.skips), [None, None, None, Some(Scope::Tool)]);
    assert_eq!(crashes.course(&call("t", "e", 9_999, 2)), Course::Skip);
    assert_eq!(crashes.course(&call("u", "a", 100, 2)), Course::Ask);
}

#[test]
fn crashes_that_were_under_way_on_other_workers_change_nothing() {
    let mut crashes = Crashes::default();
    let said = [(); 16].map(|()| crashes.crash(&call("t", "c", 100, 1)));
    assert_eq!(said.iter().filter(|crash| crash.strikes).count(), 2);
    assert_eq!(said.iter().filter(|crash| crash.skips.is_some()).count(), 1);
    assert_eq!(crashes.course(&call("t", "d", 100, 1)), Course::Ask, "only one input is to blame");
}

#[test]
fn after_five_minutes_one_call_tries_again() {
    let mut crashes = Crashes::default();
    for _ in 0..2 {
        crashes.crash(&call("t", "c", 100, 10));
    }
    assert_eq!(crashes.course(&call("t", "c", 100, 309)), Course::Skip);
    assert!(!crashes.claims(&call("t", "c", 100, 309)));
    assert_eq!(crashes.course(&call("t", "c", 100, 310)), Course::Retry);
    assert!(crashes.claims(&call("t", "c", 100, 310)));
    assert!(!crashes.claims(&call("t", "c", 100, 310)), "one only");
    crashes.give_back(&call("t", "c", 100, 310));
    assert!(crashes.claims(&call("t", "c", 100, 310)), "unless that one was not asked about");
    assert_eq!(crashes.course(&call("t", "c", 100, 310)), Course::Skip);
    assert_eq!(crashes.crash(&call("t", "c", 100, 311)), Crash { strikes: false, skips: None });
    assert_eq!(crashes.course(&call("t", "c", 100, 610)), Course::Skip, "from the last crash on");
    assert!(crashes.claims(&call("t", "c", 100, 611)));
    crashes.answered(&call("t", "c", 100, 611));
    assert_eq!(crashes.course(&call("t", "c", 100, 611)), Course::Ask);
    assert!(!crashes.skips_any());
}

#[test]
fn the_inputs_that_crashed_longest_ago_are_forgotten() {
    let mut crashes = Crashes::default();
    let tools: Vec<String> = (0..=ROWS_MAX).map(|number| format!("t{number}")).collect();
    for (at_s, tool) in (0..).zip(&tools) {
        for _ in 0..2 {
            crashes.crash(&call(tool, "c", 100, at_s));
        }
    }
    let now = 257;
    assert_eq!(crashes.course(&call(&tools[0], "c", 100, now)), Course::Ask);
    assert_eq!(crashes.course(&call(&tools[1], "c", 100, now)), Course::Skip);
    assert_eq!(crashes.course(&call(&tools[ROWS_MAX], "c", 100, now)), Course::Skip);
}

const TOOLS: [&str; 4] = ["a", "b", "c", "d"];
const CLIENTS: [&str; 3] = ["x", "y", "z"];

proptest! {
    /// A router that crashes on some inputs, always: who is asked, and what is held against it.
    #[test]
    fn no_input_is_asked_more_than_twice_and_no_tool_strikes_more_than_twice_in_five_minutes(
        poison in proptest::collection::hash_set((0..4usize, 0..3usize), 0..8),
        calls in proptest::collection::vec((0..4usize, 0..3usize), 1..200),
    ) {
        let mut crashes = Crashes::default();
        let (mut asked, mut strikes) = (HashMap::new(), HashMap::new());
        for (tool, client) in calls {
            let call = call(TOOLS[tool], CLIENTS[client], 100, 299);
            let poisonous = poison.contains(&(tool, client));
            match crashes.course(&call) {
                Course::Skip => {
                    let of_tool: u32 = (0..3).filter_map(|client| asked.get(&(tool, client))).sum();
                    prop_assert!(asked.get(&(tool, client)) == Some(&2) || of_tool >= 4);
                    continue;
                }
                Course::Retry => prop_assert!(false, "no time has passed"),
                Course::Ask => {}
            }
            if poisonous {
                *asked.entry((tool, client)).or_insert(0u32) += 1;
                let crash = crashes.crash(&call);
                *strikes.entry(tool).or_insert(0u32) += u32::from(crash.strikes);
            }
        }
        prop_assert!(asked.values().all(|times| *times <= 2));
        prop_assert!(strikes.values().all(|times| *times <= 2));
        for (number, tool) in TOOLS.into_iter().enumerate() {
            if poison.iter().all(|(poisonous, _)| *poisonous != number) {
                for client in CLIENTS {
                    prop_assert_eq!(crashes.course(&call(tool, client, 100, 299)), Course::Ask);
                }
            }
        }
    }

    #[test]
    fn whatever_crashes_the_tables_stay_small(calls in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..2_000)) {
        let mut crashes = Crashes::default();
        for (tool, at_s) in calls {
            crashes.crash(&call(&tool.to_string(), "c", 1, at_s.into()));
        }
        prop_assert!(crashes.inputs.0.len() <= ROWS_MAX && crashes.tools.0.len() <= ROWS_MAX);
    }
}
