//! A build that took another's place is tried out, and gives the place back when it fails.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::support::{Bench, SETTLED, altered, catalog, facts, guest, name, until};
use crate::mesh::ruling::Ruling;
use crate::plugin::{Plugins, Settings};
use crate::policy::PolicySet;
use crate::policy::status::{PluginState, RollbackError};

const MINUTE: Duration = Duration::from_secs(60);

/// With `after` in the place of `nothing`.
fn replaced(after: &str, probation: Duration) -> (Bench, PolicySet) {
    let bench = Bench::tried(probation);
    bench.put("guest.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().probation, None, "there is nothing to go back to");
    bench.put("guest.wasm", &guest(after));
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed && bench.only().generation == 2);
    (bench, set)
}

fn fail_thrice(bench: &Bench, set: &PolicySet) {
    // A place that a fault left empty is filled by another thread.
    until("the third fault", || {
        set.routers[0].route(&facts(), &catalog(1, 1)).ok();
        bench.plugins.status().iter().any(|one| one.faults >= 3).then_some(())
    });
}

/// One run of many over the same folders.
fn run(folder: &TempDir, data: &TempDir, probation: Duration) -> Plugins {
    let settings = Settings {
        folder: Some(folder.path().into()),
        workers: 1,
        data: Some(data.path().into()),
        probation,
        ..Settings::default()
    };
    Plugins::with_embedded(settings, Arc::new(|_| {}), &[]).unwrap()
}

#[test]
fn three_faults_bring_the_build_before_back() {
    let (bench, set) = replaced("route-trap", MINUTE);
    let probation = bench.only().probation.expect("it is on probation");
    assert_eq!((probation.previous_version.as_str(), probation.previous_generation), ("1.0.0", 1));
    assert!(!bench.plugins.has_probation_to_end());
    fail_thrice(&bench, &set);
    assert!(bench.plugins.has_probation_to_end());

    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed);
    assert_eq!(set.routers[0].source().generation, 1);
    assert!(set.routers[0].route(&facts(), &catalog(1, 1)).is_ok(), "it had stayed warm");
    let status = bench.only();
    assert_eq!((status.state, status.generation, status.probation), (PluginState::Loaded, 1, None));
    let refused = status.refused.expect("the build that failed");
    assert!(refused.reason.starts_with("rolled back: 3 faults"), "{}", refused.reason);
    assert!(refused.reason.contains("it trapped"), "{}", refused.reason);
    let kinds = bench.kinds_of_events();
    assert_eq!(kinds, ["plugin_loaded", "plugin_loaded", "plugin_quarantined", "plugin_rolled_back"]);

    assert!(!bench.plugins.reload(SETTLED).1, "the same content is not tried again");
    assert_eq!(
        bench.only().refused.map(|build| build.reason),
        Some(refused.reason),
        "and that is still shown"
    );
    bench.put("guest.wasm", &altered(guest("nothing"), 1));
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!((bench.only().generation, bench.only().refused), (3, None), "other content is");
}

#[test]
fn a_build_that_keeps_well_is_no_longer_tried_out() {
    let (bench, _) = replaced("long-reason", Duration::from_millis(1));
    until("the end of the probation", || bench.plugins.has_probation_to_end().then_some(()));
    assert!(!bench.plugins.reload(SETTLED).1, "nothing changes");
    assert_eq!((bench.only().generation, bench.only().probation), (2, None));
    assert_eq!(bench.plugins.roll_back("guest"), Err(RollbackError::NothingBefore));
}

#[test]
fn a_build_that_is_over_its_budget_gives_its_place_back() {
    let (bench, set) = replaced("route-dawdle", MINUTE);
    // One in eight is timed, and 200 are judged.
    (0..1_600).for_each(|_| drop(set.routers[0].route(&facts(), &catalog(1, 1))));
    assert!(bench.plugins.has_probation_to_end());
    assert!(bench.plugins.reload(SETTLED).1);
    let reason = bench.only().refused.expect("the slow build").reason;
    assert!(
        reason.starts_with("rolled back: over its budget: 99 of 100 answers of `route` took up to "),
        "{reason}"
    );
}

#[test]
fn somebody_can_ask_for_the_build_before() {
    let (bench, _) = replaced("long-reason", MINUTE);
    assert_eq!(bench.plugins.roll_back("nobody"), Err(RollbackError::Unknown));
    assert_eq!(bench.plugins.roll_back("guest"), Ok(()));
    assert!(bench.plugins.reload(SETTLED).1);
    let status = bench.only();
    assert_eq!(status.generation, 1);
    assert_eq!(
        status.refused.map(|build| build.reason).as_deref(),
        Some("rolled back: somebody asked for it")
    );
    assert_eq!(bench.plugins.roll_back("guest"), Err(RollbackError::NothingBefore));
}

#[test]
fn an_embedded_plugin_comes_back_when_the_file_over_it_fails() {
    let embedded: &[u8] = guest("nothing").leak();
    let bench = Bench::tried_over(MINUTE, vec![("guest", embedded)].leak());
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", &guest("route-trap"));
    let (set, _) = bench.plugins.reload(SETTLED);
    fail_thrice(&bench, &set);
    assert!(bench.plugins.reload(SETTLED).1);
    let all = bench.plugins.status();
    let states: Vec<_> = all.iter().map(|one| (one.state, one.generation, one.file.is_some())).collect();
    assert_eq!(states, [(PluginState::Loaded, 1, false), (PluginState::Refused, 0, true)], "{all:?}");
    assert!(all[1].reason.starts_with("rolled back: 3 faults"), "{all:?}");
}

#[test]
fn the_last_build_that_kept_well_stands_in_at_a_start_for_one_that_is_refused() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("guest.wasm");
    let start = || run(&folder, &data, Duration::from_millis(1));
    let first = start();
    fs::write(&file, guest("nothing")).unwrap();
    first.reload(SETTLED);
    until("the end of the probation", || first.has_probation_to_end().then_some(()));
    first.reload(SETTLED);
    drop(first);

    fs::write(&file, guest("self-test-fails")).unwrap();
    let second = start();
    let (set, changed) = second.reload(SETTLED);
    assert!(changed && set.routers.len() == 1);
    assert!(set.routers[0].route(&facts(), &catalog(1, 1)).is_ok());
    let status = second.status().remove(0);
    assert_eq!((status.state, status.generation), (PluginState::Loaded, 1));
    assert!(status.reason.contains("the last build that kept well"), "{}", status.reason);
    assert!(status.refused.is_some_and(|build| build.reason.contains("self-test failed")));
    assert!(!second.reload(SETTLED).1, "it stays");
    fs::write(&file, altered(guest("nothing"), 1)).unwrap();
    assert!(second.reload(SETTLED).1);
    assert_eq!(second.status()[0].reason, "");
    fs::remove_file(&file).unwrap();
    second.reload(SETTLED);
    drop(second);

    fs::write(&file, guest("self-test-fails")).unwrap();
    let third = start();
    third.reload(SETTLED);
    assert_eq!(third.status()[0].state, PluginState::Refused, "what was taken away is forgotten");
}

#[test]
fn what_stands_in_does_so_no_more_once_its_file_holds_the_same_bytes() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("guest.wasm");
    let start = || run(&folder, &data, Duration::from_millis(1));
    let first = start();
    fs::write(&file, guest("nothing")).unwrap();
    first.reload(SETTLED);
    until("the end of the probation", || first.has_probation_to_end().then_some(()));
    first.reload(SETTLED);
    drop(first);

    fs::write(&file, guest("self-test-fails")).unwrap();
    let second = start();
    second.reload(SETTLED);
    second.reload(SETTLED);
    let status = second.status().remove(0);
    assert!(status.reason.contains("kept well") && status.refused.is_some(), "{status:?}");
    fs::write(&file, guest("nothing")).unwrap();
    assert!(!second.reload(SETTLED).1, "nothing changes");
    let status = second.status().remove(0);
    assert_eq!((status.reason.as_str(), status.refused, status.generation), ("", None, 1));
}

#[test]
fn a_build_that_was_rolled_back_is_not_tried_again_at_the_next_start_until_somebody_says_so() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("guest.wasm");
    let start = |probation| run(&folder, &data, probation);
    let bad = altered(guest("nothing"), 1);
    let first = start(MINUTE);
    fs::write(&file, guest("nothing")).unwrap();
    first.reload(SETTLED);
    fs::write(&file, &bad).unwrap();
    first.reload(SETTLED);
    first.roll_back("guest").unwrap();
    first.reload(SETTLED);
    drop(first);

    let second = start(MINUTE);
    let (set, _) = second.reload(SETTLED);
    let status = second.status().remove(0);
    assert_eq!((status.state, set.routers.len()), (PluginState::Refused, 0), "{status:?}");
    assert_eq!(status.reason, "rolled back: somebody asked for it");
    drop(second);

    let third = start(MINUTE);
    third.reload(SETTLED);
    third.rule(Ruling::Switched { plugin: name("guest"), enabled: true });
    assert!(third.reload(SETTLED).1);
    assert_eq!(third.status()[0].state, PluginState::Loaded);
    drop(third);
    let fourth = start(Duration::from_millis(1));
    fourth.reload(SETTLED);
    assert_eq!(fourth.status()[0].state, PluginState::Loaded, "nor is it forgotten");

    // Once it kept well, it is the one to go back to, whatever became of the next.
    until("the end of the probation", || fourth.has_probation_to_end().then_some(()));
    fourth.reload(SETTLED);
    drop(fourth);
    let fifth = start(MINUTE);
    fifth.reload(SETTLED);
    fs::write(&file, altered(guest("nothing"), 2)).unwrap();
    fifth.reload(SETTLED);
    fifth.roll_back("guest").unwrap();
    fifth.reload(SETTLED);
    drop(fifth);
    let sixth = start(MINUTE);
    sixth.reload(SETTLED);
    let status = sixth.status().remove(0);
    assert_eq!(status.state, PluginState::Loaded);
    assert!(status.reason.contains("kept well"), "{}", status.reason);
    assert!(status.refused.is_some_and(|build| build.reason.starts_with("rolled back")));
    fs::remove_file(&file).unwrap();
    sixth.reload(SETTLED);
    fs::write(&file, altered(guest("nothing"), 2)).unwrap();
    sixth.reload(SETTLED);
    assert_eq!(sixth.status()[0].state, PluginState::Loaded, "what was taken away is forgotten");
    sixth.rule(Ruling::Switched { plugin: name("guest"), enabled: true });
    sixth.reload(SETTLED);
    drop(sixth);
    let seventh = start(MINUTE);
    seventh.reload(SETTLED);
    assert_eq!(seventh.status()[0].state, PluginState::Loaded, "also at the next start");
    fs::write(&file, &bad).unwrap();
    seventh.reload(SETTLED);
    seventh.roll_back("guest").unwrap();
    drop(seventh);
    fs::remove_file(&file).unwrap();
    start(MINUTE).reload(SETTLED);
    fs::write(&file, &bad).unwrap();
    let eighth = start(MINUTE);
    eighth.reload(SETTLED);
    assert_eq!(eighth.status()[0].state, PluginState::Loaded, "whenever it was taken away");
}

#[test]
fn a_build_that_was_rolled_back_is_tried_again_once_its_file_was_taken_away() {
    let (bench, _) = replaced("long-reason", MINUTE);
    bench.plugins.roll_back("guest").unwrap();
    bench.plugins.reload(SETTLED);
    fs::rename(bench.path("guest.wasm"), bench.path("renamed.wasm")).unwrap();
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().state, PluginState::Refused, "a renaming takes nothing away");
    bench.remove("renamed.wasm");
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", &guest("long-reason"));
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!((bench.only().state, bench.only().refused), (PluginState::Loaded, None));
}

#[test]
fn what_stands_in_has_the_configuration_with_which_it_kept_well() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = folder.path().join("guest.toml");
    let start = |probation| run(&folder, &data, probation);
    fs::write(folder.path().join("guest.wasm"), guest("nothing")).unwrap();
    fs::write(&settings, "mode = \"good\"\n").unwrap();
    let first = start(Duration::from_millis(1));
    first.reload(SETTLED);
    until("the end of the probation", || first.has_probation_to_end().then_some(()));
    first.reload(SETTLED);
    drop(first);
    let second = start(MINUTE);
    second.reload(SETTLED);
    fs::write(&settings, "mode = \"worse\"\n").unwrap();
    second.reload(SETTLED);
    second.roll_back("guest").unwrap();
    second.reload(SETTLED);
    drop(second);

    let third = start(MINUTE);
    third.reload(SETTLED);
    let status = third.status().remove(0);
    assert_eq!(status.state, PluginState::Loaded, "{status:?}");
    assert!(status.reason.ends_with("kept well is in force, with the configuration it had"), "{status:?}");
    assert!(status.refused.is_some_and(|build| build.reason.starts_with("rolled back")));
    let in_force = third.reloader.lock().unwrap();
    let plugin = &in_force.in_force[&name("guest")].loaded.plugin;
    assert_eq!(plugin.config_for_people(), r#"{"mode":"good"}"#);
}
