//! Calls to one service that wait for an instance to have room.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mesh::limit::{Limits, Shed, Waited, may_wait};

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
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Several calls for one that was about to look are one wake-up: what is left over is nobody's.
            self.0.called.store(0, Ordering::Relaxed);
        }
    }
}

impl Line {
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Places that those have who were woken and are not there yet.
    pub fn called(&self) -> u32 {
        self.called.load(Ordering::Relaxed).min(self.waiting())
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
    ) -> Result<Waited, Shed> {
        let began = Instant::now();
        let at_most = deadline.saturating_duration_since(began);
        let waited = async {
            // Who is refused has never stood in the line.
            may_wait(self.waiting(), places, latency, at_most, limits)?;
            let before = self.waiting.fetch_add(1, Ordering::SeqCst);
            let _place = Place(self);
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
                    // It may be nobody's any more.
                    let one_less = |called: u32| called.checked_sub(1);
                    self.called.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok();
                    turn.set(self.turn.notified());
                }
                came = true;
            }
            Ok(Waited { time: began.elapsed(), ahead: before })
        };
        let waited = waited.await;
        self.shed.fetch_add(u64::from(waited.is_err()), Ordering::Relaxed);
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_that_were_called_are_nobodys_once_the_line_is_empty() {
        let (line, limits) = (Line::default(), Limits::default());
        let deadline = Instant::now() + Duration::from_secs(5);
        let pace = (1, Duration::from_millis(1));
        let refused = line.wait(pace, Instant::now(), &limits, || false).await;
        assert!(refused.is_err() && line.waiting() == 0 && line.shed() == 1);
        line.leave();
        assert_eq!(line.called(), 0, "nobody waits");

        let has_room = std::cell::Cell::new(false);
        let waits = line.wait(pace, deadline, &limits, || has_room.get());
        let leaves = async {
            while line.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            (0..5).for_each(|_| line.leave());
            assert_eq!(line.called(), 1, "never more than wait");
            has_room.set(true);
        };
        let (waited, ()) = tokio::join!(waits, leaves);
        assert_eq!((waited.map(|waited| waited.ahead), line.waiting(), line.called()), (Ok(0), 0, 0));
        line.wait(pace, deadline, &limits, || true).await.expect("a wake-up that is left over harms nobody");
        assert_eq!(line.called(), 0);
    }
}
