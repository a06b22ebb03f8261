//! Children: the processes of services by command that all clients share. One task starts them in the order of their
//! needs, watches them, starts them again, and ends them.
//!
//! Knows the registry, which it tells how they are, and the peers, through which they are started and met. Must not
//! know HTTP surfaces, nor calls: these find a peer up or down.

mod attempt;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::ChildConfig;
use crate::mesh::child::ChildState;
use crate::mesh::ids::Name;
use crate::mesh::time::Mono;
use crate::upstream::Log;

pub use task::{Settings, Task};

/// Orders that may wait.
const QUEUE: usize = 64;

/// What a person wants of a service's children, or of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Start,
    Stop,
    Restart,
}

#[derive(Debug, Error)]
pub enum OrderError {
    #[error("`{0}` is no process that the proxy starts")]
    NoChild(String),
    #[error("the proxy is stopping")]
    Stopping,
}

/// How the first start of a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Started,
    Failed,
    Skipped,
    /// It rests until its first call.
    Idle,
}

/// A child as it is shown.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    pub service: Name,
    pub instance: Name,
    /// The command, for people.
    pub command: String,
    pub state: ChildState,
    /// Why it is not ready; of a ready one, what it lacks.
    pub reason: String,
    pub next_try: Option<Mono>,
    /// It failed too often, and has not been ready since.
    pub parked: bool,
    pub pid: Option<u32>,
    /// Since when its process runs.
    pub running_since: Option<Mono>,
    pub restarts: u64,
    pub required: bool,
    /// It needs what is not there.
    pub lacks: bool,
    /// What to do when it is not as it should be.
    pub fix: Option<String>,
    /// `None` until then.
    pub first: Option<First>,
    pub log: Option<Arc<Log>>,
}

/// What became of the services at the start. Each is named once; a service with several children is started when one
/// of them was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    pub started: Vec<Name>,
    pub failed: Vec<Name>,
    pub skipped: Vec<Name>,
    /// They start with their first call.
    pub idle: Vec<Name>,
    /// Nobody knows yet.
    pub pending: Vec<Name>,
}

impl Startup {
    pub fn of(children: &[ChildStatus]) -> Self {
        let mut report = Self::default();
        for same in children.chunk_by(|one, other| one.service == other.service) {
            let has = |first| same.iter().any(|child| child.first == Some(first));
            let list = if has(First::Started) {
                &mut report.started
            } else if same.iter().any(|child| child.first.is_none()) {
                &mut report.pending
            } else if has(First::Idle) {
                &mut report.idle
            } else if has(First::Failed) {
                &mut report.failed
            } else {
                &mut report.skipped
            };
            list.extend(same.first().map(|child| child.service.clone()));
        }
        report
    }
}

enum Command {
    Order { name: String, order: Order, done: oneshot::Sender<Result<(), OrderError>> },
    StopAll { done: oneshot::Sender<()> },
    Configure { services: BTreeMap<Name, ChildConfig> },
}

/// The children as they are now, in the order of their services, and the way to their supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Children {
    shown: watch::Receiver<Arc<[ChildStatus]>>,
    commands: mpsc::Sender<Command>,
}

impl Children {
    pub fn all(&self) -> Arc<[ChildStatus]> {
        Arc::clone(&self.shown.borrow())
    }

    /// Those of a service, or the one of that name.
    pub fn of(&self, name: &str) -> Vec<ChildStatus> {
        let all = self.all();
        let found = all.iter().filter(|child| child.service.as_str() == name);
        let found: Vec<ChildStatus> = found.cloned().collect();
        if found.is_empty() {
            all.iter().filter(|child| child.instance.as_str() == name).cloned().collect()
        } else {
            found
        }
    }

    /// Waits until every child was started once, or is known not to come up at once.
    pub async fn settled(&self) {
        let mut shown = self.shown.clone();
        // The supervisor ends last of all; without one there is nothing to wait for.
        shown.wait_for(|children| children.iter().all(|child| child.first.is_some())).await.ok();
    }

    /// Takes an order; what came of it at once is seen in the children's states when this returns.
    ///
    /// # Errors
    /// There is no such child.
    pub async fn order(&self, name: &str, order: Order) -> Result<(), OrderError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Order { name: name.to_owned(), order, done };
        self.commands.send(command).await.map_err(|_| OrderError::Stopping)?;
        answer.await.map_err(|_| OrderError::Stopping)?
    }

    /// From now on the services are these: children of instances that are members no more are ended once their calls
    /// are, new ones are started.
    pub async fn configure(&self, services: BTreeMap<Name, ChildConfig>) {
        // Without a supervisor there are no children.
        self.commands.send(Command::Configure { services }).await.ok();
    }

    /// Ends all children for good; returns when nothing of them is left, or when that took too long: then it is said of
    /// which something is.
    pub async fn stop_all(&self, at_most: Duration) {
        let (done, stopped) = oneshot::channel();
        let all = async {
            if self.commands.send(Command::StopAll { done }).await.is_ok() {
                // Without a supervisor there are no children.
                stopped.await.ok();
            }
        };
        if tokio::time::timeout(at_most, all).await.is_err() {
            for child in self.all().iter().filter(|child| child.state != ChildState::Stopped) {
                tracing::error!(instance = %child.instance, pid = child.pid, "child was killed and does not end, it is left behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(service: &str, first: Option<First>) -> ChildStatus {
        let name = Name::new(service).expect("a name");
        ChildStatus {
            service: name.clone(),
            instance: name,
            command: String::new(),
            state: ChildState::Stopped,
            reason: String::new(),
            next_try: None,
            parked: false,
            pid: None,
            running_since: None,
            restarts: 0,
            required: false,
            lacks: false,
            fix: None,
            first,
            log: None,
        }
    }

    #[tokio::test]
    async fn a_child_that_the_system_does_not_end_is_not_waited_for_for_ever() {
        let stuck = ChildStatus { state: ChildState::Stopping, ..child("stuck", Some(First::Started)) };
        let (shown, (commands, mut queue)) = (watch::Sender::new([stuck].into()), mpsc::channel(1));
        let children = Children { shown: shown.subscribe(), commands };
        children.stop_all(Duration::from_millis(20)).await;
        assert!(matches!(queue.try_recv(), Ok(Command::StopAll { .. })));
    }

    #[test]
    fn a_service_is_started_by_one_of_its_children_and_failed_only_by_all() {
        let report = Startup::of(&[
            child("a", Some(First::Failed)),
            child("a", Some(First::Started)),
            child("b", Some(First::Failed)),
            child("b", None),
            child("c", Some(First::Failed)),
            child("d", Some(First::Skipped)),
            child("e", Some(First::Idle)),
        ]);
        let names = |names: &[Name]| names.iter().map(Name::to_string).collect::<Vec<_>>().join(",");
        let shown = [&report.started, &report.pending, &report.failed, &report.skipped, &report.idle]
            .map(|list| names(list));
        assert_eq!(shown, ["a", "b", "c", "d", "e"]);
    }
}
