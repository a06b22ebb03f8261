//! What a plugin saw when it failed, as a file of which it can be asked again. In the words of scenario files, so that
//! its author makes a test of it.

mod view;

use std::sync::Arc;

use self::view::{CallSeen, View};
use super::fault::Fault;
use super::loaded::Plugin;
use crate::mesh::observe::{Event, Finished, Sample, Want};
use crate::mesh::pool::{Catalog, Pool};
use crate::mesh::time::Wall;
use crate::mesh::verdict::CallFacts;
use crate::policy::Ask;

/// Changes when what was written before cannot be read any more.
pub const FORMAT: u32 = 1;
/// Of calls that a meter was told of at once, the last ones are kept.
const CALLS_MAX: usize = 1_000;

/// One failure.
pub struct Capsule {
    plugin: Arc<Plugin>,
    seen: Seen,
    fault: String,
    at: Wall,
}

/// What a plugin was asked and what it knew. Never the arguments of a call.
pub enum Seen {
    Route { call: CallSeen, catalog: Arc<Catalog> },
    Pick { pool: Pool, ask: Ask },
    Compile { pool: Pool },
    Evaluate { now: Wall, wants: Vec<Want>, samples: Vec<Sample>, events: Vec<Event> },
    OnCalls { calls: Vec<Finished>, dropped: u32 },
}

impl Seen {
    pub fn route(call: &CallFacts<'_>, catalog: &Arc<Catalog>) -> Self {
        Self::Route { call: CallSeen::of(call), catalog: Arc::clone(catalog) }
    }

    /// With figures that stand still.
    pub fn pick(pool: &Pool, ask: Ask) -> Self {
        Self::Pick { pool: pool.frozen(), ask }
    }

    pub fn compile(pool: &Pool) -> Self {
        Self::Compile { pool: pool.frozen() }
    }

    pub fn evaluate(now: Wall, wants: &[Want], samples: &[Sample], events: &[Event]) -> Self {
        Self::Evaluate { now, wants: wants.to_vec(), samples: samples.to_vec(), events: events.to_vec() }
    }

    pub fn on_calls(calls: &[Finished], dropped: u32) -> Self {
        let (left_out, kept) = calls.split_at(calls.len().saturating_sub(CALLS_MAX));
        let dropped = dropped.saturating_add(u32::try_from(left_out.len()).unwrap_or(u32::MAX));
        Self::OnCalls { calls: kept.to_vec(), dropped }
    }

    /// The function of the contract that was called.
    pub fn hook(&self) -> &'static str {
        match self {
            Self::Route { .. } => "route",
            Self::Pick { .. } => "pick",
            Self::Compile { .. } => "compile",
            Self::Evaluate { .. } => "evaluate",
            Self::OnCalls { .. } => "on-calls",
        }
    }
}

impl Capsule {
    pub fn new(plugin: Arc<Plugin>, seen: Seen, fault: &Fault, at: Wall) -> Self {
        let fault = plugin.health.words(fault);
        Self { plugin, seen, fault, at }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Names sort by time.
    pub fn file_name(&self, key: u64) -> String {
        let at =
            jiff::Timestamp::from_millisecond(self.at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let (at, name) = (at.strftime("%Y%m%dT%H%M%S%.3fZ"), &self.plugin.source.name);
        format!("{at}-{name}-{}-{:04x}.json", self.seen.hook(), key & 0xffff)
    }

    /// # Errors
    /// The configuration is no JSON, which a plugin never gets.
    pub fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(&View::of(self)?)
    }
}
