//! A shared process that rests: who keeps it from that, and who has it started again.

use std::sync::Arc;

use tokio::sync::watch;

use super::child::{Shared, Standing};
use super::peer::{Peer, Post, Spoken};
use super::reply::{Reply, Stream};
use super::stdio::Process;
use super::{SendError, Times};

/// Keeps a process from resting, for as long as it is held.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "its life is the hold")] Arc<()>);

/// Who uses a process beside calls, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Demand {
    holds: Arc<()>,
    waiting: watch::Sender<usize>,
}

/// One who waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|count| *count += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Peer {
    fn supervised(&self) -> Option<&Shared> {
        self.stdio().filter(|_| self.is_supervised()).map(|stdio| &stdio.shared)
    }

    /// Whoever has a session or listens holds it.
    pub fn hold(&self) -> Hold {
        Hold(self.supervised().map(|shared| Arc::clone(&shared.demand.holds)).unwrap_or_default())
    }

    /// Whether a session or a subscription is there.
    pub fn is_held(&self) -> bool {
        self.supervised().is_some_and(|shared| Arc::strong_count(&shared.demand.holds) > 1)
    }

    pub fn is_resting(&self) -> bool {
        self.supervised().is_some_and(|shared| matches!(*shared.standing.borrow(), Standing::Resting(_)))
    }

    /// From now on whoever wants to speak to the process waits until it stands up; `why` is for who does not wait.
    pub fn stand_by(&self, why: &str) {
        if let Some(shared) = self.supervised() {
            shared.stand(Standing::Resting(why.into()));
            self.begin_anew();
        }
    }

    /// Puts the process to rest, unless it is used. Who comes at the same time is either seen here, and the process goes
    /// on, or finds it at rest and waits: whoever sends is in flight before it takes the lock of the process's input.
    ///
    /// `is_used` says whether calls are in flight.
    pub fn rest(&self, process: &Arc<Process>, spoken: &Arc<Spoken>, is_used: impl Fn() -> bool) -> bool {
        self.stand_by("it is about to rest");
        let rests = process.close_unless(|| is_used() || self.is_held());
        if !rests {
            self.stand_up(process, spoken);
        }
        rests
    }

    /// Waits until somebody wants the process that rests.
    pub async fn wanted(&self) {
        let Some(shared) = self.supervised() else { return std::future::pending().await };
        let mut waiting = shared.demand.waiting.subscribe();
        // The sender is this value's own.
        waiting.wait_for(|count| *count > 0).await.ok();
    }

    /// Waits until a process that rests stands up. Whoever may not wake it is told that it rests.
    ///
    /// # Errors
    /// It is down, or was not up in time. Nothing was sent.
    pub(super) async fn awake(&self, times: &Times) -> Result<(), SendError> {
        let Some(shared) = self.supervised() else { return Ok(()) };
        let mut standing = shared.standing.subscribe();
        let mut waiting = None;
        loop {
            let why = match &*standing.borrow_and_update() {
                Standing::Up => return Ok(()),
                Standing::Down(why) => return Err(SendError::Down(Arc::clone(why))),
                Standing::Resting(why) => Arc::clone(why),
            };
            if !times.wakes {
                return Err(SendError::Down(why));
            }
            waiting.get_or_insert_with(|| Waiting::begin(&shared.demand.waiting));
            if tokio::time::timeout_at(times.deadline, standing.changed()).await.is_err() {
                let late = format!("it rested, was started for this, and was not ready in time ({why})");
                return Err(SendError::Down(late.into()));
            }
        }
    }

    /// Sends to a process; to the next one when this one was just put to rest.
    pub(super) async fn post_to(
        &self,
        process: &Arc<Process>,
        spoken: &Spoken,
        post: &Post<'_>,
        times: &Times,
    ) -> Result<Reply, SendError> {
        let mut process = Arc::clone(process);
        loop {
            match process.post(post, times).await {
                Err(SendError::Resting) => {}
                other => return other,
            }
            self.awake(times).await?;
            let next = self.spoken().filter(|next| next.era == spoken.era);
            process = next.and_then(|next| next.process.clone()).ok_or(SendError::Resting)?;
        }
    }
}

impl Process {
    async fn post(&self, post: &Post<'_>, times: &Times) -> Result<Reply, SendError> {
        match post.id {
            Some(id) => {
                let events = self.request(id, post.token, post.body, times).await?;
                Ok(Reply::Stream(Stream { session: None, events }))
            }
            None => {
                self.send(post.body, times).await?;
                Ok(super::peer::accepted())
            }
        }
    }
}
