//! What a configuration file may say, section by section, and how that becomes a [`Config`].

mod children;
mod duration;
mod hedge;
mod plugin_limits;
mod resolve;
pub(super) mod services;
pub(super) mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use duration::{RawDuration, or};
pub(super) use resolve::{NoHome, Sections, Wrong, plugin, resolve};
use resolve::{clash, wrong};
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
    /// Client sessions that have a process of their own at once.
    sessions_max: Option<usize>,
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
#[serde(deny_unknown_fields, default, expecting = "a table such as `{ policy = \"never\" }`")]
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
#[serde(deny_unknown_fields, default, expecting = "a table such as `{ deny = [\"delete_*\"] }`")]
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
#[serde(deny_unknown_fields, default, expecting = "a table such as `{ deny = [\"secret_*\"] }`")]
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
    /// What becomes of a call when the plugin fails, or is a router and not in force: it goes on, or is refused.
    #[serde(default)]
    on_error: OnError,
    /// What any build of that name may have.
    #[serde(default)]
    grants: Vec<RawText>,
    /// What it may use up.
    #[serde(default)]
    limits: plugin_limits::RawPluginLimits,
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

/// The JSON Schema of a configuration file.
pub(super) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(RawConfig);
    // Every section may be missing.
    schema.remove("required");
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.to_value()
}
