//! Telling an instance that nobody waits any more for the answer to a request of the proxy's own making.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::peer::{Link, Peer, Post, Spoken};
use super::{SendError, Times, chain};
use crate::mcp::envelope;
use crate::mcp::era::Era;

/// How long the telling may take.
const TELLING: Duration = Duration::from_secs(2);

/// Who tells it, in a task of its own.
#[derive(Clone, Copy)]
pub(super) struct Recalls<'a> {
    pub peer: &'a Arc<Peer>,
    pub tasks: &'a TaskTracker,
}

/// A request that is waited for. When it is dropped before it was heard, its instance is told; over HTTP the modern
/// era does that by closing the connection.
pub(super) struct Unheard<'a> {
    recalls: Recalls<'a>,
    id: u64,
    armed: bool,
}

impl<'a> Unheard<'a> {
    pub(super) fn new(recalls: Recalls<'a>, spoken: &Spoken, id: u64) -> Self {
        let says_it = spoken.era == Era::Legacy || matches!(recalls.peer.link, Link::Stdio(_));
        Self { recalls, id, armed: says_it }
    }

    /// What came of it. One that is late may be under way there still.
    pub(super) fn heard<T>(mut self, ended: &Result<T, SendError>) {
        self.armed &= ended.as_ref().is_err_and(SendError::is_late);
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (peer, id) = (Arc::clone(self.recalls.peer), self.id.to_string());
        self.recalls.tasks.spawn(async move {
            let Some(spoken) = peer.spoken() else { return };
            let message = envelope::cancelled(&id);
            let post = Post { id: None, token: None, headers: &[], body: &[&message] };
            let deadline = tokio::time::Instant::now() + TELLING;
            let times =
                Times { connect: TELLING, first_byte: TELLING, deadline, wakes: false, stated: false };
            if let Err(error) = peer.post(&spoken, &post, &times).await {
                tracing::debug!(error = chain(&error), "cancellation not passed on");
            }
        });
    }
}
