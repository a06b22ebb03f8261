//! Names of metrics. Each family has one owner: a meter, or the proxy itself.

/// What the proxy's own names begin with, now and later.
const OWN: [&str; 6] = [
    "meshwright_service_",
    "meshwright_instance_",
    "meshwright_plugin_",
    "meshwright_mirrored_calls",
    "meshwright_calls_in_flight",
    "meshwright_persistence_",
];

/// A counter's name and a gauge's are the same one when only `_total` is between them.
pub fn family(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// Whether no meter may have a metric of that name.
pub fn is_own(name: &str) -> bool {
    OWN.iter().any(|prefix| name.starts_with(prefix))
}
