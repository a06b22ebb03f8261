//! The contract between the mesh and its policies: five traits, and the [`chain`] that alone turns a call into a
//! permitted one. The native balancer, which has the last word, is the domain's own (`mesh::balance`).
//!
//! Knows the domain. Must not know what a policy is made of: WebAssembly, files and reloads are the plugin room's.

pub mod chain;
pub mod metrics;
mod planned;
pub mod status;
mod vacancy;

use std::sync::Arc;

pub use self::planned::Planned;
pub use self::vacancy::Vacancy;
pub use crate::mesh::verdict::Source;
use thiserror::Error;

use crate::mesh::ids::{Name, Slot};
use crate::mesh::observe::{Event, Finished, Firing, MeterDescription, Point, Sample, Want};
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Catalog, Pool};
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::{CallFacts, Decision};

/// A policy that gave no usable answer. It has been counted where it happened; the call goes on without it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PolicyFault {
    #[error("`{0}` trapped")]
    Trap(Name),
    #[error("`{0}` took longer than its deadline")]
    Deadline(Name),
    #[error("`{0}` answered nonsense: {1}")]
    Nonsense(Name, &'static str),
    #[error("`{0}` is resting after repeated faults")]
    Quarantined(Name),
    #[error("`{0}` crashed on such calls and is not asked about them")]
    Skipped(Name),
    #[error("all instances of `{0}` are busy")]
    Busy(Name),
    #[error("the host failed to run `{0}`")]
    Host(Name),
}

/// What a balancer is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub affinity: u64,
    pub random: u64,
    /// A bit for each slot under 64 that must not be picked.
    pub excluded: u64,
    pub now: Mono,
}

/// Decides where a call goes, or whether it goes at all. Runs inline on a data-path worker: never blocks.
pub trait Router: Send + Sync {
    fn source(&self) -> &Arc<Source>;
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn route(&self, call: &CallFacts<'_>, catalog: &Arc<Catalog>) -> Result<Arc<Decision>, PolicyFault>;
    /// Whether a call is refused, not passed on, when this router faults.
    fn refuses_on_fault(&self) -> bool;
    /// Told when a call could not be forwarded because no service or instance is called `target`: the call goes on
    /// as if this router had passed.
    fn overruled(&self, target: &Name);
}

/// Picks the instance of a pool that takes a call. Runs inline on a data-path worker: never blocks.
pub trait Balancer: Send + Sync {
    fn source(&self) -> &Arc<Source>;
    /// A slot, or `None` to leave it to the next balancer. The caller checks that the slot can be used.
    ///
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn pick(&self, pool: &Arc<Pool>, ask: Ask) -> Result<Option<Slot>, PolicyFault>;
    /// What the plan of a pool says of itself, for those that follow plans.
    fn why(&self, _pool: &Pool, _now: Mono) -> Option<Arc<str>> {
        None
    }
    /// Told when the slot that `pick` answered to `ask` cannot take the call: it does not exist, or is not available or
    /// excluded. The next balancer is asked.
    fn overruled(&self, pool: &Pool, ask: Ask, exists: bool);
}

/// Programs the native balancer. May take up to a second: never called on a data-path worker.
pub trait Planner: Send + Sync {
    fn source(&self) -> &Arc<Source>;
    /// How the pool is to be balanced; `None` leaves it to the next balancer.
    ///
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn plan(&self, pool: &Pool) -> Result<Option<Plan>, PolicyFault>;
}

/// Says what deserves a person's attention. May take up to a second: never called on a data-path worker.
pub trait Alerter: Send + Sync {
    fn source(&self) -> &Arc<Source>;
    fn wants(&self) -> &[Want];
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn evaluate(&self, now: Wall, samples: &[Sample], events: &[Event]) -> Result<Vec<Firing>, PolicyFault>;
}

/// Turns finished calls into metrics of its author's own. Never called on a data-path worker.
pub trait Meter: Send + Sync {
    fn source(&self) -> &Arc<Source>;
    fn describe(&self) -> &MeterDescription;
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn on_calls(&self, calls: &[Finished], dropped: u32) -> Result<(), PolicyFault>;
    /// # Errors
    /// The fault, already accounted for by the implementation.
    fn collect(&self, now: Wall) -> Result<Vec<Point>, PolicyFault>;
}

/// All policies in force, each list in the order in which they are asked. Immutable; replaced as a whole.
#[derive(Clone, Default)]
pub struct PolicySet {
    pub routers: Vec<Arc<dyn Router>>,
    pub balancers: Vec<Arc<dyn Balancer>>,
    /// Those of the balancers that follow plans.
    pub planned: Vec<Arc<Planned>>,
    pub alerters: Vec<Arc<dyn Alerter>>,
    pub meters: Vec<Arc<dyn Meter>>,
}
