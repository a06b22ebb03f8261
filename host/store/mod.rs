//! What survives a restart: the registry, what services offer, counts and what plugins remember, in SQLite behind one writer thread.
//!
//! The only room that names `rusqlite`. Must not know what the rows mean to calls or people.

mod alerts;
mod drains;
mod index;
mod memos;
mod offers;
mod open;
mod reliable;
mod rows;
mod rulings;
mod schema;
mod thread;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::mesh::alert::Alert;
use crate::mesh::drain::Order;
use crate::mesh::ids::Name;
use crate::mesh::instance::InstanceSpec;
use crate::mesh::memo::{MemoChange, Memories};
use crate::mesh::offer::Offer;
use crate::mesh::reliability;
use crate::mesh::ruling::Ruling;
use crate::mesh::stats::CallCounts;
use crate::mesh::time::Wall;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot use the data folder `{path}`")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("another proxy uses the data folder `{0}`; stop it, or choose another folder with --data-dir")]
    InUse(PathBuf),
    #[error("cannot open the database `{path}`")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(
        "the database `{path}` was written by a newer version (schema {found}, this build knows {known})"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("cannot write to the database: {0}")]
    Write(String),
    #[error("cannot read the database: {0}")]
    Read(String),
    #[error("the database writer has stopped")]
    Stopped,
}

/// An instance as it is kept.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    pub spec: Arc<InstanceSpec>,
    pub id: u64,
    pub token_hash: [u8; 32],
    pub epoch: u64,
    pub registered_at: Wall,
    /// When its lease ran out, if it did.
    pub expired_at: Option<Wall>,
}

/// A durable change of the registry, or of what holds for plugins.
#[derive(Clone, Debug)]
pub enum Change {
    Instance(InstanceRow),
    InstanceGone(Name),
    /// A service's first instance came, or (`None`) its last one went. Its counts stay.
    ServiceSince(Name, Option<Wall>),
    /// What a service offers; it is found again after a restart, whoever of it is alive.
    Offer(Name, Arc<Offer>),
    OfferGone(Name),
    /// What an operator decided about a plugin.
    Ruling(Ruling),
    /// An instance is taken out of use, or (`None`) back into it.
    Drain(Name, Option<Order>),
    /// All alerts there are, instead of those that were.
    Alerts(Vec<Alert>),
}

/// A tool that a search found, by the names under which its service offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTool {
    pub service: String,
    pub tool: String,
}

/// Says of a service's tool whether a search may find it.
pub type Admits = Box<dyn FnMut(&str, &str) -> bool + Send>;

/// Counts of a service or an instance: totals, so that writing them twice counts nothing twice.
#[derive(Clone, Debug)]
pub struct ServiceTotals {
    pub name: Name,
    pub counts: CallCounts,
}

/// What is known of an instance's condition.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceFigures {
    pub name: Name,
    pub counts: CallCounts,
    pub state: String,
    pub score: u8,
    pub reason: String,
    pub ewma_us: u32,
    /// It is kept although no registration of it is.
    pub configured: bool,
}

/// Everything that was kept.
#[derive(Debug, Default)]
pub struct Kept {
    pub services: Vec<(ServiceTotals, Option<Wall>)>,
    pub instances: Vec<(InstanceRow, Option<InstanceFigures>)>,
    /// Counts of instances that did not register, as the configuration's do not.
    pub configured: HashMap<Name, CallCounts>,
    pub offers: Vec<(Name, Offer)>,
    /// Instances that were taken out of use.
    pub drains: Vec<(Name, Order)>,
    pub reliability: Vec<reliability::Kept>,
    pub alerts: Vec<Alert>,
    pub memories: Memories,
    pub rulings: Vec<Ruling>,
    /// What had to be repaired at opening, for people.
    pub repaired: Option<String>,
}

/// Whether writes succeed; shared with those who show it.
#[derive(Debug, Default)]
pub struct Persistence {
    degraded: AtomicBool,
    reason: ArcSwapOption<String>,
}

impl Persistence {
    /// Why writes fail, when they do.
    pub fn degraded(&self) -> Option<Arc<String>> {
        if self.degraded.load(Ordering::Relaxed) { self.reason.load_full() } else { None }
    }

    fn set(&self, reason: Option<String>) {
        let failed = reason.is_some();
        match (&reason, self.degraded.load(Ordering::Relaxed)) {
            (Some(reason), false) => tracing::error!(reason, "persistence degraded, calls go on from memory"),
            (None, true) => tracing::info!("persistence restored"),
            _ => {}
        }
        self.reason.store(reason.map(Arc::new));
        self.degraded.store(failed, Ordering::Relaxed);
    }
}

enum Command {
    Commit {
        changes: Vec<Change>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Totals {
        services: Vec<ServiceTotals>,
        instances: Vec<InstanceFigures>,
        memos: Vec<MemoChange>,
        reliability: Vec<reliability::Kept>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Find {
        query: String,
        limit: usize,
        admits: Admits,
        done: oneshot::Sender<Result<Vec<FoundTool>, StoreError>>,
    },
    Stop {
        done: oneshot::Sender<()>,
    },
}

/// The way to the writer thread. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    persistence: Arc<Persistence>,
}

/// Commands that may wait for the writer.
const QUEUE: usize = 256;

impl Store {
    /// Opens `FOLDER/meshwright.db`, restores it from a copy when it is damaged, and starts the writer.
    ///
    /// # Errors
    /// A folder or database that cannot be used at all.
    pub fn open(folder: &Path) -> Result<(Self, Kept), StoreError> {
        let lock = open::lock(folder)?;
        let (connection, repaired) = open::open(folder)?;
        let mut kept = rows::load(&connection)
            .map_err(|source| StoreError::Open { path: open::path(folder), source })?;
        kept.repaired = repaired;
        let (commands, queue) = mpsc::channel(QUEUE);
        let persistence = Arc::new(Persistence::default());
        thread::start(connection, lock, folder.to_owned(), queue, Arc::clone(&persistence))
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        Ok((Self { commands, persistence }, kept))
    }

    pub fn persistence(&self) -> &Arc<Persistence> {
        &self.persistence
    }

    /// Writes all of `changes` or none, and returns when they are on disk.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Commit { changes, done }).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Writes totals, figures and what plugins remember, all or none.
    ///
    /// # Errors
    /// Nothing was written; newer totals may be written in its place.
    pub async fn totals(
        &self,
        services: Vec<ServiceTotals>,
        instances: Vec<InstanceFigures>,
        memos: Vec<MemoChange>,
        reliability: Vec<reliability::Kept>,
    ) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Totals { services, instances, memos, reliability, done };
        self.commands.send(command).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The tools that answer `query` best, at most `limit`, of those that `admits` lets through.
    ///
    /// # Errors
    /// The database cannot be asked now.
    pub async fn find_tools(
        &self,
        query: String,
        limit: usize,
        admits: Admits,
    ) -> Result<Vec<FoundTool>, StoreError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Find { query, limit, admits, done };
        self.commands.send(command).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// Ends the writer after what it was given before.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop { done }).await.is_ok() {
            // An error only says that the writer is gone already, which is what was asked for.
            stopped.await.ok();
        }
    }
}
