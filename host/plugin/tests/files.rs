//! What comes into force, what does not, and what people are told.

use std::fs;
use std::sync::Arc;

use super::support::{Bench, SETTLED, altered, catalog, config, facts, guest, patched};
use crate::plugin::{Plugins, Settings};
use crate::policy::status::PluginState;

fn refusal_of(bytes: &[u8]) -> String {
    let bench = Bench::new();
    bench.put("x.wasm", bytes);
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(!changed && set.routers.is_empty());
    assert_eq!(bench.kinds_of_events(), ["plugin_refused"]);
    let status = bench.only();
    assert_eq!((status.state, status.generation), (PluginState::Refused, 0));
    status.reason
}

#[test]
fn files_that_are_no_components_are_refused_with_a_sentence() {
    let good = guest("nothing");
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"hello, world", "not WebAssembly"),
        (b"\0as", "ends too early"),
        (&good[..good.len() / 2], "ends too early"),
        (b"\0asm\x01\0\0\0", "`wasm32-wasip2`"),
        (b"\0asm\x0d\0\x01\0", "meshwright:plugin"),
    ] {
        let reason = refusal_of(bytes);
        assert!(reason.contains(words), "{reason}");
    }
    let mut garbage = good.clone();
    garbage[good.len() / 2..][..64].fill(0xff);
    assert!(!refusal_of(&garbage).is_empty());
}

#[test]
fn imports_and_versions_are_named_in_the_refusal() {
    let good = guest("nothing");
    let reason =
        refusal_of(&patched(&good, "meshwright:plugin/router@0.1.0", "meshwright:plugin/router@0.3.0"));
    assert_eq!(reason, "needs meshwright:plugin/router@0.3.0, this build offers 0.1.0");
    let reason = refusal_of(&patched(&good, "wasi:clocks/monotonic-clock@", "wasi:http/outgoing-handlers@"));
    assert!(reason.starts_with("forbidden import `wasi:http/outgoing-handlers@"), "{reason}");
    assert!(reason.ends_with("plugins have no network"), "{reason}");
}

#[test]
fn what_a_component_says_about_itself_can_keep_it_out() {
    for (behaviour, words) in [
        ("no-metadata", "metadata"),
        ("bad-name", "`../x` cannot be used"),
        ("self-test-fails", "self-test failed: it does not work"),
        ("configure-trap", "`configure`: it trapped"),
        ("configure-loop", "`configure`: it took longer than 1000 ms"),
        ("configure-allocate", "MiB of memory"),
        ("bad-window", "window"),
    ] {
        let reason = refusal_of(&guest(behaviour));
        assert!(reason.contains(words), "{behaviour}: {reason}");
    }
}

#[test]
fn a_refused_replacement_leaves_the_generation_before_in_force() {
    let (bench, first) = Bench::of("nothing");
    let good = guest("nothing");
    let broken = [guest("self-test-fails"), b"garbage".to_vec(), good[..good.len() / 3].to_vec()];
    for (round, bytes) in (1..).zip(&broken) {
        bench.put("guest.wasm", bytes);
        let (set, changed) = bench.plugins.reload(SETTLED);
        assert!(!changed);
        assert!(Arc::ptr_eq(&set.routers[0], &first.routers[0]), "the same instances");
        let status = bench.only();
        assert_eq!((status.state, status.generation), (PluginState::Loaded, 1));
        let refused = status.refused.expect("the refused build is shown");
        assert!(!refused.reason.is_empty() && refused.sha256 != status.sha256);
        assert_eq!(bench.kinds_of_events().len(), 1 + round);
        bench.plugins.reload(SETTLED);
        assert_eq!(bench.kinds_of_events().len(), 1 + round, "said once");
    }
    bench.put("guest.wasm", &altered(guest("nothing"), 1));
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed && !Arc::ptr_eq(&set.routers[0], &first.routers[0]));
    let status = bench.only();
    assert_eq!((status.generation, status.refused), (2, None));
    first.routers[0].route(&facts(), &catalog(1, 1)).expect("calls in flight finish on the old generation");
}

#[test]
fn an_unchanged_plugin_keeps_its_instances_whatever_its_neighbours_do() {
    let (bench, first) = Bench::of("nothing");
    bench.put("a-broken.wasm", b"garbage");
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(!changed && Arc::ptr_eq(&set.routers[0], &first.routers[0]));
    fs::rename(bench.path("guest.wasm"), bench.path("renamed.wasm")).unwrap();
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(!changed && Arc::ptr_eq(&set.routers[0], &first.routers[0]), "a new file name is no new plugin");
    assert_eq!(bench.plugins.status()[1].file, Some(bench.path("renamed.wasm")));
}

#[test]
fn two_files_cannot_be_the_same_plugin() {
    let bench = Bench::new();
    bench.put("b.wasm", &altered(guest("nothing"), 1));
    bench.put("a.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    let [ref loaded, ref refused] = bench.plugins.status()[..] else { panic!() };
    assert_eq!((loaded.state, &loaded.file), (PluginState::Loaded, &Some(bench.path("a.wasm"))));
    assert_eq!((refused.state, &refused.file), (PluginState::Refused, &Some(bench.path("b.wasm"))));
    assert_eq!(refused.reason, "`a.wasm` already is plugin `guest`; two files cannot be the same plugin");
    bench.remove("a.wasm");
    bench.plugins.reload(SETTLED);
    assert_eq!((bench.only().state, bench.only().generation), (PluginState::Loaded, 2));
}

#[test]
fn a_newcomer_takes_nothing_from_the_one_in_force_whatever_its_file_is_called() {
    let bench = Bench::new();
    bench.put("m.wasm", &guest("nothing"));
    let (first, _) = bench.plugins.reload(SETTLED);
    bench.put("a.wasm", &altered(guest("nothing"), 1));
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(!changed && Arc::ptr_eq(&set.routers[0], &first.routers[0]));
    let refused = |file: &str| {
        let all = bench.plugins.status();
        let listed = all.into_iter().find(|one| one.file == Some(bench.path(file))).expect("listed");
        (listed.state == PluginState::Refused).then_some(listed.reason).expect("it is refused")
    };
    assert_eq!(refused("a.wasm"), "`m.wasm` already is plugin `guest`; two files cannot be the same plugin");

    fs::rename(bench.path("m.wasm"), bench.path("z.wasm")).unwrap();
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(!changed && Arc::ptr_eq(&set.routers[0], &first.routers[0]), "a renaming changes nothing");
    assert_eq!(refused("a.wasm"), "`z.wasm` already is plugin `guest`; two files cannot be the same plugin");
    bench.put("z.wasm", b"garbage");
    assert!(!bench.plugins.reload(SETTLED).1, "nor does a broken replacement");
    bench.put("z.wasm", &altered(guest("nothing"), 2));
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!(bench.plugins.status()[0].file, Some(bench.path("z.wasm")), "it is updated by its own file");

    let mut settings = config("{}");
    settings.enabled = false;
    bench.plugins.set_config([("guest".to_owned(), settings)].into());
    bench.plugins.reload(SETTLED);
    bench.plugins.set_config([].into());
    bench.plugins.reload(SETTLED);
    assert_eq!(
        bench.plugins.status()[0].file,
        Some(bench.path("z.wasm")),
        "switched off, it keeps its place"
    );
    bench.remove("z.wasm");
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!(bench.only().file, Some(bench.path("a.wasm")));
}

#[test]
fn the_default_plugins_come_into_force_without_configuration() {
    let plugins = Plugins::new(
        Settings { workers: 2, ..Settings::default() },
        Arc::new(|event| assert_eq!(event.kind, "plugin_loaded", "{}", event.detail)),
    )
    .unwrap();
    let (set, changed) = plugins.reload(SETTLED);
    assert!(changed);
    let kinds = [set.routers.len(), set.balancers.len(), set.alerters.len(), set.meters.len()];
    assert_eq!(kinds, [1, 1, 1, 1], "{:?}", plugins.status());
    assert!(
        plugins.status().iter().all(|status| status.state == PluginState::Loaded && status.file.is_none())
    );
    set.routers[0].route(&facts(), &catalog(1, 3)).unwrap();
    assert!(!plugins.reload(SETTLED).1);
}

#[test]
fn a_file_overrides_the_embedded_plugin_until_it_is_taken_away() {
    let embedded: &'static [u8] = guest("nothing").leak();
    let bench = Bench::with(1, vec![("guest", embedded)].leak());
    bench.plugins.reload(SETTLED);
    let status = bench.only();
    assert_eq!((status.state, status.file, status.order), (PluginState::Loaded, None, 1000));
    bench.put("own.wasm", &altered(guest("nothing"), 1));
    assert!(bench.plugins.reload(SETTLED).1);
    let [ref own, ref default] = bench.plugins.status()[..] else { panic!() };
    assert_eq!((own.state, own.generation, own.order), (PluginState::Loaded, 2, 100));
    assert_eq!((default.state, default.reason.as_str()), (PluginState::Shadowed, "own.wasm overrides it"));
    bench.put("own.wasm", b"garbage");
    assert!(!bench.plugins.reload(SETTLED).1, "a broken override stays what it was");
    bench.remove("own.wasm");
    assert!(bench.plugins.reload(SETTLED).1);
    let status = bench.only();
    assert_eq!((status.state, status.file, status.generation), (PluginState::Loaded, None, 3));
}

#[test]
fn a_plugin_that_is_taken_away_is_gone() {
    let (bench, _set) = Bench::of("nothing");
    bench.remove("guest.wasm");
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed && set.routers.is_empty() && set.meters.is_empty());
    assert!(bench.plugins.status().is_empty());
    assert_eq!(bench.kinds_of_events(), ["plugin_loaded", "plugin_removed"]);
}

#[test]
fn configuration_is_part_of_what_is_compared() {
    let (bench, first) = Bench::of("nothing");
    fs::write(bench.path("guest.toml"), "mode = \"bad\"\n").unwrap();
    assert!(!bench.plugins.reload(SETTLED).1);
    let refused = bench.only().refused.unwrap();
    assert_eq!(
        refused.reason,
        "it does not accept its configuration in `guest.toml`: `/bad`: must not be there"
    );
    fs::write(bench.path("guest.toml"), "mode = \n").unwrap();
    assert!(!bench.plugins.reload(SETTLED).1);
    assert!(bench.only().refused.unwrap().reason.contains("`guest.toml`"));
    fs::write(bench.path("guest.toml"), "mode = \"good\"\n").unwrap();
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed && !Arc::ptr_eq(&set.routers[0], &first.routers[0]));
    assert_eq!((bench.only().generation, bench.only().refused), (2, None));

    // The file wins over the settings, until it is taken away.
    bench.plugins.set_config([("guest".to_owned(), config(r#"{"a":1}"#))].into());
    assert!(!bench.plugins.reload(SETTLED).1);
    bench.remove("guest.toml");
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!(bench.only().generation, 3);
}

#[test]
fn order_and_failing_closed_change_without_a_new_generation() {
    let (bench, first) = Bench::of("nothing");
    assert!(!first.routers[0].refuses_on_fault());
    let mut settings = config("{}");
    (settings.order, settings.refuse_on_fault) = (Some(5), true);
    bench.plugins.set_config([("guest".to_owned(), settings.clone())].into());
    assert!(!bench.plugins.reload(SETTLED).1);
    assert!(first.routers[0].refuses_on_fault());
    assert_eq!((bench.only().order, bench.only().generation), (5, 1));
    settings.enabled = false;
    bench.plugins.set_config([("guest".to_owned(), settings)].into());
    let (set, changed) = bench.plugins.reload(SETTLED);
    assert!(changed && set.routers.is_empty());
    assert_eq!(bench.only().state, PluginState::Disabled);
}

#[test]
fn what_a_plugin_remembers_outlives_its_generations() {
    let (bench, first) = Bench::of("nothing");
    first.routers[0].route(&facts(), &catalog(1, 4)).unwrap();
    // The next generation answers from memory before it has seen a catalogue with another number of services.
    bench.put("guest.wasm", &altered(guest("count"), 1));
    let (second, _) = bench.plugins.reload(SETTLED);
    assert_eq!(&*second.routers[0].route(&facts(), &catalog(0, 4)).unwrap().why, "4 services ");
}
