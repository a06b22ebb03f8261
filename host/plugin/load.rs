//! From bytes to something that can be instantiated: look, compile, ask who it is, let it test itself.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::child::ChildError;
use super::compiler::{CheckError, CompileError, words};
use super::engine::{Runtime, RuntimeError};
use super::fault::Fault;
use super::host_state::{Shared, cut, printable};
use super::inspect::inspect;
use super::instance::{ASK_BUDGET, Class, Compiled, panic_text};
use super::replay::BUDGET_US;
use super::schema::{Question, SCHEMA_BYTES_MAX};
use super::settings::{Complaints, Origin};
use super::v0_1::{self, Indices};
use crate::mesh::allowance::Allowance;
use crate::mesh::ids::{Name, NameError};
use crate::mesh::ruling::Grant;
use crate::policy::status::{Made, PluginStatus};

/// A Python component has 18 MB.
pub const FILE_BYTES_MAX: usize = 64 << 20;

const MESSAGE_BYTES_MAX: usize = 1 << 10;
const SUMMARY_BYTES_MAX: usize = 256;
const VERSION_BYTES_MAX: usize = 64;

/// Why a file is not in force, for its author.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    #[error("everybody may write `{0}`, so it is not loaded; `chmod o-w {0}` ends that")]
    Open(String),
    #[error("it is larger than {} MiB", FILE_BYTES_MAX >> 20)]
    TooLarge,
    #[error("it is empty")]
    Empty,
    #[error("it is not WebAssembly")]
    NotWasm,
    #[error("it ends too early, as if it were still being copied")]
    Truncated,
    #[error(
        "it is a core module, and plugins are components; in Rust, build for `wasm32-wasip2`, elsewhere wrap it \
         with `wasm-tools component new` or `jco new`"
    )]
    CoreModule,
    #[error("it is not a valid component: {0}")]
    NotValid(String),
    #[error("forbidden import `{0}`; {hint}", hint = hint(.0))]
    ForbiddenImport(String),
    #[error("needs {0}, which this build does not offer")]
    UnknownImport(String),
    #[error("needs {0}, this build offers {VERSION}", VERSION = v0_1::VERSION)]
    Version(String),
    #[error(
        "it uses the async ABI, and plugins are called synchronously; build it without (for JavaScript: `--sync`)"
    )]
    AsyncAbi,
    #[error("it exports nothing of {PACKAGE}; see `wit/plugin.wit`", PACKAGE = v0_1::PACKAGE)]
    NotAPlugin,
    #[error("it does not export {}/{}, which every plugin must", v0_1::PACKAGE, v0_1::LIFECYCLE)]
    NoLifecycle,
    #[error("it exports none of the kinds {}", v0_1::KINDS.join(", "))]
    NoKind,
    #[error("it does not fit the contract: {0}")]
    Contract(String),
    #[error("the compiler of this build fails on it: {0}")]
    Compiler(String),
    #[error("compiling it takes longer than {} s, and was stopped", .0.as_secs())]
    CompileTime(Duration),
    #[error("no process could be started to {0}: {1}")]
    NoProcess(&'static str, io::ErrorKind),
    #[error("the process that was to {0} came to no end: {1}; it is tried again after a while")]
    Unfinished(&'static str, String),
    #[error("during {step}: {fault}")]
    Fault { step: &'static str, fault: Fault },
    #[error("its metadata is not TOML with `name` and `version`: {0}")]
    Metadata(String),
    #[error("it asks for the grant `{0}`, which this build does not know; there is `arguments`")]
    UnknownGrant(String),
    #[error("its budget `{name}` is {budget_us}, and a budget is a number of microseconds, more than 0")]
    Budget { name: &'static str, budget_us: f64 },
    #[error("its name `{name}` cannot be used: {error}")]
    Name { name: String, error: NameError },
    #[error("its self-test failed: {0}")]
    SelfTest(String),
    #[error("its `config-schema` {0}")]
    Schema(String),
    #[error("its configuration does not fit its `config-schema`{0}")]
    Unfit(Complaints),
    #[error("it does not accept its configuration{0}")]
    Configuration(Complaints),
    #[error("its configuration file `{file}` cannot be used: {reason}")]
    ConfigurationFile { file: String, reason: String },
    #[error("after its start it fills {} of the {} MiB of memory that it may have", bytes >> 20, bytes_max >> 20)]
    Memory { bytes: usize, bytes_max: usize },
    #[error("`{0}` already is plugin `{1}`; two files cannot be the same plugin")]
    Duplicate(String, Name),
    #[error("its metric `{0}` has a name of the proxy's own")]
    OwnMetric(String),
    #[error("its metric `{0}` is one of plugin `{1}`; give it another name")]
    TakenMetric(String, Name),
}

impl LoadError {
    pub fn during(step: &'static str) -> impl Fn(Fault) -> Self {
        move |fault| Self::Fault { step, fault }
    }

    /// Says where the configuration was written that it complains about, if it does.
    pub fn about(self, origin: &Origin) -> Self {
        match self {
            Self::Unfit(complaints) => Self::Unfit(complaints.about(origin)),
            Self::Configuration(complaints) => Self::Configuration(complaints.about(origin)),
            other => other,
        }
    }

    /// Whether the same bytes with the same configuration would fail again, as far as anyone can know.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unreadable(_)
            | Self::Open(_)
            | Self::NoProcess(..)
            | Self::Unfinished(..)
            | Self::TakenMetric(..) => false,
            Self::Fault { fault, .. } => fault.by_guest(),
            _ => true,
        }
    }
}

fn hint(import: &str) -> &'static str {
    if import.starts_with("wasi:http") {
        "plugins have no network"
    } else {
        "plugins may import `meshwright:plugin` and the clocks, randomness and standard streams of WASI 0.2"
    }
}

fn human(text: &str) -> String {
    printable(cut(text, MESSAGE_BYTES_MAX))
}

/// A component that said who it is and passed its own test.
pub struct Build {
    pub compiled: Arc<Compiled>,
    pub name: Name,
    pub version: String,
    pub summary: String,
    pub budgets: Budgets,
    /// JSON Schema of its configuration.
    pub config_schema: Option<String>,
    /// What it cannot do without.
    pub grants: Vec<Grant>,
    pub made: Made,
}

impl Build {
    pub fn show(&self, status: &mut PluginStatus) {
        status.version.clone_from(&self.version);
        status.summary.clone_from(&self.summary);
        status.kinds = self.compiled.indices.kinds();
        status.made = Some(self.made);
    }
}

/// Microseconds within which 99 of 100 answers are given, as the plugin promises.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub struct Budgets {
    pub route_us: Option<f64>,
    pub pick_us: Option<f64>,
}

/// What holds: microseconds within which 99 of 100 answers are given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub route_us: f64,
    pub pick_us: f64,
}

impl Budgets {
    /// What the operator says, else what the plugin promises, else what is usual; never more than an answer may take.
    pub fn within(self, allowance: &Allowance) -> Budget {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let longest = micros(allowance.ask.unwrap_or(ASK_BUDGET));
        let of = |said: Option<Duration>, declared: Option<f64>| {
            said.map(micros).or(declared).unwrap_or(BUDGET_US).min(longest)
        };
        Budget { route_us: of(allowance.route, self.route_us), pick_us: of(allowance.pick, self.pick_us) }
    }

    fn check(self) -> Result<Self, LoadError> {
        for (name, budget_us) in [("route-us", self.route_us), ("pick-us", self.pick_us)] {
            if let Some(budget_us) = budget_us.filter(|us| !us.is_finite() || *us <= 0.0) {
                return Err(LoadError::Budget { name, budget_us });
            }
        }
        Ok(self)
    }
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
    #[serde(default)]
    summary: String,
    /// Checked for its type only.
    #[serde(default, rename = "authors")]
    _authors: Vec<String>,
    #[serde(default)]
    budgets: Budgets,
    #[serde(default, rename = "config-schema")]
    config_schema: Option<String>,
    #[serde(default)]
    grants: Vec<String>,
}

/// Takes as long as the compiler needs, which may use so many `threads`: never on a worker.
///
/// # Errors
/// Everything that speaks against the component, whatever its configuration.
pub fn build(runtime: &Runtime, label: &str, file: &[u8], threads: usize) -> Result<Build, LoadError> {
    if file.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge);
    }
    // A parser or compiler that panics over hostile bytes must cost this file only.
    let (mut compiled, made) = catch_unwind(AssertUnwindSafe(|| {
        inspect(file)?;
        let (pre, made) = runtime.prepare(file, threads).map_err(not_prepared)?;
        let indices = Indices::new(&pre).map_err(|error| LoadError::Contract(human(&error.to_string())))?;
        Ok((Compiled { pre, indices, reads_arguments: false }, made))
    }))
    .unwrap_or_else(|panic| Err(LoadError::Compiler(human(&panic_text(&*panic)))))?;
    let metadata = introduce(&compiled, label)?;
    let name =
        Name::new(&metadata.name).map_err(|error| LoadError::Name { name: human(&metadata.name), error })?;
    if metadata.version.is_empty() {
        return Err(LoadError::Metadata("`version` is empty".into()));
    }
    let grants: Result<Vec<Grant>, LoadError> = metadata
        .grants
        .iter()
        .map(|name| Grant::named(name).ok_or_else(|| LoadError::UnknownGrant(human(name))))
        .collect();
    let grants = grants?;
    // A build that asks comes into force only once it was given that.
    compiled.reads_arguments = grants.contains(&Grant::Arguments);
    if metadata.config_schema.as_ref().is_some_and(|schema| schema.len() > SCHEMA_BYTES_MAX) {
        return Err(LoadError::Schema(format!("is larger than {} KiB", SCHEMA_BYTES_MAX >> 10)));
    }
    Ok(Build {
        compiled: Arc::new(compiled),
        name,
        version: printable(cut(&metadata.version, VERSION_BYTES_MAX)),
        summary: printable(cut(&metadata.summary, SUMMARY_BYTES_MAX)),
        budgets: metadata.budgets.check()?,
        config_schema: metadata.config_schema,
        grants,
        made,
    })
}

fn not_prepared(error: RuntimeError) -> LoadError {
    match error {
        RuntimeError::Compile(CompileError::Child(error)) => match error {
            ChildError::NotTaken(words) => not_taken(&words),
            ChildError::TooLong(limit) => LoadError::CompileTime(limit),
            ChildError::Start(error) => LoadError::NoProcess("compile it", error.kind()),
            error @ (ChildError::Starved(_) | ChildError::Killed) => {
                LoadError::Unfinished("compile it", error.to_string())
            }
            error => LoadError::Compiler(human(&error.to_string())),
        },
        RuntimeError::Compile(error) => LoadError::Compiler(human(&error.to_string())),
        RuntimeError::Link(error) => not_taken(&words(&*error)),
    }
}

/// Whether the configuration fits what the plugin says about it.
///
/// # Errors
/// It does not, or there is no saying so.
pub fn check_configuration(runtime: &Runtime, build: &Build, config_json: &str) -> Result<(), LoadError> {
    let Some(schema) = &build.config_schema else { return Ok(()) };
    let question = Question { schema: schema.into(), config_json: config_json.into() };
    match runtime.compiler().check(&question) {
        Ok(issues) if issues.is_empty() => Ok(()),
        Ok(issues) => Err(LoadError::Unfit(issues.into())),
        Err(CheckError::Child(ChildError::Start(error))) => {
            Err(LoadError::NoProcess("check its configuration", error.kind()))
        }
        Err(CheckError::Child(error @ (ChildError::Starved(_) | ChildError::Killed))) => {
            Err(LoadError::Unfinished("check its configuration", error.to_string()))
        }
        Err(CheckError::Child(ChildError::NotTaken(words))) => Err(LoadError::Schema(human(&words))),
        Err(CheckError::Child(error)) => {
            Err(LoadError::Schema(human(&format!("cannot be checked against: {error}"))))
        }
        Err(error) => Err(LoadError::Schema(human(&error.to_string()))),
    }
}

fn not_taken(words: &str) -> LoadError {
    // The validator names the feature that concurrency would need.
    if words.contains("async") && words.contains("feature") {
        return LoadError::AsyncAbi;
    }
    LoadError::Contract(human(words))
}

/// Runs with a memory of its own, so that a self-test leaves no trace in the plugin's.
fn introduce(compiled: &Compiled, label: &str) -> Result<Metadata, LoadError> {
    let instance = compiled.instantiate(Class::Background, &Allowance::default(), Shared::new(label));
    let mut instance = instance.map_err(LoadError::during("its start"))?;
    let text = instance
        .enter_aside(|guest, store| guest.metadata(store))
        .map_err(LoadError::during("`metadata`"))?;
    let metadata = toml::from_str(&text)
        .map_err(|error: toml::de::Error| LoadError::Metadata(human(error.message())))?;
    instance
        .enter_aside(|guest, store| guest.self_test(store))
        .map_err(LoadError::during("`self-test`"))?
        .map_err(|reason| LoadError::SelfTest(human(&reason)))?;
    Ok(metadata)
}
