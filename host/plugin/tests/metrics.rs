//! Meters have names of their own for what they measure.

use super::support::{Bench, SETTLED, altered, guest, name, patched};
use crate::mesh::ruling::Ruling;
use crate::policy::status::PluginState;

/// A plugin of another name, with that behaviour.
fn other(behaviour: &str) -> Vec<u8> {
    patched(&guest(behaviour), "name = \"guest\"", "name = \"other\"")
}

fn state_of(bench: &Bench, plugin: &str) -> (PluginState, String) {
    let all = bench.plugins.status();
    let found = all.into_iter().find(|one| one.name == plugin).expect("listed");
    (found.state, found.reason)
}

const TAKEN: &str = "its metric `calls` is one of plugin `guest`; give it another name";

#[test]
fn a_meter_takes_no_metric_from_one_that_is_in_force() {
    let bench = Bench::new();
    bench.put("m.wasm", &guest("nothing"));
    bench.plugins.reload(SETTLED);
    bench.put("a.wasm", &other("nothing"));
    assert!(!bench.plugins.reload(SETTLED).1);
    assert_eq!(state_of(&bench, "other"), (PluginState::Refused, TAKEN.to_owned()));
    assert!(!bench.plugins.reload(SETTLED).1, "nor later");
    assert_eq!(bench.kinds_of_events(), ["plugin_loaded", "plugin_refused"], "said once");

    bench.put("a.wasm", &other("other-metric"));
    assert!(bench.plugins.reload(SETTLED).1);
    bench.put("a.wasm", &other("nothing"));
    assert!(!bench.plugins.reload(SETTLED).1, "a new build of one in force is no better");
    let refused = bench.plugins.status().into_iter().find_map(|one| one.refused).expect("a refusal");
    assert_eq!(refused.reason, TAKEN);
    bench.put("m.wasm", &altered(guest("nothing"), 1));
    assert!(bench.plugins.reload(SETTLED).1, "its own names are no others'");

    bench.remove("m.wasm");
    assert!(bench.plugins.reload(SETTLED).1);
    assert_eq!(state_of(&bench, "other"), (PluginState::Loaded, String::new()), "now it is nobody's");
}

#[test]
fn an_embedded_meter_has_its_metrics_before_others_also_at_a_start() {
    let embedded: &'static [u8] = guest("nothing").leak();
    let bench = Bench::with(1, vec![("guest", embedded)].leak());
    bench.put("a.wasm", &other("nothing"));
    bench.plugins.reload(SETTLED);
    assert_eq!(state_of(&bench, "guest").0, PluginState::Loaded);
    assert_eq!(state_of(&bench, "other"), (PluginState::Refused, TAKEN.to_owned()));
    bench.plugins.rule(Ruling::Switched { plugin: name("guest"), enabled: false });
    bench.plugins.reload(SETTLED);
    assert_eq!(state_of(&bench, "other").0, PluginState::Loaded, "what is off has none");
    bench.plugins.rule(Ruling::Switched { plugin: name("guest"), enabled: true });
    bench.plugins.reload(SETTLED);
    let (state, reason) = state_of(&bench, "guest");
    assert_eq!(state, PluginState::Refused);
    assert_eq!(reason, "its metric `calls` is one of plugin `other`; give it another name");
}

#[test]
fn a_meter_has_no_metric_of_the_proxy_itself() {
    let bench = Bench::new();
    bench.put("guest.wasm", &guest("own-metric"));
    bench.plugins.reload(SETTLED);
    let reason = "its metric `meshwright_plugin_calls_total` has a name of the proxy's own";
    assert_eq!(state_of(&bench, "guest"), (PluginState::Refused, reason.to_owned()));
}
