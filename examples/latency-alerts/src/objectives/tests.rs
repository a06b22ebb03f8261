use super::*;

fn objectives(json: &str) -> Objectives {
    Objectives::read(json).unwrap_or_else(|issues| panic!("{issues:?}"))
}

fn sample(figure: Figure, service: &str, instance: &str, seconds: f64) -> Sample {
    let labels = vec![("service".into(), service.into()), ("instance".into(), instance.into())];
    Sample { figure, labels, seconds }
}

#[test]
fn a_service_is_as_slow_as_its_slowest_instance() {
    let samples = [
        sample(Figure::Mean, "search", "a", 0.2),
        sample(Figure::Mean, "search", "b", 1.2),
        sample(Figure::P99, "search", "b", 2.0),
    ];
    let alerts = objectives("{}").alerts(&samples);
    assert_eq!(alerts.len(), 1);
    assert_eq!((alerts[0].figure, alerts[0].slowest.as_str(), alerts[0].seconds), (Figure::Mean, "b", 1.2));
}

#[test]
fn each_service_can_have_its_own_objectives() {
    let objectives = objectives(
        r#"{"mean_ms": 100, "services": [{"service": "report", "mean_ms": 30000}, {"service": "x", "p99_ms": 50}]}"#,
    );
    let slow = |figure, service| objectives.alerts(&[sample(figure, service, "a", 0.2)]).len();
    assert_eq!(slow(Figure::Mean, "search"), 1);
    assert_eq!(slow(Figure::Mean, "report"), 0);
    assert_eq!((slow(Figure::Mean, "x"), slow(Figure::P99, "x")), (1, 1), "what is not given is the default");
}

#[test]
fn an_alert_is_held_until_latency_is_well_below_the_objective() {
    let holds = |seconds| !objectives("{}").alerts(&[sample(Figure::P99, "s", "a", seconds)]).is_empty();
    assert!(holds(2.8));
    assert!(!holds(2.6));
}

#[test]
fn each_fault_is_told_with_its_place() {
    for (json, path) in [
        (r#"{"window_s": 5}"#, "/window_s"),
        (r#"{"mean_ms": "fast"}"#, "/mean_ms"),
        (r#"{"services": [{"mean_ms": 5}]}"#, "/services/0/service"),
        (r#"{"services": [{"service": "a", "p95_ms": 5}]}"#, "/services/0/p95_ms"),
    ] {
        let issues = Objectives::read(json).err().expect("must be refused");
        let places: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(places, [path], "{json}: {issues:?}");
    }
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
