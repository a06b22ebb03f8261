//! Whoever waits for what a process says to one request, as the process's output sees him.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::SendError;
use crate::clock;
use crate::mesh::stall::Stall;

/// Messages of one request that may wait to be read; a reader that is slower holds the process up for a while.
const OUTPUT: usize = 256;

/// Where messages for him go. Shared by those that have one for him now.
#[derive(Debug)]
pub(super) struct Reader {
    messages: mpsc::Sender<Bytes>,
    is_slow: Arc<AtomicBool>,
}

/// His side.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::Receiver<Bytes>,
    is_slow: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn new() -> (Arc<Self>, Messages) {
        let (messages, queue) = mpsc::channel(OUTPUT);
        let is_slow = Arc::<AtomicBool>::default();
        let messages = Self { messages, is_slow: Arc::clone(&is_slow) };
        (Arc::new(messages), Messages { queue, is_slow })
    }

    /// Gives him a message, and waits for as long as `stall`, that of the process, lets him hold it up: for ever when
    /// it is `None`, the process is his own. `false` when he reads too slowly and is to be given up.
    pub(super) async fn take(&self, message: Bytes, stall: Option<&mut Stall>) -> bool {
        let message = match self.messages.try_send(message) {
            // Whoever went away meanwhile needs it no more.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return true,
            Err(mpsc::error::TrySendError::Full(message)) => message,
        };
        let Some(stall) = stall else {
            // As above.
            drop(self.messages.send(message).await);
            return true;
        };
        let left = stall.left(clock::mono());
        let taken = tokio::time::timeout(left, self.messages.send(message)).await.is_ok();
        stall.held_until(clock::mono());
        if !taken {
            self.is_slow.store(true, Ordering::Release);
        }
        taken
    }
}

impl Messages {
    /// What came before he was given up is still his.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, SendError>> {
        self.queue.poll_recv(cx).map(|message| match message {
            None if self.is_slow.load(Ordering::Acquire) => Err(SendError::SlowReader),
            message => Ok(message),
        })
    }
}
