//! Asks every instance how it is and what it offers, and reports to the registry: one task an instance, started and
//! ended by comparing with the snapshot.
//!
//! Knows the registry and the peers. Must not judge: the health machine does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{CallTimes, ProbeTimes};
use crate::mesh::instance::Endpoint;
use crate::mesh::lease::LeasePhase;
use crate::process::Foreign;
use crate::registry::{Instance, Registry};
use crate::upstream::{Events, Probe, Standing, Times, chain};

/// Probes under way at once.
const PARALLEL: usize = 256;
/// How long listing what an instance offers may take.
const LISTING: Duration = Duration::from_secs(10);
/// It is listed again with every so many probes.
const LIST_EVERY: u32 = 6;
/// How long after a change an instance is left alone before it is asked what has changed.
const SETTLE: Duration = Duration::from_millis(20);
/// Pause after a bad probe, which doubles from the third one on, and after the first good ones behind it.
const QUICK: Duration = Duration::from_secs(1);
const QUICK_PROBES: u32 = 3;
/// So many good probes in a row mean that all is well.
const CALM: u32 = 3;
/// Pause after the first failure of a new instance; doubles up to the usual distance.
const FIRST_RETRY: Duration = Duration::from_millis(250);

pub struct Prober {
    registry: Registry,
    probes: ProbeTimes,
    connect: Duration,
    slots: Arc<Semaphore>,
}

impl Prober {
    pub fn new(registry: Registry, probes: ProbeTimes, calls: CallTimes) -> Self {
        Self { registry, probes, connect: calls.connect, slots: Arc::new(Semaphore::new(PARALLEL)) }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut generations = self.registry.generations();
        let mut watched: HashMap<(u64, u64), AbortHandle> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            self.compare(&mut watched, &mut tasks);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = generations.changed() => if changed.is_err() { return },
                // Ended tasks are only cleared away; what runs is what the snapshot says.
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// One task for each instance (and registration of it) that the snapshot shows, none for any other.
    fn compare(&self, watched: &mut HashMap<(u64, u64), AbortHandle>, tasks: &mut JoinSet<()>) {
        let snapshot = self.registry.snapshot();
        let present: HashMap<(u64, u64), &Arc<Instance>> =
            snapshot.instances().map(|instance| ((instance.id, instance.epoch), instance)).collect();
        watched.retain(|key, task| {
            let stays = present.contains_key(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, instance) in present {
            watched.entry(key).or_insert_with(|| {
                let watch = Watch {
                    registry: self.registry.clone(),
                    instance: Arc::clone(instance),
                    probes: self.probes,
                    connect: self.connect,
                    slots: Arc::clone(&self.slots),
                };
                tasks.spawn(watch.run())
            });
        }
    }
}

/// Waits for the instance to say something; says whether it is that a list changed. The stream is gone after its end.
async fn told(changes: &mut Option<Events>) -> bool {
    let Some(events) = changes else { return std::future::pending().await };
    match events.next().await {
        Ok(Some(event)) => {
            let data = event.data.unwrap_or_default();
            memchr::memmem::find(&data, b"/list_changed\"").is_some()
        }
        Ok(None) | Err(_) => {
            *changes = None;
            false
        }
    }
}

/// The process that a registered instance says it is, if it can be on this machine.
fn process_of(instance: &Instance) -> Option<Foreign> {
    let Endpoint::Http(endpoint) = &instance.spec.endpoint else { return None };
    let host = endpoint.host().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    instance.spec.pid.filter(|_| is_here).and_then(Foreign::of)
}

/// Waits for the process to end.
async fn ended(process: Option<&Foreign>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// The pause behind so many bad probes in a row.
fn quick(bad: u32) -> Duration {
    QUICK.saturating_mul(1 << bad.saturating_sub(QUICK_PROBES).min(16))
}

/// Waits for a process to come up or go down.
async fn moved(standings: &mut Option<watch::Receiver<Standing>>) {
    let changed = match standings {
        Some(standings) => standings.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

struct Watch {
    registry: Registry,
    instance: Arc<Instance>,
    probes: ProbeTimes,
    connect: Duration,
    slots: Arc<Semaphore>,
}

impl Watch {
    async fn run(self) {
        let mut listed = false;
        let mut proved = self.instance.phase != LeasePhase::Restored;
        let mut round: u32 = 0;
        let mut retry = FIRST_RETRY;
        let mut changes: Option<Events> = None;
        // Bad probes in a row, and good ones in a row since anything was amiss.
        let (mut bad, mut calm) = (0_u32, CALM);
        let mut standings = self.instance.peer.standings();
        let (mut process, mut exited) = (process_of(&self.instance), None);
        loop {
            if self.instance.peer.is_resting() {
                // Nobody is there to be asked, and asking is no reason to start it.
                (listed, changes) = (false, None);
                moved(&mut standings).await;
                continue;
            }
            let probed = tokio::time::Instant::now();
            let probe = self.probe().await;
            let good = probe == Probe::Good;
            (bad, calm) = if good { (0, calm.saturating_add(1)) } else { (bad.saturating_add(1), 0) };
            let unauthorized = probe == Probe::Unauthorized;
            // Who answers lives, be it as another process; the first answers may be the last of the one that ended.
            if unauthorized || calm >= CALM {
                exited = None;
            }
            if let Some(pid) = exited.filter(|_| !good) {
                self.instance.core.exited.store(pid, Ordering::Relaxed);
            }
            self.registry.probed(&self.instance, probe).await;
            if unauthorized && !self.instance.configured {
                tracing::warn!(instance = %self.instance.name(), "instance asks for credentials, no longer probed until it registers anew");
                return;
            }
            proved |= good;
            if good && (!listed || round.is_multiple_of(LIST_EVERY)) {
                listed = self.list().await;
            }
            round = round.wrapping_add(1);
            self.instance.peer.prune();
            let pause = if proved && listed && calm < CALM {
                quick(bad).min(self.probes.every)
            } else if proved && listed {
                self.probes.every
            } else {
                retry = (retry * 2).min(self.probes.every);
                retry
            };
            if listed && changes.is_none() {
                changes = self.instance.peer.changes(&self.times(self.probes.timeout)).await;
            }
            let pause = tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64()));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = self.instance.core.doubt.notified() => {
                        calm = 0;
                        let soon = probed + QUICK;
                        if soon < pause.deadline() {
                            pause.as_mut().reset(soon);
                        }
                    }
                    () = ended(process.as_ref()) => {
                        tracing::info!(instance = %self.instance.name(), pid = self.instance.spec.pid, "the process of an instance ended");
                        (process, exited, calm) = (None, self.instance.spec.pid, 0);
                        break;
                    }
                    // A process that came up has another past, and perhaps another offer.
                    () = moved(&mut standings) => {
                        (listed, changes) = (false, None);
                        break;
                    }
                    told = told(&mut changes) => if told {
                        // Several lists often change together.
                        tokio::time::sleep(SETTLE).await;
                        listed = self.list().await;
                    }
                }
            }
        }
    }

    async fn probe(&self) -> Probe {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        self.instance.peer.probe(&self.times(self.probes.timeout)).await
    }

    async fn list(&self) -> bool {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let declared = &self.instance.spec.tools;
        match self.instance.peer.list_offer(declared, &self.times(LISTING)).await {
            Ok(offer) => {
                self.registry.offer(&self.instance, offer).await;
                true
            }
            Err(error) => {
                tracing::warn!(instance = %self.instance.name(), error = chain(&error), "cannot list what it offers");
                false
            }
        }
    }

    fn times(&self, limit: Duration) -> Times {
        let deadline = tokio::time::Instant::now() + limit;
        Times { connect: self.connect, first_byte: limit, deadline, wakes: false, stated: false }
    }
}
