use super::*;

const HOUR_MS: u64 = 60 * MINUTE_MS;
/// 2026-01-02 00:00 UTC.
const FRIDAY_MS: u64 = 1_767_312_000_000;

fn hours(json: &str) -> Hours {
    Hours::read(json).unwrap_or_else(|issues| panic!("{issues:?}"))
}

#[test]
fn without_tools_every_call_passes() {
    assert_eq!(hours("{}").closed_ms("delete_repo", FRIDAY_MS), None);
}

#[test]
fn the_wait_ends_when_the_tools_open() {
    let hours = hours(r#"{"tools": ["delete_*"], "opens": "08:30", "closes": "17:00"}"#);
    let wait = |at_ms| hours.closed_ms("delete_repo", at_ms).map(u64::from);
    assert_eq!(wait(FRIDAY_MS), Some(8 * HOUR_MS + 30 * MINUTE_MS));
    assert_eq!(wait(FRIDAY_MS + 8 * HOUR_MS + 30 * MINUTE_MS), None);
    assert_eq!(wait(FRIDAY_MS + 17 * HOUR_MS - 1), None);
    assert_eq!(wait(FRIDAY_MS + 17 * HOUR_MS), Some((7 + 48 + 8) * HOUR_MS + 30 * MINUTE_MS));
}

#[test]
fn a_single_day_a_week_is_waited_for() {
    let hours = hours(r#"{"tools": "*", "days": "fri", "opens": "00:00", "closes": "01:00"}"#);
    assert_eq!(hours.closed_ms("x", FRIDAY_MS), None);
    let wait = hours.closed_ms("x", FRIDAY_MS + HOUR_MS).map(u64::from);
    assert_eq!(wait, Some(7 * 24 * HOUR_MS - HOUR_MS));
}

#[test]
fn tools_can_be_open_around_the_clock() {
    let hours = hours(r#"{"tools": "*", "days": ["fri"], "opens": "00:00", "closes": "24:00"}"#);
    assert_eq!(hours.closed_ms("x", FRIDAY_MS + 24 * HOUR_MS - 1), None);
    assert!(hours.closed_ms("x", FRIDAY_MS + 24 * HOUR_MS).is_some());
}

#[test]
fn each_fault_is_told_with_its_place() {
    for (json, path) in [
        (r#"{"tools": 5}"#, "/tools"),
        (r#"{"days": []}"#, "/days"),
        (r#"{"days": ["mon", "friday"]}"#, "/days/1"),
        (r#"{"opens": "8:30"}"#, "/opens"),
        (r#"{"closes": "24:01"}"#, "/closes"),
        (r#"{"opens": "18:00", "closes": "08:00"}"#, ""),
        (r#"{"open": "08:00"}"#, "/open"),
    ] {
        let issues = Hours::read(json).err().expect("must be refused");
        let places: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(places, [path], "{json}: {issues:?}");
    }
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
