//! Settings: flags over `MESHWRIGHT_*` over the file over defaults. [`raw`] is what a file may say; [`Config`] is
//! what the rest of the program gets, checked and complete.
//!
//! Must not know what the settings are used for.

mod clients;
mod contents;
mod edit;
mod expand;
mod file;
mod flaw;
mod import;
mod load;
mod raw;
mod reload;
mod scripts;
mod show;
mod warnings;
mod whereabouts;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::mesh::allowance::Allowance;
use crate::mesh::child::Rules;
use crate::mesh::hedge::Hedge;
use contents::Files;
use expand::Sources;

use crate::mesh::exposure::{Exposure, Exposures};
use crate::mesh::ids::Name;
use crate::mesh::instance::{Endpoint, InstanceSpec};
use crate::mesh::lease::LeaseTimes;
use crate::mesh::limit::Limits;
use crate::mesh::ruling::Grant;

/// Default address of the MCP endpoint.
pub const MCP_ADDR: &str = "127.0.0.1:6000";
/// Default address of everything else.
pub const HTTP_ADDR: &str = "127.0.0.1:6001";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration is wrong\n{}", list(.0))]
    Wrong(Vec<Flaw>),
    #[error("there is no home folder to keep data in; name one with --data-dir or MESHWRIGHT_DATA_DIR")]
    NoHome,
}

impl ConfigError {
    /// The first thing that is wrong, in a line.
    pub fn in_a_line(&self) -> String {
        match self {
            Self::Wrong(flaws) => flaws.first().map_or_else(|| self.to_string(), Flaw::in_a_line),
            Self::Read { .. } | Self::NoHome => self.to_string(),
        }
    }
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
    /// The flag or the variable that said it, by setting: `server.workers`.
    pub said_by: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// All files that were read: that one, and those that it includes.
    pub files: Vec<PathBuf>,
    /// Folders in which more of them may appear.
    pub folders: Vec<PathBuf>,
    /// Services and files that cannot be used; the rest is.
    pub left_out: Vec<LeftOut>,
    /// Where each executable file is a service.
    pub scripts: Option<PathBuf>,
    /// How long the first answer of a process may take, where its service says nothing else.
    pub startup: Duration,
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
    pub limits: Limits,
    pub plugins: BTreeMap<Name, PluginConfig>,
    /// How long a plugin's build that takes another's place is on probation.
    pub plugin_probation: Duration,
    /// What it was read from.
    pub written: Written,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeTimes {
    /// Mean distance of the probes of an instance; each is moved by up to 20 %.
    pub every: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallTimes {
    pub connect: Duration,
    pub first_byte: Duration,
    /// Of the whole call, unless the caller asks for another; at most 600 s.
    pub whole: Duration,
    /// How long calls in flight have at shutdown.
    pub drain: Duration,
}

/// What the file says of a service, whether it starts it or the service registers itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// One command, as often as it has instances, or any number of addresses.
    pub endpoints: Vec<Endpoint>,
    /// Calls that each of its instances takes at once, when it says so itself.
    pub concurrency: Option<u32>,
    /// Whether its slow calls are asked of a second instance, too.
    pub hedge: Option<Hedge>,
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
pub use edit::{EditError, add_service, remove_service, user_file};
pub use flaw::{Flaw, LeftOut, Place};
pub use import::{Imported, client_files, import};
pub use reload::{Reloaded, Written};
pub use show::{schema, show};
pub use whereabouts::Whereabouts;

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
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    pub enabled: bool,
    /// Lower is asked first.
    pub order: Option<i32>,
    /// Whether a call is refused, not passed on, when this plugin faults or is not in force.
    pub refuse_on_fault: bool,
    /// What any build of that name may have.
    pub grants: Vec<Grant>,
    pub limits: Allowance,
    /// The plugin's own configuration, a JSON object.
    pub config_json: String,
    /// The same as it was written, where something was filled in: that may be secret.
    pub written_json: Option<String>,
}

impl Config {
    /// Reads the file (`--config`, else `./meshwright.toml`, `$XDG_CONFIG_HOME/meshwright/meshwright.toml`,
    /// `/etc/meshwright/meshwright.toml`, whichever is first there) and lays the overrides over it.
    ///
    /// A service that is wrong is left out; so is a file that is included.
    ///
    /// # Errors
    /// A file that was named and cannot be read, one that cannot be understood, or a value out of range.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let files = Files::read(overrides.path().as_deref())?;
        load::load(&files, overrides, &Sources::usual())
    }

    /// Settings that `other` has otherwise and that need a restart.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let both = show::settings(self).into_iter().zip(show::settings(other));
        let waits = |key: &&str| !key.starts_with("supervisor.") && *key != "limits.per_instance";
        both.filter(|(own, others)| own != others).map(|((key, _), _)| key).filter(waits).collect()
    }

    /// Whether something that is left out lies in the folder of scripts: what is dropped there holds nothing else up.
    pub fn is_script(&self, left: &LeftOut) -> bool {
        self.scripts.is_some() && left.flaw.path.parent() == self.scripts.as_deref()
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

impl Overrides {
    fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(first_existing_file)
    }
}

fn list(flaws: &[Flaw]) -> String {
    flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
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
