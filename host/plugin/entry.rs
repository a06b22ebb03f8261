//! A plugin in force, and what is told of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::folder::Sha;
use super::load::Build;
use super::loaded::{Figures, Loaded};
use super::probation::Probation;
use super::round::under;
use crate::mesh::allowance::Allowance;
use crate::mesh::time::Wall;
use crate::policy::status::{PendingBuild, PluginState, PluginStatus, RefusedBuild, Replay};

/// A plugin in force.
#[derive(Clone)]
pub struct Entry {
    pub loaded: Loaded,
    /// `None` for an embedded one.
    pub file: Option<PathBuf>,
    pub component: Sha,
    pub config: Sha,
    pub limits: Allowance,
    pub size_bytes: usize,
    pub order: i32,
    pub loaded_at: Wall,
    pub refused: Option<RefusedBuild>,
    pub pending: Option<PendingBuild>,
    /// What its file holds now, while that is compiled.
    pub building: Option<Sha>,
    pub build: Arc<Build>,
    pub replay: Option<Arc<Replay>>,
    pub probation: Option<Arc<Probation>>,
    /// Its file holds another build, which is refused; for people.
    pub stands_in: Option<&'static str>,
}

impl Entry {
    pub fn generation(&self) -> u64 {
        self.loaded.plugin.source.generation
    }

    /// What stands for its configuration and its limits.
    pub fn terms(&self) -> Sha {
        under(self.config, &self.limits)
    }

    pub fn status(&self) -> PluginStatus {
        let plugin = &self.loaded.plugin;
        let Figures { calls, timed, took, p99_us } = self.loaded.figures();
        let rests = plugin.health.rests();
        // What it rests for is known before it rests.
        let faults = plugin.health.faults();
        let (state, reason) = if rests {
            (PluginState::Quarantined, plugin.health.rest_reason())
        } else {
            // There is nothing to say of one that is what its file holds.
            (PluginState::Loaded, self.stands_in.unwrap_or_default().to_owned())
        };
        PluginStatus {
            version: plugin.source.version.clone(),
            summary: self.build.summary.clone(),
            kinds: self.loaded.kinds.clone(),
            sha256: hex::encode(self.component),
            size_bytes: self.size_bytes,
            made: Some(self.build.made),
            generation: self.generation(),
            order: self.order,
            loaded_at: self.loaded_at,
            calls,
            timed,
            took,
            reused: self.loaded.reused(),
            faults: faults.count,
            rested_lately: plugin.health.rested_lately(),
            rest_reason: plugin.health.rest_reason(),
            refuses_on_fault: plugin.refuses_on_fault.load(Ordering::Relaxed)
                && self.loaded.kinds.contains(&"router"),
            fallbacks: plugin.health.fallbacks(),
            skipped: plugin.health.calls_skipped(),
            p99_us,
            budget: self.loaded.budget(),
            memory_bytes: self.loaded.memory_bytes(),
            last_fault: faults.last,
            capsule: plugin.capsules.newest(),
            refused: self.refused.clone(),
            pending: self.pending.clone(),
            building: self.building.map(hex::encode),
            grants: self.build.grants.clone(),
            replay: self.replay.clone(),
            probation: self.probation.as_ref().and_then(|probation| probation.status()),
            panels: self.loaded.panels.clone(),
            ..PluginStatus::idle(plugin.source.name.as_str().to_owned(), self.file.clone(), state, reason)
        }
    }
}
