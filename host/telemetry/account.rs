//! Counts on their way to the store and the stats file. Calls add to atomics; this task looks at them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stats_file;
use crate::clock;
use crate::mesh::ids::Name;
use crate::mesh::stats::CallCounts;
use crate::registry::{Registry, Snapshot};
use crate::store::{InstanceFigures, ServiceTotals, Store};

/// Distance of looks: the file is never more than 250 ms behind, the store never more than 500 ms.
const EVERY: Duration = Duration::from_millis(200);
/// Conditions of instances that nobody calls are written this often.
const FIGURES_EVERY: u32 = 25;

/// Runs until `stop`, then writes once more. Run by `app`.
pub struct Accountant {
    registry: Registry,
    store: Store,
    stats_file: Option<PathBuf>,
    services: HashMap<Name, CallCounts>,
    instances: HashMap<Name, InstanceFigures>,
    file: Option<stats_file::View>,
    file_failed: bool,
    round: u32,
}

impl Accountant {
    pub fn new(registry: Registry, store: Store, stats_file: Option<PathBuf>) -> Self {
        if let Some(path) = &stats_file {
            stats_file::set_corrupt_aside(path);
        }
        Self {
            registry,
            store,
            stats_file,
            services: HashMap::new(),
            instances: HashMap::new(),
            file: None,
            file_failed: false,
            round: 0,
        }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut generations = self.registry.generations();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    self.write_file();
                    self.write_store().await;
                }
                // Registrations and deregistrations show at once.
                Ok(()) = generations.changed() => self.write_file(),
            }
        }
        self.round = 0;
        self.write_file();
        self.write_store().await;
    }

    fn write_file(&mut self) {
        let Some(path) = &self.stats_file else { return };
        let view = stats_file::View::of(&self.registry.snapshot());
        if self.file.as_ref() == Some(&view) && path.exists() {
            return;
        }
        match stats_file::write(path, &view, clock::wall()) {
            Ok(()) => {
                self.file = Some(view);
                self.file_failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.file_failed, true) {
                    tracing::warn!(path = %path.display(), error = %error, "cannot write the stats file, tried again");
                }
            }
        }
    }

    async fn write_store(&mut self) {
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
        if services.is_empty() && instances.is_empty() {
            return;
        }
        // What failed is still different at the next look, so it is written then; the store says so to people.
        if self.store.totals(services.clone(), instances.clone()).await.is_ok() {
            self.services.extend(services.into_iter().map(|totals| (totals.name, totals.counts)));
            self.instances.extend(instances.into_iter().map(|figures| (figures.name.clone(), figures)));
            self.instances.retain(|name, _| snapshot.find(name.as_str()).is_some());
        }
    }
}

fn figures(snapshot: &Snapshot) -> impl Iterator<Item = InstanceFigures> + '_ {
    snapshot.instances().map(|instance| InstanceFigures {
        name: instance.name().clone(),
        counts: instance.core.counters.snapshot(),
        state: instance.health.as_str().to_owned(),
        score: instance.core.live.score(),
        reason: instance.reason.clone(),
        ewma_us: instance.core.live.ewma_us(),
    })
}

/// Calls processed, ever: by services that are registered and by those that were.
pub fn total_messages(snapshot: &Snapshot) -> u64 {
    snapshot.totals().iter().map(|(_, core)| core.counters.messages.load(Ordering::Acquire)).sum()
}
