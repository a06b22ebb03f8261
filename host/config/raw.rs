//! What a configuration file may say, section by section, and how that becomes a [`Config`].

mod children;
mod duration;
mod hedge;
pub(super) mod services;
pub(super) mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    CallTimes, Config, HTTP_ADDR, MCP_ADDR, Overrides, PluginConfig, ProbeTimes, Written, env_dir,
    expand_home,
};
use crate::mesh::child::Rules;
use crate::mesh::deadline::CALL_TIME_MAX;
use crate::mesh::lease::LeaseTimes;
use duration::{RawDuration, or};
use text::RawText;

/// The settings of a Meshwright proxy.
#[derive(Debug, Default, JsonSchema)]
#[expect(
    dead_code,
    reason = "its sections are read one by one, so that one that is wrong does not hide the others"
)]
pub(super) struct RawConfig {
    /// Files, or patterns of files, with more services, profiles and plugins; also those of MCP clients.
    include: Vec<String>,
    server: RawServer,
    stats: RawStats,
    lease: RawLease,
    health: RawHealth,
    calls: RawCalls,
    supervisor: RawSupervisor,
    /// Services by name: programs, addresses, or what is to be shown of those that register themselves.
    services: BTreeMap<String, RawService>,
    /// Choices of services and tools, each at `/mcp/NAME`.
    profiles: BTreeMap<String, RawProfile>,
    sessions: RawSessions,
    limits: RawLimits,
    /// Settings of plugins by name.
    plugins: BTreeMap<String, RawPlugin>,
}

/// Where the proxy listens and what it keeps where.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServer {
    /// Address of the MCP endpoint; port 0 takes a free one.
    mcp_addr: Option<SocketAddr>,
    /// Address of registration, calls, pages and metrics.
    http_addr: Option<SocketAddr>,
    /// Where the database and `endpoints.json` are kept.
    data_dir: Option<PathBuf>,
    /// Where plugins are dropped.
    plugins_dir: Option<PathBuf>,
    /// Threads that run calls, 1 to 256.
    workers: Option<usize>,
    /// Host names, beside loopback and the bound addresses, under which the proxy may be reached.
    allowed_hosts: Vec<String>,
    /// Origins, beside the proxy's own, from which pages may call.
    allowed_origins: Vec<String>,
    /// Largest body of a request.
    body_bytes_max: Option<usize>,
    /// How long a plugin's build that takes another's place is on probation.
    plugin_probation: Option<RawDuration>,
}

/// The file that desktop monitors read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStats {
    /// Its path; empty for none.
    file: Option<PathBuf>,
}

/// Leases of instances that register themselves.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLease {
    /// Since the last heartbeat.
    suspect_after: Option<RawDuration>,
    /// Since the last heartbeat; then the instance is gone.
    ttl: Option<RawDuration>,
}

/// Probes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHealth {
    /// Mean distance of the probes of an instance.
    probe_every: Option<RawDuration>,
    /// How long a probe may take.
    probe_timeout: Option<RawDuration>,
}

/// Times of calls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCalls {
    /// For a connection to an instance.
    connect_timeout: Option<RawDuration>,
    /// Until an instance begins to answer.
    first_byte_timeout: Option<RawDuration>,
    /// Of a whole call, unless the caller asks for another; at most 600 s.
    timeout: Option<RawDuration>,
    /// How long calls in flight have at shutdown.
    drain_timeout: Option<RawDuration>,
}

/// Processes of services.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSupervisor {
    /// A folder, beside this file unless it is absolute, in which each executable file is a service called by its stem.
    scripts: Option<PathBuf>,
    /// How long the first answer of a process may take, without the time in which something is installed, where its
    /// service says nothing else.
    startup_timeout: Option<RawDuration>,
}

/// A service: a `command`, a `url` or `urls`, or none of them when its instances register themselves.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawService {
    /// A program that speaks MCP on standard input and output.
    command: Option<RawText>,
    /// Its arguments.
    args: Vec<RawText>,
    /// Variables beside those of the proxy's own environment.
    env: BTreeMap<String, String>,
    /// Where it runs.
    cwd: Option<RawText>,
    /// One process for all clients, or one for each client session.
    sessions: Option<RawSessionUse>,
    /// How many processes it has.
    instances: Option<usize>,
    /// Whether it is an error when none of them comes up.
    required: bool,
    /// Services that start before it, and without which it is degraded.
    depends_on: Vec<RawText>,
    /// When its processes are started again.
    restart: RawRestart,
    /// Whether its processes start with the proxy, or with the first call once it is known what they offer.
    start: Option<RawStart>,
    /// Stops a process that had no call, session or subscription for so long, until the next call.
    idle_stop: Option<RawDuration>,
    /// From the start of a process to its first answer, without the time in which something is installed.
    startup_timeout: Option<RawDuration>,
    /// Where its one instance listens.
    url: Option<RawText>,
    /// Where its instances listen.
    urls: Vec<RawText>,
    /// Calls that each of its instances takes at once.
    concurrency: Option<u32>,
    /// Whether slow calls are asked of a second instance, too.
    hedge: Option<hedge::RawHedge>,
    /// Which of its tools are shown, and which of them only read.
    tools: RawTools,
    /// Which of its prompts are shown.
    prompts: RawPatterns,
    /// Which of its resources are shown, by URI.
    resources: RawPatterns,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawSessionUse {
    Shared,
    Each,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawStart {
    Eager,
    Lazy,
}

/// When a process that ended is started again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawRestart {
    /// Whether a process that ended with 0 is started again, or one that failed.
    policy: Option<RawRestartPolicy>,
    /// So many failures within the window park it.
    max: Option<usize>,
    /// See `max`.
    window: Option<RawDuration>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RawRestartPolicy {
    OnFailure,
    Always,
    Never,
}

/// Patterns of names: `*` stands for any run of characters, `?` for one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawTools {
    /// Shown; all when it is empty.
    allow: Vec<String>,
    /// Not shown.
    deny: Vec<String>,
    /// Known to change nothing: calls to them may be tried again.
    read_only: Vec<String>,
}

/// Patterns: `*` stands for any run of characters, `?` for one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawPatterns {
    /// Shown; all when it is empty.
    allow: Vec<String>,
    /// Not shown.
    deny: Vec<String>,
}

/// A choice of services and tools.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    /// Names of services; all when it is empty.
    #[serde(default)]
    services: Vec<RawText>,
    /// Names as clients see them, `service__tool`.
    #[serde(default)]
    tools: RawPatterns,
    /// Whether the proxy's own tools are shown.
    #[serde(default = "yes")]
    own_tools: bool,
    /// Whether clients get `find_tools` instead of the list of all tools.
    #[serde(default)]
    search: bool,
}

/// Sessions of clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSessions {
    /// Since the last message.
    idle_timeout: Option<RawDuration>,
    /// Since the begin.
    age_max: Option<RawDuration>,
    /// How many there may be.
    max: Option<usize>,
}

/// How many calls at once, and how many wait.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    /// Calls under way in all.
    in_flight: Option<usize>,
    /// Calls under way at one instance, unless its service says otherwise.
    per_instance: Option<u32>,
    /// Calls to one service that may wait for an instance to have room.
    waiting: Option<u32>,
    /// How long one of them may be expected to wait; twice as long, and it is refused.
    wait: Option<RawDuration>,
}

/// Settings of one plugin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlugin {
    /// Whether it is asked at all.
    #[serde(default = "yes")]
    enabled: bool,
    /// Lower is asked first.
    order: Option<i32>,
    /// What becomes of a call when the plugin fails: it goes on, or is refused.
    #[serde(default)]
    on_error: OnError,
    /// What any build of that name may have.
    #[serde(default)]
    grants: Vec<RawText>,
    /// The plugin's own settings, checked against its schema.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    config: toml::Table,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnError {
    #[default]
    Fallback,
    Reject,
}

const fn yes() -> bool {
    true
}

/// What the sections of a configuration say; where they say nothing, their defaults.
#[derive(Debug, Default)]
pub(super) struct Sections {
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
pub(super) struct Wrong {
    /// Such as `lease.ttl`; inside a service, a profile or a plugin its own key.
    pub key: &'static str,
    pub message: String,
}

pub(super) fn wrong(key: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { key, message: message.into() }
}

/// `written` is the same before anything was filled in.
pub(super) fn plugin(raw: RawPlugin, written: &RawPlugin) -> Result<PluginConfig, Wrong> {
    let json = |table: &toml::Table| {
        serde_json::to_string(table).map_err(|error| wrong("config", error.to_string()))
    };
    let (config_json, written_json) = (json(&raw.config)?, json(&written.config)?);
    Ok(PluginConfig {
        written_json: (written_json != config_json).then_some(written_json),
        config_json,
        grants: services::grants(&raw.grants).map_err(|message| wrong("grants", message))?,
        enabled: raw.enabled,
        order: raw.order,
        refuse_on_fault: matches!(raw.on_error, OnError::Reject),
    })
}

/// Why there are no settings.
pub(super) enum Unresolved {
    Wrong(Wrong),
    /// There is no home folder.
    NoHome,
}

impl From<Wrong> for Unresolved {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Without services, profiles and plugins.
pub(super) fn resolve(raw: Sections, overrides: Overrides) -> Result<Config, Unresolved> {
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
        return Err(wrong("lease.suspect_after", "must be shorter than `lease.ttl`").into());
    }
    let whole = or(raw.calls.timeout, Duration::from_secs(60));
    if whole > CALL_TIME_MAX {
        return Err(wrong("calls.timeout", format!("at most {} s", CALL_TIME_MAX.as_secs())).into());
    }
    let sessions = services::sessions(raw.sessions)?;
    let limits = services::limits(raw.limits)?;
    let workers = overrides.workers.or(raw.server.workers).unwrap_or_else(default_workers);
    if !(1..=256).contains(&workers) {
        return Err(wrong("server.workers", format!("{workers} is not between 1 and 256")).into());
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

/// The JSON Schema of a configuration file.
pub(super) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(RawConfig);
    // Every section may be missing.
    schema.remove("required");
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.to_value()
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(16)
}

fn default_data_dir() -> Result<PathBuf, Unresolved> {
    env_dir("XDG_DATA_HOME")
        .or_else(|| env_dir("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("meshwright"))
        .ok_or(Unresolved::NoHome)
}
