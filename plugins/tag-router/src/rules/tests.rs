use super::*;

const CALL: Call<'_> =
    Call { random: 7, affinity: 9, service: "github", tool: "get_issue", method: "tools/call", client: "ci" };

fn rules(json: &str) -> Rules {
    Rules::read(json).unwrap_or_else(|issues| panic!("{issues:?}"))
}

fn service(name: &str, tags: &[&str], healthy: u32) -> Service {
    Service { name: name.into(), tags: tags.iter().map(ToString::to_string).collect(), healthy }
}

fn why<'a>(rules: &'a Rules, call: &Call<'_>) -> &'a str {
    rules.decide(call).map_or("pass", |(why, _)| why)
}

#[test]
fn without_rules_every_call_passes() {
    assert_eq!(why(&rules("{}"), &CALL), "pass");
}

#[test]
fn the_first_rule_that_fits_wins() {
    let rules = rules(
        r#"{"rules": [
            {"name": "other", "when": {"service": "gitlab"}, "reject": {"reason": "no"}},
            {"name": "first", "when": {"service": "git*", "tool": ["x", "get_*"], "client": "ci", "method": "tools/*"},
             "forward": {"tag": "eu", "timeout_ms": 500}},
            {"name": "second", "reject": {"reason": "no"}}
        ]}"#,
    );
    let tag = Some("eu".into());
    let expected = Forward { service: None, tag, tool: None, timeout_ms: Some(500), mirror: None };
    assert_eq!(rules.decide(&CALL), Some(("rule `first`", &Outcome::Forward(expected))));
    assert_eq!(why(&rules, &Call { client: "people", ..CALL }), "rule `second`");
}

#[test]
fn a_service_that_is_not_in_the_catalogue_is_passed_over() {
    let mut rules = rules(
        r#"{"rules": [
            {"name": "away", "forward": {"service": "away"}},
            {"name": "home", "forward": {"service": "home"}}
        ]}"#,
    );
    assert_eq!(why(&rules, &CALL), "rule `away`", "trusted before the first catalogue");
    rules.set_catalog(vec![service("home", &[], 0), service("b", &[], 1)]);
    assert_eq!(why(&rules, &CALL), "rule `home`", "an order holds without healthy instances too");
    rules.set_catalog(vec![]);
    assert_eq!(why(&rules, &CALL), "pass");
}

#[test]
fn an_experiment_is_passed_over_while_nobody_can_take_it() {
    let mut rules =
        rules(r#"{"rules": [{"name": "canary", "permille": 1000, "forward": {"tag": "canary"}}]}"#);
    rules.set_catalog(vec![service("github", &["canary"], 1)]);
    assert_eq!(why(&rules, &CALL), "rule `canary`");
    rules.set_catalog(vec![service("github", &["canary"], 0)]);
    assert_eq!(why(&rules, &CALL), "pass");
    rules.set_catalog(vec![service("github", &["eu"], 1)]);
    assert_eq!(why(&rules, &CALL), "pass");
}

#[test]
fn an_order_for_a_tag_holds_when_nobody_carries_it() {
    let mut rules = rules(r#"{"rules": [{"name": "eu-only", "forward": {"tag": "eu"}}]}"#);
    rules.set_catalog(vec![service("github", &[], 1)]);
    assert_eq!(why(&rules, &CALL), "rule `eu-only`");
}

#[test]
fn a_call_for_an_instance_can_be_forwarded_where_it_is() {
    let mut rules = rules(r#"{"rules": [{"name": "slow", "permille": 1000, "forward": {"timeout_ms": 9}}]}"#);
    rules.set_catalog(vec![service("github", &[], 1)]);
    assert_eq!(why(&rules, &Call { service: "github-1", ..CALL }), "rule `slow`");
}

#[test]
fn configuring_anew_keeps_the_catalogue() {
    let mut known = rules("{}");
    known.set_catalog(vec![]);
    known.replace(rules(r#"{"rules": [{"name": "away", "forward": {"service": "away"}}]}"#));
    assert_eq!(why(&known, &CALL), "pass");
}

#[test]
fn each_fault_is_told_with_its_place() {
    let faults = |json: &str| -> Vec<(String, String)> {
        let issues = Rules::read(json).err().expect("must be refused");
        issues.into_iter().map(|issue| (issue.path, issue.message)).collect()
    };
    let cases = [
        (r#"{"rule": []}"#, "/rule", "There is no setting `rule` here; there are `rules`."),
        (r#"{"rules": [{"forward": {"tag": "a"}}]}"#, "/rules/0/name", "The setting `name` is missing."),
        (r#"{"rules": [{"name": "a"}]}"#, "/rules/0", "A rule needs `forward` or `reject`."),
        (
            r#"{"rules": [{"name": "a", "forward": {"tag": "a"}, "reject": {"reason": "b"}}]}"#,
            "/rules/0",
            "A rule has either `forward` or `reject`, not both.",
        ),
        (
            r#"{"rules": [{"name": "a", "forward": {}}]}"#,
            "/rules/0/forward",
            "This changes nothing; give `service`, `tag`, `tool`, `timeout_ms` or `mirror`.",
        ),
        (
            r#"{"rules": [{"name": "a", "reject": {"reason": "b"}, "permille": 1001}]}"#,
            "/rules/0/permille",
            "This must be a whole number from 0 to 1000, not 1001.",
        ),
        (
            r#"{"rules": [{"name": "a", "reject": {"reason": "b"}, "sticky": true}]}"#,
            "/rules/0/sticky",
            "This has no effect without `permille`.",
        ),
        (
            r#"{"rules": [{"name": "a", "reject": {"reason": "b"}, "when": {"tool": []}}]}"#,
            "/rules/0/when/tool",
            "At least one pattern is needed; leave the setting out to fit everything.",
        ),
        (
            r#"{"rules": [{"name": "a", "reject": {"reason": "b"}}, {"name": "a", "reject": {"reason": "b"}}]}"#,
            "/rules/1/name",
            "Another rule is called `a` too.",
        ),
        (
            r#"{"rules": [{"name": "a", "forward": {"service": "../x"}}]}"#,
            "/rules/0/forward/service",
            "A name consists of letters, digits, `_`, `-` and `.`, and starts with a letter, a digit or `_`.",
        ),
    ];
    for (json, path, message) in cases {
        assert_eq!(faults(json), [(path.to_owned(), message.to_owned())], "{json}");
    }
}

#[test]
fn terms_name_what_decisions_depend_on() {
    let terms = |json: &str, call: &Call<'_>| rules(json).terms(call);
    let none = Terms { tool: false, client: false, affinity: false };
    assert_eq!(terms("{}", &CALL), Some(none));
    let by_tool = r#"{"rules": [{"name": "a", "when": {"tool": "x"}, "reject": {"reason": "b"}}]}"#;
    assert_eq!(terms(by_tool, &CALL), Some(Terms { tool: true, ..none }));
    let by_chance = r#"{"rules": [{"name": "a", "when": {"client": "mallory"}, "permille": 5, "reject": {"reason": "b"}}]}"#;
    assert_eq!(terms(by_chance, &CALL), Some(Terms { client: true, ..none }));
    assert_eq!(terms(by_chance, &Call { client: "mallory", ..CALL }), None, "chance decides");
    let sticky = r#"{"rules": [{"name": "a", "permille": 5, "sticky": true, "reject": {"reason": "b"}}]}"#;
    assert_eq!(terms(sticky, &CALL), Some(Terms { affinity: true, ..none }));
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
