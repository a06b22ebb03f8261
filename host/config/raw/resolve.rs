//! The sections of the main file: from what they say to what the program gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    OnError, RawCalls, RawHealth, RawLease, RawLimits, RawPlugin, RawServer, RawSessions, RawStats,
    RawSupervisor, or, plugin_limits, services,
};
use crate::config::{
    CallTimes, Config, HTTP_ADDR, MCP_ADDR, Overrides, PluginConfig, ProbeTimes, Written, env_dir,
    expand_home,
};
use crate::mesh::child::Rules;
use crate::mesh::deadline::CALL_TIME_MAX;
use crate::mesh::lease::LeaseTimes;

/// What the sections of a configuration say; where they say nothing, their defaults.
#[derive(Debug, Default)]
pub struct Sections {
    pub server: RawServer,
    pub stats: RawStats,
    pub lease: RawLease,
    pub health: RawHealth,
    pub calls: RawCalls,
    pub supervisor: RawSupervisor,
    pub sessions: RawSessions,
    pub limits: RawLimits,
}

/// What is wrong with the value of a key.
pub struct Wrong {
    /// Such as `lease.ttl`; inside a service, a profile or a plugin its own key.
    pub key: &'static str,
    pub message: String,
    /// Only beside what other keys say, or do not say.
    pub is_clash: bool,
}

pub(super) fn wrong(key: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { key, message: message.into(), is_clash: false }
}

pub(super) fn clash(key: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { is_clash: true, ..wrong(key, message) }
}

/// `written` is the same before anything was filled in, as far as it is understood.
pub fn plugin(raw: RawPlugin, written: Option<&RawPlugin>) -> Result<PluginConfig, Wrong> {
    let json = |table: &toml::Table| {
        serde_json::to_string(table).map_err(|error| wrong("config", error.to_string()))
    };
    let config_json = json(&raw.config)?;
    let written_json = written.map_or_else(|| Ok("{}".to_owned()), |written| json(&written.config))?;
    Ok(PluginConfig {
        written_json: (written_json != config_json).then_some(written_json),
        config_json,
        grants: services::grants(&raw.grants).map_err(|message| wrong("grants", message))?,
        limits: plugin_limits::allowance(raw.limits)?,
        enabled: raw.enabled,
        order: raw.order,
        refuse_on_fault: matches!(raw.on_error, OnError::Reject),
    })
}

/// There is no home folder.
pub struct NoHome;

/// Without services, profiles and plugins; with defaults for what is wrong.
pub fn resolve(raw: Sections, overrides: Overrides, wrongs: &mut Vec<Wrong>) -> Result<Config, NoHome> {
    let data_dir = match overrides.data_dir.or(raw.server.data_dir) {
        Some(dir) => expand_home(&dir),
        None => default_data_dir()?,
    };
    let plugins_dir = overrides.plugins_dir.or(raw.server.plugins_dir).map(|dir| expand_home(&dir));
    let plugins_dir = plugins_dir.unwrap_or_else(|| {
        let here = PathBuf::from("plugins");
        if here.is_dir() { here } else { data_dir.join("plugins") }
    });
    let lease_default = LeaseTimes::default();
    let lease = LeaseTimes {
        suspect_after: or(raw.lease.suspect_after, lease_default.suspect_after),
        ttl: or(raw.lease.ttl, lease_default.ttl),
    };
    if lease.suspect_after >= lease.ttl {
        wrongs.push(clash("lease.suspect_after", "must be shorter than `lease.ttl`"));
    }
    let whole = or(raw.calls.timeout, Duration::from_secs(60));
    if whole > CALL_TIME_MAX {
        wrongs.push(wrong("calls.timeout", format!("at most {} s", CALL_TIME_MAX.as_secs())));
    }
    let sessions = services::sessions(raw.sessions, wrongs);
    let limits = services::limits(raw.limits, wrongs);
    let workers = overrides.workers.or(raw.server.workers).unwrap_or_else(default_workers);
    if !(1..=256).contains(&workers) {
        wrongs.push(wrong("server.workers", format!("{workers} is not between 1 and 256")));
    }
    let address = |given: Option<SocketAddr>, default: &str| {
        given.unwrap_or_else(|| default.parse().expect("the default address is well formed"))
    };
    let stats_file = raw.stats.file.unwrap_or_else(|| PathBuf::from("~/.mm_mesh_stats.json"));
    Ok(Config {
        file: None,
        files: Vec::new(),
        folders: Vec::new(),
        written: Written::default(),
        left_out: Vec::new(),
        scripts: raw.supervisor.scripts.map(|folder| expand_home(&folder)),
        startup: or(raw.supervisor.startup_timeout, Rules::default().startup),
        data_dir,
        plugins_dir,
        mcp_addr: address(overrides.mcp_addr.or(raw.server.mcp_addr), MCP_ADDR),
        http_addr: address(overrides.http_addr.or(raw.server.http_addr), HTTP_ADDR),
        workers,
        allowed_hosts: raw.server.allowed_hosts,
        allowed_origins: raw.server.allowed_origins,
        stats_file: (!stats_file.as_os_str().is_empty()).then(|| expand_home(&stats_file)),
        lease,
        probes: ProbeTimes {
            every: or(raw.health.probe_every, Duration::from_secs(10)),
            timeout: or(raw.health.probe_timeout, Duration::from_secs(2)),
        },
        calls: CallTimes {
            connect: or(raw.calls.connect_timeout, Duration::from_secs(1)),
            first_byte: or(raw.calls.first_byte_timeout, Duration::from_secs(30)),
            whole,
            drain: or(raw.calls.drain_timeout, Duration::from_secs(30)),
        },
        body_bytes_max: raw.server.body_bytes_max.unwrap_or(4 << 20),
        services: BTreeMap::new(),
        instances: Vec::new(),
        profiles: BTreeMap::new(),
        sessions,
        limits,
        plugins: BTreeMap::new(),
        plugin_probation: or(raw.server.plugin_probation, Duration::from_secs(60)),
    })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(16)
}

fn default_data_dir() -> Result<PathBuf, NoHome> {
    env_dir("XDG_DATA_HOME")
        .or_else(|| env_dir("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("meshwright"))
        .ok_or(NoHome)
}
