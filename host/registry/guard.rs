//! An instance's breaker as calls share it, and what became of it since that was last told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::mesh::breaker::{Admission, Breaker, BreakerState, Cause, Transition, Trial};
use crate::mesh::time::Mono;

/// How long after its last failure an instance's successes are looked at.
const TROUBLE: Duration = Duration::from_secs(30);
/// Shifts kept between two looks; of more, the newest.
const SHIFTS_MAX: usize = 16;

/// A breaker came into another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    pub state: BreakerState,
    pub why: String,
}

/// An instance's breaker, and the flag that spares calls to a healthy instance its lock.
#[derive(Debug, Default)]
pub struct Guard {
    /// Written under the lock.
    troubled: AtomicBool,
    failed_at: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    breaker: Breaker,
    /// Oldest first.
    shifts: VecDeque<Shift>,
}

impl Guard {
    pub fn admits(&self, now: Mono) -> Admission {
        if self.is_troubled() { self.step(now, |breaker| breaker.admits(now)) } else { Admission::Yes }
    }

    /// Whether this closed it.
    pub fn on_success(&self, now: Mono, trial: Option<Trial>) -> bool {
        self.is_troubled() && self.step(now, |breaker| breaker.on_success(now, trial)).is_some()
    }

    pub fn on_failure(&self, now: Mono, random: u64, trial: Option<Trial>) {
        self.fail(now, |breaker| breaker.on_failure(now, random, trial));
    }

    pub fn on_ratio_failure(&self, now: Mono, random: u64, trial: Option<Trial>) {
        self.fail(now, |breaker| breaker.on_ratio_failure(now, random, trial));
    }

    pub fn on_unhealthy(&self, now: Mono, random: u64) {
        self.fail(now, |breaker| breaker.on_unhealthy(now, random));
    }

    pub fn on_abandoned(&self, trial: Trial) {
        if self.is_troubled() {
            self.with(|kept| kept.breaker.on_abandoned(trial));
        }
    }

    /// The trial that a call is which goes there whatever the breaker says, when one is due.
    pub fn trial(&self, now: Mono) -> Option<Trial> {
        match self.admits(now) {
            Admission::Trial(trial) => Some(trial),
            Admission::Yes | Admission::No => None,
        }
    }

    pub fn on_recovery(&self, now: Mono) {
        if self.is_troubled() {
            self.step(now, Breaker::on_recovery);
        }
    }

    pub fn state(&self) -> BreakerState {
        self.with(|kept| kept.breaker.state())
    }

    /// What brought it into its state, and `None` while it never opened.
    pub fn reason(&self) -> Option<String> {
        let cause = self.with(|kept| kept.breaker.cause());
        (cause != Cause::Unused).then(|| cause.to_string())
    }

    /// Whether the next call there would be a breaker's trial.
    pub fn is_due(&self, now: Mono) -> bool {
        self.is_troubled() && self.with(|kept| kept.breaker.is_due(now))
    }

    pub fn trips(&self) -> u64 {
        self.with(|kept| kept.breaker.trips())
    }

    /// Whether it keeps calls away now.
    pub fn keeps_away(&self, now: Mono) -> bool {
        self.is_troubled() && self.with(|kept| kept.breaker.keeps_away(now))
    }

    /// When a call last failed there.
    pub fn failed_at(&self) -> Mono {
        Mono::from_micros(self.failed_at.load(Ordering::Relaxed))
    }

    /// What became of it since this was last asked, oldest first.
    pub fn shifts(&self) -> VecDeque<Shift> {
        self.with(|kept| std::mem::take(&mut kept.shifts))
    }

    /// Called each second: long after the last failure, successes go by unseen again.
    pub fn settle(&self, now: Mono) {
        if !self.is_troubled() {
            return;
        }
        self.with(|kept| {
            if now.since(self.failed_at()) > TROUBLE && kept.breaker.state() == BreakerState::Closed {
                kept.breaker.settle();
                self.troubled.store(false, Ordering::Relaxed);
            }
        });
    }

    fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    fn fail(&self, now: Mono, step: impl FnOnce(&mut Breaker) -> Option<Transition>) {
        self.step(now, |breaker| {
            self.failed_at.store(now.as_micros(), Ordering::Relaxed);
            self.troubled.store(true, Ordering::Relaxed);
            step(breaker)
        });
    }

    fn step<T>(&self, now: Mono, step: impl FnOnce(&mut Breaker) -> T) -> T {
        self.with(|kept| {
            let before = (kept.breaker.state(), kept.breaker.trips());
            let answer = step(&mut kept.breaker);
            let state = kept.breaker.state();
            if (state, kept.breaker.trips()) != before {
                let mut why = kept.breaker.cause().to_string();
                if let Some(until) = kept.breaker.open_until() {
                    let left = until.since(now).as_secs_f64();
                    why.push_str(&format!("; the next trial in {left:.1} s"));
                }
                if kept.shifts.len() == SHIFTS_MAX {
                    kept.shifts.pop_front();
                }
                kept.shifts.push_back(Shift { state, why });
            }
            answer
        })
    }

    fn with<T>(&self, read: impl FnOnce(&mut Kept) -> T) -> T {
        read(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
