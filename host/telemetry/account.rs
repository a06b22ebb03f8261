//! Counts on their way to the store and the stats file. Calls add to atomics; this task looks at them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stats_file;
use crate::clock;
use crate::mesh::ids::Name;
use crate::mesh::memo::MemoChange;
use crate::mesh::reliability::{Kept, Record, Subject};
use crate::mesh::stats::CallCounts;
use crate::registry::{Registry, Snapshot};
use crate::store::{InstanceFigures, ServiceTotals, Store};

/// Distance of looks: the file is never more than 250 ms behind, the store never more than 500 ms.
const EVERY: Duration = Duration::from_millis(200);
/// Conditions of instances that nobody calls are written this often.
const FIGURES_EVERY: u32 = 25;
/// How reliable they were is written this often.
const RELIABILITY_EVERY: u32 = 50;
/// A memory has four batches; a plugin that goes on writing must not hold the end.
const LAST_BATCHES_MAX: u32 = 8;

/// Keeps the stats file. Runs until `stop`, then writes once more. Run by `app`, apart from [`Accountant`]: a slow
/// disk under one must not hold the other.
pub struct StatsFile {
    registry: Registry,
    path: PathBuf,
    shown: Option<stats_file::View>,
    failed: bool,
}

impl StatsFile {
    pub fn new(registry: Registry, path: PathBuf) -> Self {
        stats_file::set_corrupt_aside(&path);
        Self { registry, path, shown: None, failed: false }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut generations = self.registry.generations();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                // Registrations and deregistrations show at once.
                Ok(()) = generations.changed() => {}
            }
            self.write().await;
        }
        self.shown = None;
        self.write().await;
    }

    async fn write(&mut self) {
        let view = stats_file::View::of(&self.registry.snapshot());
        if self.shown.as_ref() == Some(&view) && self.path.exists() {
            return;
        }
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            stats_file::write(&path, &view, clock::wall()).map(|()| view)
        });
        match written.await.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))) {
            Ok(view) => {
                self.shown = Some(view);
                self.failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(path = %self.path.display(), error = %error, "cannot write the stats file, tried again");
                }
            }
        }
    }
}

pub type Take = Box<dyn Fn() -> Vec<MemoChange> + Send + Sync>;
pub type PutBack = Box<dyn Fn(&[MemoChange]) + Send + Sync>;

/// What plugins remember and is to be written down, and where it goes back to when that failed.
pub struct Unsaved {
    pub take: Take,
    pub put_back: PutBack,
}

/// Brings counts and memories to the store. Runs until `stop`, then writes once more. Run by `app`.
pub struct Accountant {
    registry: Registry,
    store: Store,
    unsaved: Unsaved,
    services: HashMap<Name, CallCounts>,
    instances: HashMap<Name, InstanceFigures>,
    round: u32,
}

impl Accountant {
    pub fn new(registry: Registry, store: Store, unsaved: Unsaved) -> Self {
        Self { registry, store, unsaved, services: HashMap::new(), instances: HashMap::new(), round: 0 }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.write_store().await;
        }
        self.round = 0;
        for _ in 0..LAST_BATCHES_MAX {
            if !self.write_store().await {
                break;
            }
        }
    }

    /// Whether there was something to write, and it was written.
    async fn write_store(&mut self) -> bool {
        let snapshot = self.registry.snapshot();
        let services: Vec<ServiceTotals> = snapshot
            .totals()
            .iter()
            .map(|(name, core)| ServiceTotals { name: name.clone(), counts: core.counters.snapshot() })
            .filter(|totals| self.services.get(&totals.name) != Some(&totals.counts))
            .filter(|totals| totals.counts != CallCounts::default())
            .collect();
        let all = self.round.is_multiple_of(FIGURES_EVERY);
        self.round = self.round.wrapping_add(1);
        let instances: Vec<InstanceFigures> = figures(&snapshot)
            .filter(|figures| match self.instances.get(&figures.name) {
                None => true,
                Some(last) => last.counts != figures.counts || (all && last != figures),
            })
            .collect();
        let memos = (self.unsaved.take)();
        let is_due = self.round % RELIABILITY_EVERY == 1;
        let reliability = if is_due { reliability(&snapshot) } else { Vec::new() };
        if services.is_empty() && instances.is_empty() && memos.is_empty() && reliability.is_empty() {
            return false;
        }
        // What failed is still different at the next look, so it is written then; the store says so to people.
        let written = self.store.totals(services.clone(), instances.clone(), memos.clone(), reliability);
        if written.await.is_err() {
            (self.unsaved.put_back)(&memos);
            return false;
        }
        self.services.extend(services.into_iter().map(|totals| (totals.name, totals.counts)));
        self.instances.extend(instances.into_iter().map(|figures| (figures.name.clone(), figures)));
        self.instances.retain(|name, _| snapshot.find(name.as_str()).is_some());
        true
    }
}

fn reliability(snapshot: &Snapshot) -> Vec<Kept> {
    let services = snapshot.totals().iter().map(|(name, core)| {
        let uptime = core.uptime(|uptime| uptime.clone());
        let record = Record { uptime, ..Record::default() };
        Kept { of: Subject::Service(name.clone()), record, errors_in_a_row: 0, ewma_us: 0 }
    });
    let instances = snapshot.instances();
    let instances = instances.map(|instance| instance.core.kept(Subject::Instance(instance.name().clone())));
    services.chain(instances).collect()
}

fn figures(snapshot: &Snapshot) -> impl Iterator<Item = InstanceFigures> + '_ {
    snapshot.instances().map(|instance| InstanceFigures {
        name: instance.name().clone(),
        counts: instance.core.counters.snapshot(),
        state: instance.health.as_str().to_owned(),
        score: instance.core.live.score(),
        reason: instance.reason.clone(),
        ewma_us: instance.core.average.us(),
        configured: instance.configured,
    })
}

/// Calls processed, ever: by services that are registered and by those that were.
pub fn total_messages(snapshot: &Snapshot) -> u64 {
    snapshot.totals().iter().map(|(_, core)| core.counters.messages.load(Ordering::Acquire)).sum()
}
