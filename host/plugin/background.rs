//! Planners, alerters and meters: one instance, asked by background tasks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::capsule::Seen;
use super::capsules;
use super::fault::Fault;
use super::instance::{Class, Instance, sensible};
use super::loaded::Plugin;
use super::stats::Stats;
use crate::mesh::observe::{Event, Finished, Firing, MeterDescription, Point, Sample, Want};
use crate::mesh::plan::Plan;
use crate::mesh::pool::Pool;
use crate::mesh::time::Wall;
use crate::policy::{Alerter, Meter, Planner, PolicyFault, Source};

/// What a plugin says about itself once, and must say again after a restart: indices refer to it.
#[derive(Default, PartialEq)]
struct Terms {
    wants: Vec<Want>,
    description: MeterDescription,
}

impl Terms {
    fn of(instance: &mut Instance) -> Result<Self, Fault> {
        let wants = instance.enter_aside(|guest, store| guest.wants(store))?;
        let description = instance.enter_aside(|guest, store| guest.describe(store))?;
        Ok(Self {
            wants: wants.transpose().map_err(Fault::Nonsense)?.unwrap_or_default(),
            description: description.transpose().map_err(Fault::Nonsense)?.unwrap_or_default(),
        })
    }
}

/// The instance of one generation. Whoever asks while it is busy waits, for a second at most.
pub struct Background {
    plugin: Arc<Plugin>,
    terms: Terms,
    /// `None` from a fault until the next question.
    instance: Mutex<Option<Box<Instance>>>,
    stats: Stats,
    memory_bytes: AtomicUsize,
}

impl Background {
    /// # Errors
    /// The fault of the first questions: what it wants, and what it measures.
    pub fn warm(plugin: Arc<Plugin>, mut first: Box<Instance>) -> Result<Arc<Self>, Fault> {
        let terms = Terms::of(&mut first)?;
        let memory_bytes = AtomicUsize::new(first.memory_bytes());
        let instance = Mutex::new(Some(first));
        Ok(Arc::new(Self { plugin, terms, instance, stats: Stats::default(), memory_bytes }))
    }

    /// `seen` is what is written down of a fault.
    fn ask<T>(
        &self,
        question: impl FnOnce(&mut Instance) -> Result<T, Fault>,
        seen: impl FnOnce() -> Option<Seen>,
    ) -> Result<T, PolicyFault> {
        let name = &self.plugin.source.name;
        if self.plugin.health.rests() {
            self.plugin.health.fell_back();
            return Err(PolicyFault::Quarantined(name.clone()));
        }
        let mut place = self.place();
        let answer = match place.take().map_or_else(|| self.rebuilt(), Ok) {
            Err(fault) => Err(fault),
            Ok(mut instance) => {
                self.stats.count();
                let started = Instant::now();
                let answer = question(&mut instance);
                self.stats.time(started.elapsed());
                self.memory_bytes.store(instance.memory_bytes(), Ordering::Relaxed);
                let condemned = answer.as_ref().err().is_some_and(Fault::condemns);
                if !condemned && !instance.is_worn() {
                    *place = Some(instance);
                }
                answer
            }
        };
        drop(place);
        answer.map_err(|fault| {
            self.note(&fault, seen);
            self.plugin.health.fault(&fault, true);
            self.plugin.health.fell_back();
            fault.for_policy(name)
        })
    }

    fn note(&self, fault: &Fault, seen: impl FnOnce() -> Option<Seen>) {
        let Some(seen) = seen() else { return };
        let service = match &seen {
            Seen::Compile { pool } => pool.service.as_str(),
            _ => "",
        };
        let input = capsules::input(seen.hook(), service);
        self.plugin.capsules.note(&self.plugin, input, fault, || seen);
    }

    fn rebuilt(&self) -> Result<Box<Instance>, Fault> {
        let mut instance = self.plugin.instance(Class::Background)?;
        if Terms::of(&mut instance)? != self.terms {
            return Err(Fault::Nonsense("it describes itself otherwise than before"));
        }
        Ok(instance)
    }

    fn place(&self) -> MutexGuard<'_, Option<Box<Instance>>> {
        // The instance is out of its place while it runs, so a panic leaves the place empty, not torn.
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }
}

pub struct WasmPlanner(pub Arc<Background>);

impl Planner for WasmPlanner {
    fn source(&self) -> &Arc<Source> {
        &self.0.plugin.source
    }

    fn plan(&self, pool: &Pool) -> Result<Option<Plan>, PolicyFault> {
        self.0.ask(|instance| instance.compile(pool), || Some(Seen::compile(pool)))
    }
}

pub struct WasmAlerter(pub Arc<Background>);

impl Alerter for WasmAlerter {
    fn source(&self) -> &Arc<Source> {
        &self.0.plugin.source
    }

    fn wants(&self) -> &[Want] {
        &self.0.terms.wants
    }

    fn evaluate(&self, now: Wall, samples: &[Sample], events: &[Event]) -> Result<Vec<Firing>, PolicyFault> {
        self.0.ask(
            |instance| {
                sensible(instance.enter_aside(|guest, store| guest.evaluate(store, now, samples, events)))
            },
            || Some(Seen::evaluate(now, self.wants(), samples, events)),
        )
    }
}

pub struct WasmMeter(pub Arc<Background>);

impl Meter for WasmMeter {
    fn source(&self) -> &Arc<Source> {
        &self.0.plugin.source
    }

    fn describe(&self) -> &MeterDescription {
        &self.0.terms.description
    }

    fn on_calls(&self, calls: &[Finished], dropped: u32) -> Result<(), PolicyFault> {
        self.0.ask(
            |instance| instance.enter_aside(|guest, store| guest.on_calls(store, calls, dropped)),
            || Some(Seen::on_calls(calls, dropped)),
        )
    }

    fn collect(&self, now: Wall) -> Result<Vec<Point>, PolicyFault> {
        let description = &self.0.terms.description;
        self.0.ask(
            |instance| sensible(instance.enter_aside(|guest, store| guest.collect(store, now, description))),
            // It depends on all that the instance was told before.
            || None,
        )
    }
}
