//! Calls to one service that wait for an instance to have room, in the order in which they came.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mesh::ids::Slot;
use crate::mesh::limit::{Limits, Shed, Waited, may_wait};

/// Who is first looks again this often even if nobody left: limits may have changed.
const LOOK: Duration = Duration::from_millis(100);

/// Instances that could take a call: a bit for each slot; from 64 on, slots share theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takers(u64);

impl FromIterator<Slot> for Takers {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        Self(slots.into_iter().fold(0, |bits, slot| bits | 1 << (slot.0 % u64::BITS)))
    }
}

#[derive(Debug, Default)]
pub struct Line {
    /// How many are in `waiters`, and how many of them are called: what calls ask that do not wait themselves.
    waiting: AtomicU32,
    called: AtomicU32,
    queue: Mutex<Queue>,
    /// Calls that were not let wait, or waited in vain.
    shed: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// By ticket.
    waiters: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    takers: Takers,
    turn: Arc<Notify>,
    /// It is its turn, and it has yet to take it: a place that is not free for others.
    called: bool,
}

enum Standing {
    Called,
    /// Nobody before it waits for all of what it waits for.
    First,
    Behind,
}

impl Queue {
    fn standing(&self, ticket: u64) -> Standing {
        let Some(own) = self.waiters.get(&ticket) else { return Standing::Behind };
        if own.called {
            return Standing::Called;
        }
        let mut left = own.takers.0;
        for before in self.waiters.range(..ticket).map(|(_, waiter)| waiter.takers.0) {
            left &= !before;
            if left == 0 {
                return Standing::Behind;
            }
        }
        Standing::First
    }
}

impl Line {
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Places that those have who were called and are not there yet.
    pub fn called(&self) -> u32 {
        self.called.load(Ordering::Relaxed)
    }

    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// At the instance in that slot a call has ended. Costs one load unless somebody waits.
    pub fn leave(&self, slot: Slot) {
        // Ordered behind the count of calls, which is taken down before: who joins the line and finds an instance
        // full is called.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.call(Takers::from_iter([slot]));
        }
    }

    /// A place at the end of the line. `places` calls at a time take `latency` each.
    ///
    /// # Errors
    /// Too many wait, or it would take too long.
    pub fn join(
        &self,
        takers: Takers,
        (places, latency): (u32, Duration),
        deadline: Instant,
        limits: &Limits,
    ) -> Result<Place<'_>, Shed> {
        let began = Instant::now();
        let at_most = deadline.saturating_duration_since(began);
        let mut queue = self.queue();
        // Who is refused has never stood in the line.
        may_wait(self.waiting(), places, latency, at_most, limits).inspect_err(|_| self.note_shed())?;
        let (ticket, turn) = (queue.next, Arc::new(Notify::new()));
        queue.next += 1;
        queue.waiters.insert(ticket, Waiter { takers, turn: Arc::clone(&turn), called: false });
        let ahead = self.waiting.fetch_add(1, Ordering::SeqCst);
        // What was expected is a guess: refusing late what was let in is worse than answering late.
        let until = began + at_most.min(limits.wait * 2);
        Ok(Place { line: self, ticket, takers, turn, ahead, began, until, entered: false })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // What is done under the lock cannot fail half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first who waits for one of `takers` and is not called yet.
    fn call(&self, takers: Takers) {
        let mut queue = self.queue();
        let mut waiters = queue.waiters.values_mut();
        if let Some(first) = waiters.find(|waiter| !waiter.called && waiter.takers.0 & takers.0 != 0) {
            first.called = true;
            first.turn.notify_one();
            self.called.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set_called(&self, ticket: u64, called: bool) {
        let mut queue = self.queue();
        let Some(waiter) = queue.waiters.get_mut(&ticket).filter(|waiter| waiter.called != called) else {
            return;
        };
        waiter.called = called;
        if called {
            self.called.fetch_add(1, Ordering::Relaxed);
        } else {
            self.called.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn note_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A place in the line, kept until its call is under way; dropping it before leaves the line.
#[derive(Debug)]
pub struct Place<'l> {
    line: &'l Line,
    ticket: u64,
    takers: Takers,
    turn: Arc<Notify>,
    /// Who was before it when it came.
    ahead: u32,
    began: Instant,
    until: Instant,
    entered: bool,
}

impl Place<'_> {
    /// Waits until it is its turn and there is `room`. Who finds it taken after all waits on, in the same place.
    ///
    /// # Errors
    /// It took too long.
    pub async fn turn(&self, room: impl Fn() -> u32) -> Result<Waited, Shed> {
        let since = Instant::now();
        loop {
            let standing = self.line.queue().standing(self.ticket);
            if !matches!(standing, Standing::Behind) && room() > 0 {
                self.line.set_called(self.ticket, true);
                return Ok(Waited { time: since.elapsed(), ahead: self.ahead });
            }
            if matches!(standing, Standing::Called) {
                // Whoever left meanwhile called somebody behind it: it looks once more.
                self.line.set_called(self.ticket, false);
                continue;
            }
            let now = Instant::now();
            if now >= self.until {
                self.line.note_shed();
                return Err(Shed::Waited(self.began.elapsed()));
            }
            // Whether it was called or only the time has come, the next round sees.
            tokio::time::timeout_at(self.until.min(now + LOOK), self.turn.notified()).await.ok();
        }
    }

    /// Its call is under way. When there is more `room` than for those who were called, the next one may look, too.
    pub fn enter(mut self, room: impl Fn() -> u32) {
        self.entered = true;
        let (line, takers) = (self.line, self.takers);
        drop(self);
        if line.waiting() > 0 && room() > line.called() {
            line.call(takers);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.line.queue();
        let was_called = queue.waiters.remove(&self.ticket).is_some_and(|waiter| waiter.called);
        self.line.waiting.fetch_sub(1, Ordering::SeqCst);
        if was_called {
            self.line.called.fetch_sub(1, Ordering::Relaxed);
        }
        drop(queue);
        if was_called && !self.entered {
            self.line.call(self.takers);
        }
    }
}

#[cfg(test)]
mod tests;
