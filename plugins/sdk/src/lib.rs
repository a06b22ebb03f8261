//! What Meshwright plugins written in Rust share. Knows nothing of the bindings, which each plugin generates for
//! its own world.

pub mod settings;

/// The `metadata` of a plugin, as TOML, from its own `Cargo.toml`. Name, version and description must not contain
/// quotes or backslashes.
#[macro_export]
macro_rules! metadata {
    // With the JSON Schema of the configuration, as a path from the source file; it must not contain `'''`.
    (schema: $path:literal) => {
        concat!($crate::metadata!(), "config-schema = '''\n", include_str!($path), "'''\n")
    };
    () => {
        concat!(
            "name = \"",
            env!("CARGO_PKG_NAME"),
            "\"\nversion = \"",
            env!("CARGO_PKG_VERSION"),
            "\"\nsummary = \"",
            env!("CARGO_PKG_DESCRIPTION"),
            "\"\n"
        )
    };
}
