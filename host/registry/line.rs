//! Calls to one service that wait for an instance to have room.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mesh::limit::{Limits, Shed, may_wait};

/// Who waits looks again this often even if nobody left: limits may have changed.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Line {
    waiting: AtomicU32,
    turn: Notify,
    /// Whose turn it is, and who has yet to take it: places that are not free for newcomers.
    called: AtomicU32,
    /// Calls that were not let wait, or waited in vain.
    shed: AtomicU64,
}

/// A place in the line; dropping it leaves the line.
struct Place<'l>(&'l Line);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Line {
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Places that those have who were woken and are not there yet.
    pub fn called(&self) -> u32 {
        self.called.load(Ordering::Relaxed)
    }

    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Somewhere a call has ended. Costs one load unless somebody waits.
    pub fn leave(&self) {
        // Ordered behind the count of calls, which is taken down before: who counts itself in here and finds an
        // instance full is woken.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.called.fetch_add(1, Ordering::Relaxed);
            self.turn.notify_one();
        }
    }

    /// Waits until `has_room`. `places` calls at a time take `latency` each.
    ///
    /// # Errors
    /// Too many wait, or it took or would take too long.
    pub async fn wait(
        &self,
        (places, latency): (u32, Duration),
        deadline: Instant,
        limits: &Limits,
        has_room: impl Fn() -> bool,
    ) -> Result<(), Shed> {
        let began = Instant::now();
        let at_most = deadline.saturating_duration_since(began);
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _place = Place(self);
        let waited = async {
            may_wait(before, places, latency, at_most, limits)?;
            // What was expected is a guess: refusing late what was let in is worse than answering late.
            let until = began + at_most.min(limits.wait * 2);
            // Its place in the line is kept while it looks.
            let mut turn = pin!(self.turn.notified());
            let mut came = before == 0;
            while !(came && has_room()) {
                if Instant::now() >= until {
                    return Err(Shed::Waited(began.elapsed()));
                }
                if tokio::time::timeout(LOOK, turn.as_mut()).await.is_ok() {
                    self.called.fetch_sub(1, Ordering::Relaxed);
                    turn.set(self.turn.notified());
                }
                came = true;
            }
            Ok(())
        };
        let waited = waited.await;
        self.shed.fetch_add(u64::from(waited.is_err()), Ordering::Relaxed);
        waited
    }
}
