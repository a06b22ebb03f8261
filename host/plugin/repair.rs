//! One thread that replaces instances which a fault or their age has ended, and writes down what they failed on, so that
//! no call waits for either.

use std::io;
use std::sync::Weak;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::capsule::Capsule;
use super::hot::Hot;

const QUEUE: usize = 256;

enum Job {
    Rebuild(Weak<Hot>, usize),
    /// With the fingerprint of the input.
    Write(Box<Capsule>, u64),
}

/// A way to the repair thread, which ends when the last of these is gone.
#[derive(Clone)]
pub struct Repair(SyncSender<Job>);

impl Repair {
    /// # Errors
    /// The thread could not be started.
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = sync_channel::<Job>(QUEUE);
        thread::Builder::new().name("plugin-repair".into()).spawn(move || {
            for job in jobs {
                match job {
                    // A generation that nobody uses any more needs no repair.
                    Job::Rebuild(hot, index) => {
                        if let Some(hot) = hot.upgrade() {
                            hot.rebuild(index);
                        }
                    }
                    Job::Write(capsule, input) => capsule.plugin().capsules.write(&capsule, input),
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Never waits; `false` when the queue is full.
    pub fn rebuild(&self, hot: Weak<Hot>, index: usize) -> bool {
        self.send(Job::Rebuild(hot, index))
    }

    /// Never waits; `false` when the queue is full.
    pub fn write(&self, capsule: Capsule, input: u64) -> bool {
        self.send(Job::Write(Box::new(capsule), input))
    }

    fn send(&self, job: Job) -> bool {
        match self.0.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}
