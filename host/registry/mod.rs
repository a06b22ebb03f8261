//! Who is in the mesh. One task owns the [`book`]; it commits a change to the store, then publishes one immutable
//! [`Snapshot`]. Nothing is routable before it is durable.
//!
//! Knows the domain, the store and the peers that instances bring. Must not know HTTP surfaces, calls or plugins.

mod book;
mod guard;
mod instance;
mod judge;
mod line;
mod snapshot;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard as SnapshotGuard};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::mesh::child::ChildState;
use crate::mesh::drain::Order;
use crate::mesh::exposure::Exposures;
use crate::mesh::hedge::Hedge;
use crate::mesh::ids::Name;
use crate::mesh::instance::InstanceSpec;
use crate::mesh::lease::LeaseTimes;
use crate::mesh::observe::Event;
use crate::mesh::offer::Offer;
use crate::mesh::time::Mono;
use crate::policy::PolicySet;
use crate::process::Launcher;
use crate::store::{Kept, Store};
use crate::upstream::Probe;

pub use guard::{Guard, Shift};
pub use instance::{Berthed, Instance, InstanceCore, Service, ServiceCore};
pub use line::{Line, Place, Takers};
pub use snapshot::{Departed, Found, Snapshot};
pub use task::Task;

/// Most instances that may be registered.
pub const INSTANCES_MAX: usize = 10_000;
/// Commands that may wait; more callers wait for room.
const QUEUE: usize = 1024;

#[derive(Debug, Error)]
pub enum RegistryError {
    #[error("`{name}` is registered from {endpoint} and alive")]
    NameTaken { name: Name, endpoint: String },
    #[error("`{0}` comes from the configuration file")]
    Configured(Name),
    #[error("the lease token is not that of `{0}`")]
    WrongToken(Name),
    #[error("`{0}` has no lease here")]
    LeaseGone(Name),
    #[error("`{0}` is not registered")]
    UnknownInstance(Name),
    #[error("{INSTANCES_MAX} instances are registered, no more are taken")]
    Full,
    #[error("nothing can be written down now: {0}")]
    Persistence(String),
    #[error("the proxy is stopping")]
    Stopping,
}

/// What a registration grants.
#[derive(Clone, Debug)]
pub struct Grant {
    pub instance: Name,
    pub service: Name,
    pub id: u64,
    /// 256 bits, 64 hexadecimal digits; only its hash is kept here.
    pub token: String,
    pub epoch: u64,
    pub renewed: bool,
}

/// What a caller shows to act for an instance: `None` is good enough while authentication is off.
pub type Token = Option<String>;

pub(crate) enum Command {
    Register { spec: InstanceSpec, token: Token, done: oneshot::Sender<Result<Grant, RegistryError>> },
    Deregister { name: Name, token: Token, done: oneshot::Sender<Result<(), RegistryError>> },
    Drain { name: Name, order: Option<Order>, done: oneshot::Sender<Result<(), RegistryError>> },
    Heartbeat { name: Name, token: Token, done: oneshot::Sender<Result<u64, RegistryError>> },
    Offer { name: Name, id: u64, epoch: u64, offer: Offer },
    Probed { name: Name, id: u64, epoch: u64, probe: Probe },
    Policies { policies: Arc<PolicySet> },
    Child { name: Name, id: u64, sight: ChildSight },
    Configure { terms: Terms, done: oneshot::Sender<Reconfigured> },
}

/// How whoever supervises a child sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSight {
    pub state: ChildState,
    /// Why it is not ready.
    pub reason: String,
    /// It is not ready, and calls to it wait until it is.
    pub awaited: bool,
    pub next_try: Option<Mono>,
    /// What it needs and does not have.
    pub lacks: Option<String>,
}

impl ChildSight {
    /// Whether calls may be sent to it.
    fn takes_calls(&self) -> bool {
        self.awaited || self.state == ChildState::Ready
    }
}

/// What the configuration says of instances.
pub struct Terms {
    pub instances: Vec<InstanceSpec>,
    pub exposures: Arc<Exposures>,
    pub limits: InstanceLimits,
}

/// What another configuration changed.
#[derive(Debug)]
pub struct Reconfigured {
    /// How many instances are new.
    pub joined: usize,
    /// Those that are members no more; calls may be on their way to them.
    pub left: Vec<Arc<Instance>>,
}

/// The way to the registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    snapshot: Arc<ArcSwap<Snapshot>>,
    commands: mpsc::Sender<Command>,
    generation: watch::Receiver<u64>,
}

/// What the registry needs to begin.
pub struct Settings {
    pub lease: LeaseTimes,
    /// Data-path workers, for the peers' connection pools.
    pub workers: usize,
    pub events: mpsc::Sender<Event>,
    /// What the operator shows of services.
    pub exposures: Arc<Exposures>,
    /// Instances that the configuration names.
    pub instances: Vec<InstanceSpec>,
    /// What starts the processes of commands.
    pub launcher: Launcher,
    pub limits: InstanceLimits,
}

/// Calls that instances take at once.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceLimits {
    pub usual: u32,
    /// Where a service's own is another.
    pub of_services: BTreeMap<Name, u32>,
    /// Services whose slow calls are asked of a second instance, too.
    pub hedges: BTreeMap<Name, Hedge>,
}

impl InstanceLimits {
    fn of(&self, service: &Name) -> u32 {
        self.of_services.get(service).copied().unwrap_or(self.usual)
    }
}

impl Registry {
    /// Restores what was kept; the task must be run for anything to change.
    pub fn restore(settings: Settings, store: Store, kept: Kept) -> (Self, Task) {
        let book = book::Book::restore(kept, &settings, clock::mono(), clock::wall());
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (commands, queue) = mpsc::channel(QUEUE);
        let (published, generation) = watch::channel(0);
        let mut task = Task::new(book, store, queue, Arc::clone(&snapshot), published, settings.events);
        task.publish();
        (Self { snapshot, commands, generation }, task)
    }

    /// The world now. For a call: take it once.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The world now, for a look that does not outlive the current step.
    pub fn peek(&self) -> SnapshotGuard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Tells the generation of each snapshot that is published from now on.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// Registers or renews.
    ///
    /// # Errors
    /// The name is another's, the registry is full, or nothing can be made durable.
    pub async fn register(&self, spec: InstanceSpec, token: Token) -> Result<Grant, RegistryError> {
        self.ask(|done| Command::Register { spec, token, done }).await?
    }

    /// # Errors
    /// Unknown instance, wrong token, or nothing can be made durable.
    pub async fn deregister(&self, name: Name, token: Token) -> Result<(), RegistryError> {
        self.ask(|done| Command::Deregister { name, token, done }).await?
    }

    /// Takes an instance out of use, or with `None` back into it.
    ///
    /// # Errors
    /// Unknown instance, or nothing can be made durable.
    pub async fn drain(&self, name: Name, order: Option<Order>) -> Result<(), RegistryError> {
        self.ask(|done| Command::Drain { name, order, done }).await?
    }

    /// Renews a lease and returns its epoch.
    ///
    /// # Errors
    /// No such lease, or the wrong token.
    pub async fn heartbeat(&self, name: Name, token: Token) -> Result<u64, RegistryError> {
        self.ask(|done| Command::Heartbeat { name, token, done }).await?
    }

    /// Reports what an instance offers. Ignored when the instance was registered anew since.
    pub async fn offer(&self, instance: &Instance, offer: Offer) {
        self.tell(Command::Offer {
            name: instance.name().clone(),
            id: instance.id,
            epoch: instance.epoch,
            offer,
        })
        .await;
    }

    /// Reports what a probe found. Ignored when the instance was registered anew since.
    pub async fn probed(&self, instance: &Instance, probe: Probe) {
        self.tell(Command::Probed {
            name: instance.name().clone(),
            id: instance.id,
            epoch: instance.epoch,
            probe,
        })
        .await;
    }

    /// Reports how a supervised instance is.
    pub async fn child(&self, instance: &Instance, sight: ChildSight) {
        self.tell(Command::Child { name: instance.name().clone(), id: instance.id, sight }).await;
    }

    /// Puts other policies in force for all calls that begin from now on.
    pub async fn publish_policies(&self, policies: Arc<PolicySet>) {
        self.tell(Command::Policies { policies }).await;
    }

    /// Makes what the configuration says of instances this.
    ///
    /// # Errors
    /// The registry has stopped.
    pub async fn configure(&self, terms: Terms) -> Result<Reconfigured, RegistryError> {
        self.ask(|done| Command::Configure { terms, done }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, RegistryError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| RegistryError::Stopping)?;
        answer.await.map_err(|_| RegistryError::Stopping)
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("registry stopped, report dropped");
        }
    }
}
