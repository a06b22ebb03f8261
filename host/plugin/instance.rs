//! A component, and its instances: a store each, with limits around every call.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use super::engine::Running;
use super::fault::Fault;
use super::host_state::{HostState, Reading, Shared, Stopwatch};
use super::v0_1::{Answer, Guest, Indices, Issue};
use crate::mesh::allowance::Allowance;
use crate::mesh::ids::Name;
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Catalog, Pool};
use crate::mesh::verdict::{CallFacts, Decision};
use crate::policy::Ask;

/// For the questions that a call waits for, unless the operator allows another time.
pub const ASK_BUDGET: Duration = Duration::from_millis(5);
/// For handing over the catalogue or a pool, which may be thousands of records.
const PUSH_BUDGET: Duration = Duration::from_millis(50);
/// For everything that no call waits for, unless the operator allows another time.
const BACKGROUND_BUDGET: Duration = Duration::from_secs(1);
/// Instructions for one question, where they are counted: about a second's worth.
const FUEL_MAX: u64 = 2_000_000_000;
/// Handles of host resources that an instance may hold at once.
const HANDLES_MAX: usize = 1_024;
/// Pools that are found to be gone are taken back so many at a time.
const GONE_POOLS_AT_ONCE: usize = 8;

const NOT_GRANTED: &str =
    "it reads the call's arguments, and its metadata do not ask for the grant `arguments`";

/// Which limits an instance lives under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asked inline, on data-path workers: routers, balancers.
    Hot,
    /// Asked by background tasks: alerters, meters.
    Background,
}

impl Class {
    fn memory_bytes_max(self) -> usize {
        match self {
            Self::Hot => 32 << 20,
            Self::Background => 128 << 20,
        }
    }

    /// Bytes that a guest may hand to the host in one call, in either direction of calling.
    fn transfer_bytes_max(self) -> usize {
        match self {
            Self::Hot => 1 << 20,
            Self::Background => 16 << 20,
        }
    }
}

/// A compiled component that fits this host.
pub struct Compiled {
    pub pre: InstancePre<HostState>,
    pub indices: Indices,
    /// It was given the grant.
    pub reads_arguments: bool,
}

impl Compiled {
    /// A fresh instance, not configured yet.
    ///
    /// # Errors
    /// The guest's initialisation failed, or the host could not make room.
    pub fn instantiate(
        &self,
        class: Class,
        allowance: &Allowance,
        shared: Arc<Shared>,
    ) -> Result<Instance, Fault> {
        let memory_bytes_max = allowance.memory_bytes_max.unwrap_or_else(|| class.memory_bytes_max());
        let background = allowance.background.unwrap_or(BACKGROUND_BUDGET);
        let state = HostState::new(shared, memory_bytes_max);
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().stopwatch.look()));
        store.set_hostcall_fuel(class.transfer_bytes_max());
        store.set_max_component_handles(HANDLES_MAX);
        // Refused by an engine that does not count, which is every one but that of scenario tests.
        store.set_fuel(FUEL_MAX).ok();
        let guest = guarded(&mut store, background, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            self.indices.load(store, &instance)
        })?;
        Ok(Instance {
            store,
            guest,
            ask: allowance.ask.unwrap_or(ASK_BUDGET),
            background,
            reads_arguments: self.reads_arguments,
            has_read: false,
            catalog_seen: None,
            pools_seen: BTreeMap::new(),
        })
    }
}

/// One store with one instance in it. After a fault that condemns, it must not be entered again.
pub struct Instance {
    store: Store<HostState>,
    guest: Guest,
    ask: Duration,
    background: Duration,
    reads_arguments: bool,
    has_read: bool,
    catalog_seen: Option<u64>,
    pools_seen: BTreeMap<u32, PoolSeen>,
}

struct PoolSeen {
    version: u64,
    loads_version: u64,
    service: Name,
    /// Shared by all versions of the pool: dead when the pool is gone.
    alive: Weak<AtomicU64>,
}

impl Instance {
    /// Runs `call` within `budget` of CPU time, whatever it does.
    pub fn enter<T>(
        &mut self,
        budget: Duration,
        call: impl FnOnce(&Guest, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        let guest = &self.guest;
        guarded(&mut self.store, budget, |store| call(guest, store))
    }

    /// Runs `call`, for which no call waits, within the time for such.
    pub fn enter_aside<T>(
        &mut self,
        call: impl FnOnce(&Guest, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.enter(self.background, call)
    }

    /// # Errors
    /// A fault, or the guest's complaints about its configuration.
    pub fn configure(&mut self, config_json: &str) -> Result<Result<(), Vec<Issue>>, Fault> {
        self.enter_aside(|guest, store| guest.configure(store, config_json))
    }

    /// Instructions since the last time this was asked; nothing where they are not counted.
    pub fn take_fuel(&mut self) -> Option<u64> {
        let left = self.store.get_fuel().ok()?;
        self.store.set_fuel(FUEL_MAX).ok()?;
        Some(FUEL_MAX - left)
    }

    pub fn route(&mut self, call: &CallFacts<'_>, catalog: &Catalog) -> Result<Decision, Fault> {
        self.has_read = false;
        self.tell(catalog)?;
        self.store.data_mut().routes(self.reads_arguments.then_some(call.arguments));
        let decision = sensible(self.enter(self.ask, |guest, store| guest.route(store, call)));
        let reading = self.store.data_mut().routed();
        self.has_read = reading == Reading::Done;
        let mut decision = decision?;
        match reading {
            Reading::Overstepped => return Err(Fault::Nonsense(NOT_GRANTED)),
            // No other call has these arguments, whatever the guest says.
            Reading::Done => decision.reuse = None,
            _ => {}
        }
        Ok(decision)
    }

    /// Whether it read some of the arguments of the call that it routed last.
    pub fn has_read_arguments(&self) -> bool {
        self.has_read
    }

    /// Hands over the catalogue unless it is known.
    pub fn tell(&mut self, catalog: &Catalog) -> Result<(), Fault> {
        if self.guest.wants_catalog() && self.catalog_seen.is_none_or(|seen| seen < catalog.version) {
            self.enter(PUSH_BUDGET, |guest, store| guest.on_catalog(store, catalog))?;
            self.catalog_seen = Some(catalog.version);
        }
        Ok(())
    }

    pub fn pick(&mut self, pool: &Arc<Pool>, ask: Ask) -> Result<Option<u32>, Fault> {
        let seen = self.pools_seen.get(&pool.id.0);
        // The guest knows a later membership than this call does: its slots may not be this call's.
        if seen.is_some_and(|seen| seen.version > pool.version) {
            return Ok(None);
        }
        let current = seen.is_some_and(|seen| {
            seen.version == pool.version && seen.loads_version >= pool.loads_version.load(Ordering::Relaxed)
        });
        self.store.data_mut().ask_about(pool);
        let picked = if current { Ok(()) } else { self.push(pool) }.and_then(|()| {
            sensible(self.enter(self.ask, |guest, store| {
                guest.pick(store, pool.id.0, ask.affinity, ask.random, ask.excluded)
            }))
        });
        self.store.data_mut().answered();
        picked
    }

    /// `None` when the planner leaves the pool to others.
    pub fn compile(&mut self, pool: &Pool) -> Result<Option<Plan>, Fault> {
        sensible(self.enter_aside(|guest, store| guest.compile(store, pool)))
    }

    #[cold]
    pub fn push(&mut self, pool: &Pool) -> Result<(), Fault> {
        // Read before the figures are: what changes meanwhile is pushed again.
        let loads_version = pool.loads_version.load(Ordering::Relaxed);
        let known = self.pools_seen.get(&pool.id.0).is_some_and(|seen| seen.version == pool.version);
        if !known {
            self.enter(PUSH_BUDGET, |guest, store| guest.on_pool(store, pool))?;
        }
        self.enter(PUSH_BUDGET, |guest, store| guest.on_load(store, pool))?;
        let seen = PoolSeen {
            version: pool.version,
            loads_version,
            service: pool.service.clone(),
            alive: Arc::downgrade(&pool.loads_version),
        };
        self.pools_seen.insert(pool.id.0, seen);
        if known { Ok(()) } else { self.take_back_pools() }
    }

    /// Tells the guest about pools that are gone, so that it does not remember all that ever were.
    fn take_back_pools(&mut self) -> Result<(), Fault> {
        let gone: Vec<u32> = self
            .pools_seen
            .iter()
            .filter(|(_, seen)| seen.alive.strong_count() == 0)
            .map(|(pool, _)| *pool)
            .take(GONE_POOLS_AT_ONCE)
            .collect();
        for pool in gone {
            if let Some(seen) = self.pools_seen.remove(&pool) {
                self.enter(PUSH_BUDGET, |guest, store| {
                    guest.on_pool_gone(store, pool, seen.service.as_str())
                })?;
            }
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes
    }

    pub fn memory_bytes_max(&self) -> usize {
        self.store.data().memory.bytes_max
    }

    /// Whether its memory is so full that a fresh instance is better.
    pub fn is_worn(&self) -> bool {
        let memory = &self.store.data().memory;
        memory.bytes > memory.bytes_max / 5 * 4
    }
}

pub fn sensible<T>(answer: Result<Answer<T>, Fault>) -> Result<T, Fault> {
    answer?.map_err(Fault::Nonsense)
}

fn guarded<T>(
    store: &mut Store<HostState>,
    budget: Duration,
    call: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<T>,
) -> Result<T, Fault> {
    let _running = Running::begin();
    store.data_mut().begin(budget);
    store.set_epoch_deadline(Stopwatch::first_ticks(budget));
    // A panic in wasmtime condemns the store like a trap does, so nothing half changed is seen again.
    match catch_unwind(AssertUnwindSafe(|| call(store))) {
        Ok(Ok(value)) => {
            store.data_mut().survived();
            Ok(value)
        }
        Ok(Err(error)) => Err(blame(store.data(), budget, &error)),
        Err(panic) => Err(Fault::Host(panic_text(&*panic))),
    }
}

fn blame(state: &HostState, budget: Duration, error: &wasmtime::Error) -> Fault {
    if state.stopwatch.starved {
        return Fault::Starved;
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        return Fault::Deadline(budget);
    }
    if trap == Some(&Trap::OutOfFuel) {
        return Fault::Instructions(FUEL_MAX);
    }
    let mut text = trap.map_or_else(|| error.root_cause().to_string(), ToString::to_string);
    if let Some(words) = state.last_words() {
        text = format!("{text} ({words})");
    }
    if state.memory.refused {
        return Fault::Memory { bytes_max: state.memory.bytes_max, trap: text };
    }
    Fault::Trap(text)
}

pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
