//! Routers: what was decided before is not asked again, where the plugin says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::hot::{self, Hot};
use crate::mesh::ids::Name;
use crate::mesh::pool::Catalog;
use crate::mesh::reuse::Reused;
use crate::mesh::verdict::{CallFacts, Decision};
use crate::policy::{PolicyFault, Router, Source};

pub struct WasmRouter {
    hot: Arc<Hot>,
    /// One for each worker; they end with the generation.
    memory: Box<[Memory]>,
}

/// What one worker remembers. Apart from its neighbours in memory.
#[repr(align(128))]
#[derive(Default)]
struct Memory {
    reused: Mutex<Reused>,
    hits: AtomicU64,
}

impl WasmRouter {
    pub fn new(hot: Arc<Hot>) -> Self {
        let memory = (0..hot.workers()).map(|_| Memory::default()).collect();
        Self { hot, memory }
    }

    /// Calls that were decided without asking the plugin.
    pub fn reused(&self) -> u64 {
        self.memory.iter().map(|memory| memory.hits.load(Ordering::Relaxed)).sum()
    }
}

impl Router for WasmRouter {
    fn source(&self) -> &Arc<Source> {
        self.hot.source()
    }

    fn route(&self, call: &CallFacts<'_>, catalog: &Arc<Catalog>) -> Result<Arc<Decision>, PolicyFault> {
        let memory = &self.memory[hot::worker() % self.memory.len()];
        // Whoever finds it taken asks the plugin: that is not dearer than waiting.
        let known = memory.reused.try_lock().ok().and_then(|reused| reused.get(call, catalog.version));
        if let Some(decision) = known
            && !self.hot.rests()
        {
            memory.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(decision);
        }
        let decision = Arc::new(self.hot.ask(|instance| instance.route(call, catalog))?);
        if decision.reuse.is_some()
            && let Ok(mut reused) = memory.reused.try_lock()
        {
            reused.put(call, catalog.version, &decision);
        }
        Ok(decision)
    }

    fn refuses_on_fault(&self) -> bool {
        self.hot.refuses_on_fault()
    }

    /// Shown, but no strike: a service that has not come yet, or has just gone, must not silence all other rules.
    fn overruled(&self, target: &Name) {
        self.hot.misjudged(&format!("it forwarded to `{target}`, which does not exist"));
    }
}
