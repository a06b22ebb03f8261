use super::*;

fn faults<T: std::fmt::Debug>(json: &str, build: impl FnOnce(&mut Fields<'_>) -> T) -> Vec<(String, String)> {
    read(json, build).expect_err("must be refused").into_iter().map(|i| (i.path, i.message)).collect()
}

#[test]
fn an_empty_object_leaves_everything_at_its_default() {
    let read = read("{}", |f| (f.boolean("a"), f.integer("b", 0..=9), f.text("c"), f.texts("d")));
    assert_eq!(read, Ok((None, None, None, None)));
}

#[test]
fn what_is_not_an_object_is_refused_as_a_whole() {
    assert_eq!(
        faults("[]", |_| ()),
        [("".into(), "The configuration must be an object, not a list.".into())]
    );
    assert!(faults("{", |_| ())[0].1.starts_with("The configuration is not JSON: EOF"));
}

#[test]
fn unknown_settings_are_faults_that_list_the_known_ones() {
    let found = faults(r#"{"zone":"a","zome":1,"a/b~":2}"#, |f| (f.text("zone"), f.boolean("spill")));
    assert_eq!(
        found[0],
        ("/a~1b~0".into(), "There is no setting `a/b~` here; there are `zone`, `spill`.".into())
    );
    assert_eq!(found[1].0, "/zome");
}

#[test]
fn every_fault_is_reported_with_its_place() {
    let json = r#"{"rules":[{"n":-1},{"n":3},7,{"when":{"tool":["x",2]}}],"mode":"slow"}"#;
    let found = faults(json, |f| {
        let rules = f.objects("rules", |rule| {
            rule.object("when", |when| when.texts("tool"));
            rule.integer("n", 0..=5)
        });
        (rules, f.choice("mode", &[("fast", 1), ("safe", 2)]))
    });
    assert_eq!(
        found,
        [
            ("/rules/0/n".into(), "This must be a whole number from 0 to 5, not -1.".into()),
            ("/rules/2".into(), "This must be an object, not 7.".into()),
            ("/rules/3/when/tool/1".into(), "This must be a text, not 2.".into()),
            ("/mode".into(), "This must be one of `fast`, `safe`, not the text `slow`.".to_owned()),
        ]
    );
}

#[test]
fn names_are_checked_as_the_host_does() {
    assert_eq!(read(r#"{"s":"ee_monitor.v2"}"#, |f| f.name("s")), Ok(Some("ee_monitor.v2".into())));
    for bad in ["../x", "a b", "-a"] {
        assert_eq!(faults(&format!(r#"{{"s":"{bad}"}}"#), |f| f.name("s"))[0].0, "/s");
    }
}

#[test]
fn a_missing_setting_is_told_from_a_faulty_one() {
    let ask = |f: &mut Fields<'_>| f.required("n", |f, key| f.integer(key, 1..=2));
    assert_eq!(faults("{}", ask), [("/n".into(), "The setting `n` is missing.".into())]);
    assert_eq!(faults(r#"{"n":5}"#, ask).len(), 1);
}
