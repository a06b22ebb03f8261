//! The processes of client sessions, where each gets one: how many there are, and the way to them when all are to end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::SendError;
use super::child::Stdio;
use super::stdio::Process;

#[derive(Debug, Default)]
pub(super) struct OwnProcesses(Mutex<Processes>);

#[derive(Debug, Default)]
struct Processes {
    starting: usize,
    /// Sessions have them; here they are only counted, and found.
    started: Vec<Weak<Process>>,
}

/// One that is being started, and has its place.
struct Starting<'a>(&'a OwnProcesses);

impl OwnProcesses {
    /// Those that have not ended.
    pub(super) fn living(&self) -> Vec<Arc<Process>> {
        let mut processes = self.lock();
        processes.started.retain(|process| process.strong_count() > 0);
        let there = processes.started.iter().filter_map(Weak::upgrade);
        there.filter(|process| !process.is_gone()).collect()
    }

    /// # Errors
    /// There are as many as there may be.
    fn begin(&self, max: usize) -> Result<Starting<'_>, SendError> {
        let mut processes = self.lock();
        // One that has ended may be held for a while by a session that has not noticed.
        processes.started.retain(|process| process.upgrade().is_some_and(|process| !process.is_gone()));
        if processes.started.len() + processes.starting >= max {
            return Err(SendError::Full(max));
        }
        processes.starting += 1;
        Ok(Starting(self))
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Starting<'_> {
    fn done(self, process: &Arc<Process>) {
        let mut processes = self.0.lock();
        processes.started.push(Arc::downgrade(process));
        processes.starting -= 1;
        drop(processes);
        // Its place is the process's now.
        std::mem::forget(self);
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
    }
}

impl Stdio {
    /// Starts the process of a client's session.
    ///
    /// # Errors
    /// As [`Stdio::start`]; and there are as many as there may be.
    pub(super) async fn start_own(&self) -> Result<Arc<Process>, SendError> {
        let starting = self.own.begin(self.command.sessions_max)?;
        let process = self.start().await?;
        starting.done(&process);
        Ok(process)
    }
}
