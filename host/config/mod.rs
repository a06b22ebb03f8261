//! Settings: flags over `MESHWRIGHT_*` over the file over defaults. [`raw`] is what a file may say; [`Config`] is
//! what the rest of the program gets, checked and complete.
//!
//! Must not know what the settings are used for.

mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::mesh::child::Rules;
use crate::mesh::exposure::{Exposure, Exposures};
use crate::mesh::ids::Name;
use crate::mesh::instance::{Endpoint, InstanceSpec};
use crate::mesh::lease::LeaseTimes;
use crate::mesh::ruling::Grant;

/// Default address of the MCP endpoint.
pub const MCP_ADDR: &str = "127.0.0.1:6000";
/// Default address of everything else.
pub const HTTP_ADDR: &str = "127.0.0.1:6001";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file `{path}` is wrong\n{message}")]
    Parse { path: PathBuf, message: String },
    /// `line` is empty, or says where.
    #[error("`{key}` in `{path}`{line}: {message}")]
    Value { path: PathBuf, key: String, line: String, message: String },
    #[error("there is no home folder to keep data in; name one with --data-dir or MESHWRIGHT_DATA_DIR")]
    NoHome,
}

/// What the command line and the environment said; `None` leaves it to the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub file: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub plugins_dir: Option<PathBuf>,
    pub mcp_addr: Option<SocketAddr>,
    pub http_addr: Option<SocketAddr>,
    pub workers: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub plugins_dir: PathBuf,
    pub mcp_addr: SocketAddr,
    pub http_addr: SocketAddr,
    /// Threads that run calls.
    pub workers: usize,
    /// Host names, beside loopback and the bound addresses, under which the proxy may be reached.
    pub allowed_hosts: Vec<String>,
    /// Origins, beside the proxy's own, from which pages may call.
    pub allowed_origins: Vec<String>,
    /// Where the desktop monitor reads; `None` disables the file.
    pub stats_file: Option<PathBuf>,
    pub lease: LeaseTimes,
    pub probes: ProbeTimes,
    pub calls: CallTimes,
    pub body_bytes_max: usize,
    pub services: BTreeMap<Name, ServiceConfig>,
    /// Those that `services` name: `SERVICE` for a command, `SERVICE-1` and so on for addresses and for several
    /// processes.
    pub instances: Vec<InstanceSpec>,
    /// Each at `/mcp/NAME`.
    pub profiles: BTreeMap<Name, ProfileConfig>,
    pub sessions: SessionLimits,
    pub plugins: BTreeMap<Name, PluginConfig>,
    /// How long a plugin's build that takes another's place is on probation.
    pub plugin_probation: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct ProbeTimes {
    /// Mean distance of the probes of an instance; each is moved by up to 20 %.
    pub every: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    pub connect: Duration,
    pub first_byte: Duration,
    /// Of the whole call, unless the caller asks for another; at most 600 s.
    pub whole: Duration,
    /// How long calls in flight have at shutdown.
    pub drain: Duration,
}

/// Longest time that a caller may give a call.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// What the file says of a service, whether it starts it or the service registers itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// One command, as often as it has instances, or any number of addresses.
    pub endpoints: Vec<Endpoint>,
    pub exposure: Exposure,
    /// Of a command.
    pub child: ChildConfig,
}

/// How the processes of a service are supervised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildConfig {
    pub instances: usize,
    /// Whether it is an error when none of them comes up.
    pub required: bool,
    /// Services that start before it.
    pub needs: Vec<Name>,
    pub rules: Rules,
}

pub use crate::mesh::exposure::Profile as ProfileConfig;

/// How long client sessions live, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Since its last message.
    pub idle_timeout: Duration,
    /// Since its begin.
    pub age_max: Duration,
    pub max: usize,
}

/// Settings of one plugin, by its name.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    pub enabled: bool,
    /// Lower is asked first.
    pub order: Option<i32>,
    /// Whether a call is refused, not passed on, when this plugin faults.
    pub refuse_on_fault: bool,
    /// What any build of that name may have.
    pub grants: Vec<Grant>,
    /// The plugin's own configuration, a JSON object.
    pub config_json: String,
}

impl Config {
    /// Reads the file (`--config`, else `./meshwright.toml`, `$XDG_CONFIG_HOME/meshwright/meshwright.toml`,
    /// `/etc/meshwright/meshwright.toml`, whichever is first there) and lays the overrides over it.
    ///
    /// # Errors
    /// A file that was named and cannot be read, a file that cannot be understood, or a value out of range.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let file = overrides.file.clone().or_else(first_existing_file);
        let text = match &file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?,
        };
        let raw = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: file.clone().unwrap_or_default(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        raw::resolve(raw, &text, file, overrides)
    }

    /// What services and profiles show.
    pub fn exposures(&self) -> Exposures {
        let services = self.services.iter();
        Exposures {
            services: services.map(|(name, service)| (name.clone(), service.exposure.clone())).collect(),
            profiles: self.profiles.clone(),
        }
    }
}

fn first_existing_file() -> Option<PathBuf> {
    let home = config_home().map(|dir| dir.join("meshwright/meshwright.toml"));
    [Some(PathBuf::from("meshwright.toml")), home, Some(PathBuf::from("/etc/meshwright/meshwright.toml"))]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
}

fn config_home() -> Option<PathBuf> {
    env_dir("XDG_CONFIG_HOME").or_else(|| env_dir("HOME").map(|home| home.join(".config")))
}

fn env_dir(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Replaces a leading `~/` with the home folder.
fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env_dir("HOME")) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
