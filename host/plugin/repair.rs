//! One thread that replaces instances which a fault or their age has ended, so that no call waits for it.

use std::io;
use std::sync::Weak;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::hot::Hot;

const QUEUE: usize = 256;

/// A way to the repair thread, which ends when the last of these is gone.
#[derive(Clone)]
pub struct Repair(SyncSender<(Weak<Hot>, usize)>);

impl Repair {
    /// # Errors
    /// The thread could not be started.
    pub fn start() -> io::Result<Self> {
        let (sender, jobs) = sync_channel::<(Weak<Hot>, usize)>(QUEUE);
        thread::Builder::new().name("plugin-repair".into()).spawn(move || {
            for (hot, index) in jobs {
                // A generation that nobody uses any more needs no repair.
                if let Some(hot) = hot.upgrade() {
                    hot.rebuild(index);
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Never waits; `false` when the queue is full.
    pub fn request(&self, hot: Weak<Hot>, index: usize) -> bool {
        match self.0.try_send((hot, index)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}
