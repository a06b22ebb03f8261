//! Finished calls on their way to meters, and what meters make of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::tool_latency::ToolLatencies;
use crate::clock;
use crate::mesh::ids::Name;
use crate::mesh::observe::{Finished, Metric, Point};
use crate::policy::Meter;
use crate::proxy::Proxy;
use crate::registry::Registry;

/// Distance of the batches that meters get.
const EVERY: Duration = Duration::from_secs(1);
/// Distance of looks at the channel. A receiver that waits in it is woken by every call, which costs the call a
/// system call and its core two switches; one that looks now and then costs it nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Calls in one batch; meters are told how many did not fit.
const BATCH_MAX: usize = 10_000;

/// What one meter shows.
#[derive(Clone, Debug)]
pub struct Reading {
    pub plugin: Name,
    pub metrics: Vec<Metric>,
    pub points: Vec<Point>,
}

/// The newest readings of all meters.
pub type Readings = Arc<ArcSwap<Vec<Reading>>>;

/// Runs until `stop`. Run by `app`.
pub struct Metering {
    pub registry: Registry,
    pub proxy: Arc<Proxy>,
    pub calls: mpsc::Receiver<Finished>,
    pub readings: Readings,
    pub journal: Arc<Journal>,
}

impl Metering {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut latencies = ToolLatencies::default();
        let mut batch: Vec<Finished> = Vec::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut overflow: u64 = 0;
        let told = AtomicU64::new(0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {
                    while let Ok(call) = self.calls.try_recv() {
                        latencies.note(&call);
                        self.journal.note(&call);
                        if batch.len() < BATCH_MAX { batch.push(call) } else { overflow += 1 }
                    }
                }
                _ = ticks.tick() => {
                    latencies.compare(&self.registry.snapshot());
                    let lost = self.proxy.finished_dropped();
                    let dropped = overflow + lost - told.swap(lost, Ordering::Relaxed);
                    overflow = 0;
                    self.feed(std::mem::take(&mut batch), u32::try_from(dropped).unwrap_or(u32::MAX)).await;
                }
            }
        }
    }

    /// A meter that faults shows nothing until it answers again; its faults are counted where they happen.
    async fn feed(&self, batch: Vec<Finished>, dropped: u32) {
        let meters = self.registry.snapshot().policies.meters.clone();
        let readings = Arc::clone(&self.readings);
        let work = move || {
            let read = |meter: &Arc<dyn Meter>| {
                if !batch.is_empty() || dropped > 0 {
                    meter.on_calls(&batch, dropped).ok()?;
                }
                let points = meter.collect(clock::wall()).ok()?;
                Some(Reading {
                    plugin: meter.source().name.clone(),
                    metrics: meter.describe().metrics.clone(),
                    points,
                })
            };
            readings.store(Arc::new(meters.iter().filter_map(read).collect()));
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(error = %error, "metering panicked");
        }
    }
}
