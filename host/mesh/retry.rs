//! Whether a failed call may be tried again, when, and how many retries a service can afford.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::time::Mono;

/// Attempts at one call, the first included.
pub const ATTEMPTS_MAX: u32 = 3;

const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause before the second attempt; doubles with each attempt, up to [`PAUSE_MAX`].
const PAUSE_FIRST_MAX: Duration = Duration::from_millis(125);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// When a call failed, which decides whether it can have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Before any byte was sent: refused, DNS, TLS, pool full.
    NotSent,
    /// After sending, before any answer: reset, timeout, 503, 429, child died. The outcome is unknown.
    Unanswered,
    /// After a byte of the answer was forwarded, or the answer is itself an error.
    Answered,
}

/// `attempt` counts the attempts made so far, from 1. `read_only`: the method only reads, or the tool is marked (by
/// the operator or a trusted upstream) as read-only or idempotent. Budget and deadline are asked apart.
pub fn may_retry(failure: Failure, read_only: bool, attempt: u32) -> bool {
    attempt < ATTEMPTS_MAX
        && match failure {
            Failure::NotSent => true,
            Failure::Unanswered => read_only,
            Failure::Answered => false,
        }
}

/// Pause after the `attempt`th attempt (from 1): uniform from 25 ms to 125 ms, later to 250 ms ("full jitter").
/// `random` is 64 uniform bits.
pub fn pause(attempt: u32, random: u64) -> Duration {
    let most = PAUSE_FIRST_MAX.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(PAUSE_MAX);
    PAUSE_MIN + (most - PAUSE_MIN).mul_f64(random as f64 / u64::MAX as f64)
}

/// The pause before the next attempt at a call, and `None` when there is to be none: it may not be repeated, or its
/// caller would not be there any more. `left` is what its caller has left to wait; the others are as above.
pub fn next(
    failure: Failure,
    read_only: bool,
    attempt: u32,
    left: Duration,
    random: u64,
) -> Option<Duration> {
    // Nothing reached the instance that failed, so another one can be asked at once.
    let pause = if failure == Failure::NotSent { Duration::ZERO } else { pause(attempt, random) };
    (may_retry(failure, read_only, attempt) && pause < left).then_some(pause)
}

/// Millionths of a token, so that 3 tokens a second are exactly 3 of these a microsecond.
const TOKEN: u64 = 1_000_000;
const PER_CALL: u64 = TOKEN / 5;
const PER_MICROSECOND: u64 = 3;
/// What a service starts with.
const START: u64 = 10 * TOKEN;
/// Most that is saved: good times must not pay for a storm of retries in bad ones.
const SAVED_MAX: u64 = 100 * TOKEN;

/// `refilled_at` before the first withdrawal: time before it earns nothing.
const NEVER: u64 = u64::MAX;

/// Retries that a service can afford: 20 % of its calls, and 3 a second so that quiet services can retry at all.
/// Lock-free. Over any time from its start, withdrawals are at most 0.2 · calls + 3/s · time + 10.
#[derive(Debug)]
pub struct Budget {
    saved: AtomicU64,
    refilled_at: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    pub fn new() -> Self {
        Self { saved: AtomicU64::new(START), refilled_at: AtomicU64::new(NEVER) }
    }

    /// One call (not a retry) came in.
    pub fn deposit(&self) {
        self.add(PER_CALL);
    }

    /// Whether one retry can be afforded; takes it if so.
    pub fn withdraw(&self, now: Mono) -> bool {
        self.refill(now.as_micros());
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(TOKEN))
            .is_ok()
    }

    /// Whoever moves the time forward adds what it earned, so no microsecond is paid for twice.
    fn refill(&self, now: u64) {
        let last = self.refilled_at.load(Ordering::Relaxed);
        if last != NEVER && now <= last {
            return;
        }
        let won = self.refilled_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won && last != NEVER {
            self.add((now - last).saturating_mul(PER_MICROSECOND));
        }
    }

    fn add(&self, amount: u64) {
        let more = |saved: u64| {
            let next = saved.saturating_add(amount).min(SAVED_MAX);
            (next != saved).then_some(next)
        };
        // Refused only when nothing more can be saved; then nothing is lost.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests;
