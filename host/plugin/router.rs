//! Routers: what was decided before is not asked again, where the plugin says so, and what it crashed on is not asked
//! for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use super::capsule::Seen;
use super::fault::Fault;
use super::hot::{self, Hot, Question};
use crate::mesh::crashes::{Course, Crashes};
use crate::mesh::ids::Name;
use crate::mesh::pool::Catalog;
use crate::mesh::reuse::Reused;
use crate::mesh::verdict::{CallFacts, Decision};
use crate::policy::{PolicyFault, Router, Source};

pub struct WasmRouter {
    hot: Arc<Hot>,
    /// One for each worker; they end with the generation.
    memory: Box<[Memory]>,
    /// Whether there may be calls to be skipped: all that a router costs that never crashed twice on one input.
    skips: AtomicBool,
    crashes: RwLock<Crashes>,
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
        Self { hot, memory, skips: AtomicBool::new(false), crashes: RwLock::default() }
    }

    /// Calls that were decided without asking the plugin.
    pub fn reused(&self) -> u64 {
        self.memory.iter().map(|memory| memory.hits.load(Ordering::Relaxed)).sum()
    }

    fn course(&self, call: &CallFacts<'_>) -> Course {
        // A rest comes first: the one call that may try again would be lost to it.
        if !self.skips.load(Ordering::Relaxed) || self.hot.rests() {
            return Course::Ask;
        }
        let course = self.crashes.read().unwrap_or_else(PoisonError::into_inner).course(call);
        if course == Course::Retry && !self.crashes().claims(call) { Course::Skip } else { course }
    }

    /// Whether the fault is to be held against the plugin, not only against what it was asked.
    #[cold]
    fn failed(&self, call: &CallFacts<'_>, catalog: &Arc<Catalog>, fault: &Fault) -> bool {
        let plugin = self.hot.plugin();
        let input = self.crashes().fingerprint(call);
        plugin.capsules.note(plugin, input, fault, || Seen::route(call, catalog));
        // Three faults bring the build before back, which may well know what to do with such calls.
        if !fault.by_guest() || self.hot.gives_way() {
            return true;
        }
        let mut crashes = self.crashes();
        let crash = crashes.crash(call);
        self.skips.store(crashes.skips_any(), Ordering::Relaxed);
        drop(crashes);
        if let Some(scope) = crash.skips {
            self.hot.plugin().health.skips(call, scope, fault);
        }
        crash.strikes
    }

    /// What became of the one call that tried again.
    #[cold]
    fn tried(&self, call: &CallFacts<'_>, answer: &Result<Decision, PolicyFault>) {
        let mut crashes = self.crashes();
        match answer {
            Ok(_) => crashes.answered(call),
            // It has been counted as a crash.
            Err(PolicyFault::Trap(_) | PolicyFault::Deadline(_) | PolicyFault::Nonsense(..)) => return,
            Err(_) => return crashes.give_back(call),
        }
        self.skips.store(crashes.skips_any(), Ordering::Relaxed);
        drop(crashes);
        let (plugin, service, tool) = (&self.hot.source().name, call.service, call.tool);
        tracing::info!(%plugin, service, tool, "plugin is asked about such calls again");
    }

    fn crashes(&self) -> RwLockWriteGuard<'_, Crashes> {
        // A row may lack its last crash after a panic; it still tells what was counted before.
        self.crashes.write().unwrap_or_else(PoisonError::into_inner)
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
        let course = self.course(call);
        if course == Course::Skip {
            self.hot.plugin().health.skipped();
            return Err(PolicyFault::Skipped(self.hot.source().name.clone()));
        }
        let failed = |fault: &Fault| self.failed(call, catalog, fault);
        let answer = self.hot.ask(Question::Route, |instance| instance.route(call, catalog), failed);
        if course == Course::Retry {
            self.tried(call, &answer);
        }
        let decision = Arc::new(answer?);
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
        if self.hot.plugin().health.hides_words() {
            self.hot.misjudged("it forwarded to a service that does not exist");
        } else {
            self.hot.misjudged(&format!("it forwarded to `{target}`, which does not exist"));
        }
    }
}
