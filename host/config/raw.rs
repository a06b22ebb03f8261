//! What a configuration file may say, and how it becomes a [`Config`].

mod children;
mod services;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{
    CALL_TIMEOUT_MAX, CallTimes, Config, ConfigError, HTTP_ADDR, MCP_ADDR, Overrides, PluginConfig,
    ProbeTimes, env_dir, expand_home,
};
use crate::mesh::ids::Name;
use crate::mesh::lease::LeaseTimes;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    server: RawServer,
    stats: RawStats,
    lease: RawLease,
    health: RawHealth,
    calls: RawCalls,
    services: BTreeMap<String, Spanned<RawService>>,
    profiles: BTreeMap<String, Spanned<RawProfile>>,
    sessions: RawSessions,
    plugins: BTreeMap<String, RawPlugin>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawServer {
    mcp_addr: Option<SocketAddr>,
    http_addr: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    plugins_dir: Option<PathBuf>,
    workers: Option<usize>,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
    body_bytes_max: Option<usize>,
    plugin_probation: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStats {
    file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLease {
    suspect_after: Option<RawDuration>,
    ttl: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHealth {
    probe_every: Option<RawDuration>,
    probe_timeout: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCalls {
    connect_timeout: Option<RawDuration>,
    first_byte_timeout: Option<RawDuration>,
    timeout: Option<RawDuration>,
    drain_timeout: Option<RawDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawService {
    command: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    sessions: Option<RawSessionUse>,
    instances: Option<usize>,
    required: bool,
    depends_on: Vec<String>,
    restart: RawRestart,
    startup_timeout: Option<RawDuration>,
    url: Option<String>,
    urls: Vec<String>,
    tools: RawTools,
    prompts: RawPatterns,
    resources: RawPatterns,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSessionUse {
    Shared,
    Each,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRestart {
    policy: Option<RawRestartPolicy>,
    max: Option<usize>,
    window: Option<RawDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawRestartPolicy {
    OnFailure,
    Always,
    Never,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTools {
    allow: Vec<String>,
    deny: Vec<String>,
    read_only: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPatterns {
    allow: Vec<String>,
    deny: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    tools: RawPatterns,
    #[serde(default = "yes")]
    own_tools: bool,
    #[serde(default)]
    search: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSessions {
    idle_timeout: Option<RawDuration>,
    age_max: Option<RawDuration>,
    max: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlugin {
    #[serde(default = "yes")]
    enabled: bool,
    order: Option<i32>,
    #[serde(default)]
    on_error: OnError,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    config: toml::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnError {
    #[default]
    Fallback,
    Reject,
}

const fn yes() -> bool {
    true
}

/// A duration with its unit, such as `"500ms"`, `"30s"`, `"2m"`.
#[derive(Debug)]
struct RawDuration(Duration);

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match parsed {
            Some(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is not a duration; write a number with its unit, such as \"500ms\", \"30s\" or \"2m\""
            ))),
        }
    }
}

fn or(value: Option<RawDuration>, default: Duration) -> Duration {
    value.map_or(default, |raw| raw.0)
}

pub(super) fn resolve(
    raw: RawConfig,
    text: &str,
    file: Option<PathBuf>,
    overrides: Overrides,
) -> Result<Config, ConfigError> {
    let wrong = |key: &str, message: String| ConfigError::Value {
        path: file.clone().unwrap_or_default(),
        key: key.to_owned(),
        line: String::new(),
        message,
    };
    let wrong_in = |section: &str, start: usize, wrong: services::Wrong| ConfigError::Value {
        path: file.clone().unwrap_or_default(),
        key: format!("{section}.{}", wrong.key),
        line: format!(", line {}", text[..start].matches('\n').count() + 1),
        message: wrong.message,
    };
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
        return Err(wrong("lease.suspect_after", "must be shorter than `lease.ttl`".to_owned()));
    }
    let whole = or(raw.calls.timeout, Duration::from_secs(60));
    if whole > CALL_TIMEOUT_MAX {
        return Err(wrong("calls.timeout", format!("at most {} s", CALL_TIMEOUT_MAX.as_secs())));
    }
    let mut plugins = BTreeMap::new();
    for (name, plugin) in raw.plugins {
        let key = format!("plugins.{name}");
        let name = Name::new(&name).map_err(|error| wrong(&key, error.to_string()))?;
        let config_json =
            serde_json::to_string(&plugin.config).map_err(|error| wrong(&key, error.to_string()))?;
        let grants = services::grants(&plugin.grants).map_err(|message| wrong(&key, message))?;
        plugins.insert(
            name,
            PluginConfig {
                grants,
                enabled: plugin.enabled,
                order: plugin.order,
                refuse_on_fault: matches!(plugin.on_error, OnError::Reject),
                config_json,
            },
        );
    }
    let mut services = BTreeMap::new();
    for (name, service) in raw.services {
        let (key, start) = (format!("services.{name}"), service.span().start);
        let name = Name::new(&name).map_err(|error| wrong(&key, error.to_string()))?;
        let service = services::service(service.into_inner()).map_err(|w| wrong_in(&key, start, w))?;
        services.insert(name, service);
    }
    let instances = services::instances(&services)
        .map_err(|(key, message)| wrong(&format!("services.{key}"), message))?;
    let mut profiles = BTreeMap::new();
    for (name, profile) in raw.profiles {
        let (key, start) = (format!("profiles.{name}"), profile.span().start);
        let name = Name::new(&name).map_err(|error| wrong(&key, error.to_string()))?;
        let profile = services::profile(profile.into_inner()).map_err(|w| wrong_in(&key, start, w))?;
        profiles.insert(name, profile);
    }
    let sessions = services::sessions(raw.sessions)
        .map_err(|error| wrong(&format!("sessions.{}", error.key), error.message))?;
    let workers = overrides.workers.or(raw.server.workers).unwrap_or_else(default_workers);
    if !(1..=256).contains(&workers) {
        return Err(wrong("server.workers", format!("{workers} is not between 1 and 256")));
    }
    let address = |given: Option<SocketAddr>, default: &str| {
        given.unwrap_or_else(|| default.parse().expect("the default address is well formed"))
    };
    let stats_file = raw.stats.file.unwrap_or_else(|| PathBuf::from("~/.mm_mesh_stats.json"));
    Ok(Config {
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
        services,
        instances,
        profiles,
        sessions,
        plugins,
        plugin_probation: or(raw.server.plugin_probation, Duration::from_secs(60)),
        file,
    })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(16)
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    env_dir("XDG_DATA_HOME")
        .or_else(|| env_dir("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("meshwright"))
        .ok_or(ConfigError::NoHome)
}
