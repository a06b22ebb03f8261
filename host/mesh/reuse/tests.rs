use std::time::Duration;

use super::*;
use crate::mesh::ids::CallId;
use crate::mesh::time::Wall;
use crate::mesh::verdict::{Reuse, Verdict};

fn call<'a>(service: &'a str, tool: &'a str, client: &'a str, at_s: u64) -> CallFacts<'a> {
    CallFacts {
        id: CallId(1),
        arrived: Wall::from_millis(0),
        now: Mono::from_secs(at_s),
        random: 0,
        affinity: 7,
        service,
        tool,
        method: "tools/call",
        client,
        size: 10,
        time_left: Duration::from_secs(1),
        arguments: b"{}",
    }
}

fn decision(why: &str, vary: Vary, ttl_s: u64) -> Arc<Decision> {
    let reuse = Some(Reuse { ttl: Duration::from_secs(ttl_s), vary });
    Arc::new(Decision { verdict: Verdict::Pass, why: why.into(), reuse })
}

fn why(found: Option<Arc<Decision>>) -> Option<String> {
    found.map(|decision| decision.why.to_string())
}

#[test]
fn calls_share_a_decision_when_all_that_it_varies_by_is_the_same() {
    let mut reused = Reused::default();
    let by_tool = Vary { tool: true, ..Vary::default() };
    reused.put(&call("s", "t", "x", 0), 1, &decision("t", by_tool, 10));
    assert_eq!(why(reused.get(&call("s", "t", "y", 1), 1)).as_deref(), Some("t"));
    assert_eq!(why(reused.get(&call("s", "u", "x", 1), 1)), None);
    assert_eq!(why(reused.get(&call("z", "t", "x", 1), 1)), None);
    // Another tool of the same service may be decided on other terms.
    let by_client = Vary { tool: true, client: true, ..Vary::default() };
    reused.put(&call("s", "u", "x", 1), 1, &decision("u of x", by_client, 10));
    assert_eq!(why(reused.get(&call("s", "u", "x", 2), 1)).as_deref(), Some("u of x"));
    assert_eq!(why(reused.get(&call("s", "u", "y", 2), 1)), None);
    assert_eq!(why(reused.get(&call("s", "t", "y", 2), 1)).as_deref(), Some("t"));
}

#[test]
fn a_decision_ends_with_its_time_and_with_the_catalogue() {
    let mut reused = Reused::default();
    reused.put(&call("s", "t", "x", 0), 1, &decision("a", Vary::default(), 10));
    assert!(reused.get(&call("s", "t", "x", 9), 1).is_some());
    assert!(reused.get(&call("s", "t", "x", 10), 1).is_none());
    assert!(reused.get(&call("s", "t", "x", 1), 2).is_none());
    reused.put(&call("s", "t", "x", 1), 2, &decision("b", Vary::default(), 10));
    assert_eq!(why(reused.get(&call("s", "t", "x", 2), 2)).as_deref(), Some("b"));
    // A call of an older snapshot neither finds nor changes what holds now.
    assert!(reused.get(&call("s", "t", "x", 2), 1).is_none());
    reused.put(&call("s", "t", "x", 2), 1, &decision("c", Vary::default(), 10));
    assert_eq!(why(reused.get(&call("s", "t", "x", 3), 2)).as_deref(), Some("b"));
}

#[test]
fn what_may_not_be_taken_again_is_not_remembered() {
    let mut reused = Reused::default();
    reused.put(&call("s", "t", "x", 0), 0, &decision("a", Vary::default(), 0));
    let once = Decision { verdict: Verdict::Pass, why: "b".into(), reuse: None };
    reused.put(&call("s", "t", "x", 0), 0, &Arc::new(once));
    assert!(reused.get(&call("s", "t", "x", 0), 0).is_none());
}

#[test]
fn a_flood_of_different_calls_takes_bounded_room() {
    let mut reused = Reused::default();
    let vary = Vary { client: true, ..Vary::default() };
    let clients: Vec<String> = (0..5 * DECISIONS_MAX).map(|n| n.to_string()).collect();
    for client in &clients {
        reused.put(&call("s", "t", client, 0), 1, &decision(client, vary, 10));
        assert!(reused.decisions.len() <= DECISIONS_MAX);
        assert_eq!(why(reused.get(&call("s", "t", client, 0), 1)).as_ref(), Some(client));
    }
}
