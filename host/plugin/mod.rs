//! Plugins: WebAssembly components that are routers, balancers, alerters or meters. This room turns files into
//! policies and keeps them from doing harm; it alone knows wasmtime.
//!
//! Knows the domain and the policies' traits. Must not know who asks them, what a plugin decides about, or how its
//! standing is shown.

mod absent;
mod background;
mod bad;
mod building;
mod cache;
mod capsule;
mod capsules;
mod child;
mod clock;
mod code;
mod compiler;
mod engine;
mod entry;
mod fault;
mod folder;
mod good;
mod host_state;
mod hot;
mod inspect;
mod instance;
mod kv;
mod load;
mod loaded;
mod memories;
mod pace;
mod pointer;
mod probation;
mod reload;
mod repair;
mod replay;
mod round;
mod router;
mod rulings;
mod schema;
mod settings;
mod stats;
mod v0_1;
mod vacant;
mod wasi;
mod workbench;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::building::{Begun, Wake};
pub use self::capsule::FORMAT as CAPSULE_FORMAT;
pub use self::child::Limits;
pub use self::compiler::{COMPILE_LIMITS, Compiler, check_configuration, compile_plugin};
pub use self::engine::EngineError;
pub use self::fault::Fault;
pub use self::hot::set_worker;
pub use self::load::{Budgets, LoadError};
pub use self::reload::Plugins;
pub use self::replay::CALLS_MAX as REPLAYED_CALLS_MAX;
pub use self::settings::Configuration;
pub use self::workbench::{
    Component, Counted, InForce, Subject, Workbench, config_json, read_component, read_config,
};
use crate::mesh::allowance::Allowance;
use crate::mesh::memo::Memories;
use crate::mesh::observe::Event;
use crate::mesh::ruling::{Grant, Ruling};
use crate::mesh::story::Recording;

/// The default plugins, as the build script made them: name and component.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Where `plugin_loaded`, `plugin_refused`, `plugin_pending`, `plugin_rolled_back`, `plugin_input_skipped`,
/// `plugin_quarantined` and `plugin_removed` go. Called from data-path workers too, so it must not wait.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Where the calls come from that a new build is asked about before it comes into force.
pub type Recorder = Arc<dyn Fn() -> Recording + Send + Sync>;

#[derive(Default)]
pub struct Settings {
    /// Where `.wasm` files are dropped.
    pub folder: Option<PathBuf>,
    /// How many instances routers and balancers get: one for each data-path worker.
    pub workers: usize,
    /// By plugin name.
    pub config: BTreeMap<String, PluginConfig>,
    pub compiler: Compiler,
    /// Compiled plugins, builds that kept well, and what plugins failed on, are kept under this folder from run to run;
    /// `None` keeps nothing.
    pub data: Option<PathBuf>,
    /// What plugins remembered when the run before ended.
    pub memories: Memories,
    /// What operators decided while the run before lasted.
    pub rulings: Vec<Ruling>,
    /// Without one, builds come into force without being asked about earlier calls.
    pub recorder: Option<Recorder>,
    /// How long a build that takes the place of another is on probation; zero for not at all.
    pub probation: Duration,
    /// Called when something was built that is to come into force with the next reload.
    pub built: Option<Wake>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    pub enabled: bool,
    /// Lower is asked first. `None`: 100, for embedded plugins 1000.
    pub order: Option<i32>,
    /// A router's fault refuses the call instead of passing it on, and so does its absence.
    pub refuse_on_fault: bool,
    /// What any build of that name may have.
    pub grants: Vec<Grant>,
    pub limits: Allowance,
    /// An object. A `NAME.toml` beside the plugin's file wins over it.
    pub config_json: String,
    /// The same as it was written, where something was filled in.
    pub written_json: Option<String>,
}
