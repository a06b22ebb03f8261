//! Switching plugins off and on, and trying again what was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::replay::recording;
use super::support::{Bench, SETTLED, altered, budgeted, config, guest, name, patched};
use crate::mesh::ruling::{Grant, Ruling};
use crate::mesh::story::Recording;
use crate::plugin::{PluginConfig, Settings};
use crate::policy::status::PluginState;

const MINUTE: Duration = Duration::from_secs(60);
const ROLLED_BACK: &str = "rolled back: somebody asked for it";

fn newer() -> Vec<u8> {
    patched(&guest("nothing"), "version = \"1.0.0\"", "version = \"1.4.0\"")
}

fn switch(bench: &Bench, enabled: bool) {
    bench.plugins.rule(Ruling::Switched { plugin: name("guest"), enabled });
    bench.plugins.reload(SETTLED);
}

fn rolled_back(bench: &Bench) {
    bench.put("guest.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", &newer());
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().version, "1.4.0");
    bench.plugins.roll_back("guest").unwrap();
    bench.plugins.reload(SETTLED);
}

#[test]
fn switching_a_plugin_off_and_on_brings_back_what_was_in_force_and_not_what_was_rolled_back() {
    let bench = Bench::tried(MINUTE);
    rolled_back(&bench);
    switch(&bench, false);
    let off = bench.only();
    assert_eq!((off.state, off.version.as_str()), (PluginState::Disabled, "1.0.0"), "it names what ran");
    let detail = bench.events.lock().unwrap().last().expect("an event").detail.clone();
    assert!(detail.starts_with("plugin `guest` 1.0.0 is disabled: switched off"), "{detail}");

    switch(&bench, true);
    let on = bench.only();
    assert_eq!((on.state, on.version.as_str(), on.probation), (PluginState::Loaded, "1.0.0", None));
    assert_eq!(on.size_bytes, guest("nothing").len());
    assert_eq!(on.refused.expect("it is still shown").reason, ROLLED_BACK);
    assert!(!bench.plugins.reload(SETTLED).1, "and so it stays");
    switch(&bench, true);
    assert_eq!((bench.only().version.as_str(), bench.only().refused), ("1.4.0", None), "now it is meant");
}

#[test]
fn a_plugin_whose_file_is_broken_is_switched_off_and_on_as_what_it_was() {
    let bench = Bench::tried(MINUTE);
    bench.put("guest.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", b"garbage");
    bench.plugins.reload(SETTLED);
    let mut settings = config("{}");
    settings.enabled = false;
    bench.plugins.set_config([("guest".to_owned(), settings)].into());
    bench.plugins.reload(SETTLED);
    let off = bench.only();
    assert_eq!((off.state, off.version.as_str()), (PluginState::Disabled, "1.0.0"));
    assert_eq!(off.refused.expect("the broken file").reason, "it is not WebAssembly");
    bench.plugins.set_config([].into());
    bench.plugins.reload(SETTLED);
    assert_eq!((bench.only().state, bench.only().version.as_str()), (PluginState::Loaded, "1.0.0"));
}

#[test]
fn what_kept_well_stands_in_when_a_plugin_is_switched_on_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let settings =
        |probation| Settings { workers: 1, data: Some(data.path().into()), probation, ..Settings::default() };
    let first = Bench::of_settings(settings(Duration::from_millis(1)), &[]);
    first.put("guest.wasm", &guest("nothing"));
    first.plugins.reload(SETTLED);
    super::support::until("the end of the probation", || first.plugins.has_probation_to_end().then_some(()));
    first.plugins.reload(SETTLED);
    let second = Bench::of_settings(settings(MINUTE), &[]);
    rolled_back(&second);
    switch(&second, false);

    let off = Ruling::Switched { plugin: name("guest"), enabled: false };
    let third = Bench::of_settings(Settings { rulings: vec![off], ..settings(MINUTE) }, &[]);
    third.put("guest.wasm", &newer());
    third.plugins.reload(SETTLED);
    assert_eq!(third.only().state, PluginState::Disabled);
    switch(&third, true);
    let on = third.only();
    assert_eq!((on.state, on.version.as_str()), (PluginState::Loaded, "1.0.0"), "{on:?}");
    assert_eq!(on.refused.expect("it is still shown").reason, ROLLED_BACK);
}

#[test]
fn a_second_refusal_is_said_like_the_first_one() {
    let has_calls = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&has_calls);
    let empty = || Recording { calls: Vec::new(), ..recording() };
    let settings = Settings {
        workers: 1,
        probation: MINUTE,
        recorder: Some(Arc::new(move || if seen.load(Ordering::Relaxed) { recording() } else { empty() })),
        ..Settings::default()
    };
    let bench = Bench::of_settings(settings, &[]);
    bench.put("guest.wasm", &altered(guest("nothing"), 1));
    bench.plugins.reload(SETTLED);
    bench.put("guest.wasm", &guest("route-trap"));
    assert!(bench.plugins.reload(SETTLED).1, "nothing is recorded that it could be asked about");
    bench.plugins.roll_back("guest").unwrap();
    bench.plugins.reload(SETTLED);
    assert_eq!(bench.only().refused.expect("a refusal").reason, ROLLED_BACK);

    has_calls.store(true, Ordering::Relaxed);
    let refusals = || bench.kinds_of_events().into_iter().filter(|kind| *kind == "plugin_refused").count();
    for attempt in 1..3 {
        switch(&bench, true);
        let reason = bench.only().refused.expect("a refusal").reason;
        assert!(reason.starts_with("asked again about the recorded call"), "{reason}");
        assert_eq!(refusals(), attempt);
        bench.plugins.reload(SETTLED);
        assert_eq!(refusals(), attempt, "said once");
    }
}

#[test]
fn a_build_that_loses_its_grant_gives_its_place_back_while_the_build_before_is_warm() {
    let bench = Bench::tried(MINUTE);
    let grants = |grants| {
        let settings = PluginConfig { grants, ..config("{}") };
        bench.plugins.set_config([("guest".to_owned(), settings)].into());
        bench.plugins.reload(SETTLED)
    };
    bench.put("guest.wasm", &guest("nothing"));
    grants(vec![Grant::Arguments]);
    bench.put("guest.wasm", &budgeted("nothing", "grants = [\"arguments\"]"));
    bench.plugins.reload(SETTLED);
    assert_eq!((bench.only().generation, bench.only().grants), (2, vec![Grant::Arguments]));
    assert!(grants(Vec::new()).1);
    let status = bench.only();
    assert_eq!((status.state, status.generation), (PluginState::Loaded, 1), "{status:?}");
    assert_eq!(status.pending.expect("it waits again").grants, [Grant::Arguments]);
    assert!(!bench.plugins.reload(SETTLED).1, "and so it stays");
    assert!(grants(vec![Grant::Arguments]).1);
    assert_eq!((bench.only().generation, bench.only().pending), (3, None));
}

#[test]
fn who_must_agree_and_is_absent_is_asked_in_its_place() {
    let bench = Bench::new();
    bench.put("guest.wasm", &guest("nothing"));
    let strict = |order| {
        let settings = config("{}");
        PluginConfig { order, refuse_on_fault: true, ..settings }
    };
    let mut off = strict(Some(1));
    off.enabled = false;
    let all =
        [("late", strict(Some(200))), ("guest", strict(None)), ("early", strict(Some(5))), ("off", off)];
    bench.plugins.set_config(all.into_iter().map(|(name, one)| (name.to_owned(), one)).collect());
    let (set, changed) = bench.plugins.reload(SETTLED);
    let routers: Vec<_> = set.routers.iter().map(|router| router.source().name.to_string()).collect();
    assert!(changed);
    assert_eq!(routers, ["early", "guest", "late"]);
    assert!(!bench.plugins.reload(SETTLED).1, "nothing is new");
}
