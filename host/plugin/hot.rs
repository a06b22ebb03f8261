//! Routers and balancers: one instance per data-path worker, asked inline.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use super::capsule::Seen;
use super::capsules;
use super::clock;
use super::fault::Fault;
use super::instance::{Class, Instance};
use super::load::Budget;
use super::loaded::Plugin;
use super::pace::Pace;
use super::repair::Repair;
use super::stats::{Stats, Times};
use crate::mesh::ids::Slot;
use crate::mesh::pool::Pool;
use crate::policy::{Ask, Balancer, PolicyFault, Source};

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Tells which data-path worker the calling thread is, once, when the thread starts: its calls try the instances
/// from this one on. Threads that never said so are worker 0.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

/// Which data-path worker the calling thread is.
pub fn worker() -> usize {
    WORKER.get()
}

/// After a repair that failed, the next attempt waits so long.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);

pub const NO_SUCH_SLOT: &str = "the slot does not exist";

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Route,
    Pick,
}

pub const QUESTIONS: [Question; 2] = [Question::Route, Question::Pick];

impl Question {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Pick => "pick",
        }
    }
}

impl Budget {
    pub const fn of(self, question: Question) -> f64 {
        match question {
            Question::Route => self.route_us,
            Question::Pick => self.pick_us,
        }
    }
}

/// One worker's instance. Apart from its neighbours in memory, so that workers do not slow each other down.
#[repr(align(128))]
struct Shard {
    /// `None` from a fault until the repair.
    instance: Mutex<Option<Box<Instance>>>,
    /// By question.
    stats: [Stats; QUESTIONS.len()],
    /// Processor time of the timed calls, while that is of interest.
    computed: [Stats; QUESTIONS.len()],
    memory_bytes: AtomicUsize,
    in_repair: AtomicBool,
    /// Microseconds of the room's clock.
    repair_not_before: AtomicU64,
}

/// The instances of one generation.
pub struct Hot {
    me: Weak<Hot>,
    plugin: Arc<Plugin>,
    shards: Box<[Shard]>,
    pace: Pace,
    repair: Repair,
}

impl Hot {
    /// All instances at once, configured: the first call finds them warm.
    ///
    /// # Errors
    /// The fault of the first one that failed.
    pub fn warm(
        plugin: Arc<Plugin>,
        first: Box<Instance>,
        workers: usize,
        repair: Repair,
    ) -> Result<Arc<Self>, Fault> {
        let mut shards = vec![Shard::new(first)];
        for _ in 1..workers {
            shards.push(Shard::new(plugin.instance(Class::Hot)?));
        }
        let shards = shards.into_boxed_slice();
        Ok(Arc::new_cyclic(|me| Self { me: Weak::clone(me), plugin, shards, pace: Pace::default(), repair }))
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.plugin.source
    }

    pub fn workers(&self) -> usize {
        self.shards.len()
    }

    /// Whether the plugin rests after repeated faults.
    pub fn rests(&self) -> bool {
        self.plugin.health.rests()
    }

    pub fn refuses_on_fault(&self) -> bool {
        self.plugin.refuses_on_fault.load(Ordering::Relaxed)
    }

    /// Its answer made sense and could not be followed: the call goes on without it.
    pub fn misjudged(&self, what: &str) {
        self.plugin.health.misjudged(what);
        self.plugin.health.fell_back();
    }

    /// Whether a build before this one comes back when this one fails.
    pub fn gives_way(&self) -> bool {
        self.plugin.gives_way.load(Ordering::Relaxed)
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Asks the worker's own instance, or else a neighbour's. Never waits. `failed` is told of a fault, and says whether
    /// it is to be held against the plugin.
    pub fn ask<T>(
        &self,
        which: Question,
        question: impl FnOnce(&mut Instance) -> Result<T, Fault>,
        failed: impl FnOnce(&Fault) -> bool,
    ) -> Result<T, PolicyFault> {
        let plugin = &*self.plugin;
        if plugin.health.rests() {
            plugin.health.fell_back();
            return Err(PolicyFault::Quarantined(plugin.source.name.clone()));
        }
        let own = WORKER.get() % self.shards.len();
        let (before, from_own) = self.shards.split_at(own);
        for (index, shard) in (own..).zip(from_own).chain((0..).zip(before)) {
            let mut place = match shard.instance.try_lock() {
                Ok(place) => place,
                Err(TryLockError::Poisoned(place)) => place.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            if place.is_some() {
                return self.ask_here((index, which), &mut place, question, failed);
            }
            drop(place);
            self.want_repair(index);
        }
        plugin.health.fell_back();
        Err(PolicyFault::Busy(plugin.source.name.clone()))
    }

    fn ask_here<T>(
        &self,
        (index, which): (usize, Question),
        place: &mut Option<Box<Instance>>,
        question: impl FnOnce(&mut Instance) -> Result<T, Fault>,
        failed: impl FnOnce(&Fault) -> bool,
    ) -> Result<T, PolicyFault> {
        let shard = &self.shards[index];
        // Out of its place while it runs: should anything unwind from here, the instance is gone, not torn.
        let mut instance = place.take().expect("the caller saw it there");
        let (stats, computed) = (&shard.stats[which as usize], &shard.computed[which as usize]);
        let started = stats.count().then(Instant::now);
        let cpu = (started.is_some() && self.plugin.is_clocked()).then(clock::thread_cpu).flatten();
        let answer = question(&mut instance);
        if let Some((from, to)) = cpu.zip(cpu.and_then(|_| clock::thread_cpu())) {
            computed.time(to.saturating_sub(from));
        }
        if let Some(started) = started {
            stats.time(started.elapsed());
        }
        shard.memory_bytes.store(instance.memory_bytes(), Ordering::Relaxed);
        match answer {
            Ok(answer) => {
                if instance.is_worn() {
                    tracing::debug!(plugin = %self.plugin.source.name, memory_bytes = instance.memory_bytes(),
                        "instance recycled");
                    self.want_repair(index);
                } else {
                    *place = Some(instance);
                }
                Ok(answer)
            }
            Err(fault) => {
                if fault.condemns() {
                    self.want_repair(index);
                } else {
                    *place = Some(instance);
                }
                self.plugin.health.fault(&fault, failed(&fault));
                self.plugin.health.fell_back();
                Err(fault.for_policy(&self.plugin.source.name))
            }
        }
    }

    #[cold]
    fn want_repair(&self, index: usize) {
        let shard = &self.shards[index];
        if clock::now().as_micros() < shard.repair_not_before.load(Ordering::Relaxed)
            || shard.in_repair.swap(true, Ordering::AcqRel)
        {
            return;
        }
        if !self.repair.rebuild(Weak::clone(&self.me), index) {
            // The queue is full: whoever finds the place empty next asks again.
            shard.in_repair.store(false, Ordering::Release);
        }
    }

    /// Puts a fresh instance into an empty place. Called by the repair thread only.
    pub fn rebuild(&self, index: usize) {
        let shard = &self.shards[index];
        match self.plugin.instance(Class::Hot) {
            Ok(instance) => {
                shard.memory_bytes.store(instance.memory_bytes(), Ordering::Relaxed);
                let worn_out = lock(&shard.instance).replace(instance);
                drop(worn_out);
            }
            Err(fault) => {
                let again = clock::now() + REPAIR_PAUSE;
                shard.repair_not_before.store(again.as_micros(), Ordering::Relaxed);
                self.plugin.health.fault(&fault, true);
            }
        }
        shard.in_repair.store(false, Ordering::Release);
    }

    pub fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.shards.iter().flat_map(|shard| &shard.stats)
    }

    /// How long answers took.
    pub fn answered(&self, which: Question) -> Times {
        Times::of(self.shards.iter().map(|shard| &shard.stats[which as usize]))
    }

    /// The same in processor time, as far as that was taken.
    pub fn computed(&self, which: Question) -> Times {
        Times::of(self.shards.iter().map(|shard| &shard.computed[which as usize]))
    }

    /// Judges whether it keeps its latency budgets. Not on a worker.
    pub fn judge_pace(&self) {
        self.pace.look(self);
    }

    pub fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.memory_bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Shard {
    fn new(instance: Box<Instance>) -> Self {
        Self {
            memory_bytes: AtomicUsize::new(instance.memory_bytes()),
            instance: Mutex::new(Some(instance)),
            stats: Default::default(),
            computed: Default::default(),
            in_repair: AtomicBool::new(false),
            repair_not_before: AtomicU64::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct WasmBalancer(pub Arc<Hot>);

impl WasmBalancer {
    fn note(&self, pool: &Pool, ask: Ask, fault: &Fault) {
        let plugin = &self.0.plugin;
        let input = capsules::input("pick", pool.service.as_str());
        plugin.capsules.note(plugin, input, fault, || Seen::pick(pool, ask));
    }
}

impl Balancer for WasmBalancer {
    fn source(&self) -> &Arc<Source> {
        self.0.source()
    }

    fn pick(&self, pool: &Arc<Pool>, ask: Ask) -> Result<Option<Slot>, PolicyFault> {
        let failed = |fault: &Fault| {
            self.note(pool, ask, fault);
            // No two pools are the same, and no two moments of one: what failed on one says nothing of the next.
            true
        };
        self.0.ask(Question::Pick, |instance| instance.pick(pool, ask), failed).map(|slot| slot.map(Slot))
    }

    /// An unavailable instance is a suggestion that came late; one that never existed is nonsense.
    fn overruled(&self, pool: &Pool, ask: Ask, exists: bool) {
        if !exists {
            let fault = Fault::Nonsense(NO_SUCH_SLOT);
            self.note(pool, ask, &fault);
            self.0.plugin.health.fault(&fault, true);
        }
        self.0.plugin.health.fell_back();
    }
}
