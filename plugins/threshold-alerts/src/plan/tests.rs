use super::*;

fn plan(json: &str) -> Plan {
    Plan::read(json).unwrap_or_else(|issues| panic!("{issues:?}"))
}

fn sample(plan: &Plan, series: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let want = plan.wants().iter().position(|want| want.series == series).expect("the series is wanted");
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Sample { want: want as u32, labels, value }
}

/// Series, labels, value.
type Value<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

const S: &[(&str, &str)] = &[("service", "s")];
const A: &[(&str, &str)] = &[("service", "s"), ("instance", "a")];
const B: &[(&str, &str)] = &[("service", "s"), ("instance", "b")];

fn evaluate(plan: &Plan, series: &[Value<'_>]) -> Vec<Firing> {
    let samples: Vec<_> =
        series.iter().map(|(series, labels, value)| sample(plan, series, labels, *value)).collect();
    plan.evaluate(&samples)
}

fn rules(plan: &Plan, series: &[Value<'_>]) -> Vec<String> {
    evaluate(plan, series).into_iter().map(|firing| firing.rule).collect()
}

#[test]
fn every_want_is_asked_once_and_none_for_rules_that_are_off() {
    let wants = plan("{}");
    assert_eq!(wants.wants().len(), 10, "{:?}", wants.wants());
    let all = format!(r#"{{"disable": {:?}}}"#, builtin::RULES);
    assert_eq!(plan(&all).wants(), []);
}

#[test]
fn a_service_without_available_instances_is_critical() {
    let series =
        [("meshwright_service_instances_available", S, 0.0), ("meshwright_service_instances", S, 3.0)];
    let firing = &evaluate(&plan("{}"), &series)[0];
    assert_eq!((firing.severity, firing.threshold, firing.resolve_at), (Severity::Critical, 0.0, 0.5));
    assert_eq!(firing.title, "service `s` has no available instance");
    assert_eq!(firing.detail, "0 of 3 instances available");
    assert!(rules(&plan("{}"), &[("meshwright_service_instances_available", S, 1.0)]).is_empty());
}

#[test]
fn instances_that_are_taken_out_of_use_are_not_missed_and_named() {
    let detail = |all: f64, draining: f64| {
        let series = [
            ("meshwright_service_instances_available", S, 0.0),
            ("meshwright_service_instances", S, all),
            ("meshwright_service_instances_draining", S, draining),
        ];
        evaluate(&plan("{}"), &series)[0].detail.clone()
    };
    assert_eq!(detail(2.0, 2.0), "all of its 2 instances are taken out of use");
    assert_eq!(detail(3.0, 1.0), "0 of 2 instances available, 1 more taken out of use");
    let plan = plan(r#"{"thresholds": {"available_instances": 1}}"#);
    let series = [
        ("meshwright_service_instances_available", S, 1.0),
        ("meshwright_service_instances", S, 2.0),
        ("meshwright_service_instances_draining", S, 1.0),
    ];
    assert_eq!(rules(&plan, &series), [""; 0], "all that should be there is there");
}

#[test]
fn a_raised_minimum_spares_services_that_are_complete() {
    let plan = plan(r#"{"thresholds": {"available_instances": 1}}"#);
    let available = ("meshwright_service_instances_available", S, 1.0);
    assert!(rules(&plan, &[available, ("meshwright_service_instances", S, 1.0)]).is_empty());
    assert_eq!(rules(&plan, &[available, ("meshwright_service_instances", S, 2.0)]), ["service-unavailable"]);
}

#[test]
fn an_instance_that_is_down_is_not_called_unhealthy_too() {
    let series = [
        ("meshwright_instance_up", A, 0.0),
        ("meshwright_instance_health_score", A, 0.0),
        ("meshwright_instance_probe_failures", A, 4.0),
        ("meshwright_instance_up", B, 1.0),
        ("meshwright_instance_health_score", B, 52.0),
    ];
    let firing = evaluate(&plan("{}"), &series);
    assert_eq!(firing.len(), 2);
    assert_eq!(firing[0].title, "instance `a` of `s` is down");
    assert_eq!(firing[0].detail, "4 probes in a row failed");
    assert_eq!(
        (firing[1].rule.as_str(), firing[1].threshold, firing[1].resolve_at),
        ("instance-unhealthy", 50.0, 55.0)
    );
    assert_eq!(firing[1].labels[1].1, "b");
}

#[test]
fn failures_are_a_ratio_of_the_whole_service_with_enough_calls() {
    let series = |calls: f64, failures: f64| {
        evaluate(
            &plan("{}"),
            &[
                ("meshwright_calls_total", A, calls),
                ("meshwright_calls_total", B, calls),
                ("meshwright_call_failures_total", A, failures),
                ("meshwright_call_failures_total", B, 0.0),
            ],
        )
    };
    let firing = &series(5.0, 1.0)[0];
    assert_eq!((firing.rule.as_str(), firing.value, firing.resolve_at), ("calls-failing", 0.1, 0.025));
    assert_eq!(firing.detail, "10 % of 10 calls/s failed over 60 s, limit 5 %, most of them at `a`");
    assert_eq!(series(5.0, 0.25).len(), 1, "held between its two thresholds");
    assert!(series(5.0, 0.2).is_empty());
    assert!(series(0.04, 0.04).is_empty(), "too few calls");
    assert!(series(0.0, 0.0).is_empty(), "no calls");
}

#[test]
fn slowness_needs_calls() {
    let slow = ("meshwright_instance_latency_seconds", A, 2.5);
    assert!(rules(&plan("{}"), &[slow]).is_empty());
    assert_eq!(rules(&plan("{}"), &[slow, ("meshwright_calls_total", A, 0.01)]), ["instance-slow"]);
    let patient = plan(r#"{"thresholds": {"latency_s": 5}}"#);
    assert!(rules(&patient, &[slow, ("meshwright_calls_total", A, 0.01)]).is_empty());
}

#[test]
fn a_single_fault_of_a_plugin_is_told() {
    let plugin = &[("plugin", "p")][..];
    let firing = &evaluate(&plan("{}"), &[("meshwright_plugin_faults_total", plugin, 1.0)])[0];
    assert_eq!((firing.value, firing.threshold), (1.0, 1.0));
    assert_eq!(firing.title, "plugin `p` faults");
    assert!(rules(&plan("{}"), &[("meshwright_plugin_faults_total", plugin, 0.0)]).is_empty());
}

#[test]
fn values_that_are_not_finite_say_nothing() {
    assert!(rules(&plan("{}"), &[("meshwright_instance_health_score", A, f64::NAN)]).is_empty());
}

#[test]
fn custom_rules_hold_up_to_where_they_resolve() {
    let plan = plan(
        r#"{"rules": [
            {"name": "deep", "series": "queue", "aggregate": "p95", "window_s": 30, "above": 10, "resolve_at": 6,
             "for_s": 20, "severity": "error"},
            {"name": "idle", "series": "calls", "aggregate": "rate", "below": 1}
        ]}"#,
    );
    assert_eq!(rules(&plan, &[("queue", S, 6.0), ("calls", S, 1.1)]), ["deep"]);
    assert_eq!(rules(&plan, &[("queue", S, 5.9), ("calls", S, 1.0)]), ["idle"]);
    let deep = &evaluate(&plan, &[("queue", S, 12.3456)])[0];
    assert_eq!(deep.title, "deep: queue is 12.346");
    assert_eq!(deep.detail, "p95 over 30 s, limit 10, resolves at 6");
    assert_eq!((deep.for_s, deep.severity), (20, Severity::Error));
    let idle = &evaluate(&plan, &[("calls", S, 0.5)])[0];
    assert!(idle.resolve_at > idle.threshold, "a lower bound, as the contract tells one");
}

#[test]
fn each_fault_is_told_with_its_place() {
    let cases = [
        (r#"{"disable": ["slow"]}"#, "/disable/0"),
        (r#"{"thresholds": {"latency": 5}}"#, "/thresholds/latency"),
        (r#"{"thresholds": {"failure_ratio": 5}}"#, "/thresholds/failure_ratio"),
        (r#"{"rules": [{"name": "a", "series": "x"}]}"#, "/rules/0"),
        (r#"{"rules": [{"name": "a", "series": "x", "above": 1, "below": 2}]}"#, "/rules/0"),
        (r#"{"rules": [{"name": "a", "series": "x{y}", "above": 1}]}"#, "/rules/0/series"),
        (r#"{"rules": [{"name": "a", "series": "x", "above": 1, "resolve_at": 2}]}"#, "/rules/0/resolve_at"),
        (r#"{"rules": [{"name": "a", "series": "x", "below": 1, "resolve_at": 1}]}"#, "/rules/0/resolve_at"),
        (
            r#"{"rules": [{"name": "a", "series": "x", "above": 1, "aggregate": "avg"}]}"#,
            "/rules/0/aggregate",
        ),
        (r#"{"rules": [{"name": "a", "series": "x", "above": 1, "window_s": 601}]}"#, "/rules/0/window_s"),
        (r#"{"rules": [{"name": "instance-down", "series": "x", "above": 1}]}"#, "/rules/0/name"),
    ];
    for (json, path) in cases {
        let issues = Plan::read(json).expect_err("must be refused");
        let places: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(places, [path], "{json}: {issues:?}");
    }
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
