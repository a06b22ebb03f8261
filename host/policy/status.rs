//! What is known about each plugin, for listings, metrics and the page.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::mesh::ids::CallId;
use crate::mesh::observe::Panel;
use crate::mesh::ruling::Grant;
use crate::mesh::time::Wall;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// In force.
    Loaded,
    /// In force, and not asked for a while after repeated faults.
    Quarantined,
    /// Not in force; the reason says why.
    Refused,
    /// Not in force, until somebody gives it what it asks for.
    Pending,
    /// Not in force, because the configuration or an operator says so.
    Disabled,
    /// Embedded, and overridden by a file of the same name.
    Shadowed,
    /// Not in force yet: it is being compiled.
    Building,
    /// Not in force, as no file is that plugin, and no call passes without it.
    Missing,
}

impl PluginState {
    pub const ALL: [Self; 8] = [
        Self::Loaded,
        Self::Quarantined,
        Self::Refused,
        Self::Pending,
        Self::Disabled,
        Self::Shadowed,
        Self::Building,
        Self::Missing,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
            Self::Pending => "pending",
            Self::Disabled => "disabled",
            Self::Shadowed => "shadowed",
            Self::Building => "building",
            Self::Missing => "missing",
        }
    }
}

/// Where machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Compiled,
    /// By a run before this one.
    Cached,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compiled => "compiled",
            Self::Cached => "cached",
        }
    }
}

/// How a plugin's machine code was made, and how long that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub origin: Origin,
    pub took: Duration,
}

/// A build that did not come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBuild {
    /// Of the component, in hexadecimal digits; empty when it could not be read.
    pub sha256: String,
    pub reason: String,
    pub at: Wall,
}

/// A build that waits for grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingBuild {
    /// Of the component, in hexadecimal digits.
    pub sha256: String,
    pub version: String,
    /// What it asks for and nobody gave it.
    pub grants: Vec<Grant>,
    pub reason: String,
}

/// What a build would have answered to the calls before it, beside what the build before it would have. A first router
/// is compared with passing all of them on; other first builds are asked, and not compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    pub compared: usize,
    /// Of these, how many it decided otherwise.
    pub changed: usize,
    /// Left out of both, because the router read arguments, which are not recorded.
    pub unrepeatable: usize,
    /// Not compared, because the build before could not be asked any more after its faults.
    pub uncompared: usize,
    /// Some of those that it decided otherwise.
    pub examples: Vec<ReplayExample>,
    /// 99th percentile of an answer's processor time, in microseconds.
    pub p99_us: f64,
    /// That of the build before, if there was one and it could be asked.
    pub p99_us_before: Option<f64>,
    /// The first fault of a build that came into force nevertheless, as there was none before it. No more was asked.
    pub fault: Option<String>,
}

/// A call that two builds decide differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayExample {
    pub call: CallId,
    pub service: String,
    pub tool: String,
    pub before: String,
    pub after: String,
}

/// Microseconds within which 99 of 100 answers are given, of what a plugin is asked on calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BudgetStatus {
    pub route_us: Option<f64>,
    pub pick_us: Option<f64>,
}

/// Until when a build is on probation, and what comes back if it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbationStatus {
    pub until: Wall,
    pub previous_version: String,
    pub previous_generation: u64,
}

/// Why a plugin is not rolled back.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RollbackError {
    #[error("no plugin of that name is in force")]
    Unknown,
    #[error(
        "it has taken no other build's place lately: the one before is kept while a build is on probation"
    )]
    NothingBefore,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PluginStatus {
    /// The plugin's name; the file's, when it never said its own.
    pub name: String,
    /// `None` for one that is embedded in the program, or missing.
    pub file: Option<PathBuf>,
    /// Empty when it was refused before it said so.
    pub version: String,
    pub summary: String,
    /// Of `router`, `balancer`, `alerter`, `meter`.
    pub kinds: Vec<&'static str>,
    pub state: PluginState,
    /// One sentence for people; empty when there is nothing to say.
    pub reason: String,
    /// It is not in force, and no call passes without it.
    pub stops_calls: bool,
    /// Calls that it cannot be asked about are refused.
    pub refuses_on_fault: bool,
    /// Why it rests, or rested last.
    pub rest_reason: String,
    /// Of the component, in hexadecimal digits.
    pub sha256: String,
    pub size_bytes: usize,
    /// `None` when it did not get that far.
    pub made: Option<Made>,
    /// Grows each time the plugin of this name is replaced; 0 when it is not in force.
    pub generation: u64,
    /// Lower is asked first.
    pub order: i32,
    /// When this generation came into force; the epoch when it is not.
    pub loaded_at: Wall,
    pub calls: u64,
    /// Of these, how many were timed, and what they took together.
    pub timed: u64,
    pub took: Duration,
    /// Calls that followed an earlier decision or a plan, so that it was not asked.
    pub reused: u64,
    pub faults: u64,
    /// Rests, or did a moment ago: whoever looks now and then shall miss no rest.
    pub rested_lately: bool,
    /// Calls that went on without the plugin.
    pub fallbacks: u64,
    /// Of these, calls that it was not asked about, since it crashed on such calls.
    pub skipped: u64,
    /// 99th percentile of a call's latency in microseconds.
    pub p99_us: f64,
    pub budget: BudgetStatus,
    /// Linear memory of all instances.
    pub memory_bytes: usize,
    pub last_fault: Option<String>,
    /// File in `capsules` of the data folder with which a fault can be repeated.
    pub capsule: Option<String>,
    /// The newest build that was refused while this one stayed in force.
    pub refused: Option<RefusedBuild>,
    /// The build that waits for grants: beside the one in force, or this one.
    pub pending: Option<PendingBuild>,
    /// Of the build that is being compiled while this one is in force, in hexadecimal digits.
    pub building: Option<String>,
    /// What it was given.
    pub grants: Vec<Grant>,
    /// What was found before it took the place of the build before it.
    pub replay: Option<Arc<Replay>>,
    pub probation: Option<ProbationStatus>,
    /// What a meter wants to be shown; indices refer to its metrics.
    pub panels: Vec<Panel>,
}

/// What the reason begins with why a build is kept out that was in force and failed there.
const ROLLED_BACK: &str = "rolled back: ";

impl PluginStatus {
    /// Why its file's build is kept out, if that was in force and failed there.
    pub fn rolled_back(&self) -> Option<&str> {
        let reason = match self.state {
            PluginState::Refused => &self.reason,
            // Somebody wants it so.
            PluginState::Disabled => return None,
            _ => &self.refused.as_ref()?.reason,
        };
        reason.starts_with(ROLLED_BACK).then_some(reason)
    }

    /// A plugin that is not in force.
    pub fn idle(name: String, file: Option<PathBuf>, state: PluginState, reason: String) -> Self {
        Self {
            name,
            file,
            version: String::new(),
            summary: String::new(),
            kinds: Vec::new(),
            state,
            reason,
            stops_calls: false,
            refuses_on_fault: false,
            rest_reason: String::new(),
            sha256: String::new(),
            size_bytes: 0,
            made: None,
            generation: 0,
            order: 0,
            loaded_at: Wall::default(),
            calls: 0,
            timed: 0,
            took: Duration::ZERO,
            reused: 0,
            faults: 0,
            rested_lately: false,
            fallbacks: 0,
            skipped: 0,
            p99_us: 0.0,
            budget: BudgetStatus::default(),
            memory_bytes: 0,
            last_fault: None,
            capsule: None,
            refused: None,
            pending: None,
            building: None,
            grants: Vec::new(),
            replay: None,
            probation: None,
            panels: Vec::new(),
        }
    }
}
