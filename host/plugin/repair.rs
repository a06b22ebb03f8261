//! A thread that replaces instances which a fault or their age has ended, and one that writes down what they failed on,
//! so that no call waits for either, and no instance for a slow disk.

use std::io;
use std::sync::Weak;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::capsule::Capsule;
use super::hot::Hot;

const REBUILDS_MAX: usize = 256;
/// Each holds what its plugin knew.
const CAPSULES_MAX: usize = 32;

type Rebuild = (Weak<Hot>, usize);
/// With the fingerprint of the input.
type Write = (Box<Capsule>, u64);

/// A way to the two threads, which end when the last of these is gone.
#[derive(Clone)]
pub struct Repair {
    rebuilds: SyncSender<Rebuild>,
    writes: SyncSender<Write>,
}

impl Repair {
    /// # Errors
    /// A thread could not be started.
    pub fn start() -> io::Result<Self> {
        let rebuilds = thread("plugin-repair", REBUILDS_MAX, |(hot, index): Rebuild| {
            // A generation that nobody uses any more needs no repair.
            if let Some(hot) = hot.upgrade() {
                hot.rebuild(index);
            }
        })?;
        let writes = thread("plugin-capsules", CAPSULES_MAX, |(capsule, input): Write| {
            capsule.plugin().capsules.write(&capsule, input);
        })?;
        Ok(Self { rebuilds, writes })
    }

    /// Never waits; `false` when the queue is full.
    pub fn rebuild(&self, hot: Weak<Hot>, index: usize) -> bool {
        send(&self.rebuilds, (hot, index))
    }

    /// Never waits; `false` when the queue is full.
    pub fn write(&self, capsule: Capsule, input: u64) -> bool {
        send(&self.writes, (Box::new(capsule), input))
    }
}

/// Does jobs in their order.
fn thread<J: Send + 'static>(
    name: &str,
    queue: usize,
    work: impl Fn(J) + Send + 'static,
) -> io::Result<SyncSender<J>> {
    let (sender, jobs) = sync_channel::<J>(queue);
    thread::Builder::new().name(name.to_owned()).spawn(move || jobs.into_iter().for_each(work))?;
    Ok(sender)
}

fn send<J>(jobs: &SyncSender<J>, job: J) -> bool {
    match jobs.try_send(job) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
    }
}
