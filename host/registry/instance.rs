//! An instance and a service as a snapshot holds them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;
use crate::mesh::child::ChildState;
use crate::mesh::drain::{self, Drain, Wants};
use crate::mesh::health::HealthState;
use crate::mesh::hedge::{Hedge, Hedging, Lately};
use crate::mesh::ids::{Name, Slot};
use crate::mesh::instance::InstanceSpec;
use crate::mesh::lease::LeasePhase;
use crate::mesh::offer::Offer;
use crate::mesh::pool::{Live, Pool};
use crate::mesh::reliability::{self, Kept, Subject, Uptime};
use crate::mesh::retry::Budget;
use crate::mesh::stats::{Average, CallCounters, CallCounts, HistogramSnapshot, LatencyHistogram};
use crate::mesh::time::{Mono, Wall};
use crate::upstream::Peer;

use super::{Guard, Line};

/// One instance at one moment. What changes with each call is behind `core`, which all snapshots share.
#[derive(Debug)]
pub struct Instance {
    pub spec: Arc<InstanceSpec>,
    pub id: u64,
    pub slot: Slot,
    pub epoch: u64,
    pub registered_at: Wall,
    pub phase: LeasePhase,
    /// From the configuration, not registered: it has no lease.
    pub configured: bool,
    pub health: HealthState,
    /// Why the health is what it is; empty when there is nothing to say.
    pub reason: String,
    /// Of a supervised instance, once it was seen: its state, and when it is started again.
    pub child: Option<(ChildState, Option<Mono>)>,
    /// Since when the health is what it is.
    pub since: Wall,
    /// It is being taken out of use.
    pub drain: Option<Drain>,
    pub peer: Arc<Peer>,
    pub core: Arc<InstanceCore>,
}

impl Instance {
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// Its state in a word: what it was seen to be, or that it has yet to be seen.
    pub fn state(&self) -> &'static str {
        if let Some((state, _)) = self.child.filter(|(state, _)| *state != ChildState::Ready) {
            return state.as_str();
        }
        if self.drain.is_some() && self.is_alive() {
            return "draining";
        }
        match (self.phase == LeasePhase::Restored, self.configured) {
            (true, true) => "starting",
            (true, false) => "restored",
            (false, _) => self.health.as_str(),
        }
    }

    /// Whether its breaker waits for a trial, and nothing but failed calls keeps others away.
    pub fn is_due(&self, now: Mono) -> bool {
        let by_calls_only =
            self.core.live.share_permille() > 0 || self.core.probe_failures.load(Ordering::Relaxed) == 0;
        self.is_routable() && by_calls_only && self.core.guard.is_due(now)
    }

    /// Whether it answered a probe since it last failed a call, or is not asked because it wants credentials.
    pub fn answers_probes(&self) -> bool {
        self.core.answered_at.load(Ordering::Relaxed) > self.core.guard.failed_at().as_micros()
    }

    /// Why the state is what it is, and when that may change by itself.
    pub fn why(&self) -> String {
        if let Some(drain) = self.drain.as_ref().filter(|_| self.is_alive()) {
            let colon = if drain.order.reason.is_empty() { "" } else { ": " };
            let (calls, sessions) = (self.core.live.in_flight(), self.sessions());
            let left = format!("{calls} calls and {sessions} sessions are left");
            return format!("taken out of use{colon}{}; {left}", drain.order.reason);
        }
        match self.child {
            Some((_, Some(next))) => {
                let left = next.since(clock::mono()).as_secs_f64().ceil();
                format!("{}; next try in {left} s", self.reason)
            }
            _ => self.reason.clone(),
        }
    }

    /// Sessions of clients that are with it.
    pub fn sessions(&self) -> u32 {
        self.core.sessions.load(Ordering::Relaxed)
    }

    /// Whether it has proved to be there, and is not known to be gone.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, LeasePhase::Active | LeasePhase::Suspect) && self.health != HealthState::Dead
    }

    /// Whether calls may be sent there at all.
    pub fn is_routable(&self) -> bool {
        self.is_alive() && self.drain.is_none()
    }

    /// Whether calls are sent there, and it gets a share of them.
    pub fn is_available(&self) -> bool {
        self.is_routable() && self.core.live.share_permille() > 0
    }

    /// Whether it is there for what is wanted of it.
    pub fn admits(&self, wants: Wants) -> bool {
        self.drain.is_none() || drain::admits(self.drain.as_ref(), wants, clock::mono())
    }
}

/// What calls change of an instance, and what outlives its snapshots.
#[derive(Debug, Default)]
pub struct InstanceCore {
    pub live: Arc<Live>,
    pub counters: CallCounters,
    pub latency: LatencyHistogram,
    pub guard: Guard,
    /// The last connection was refused: set by calls, cleared by calls and good probes.
    pub refused: AtomicBool,
    /// Failed probes in a row.
    pub probe_failures: AtomicU32,
    /// Its last answer to a probe, as [`Mono`] microseconds; the greatest number when it is not asked any more, and 0
    /// when the last probe failed.
    pub answered_at: AtomicU64,
    /// Last accepted heartbeat, as [`Mono`] microseconds.
    pub heartbeat_at: AtomicU64,
    /// The process that it said it is, when that has ended and nobody answers probes in its place; else 0.
    pub exited: AtomicU32,
    /// How the instance's latency compares with its pool's, tool by tool, in thousandths: 1000 and more is fine.
    pub latency_permille: AtomicU32,
    /// A breaker's trial succeeded; cleared by the next judgement.
    pub proven: AtomicBool,
    /// Told when something is amiss, or well again, so that a probe finds out.
    pub doubt: Notify,
    /// Sessions of clients that are with it.
    pub sessions: AtomicU32,
    /// Calls in a row that it failed.
    pub errors_in_a_row: AtomicU32,
    /// How long it takes to answer, as people are told and as it is kept.
    pub average: Average,
    /// Written by the registry's task alone.
    reliability: Mutex<reliability::Record>,
    /// Its service's, where calls wait for one that ends here.
    pub line: Arc<Line>,
}

impl InstanceCore {
    /// `limit` calls at once.
    pub fn seeded(counts: CallCounts, limit: u32, line: &Arc<Line>) -> Self {
        let live = Live::default();
        live.set_limit(limit);
        Self {
            live: Arc::new(live),
            line: Arc::clone(line),
            counters: CallCounters::seeded(counts),
            latency_permille: AtomicU32::new(1000),
            ..Self::default()
        }
    }

    /// What is known of it beside its calls, to be read or added to.
    pub fn reliability<T>(&self, read: impl FnOnce(&mut reliability::Record) -> T) -> T {
        read(&mut self.reliability.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often its breaker opened, ever.
    pub fn trips(&self) -> u64 {
        self.reliability(|record| record.trips_before).saturating_add(self.guard.trips())
    }

    /// Its figures as they are kept.
    pub fn kept(&self, of: Subject) -> Kept {
        let record = self.reliability(|record| record.clone());
        let record = reliability::Record { trips_before: self.trips(), ..record };
        let errors_in_a_row = self.errors_in_a_row.load(Ordering::Relaxed);
        Kept { of, record, errors_in_a_row, ewma_us: self.average.us() }
    }

    /// Goes on from what is known of the one that had its name before. It is another one: how that one answered says
    /// nothing of it.
    pub fn succeed(&self, before: &Self, name: &Name, now: Mono) {
        let kept = before.kept(Subject::Instance(name.clone()));
        self.resume(Kept { errors_in_a_row: 0, ewma_us: 0, ..kept }, now);
    }

    /// Goes on from what was kept.
    pub fn resume(&self, kept: Kept, now: Mono) {
        self.reliability(|record| *record = kept.record);
        self.errors_in_a_row.store(kept.errors_in_a_row, Ordering::Relaxed);
        if kept.ewma_us > 0 {
            self.average.resume(kept.ewma_us);
            self.live.observe(now, Duration::from_micros(kept.ewma_us.into()));
        }
    }
}

/// A client's session that is with an instance; dropping it counts it out.
#[derive(Debug)]
pub struct Berthed(Arc<InstanceCore>);

impl Berthed {
    pub fn at(instance: &Instance) -> Self {
        instance.core.sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&instance.core))
    }
}

impl Drop for Berthed {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What calls change of a service. Lives as long as the process, whether the service has instances or not.
#[derive(Debug, Default)]
pub struct ServiceCore {
    pub counters: CallCounters,
    pub latency: LatencyHistogram,
    pub budget: Budget,
    pub hedging: Hedging,
    /// Written by the registry's task alone, while the service hedges.
    lately: Mutex<Lately>,
    /// Calls that wait for an instance to have room.
    pub line: Arc<Line>,
    /// Written by the registry's task alone.
    uptime: Mutex<Uptime>,
    /// An instance waits for its breaker's trial: the next call that may be it is it. Looked at each second.
    pub trial_due: AtomicBool,
    /// Fewer than half of the instances are available: calls may go to all that are not dead.
    pub panics: AtomicBool,
}

impl ServiceCore {
    pub fn seeded(counts: CallCounts) -> Self {
        Self { counters: CallCounters::seeded(counts), ..Self::default() }
    }

    /// What its calls took lately, when it is asked each second.
    pub fn lately(&self, now: Mono) -> HistogramSnapshot {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.of(self.latency.snapshot(), now)
    }

    /// How much of the time it could be called, to be read or added to.
    pub fn uptime<T>(&self, read: impl FnOnce(&mut Uptime) -> T) -> T {
        read(&mut self.uptime.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A service that has instances.
#[derive(Debug)]
pub struct Service {
    pub name: Name,
    pub pool: Arc<Pool>,
    /// In the order of the pool's members.
    pub instances: Vec<Arc<Instance>>,
    /// What its instances offer together, or offered when they were last asked.
    pub offer: Arc<Offer>,
    pub since: Wall,
    /// Whether its slow calls are asked of a second instance, too.
    pub hedge: Option<Hedge>,
    pub core: Arc<ServiceCore>,
}

impl Service {
    pub fn instance(&self, slot: Slot) -> Option<&Arc<Instance>> {
        // They are in the order of their slots.
        let at = self.instances.binary_search_by_key(&slot, |instance| instance.slot).ok()?;
        self.instances.get(at)
    }

    pub fn available(&self) -> usize {
        self.instances.iter().filter(|instance| instance.is_available()).count()
    }

    /// Instances that are available, with no breaker that keeps calls away.
    pub fn unhampered(&self) -> usize {
        let now = clock::mono();
        let free =
            |instance: &&Arc<Instance>| instance.is_available() && !instance.core.guard.keeps_away(now);
        self.instances.iter().filter(free).count()
    }

    /// Instances that were seen at least once, but for those that somebody took out of use: so many should be there.
    pub fn expected(&self) -> usize {
        let expected =
            |instance: &&Arc<Instance>| instance.drain.is_none() && instance.phase != LeasePhase::Restored;
        self.instances.iter().filter(expected).count()
    }

    /// Instances but for those that somebody took out of use, which are not missed.
    pub fn wanted(&self) -> usize {
        self.instances.iter().filter(|instance| instance.drain.is_none()).count()
    }
}
