//! Asking a second instance when the first is slow to answer: after how long, and how often that can be afforded
//! (Dean and Barroso, "The Tail at Scale"; "hedging" in gRPC and Envoy).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::stats::HistogramSnapshot;
use super::time::Mono;

/// Calls that a quantile is taken of at least: fewer say nothing about the slowest.
pub const SAMPLES_MIN: u64 = 100;
/// Nobody is given less time to answer.
pub const AFTER_MIN: Duration = Duration::from_millis(1);

/// How a service's calls are hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    pub after: After,
    /// Share of the service's calls that may be asked twice.
    pub budget_permille: u32,
}

/// How long the first instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Time(Duration),
    /// As long as so many of a thousand calls took at most, lately.
    Quantile(u32),
}

impl Hedge {
    /// `None` while too little is known to say.
    pub fn after(&self, lately: impl FnOnce() -> HistogramSnapshot) -> Option<Duration> {
        let after = match self.after {
            After::Time(time) => time,
            After::Quantile(permille) => {
                let lately = lately();
                if lately.count() < SAMPLES_MIN {
                    return None;
                }
                Duration::from_micros(lately.quantile(f64::from(permille) / 1000.0).into())
            }
        };
        Some(after.max(AFTER_MIN))
    }
}

/// What calls took lately: between one and two of these, or since the start while those calls are too few.
const LATELY: Duration = Duration::from_secs(60);

/// Forgets what calls took long ago.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    /// What was seen when the last turns began, the older one first.
    before: [HistogramSnapshot; 2],
    turned_at: Option<Mono>,
}

impl Lately {
    /// The part of `seen` that counts. Called each second; `seen` only grows.
    pub fn of(&mut self, seen: HistogramSnapshot, now: Mono) -> HistogramSnapshot {
        let age = self.turned_at.map(|turned_at| now.since(turned_at));
        if age.is_none_or(|age| age >= LATELY) {
            // After a pause in which nobody asked, both are old.
            let [_, newer] = std::mem::take(&mut self.before);
            let older = if age.is_some_and(|age| age >= 2 * LATELY) { seen.clone() } else { newer };
            self.before = [older, seen.clone()];
            self.turned_at = Some(now);
        }
        let lately = seen.since(&self.before[0]);
        if lately.count() < SAMPLES_MIN { seen } else { lately }
    }
}

/// Thousandths of a second attempt.
const ATTEMPT: u64 = 1000;
/// Most that is saved: good times must not pay for twice the calls in bad ones.
const SAVED_MAX: u64 = 10 * ATTEMPT;

/// Second attempts that a service can afford, and what became of them. Lock-free. They are never more than their
/// share of the calls since the start.
#[derive(Debug, Default)]
pub struct Hedging {
    /// Microseconds; 0 while calls are not hedged.
    after_us: AtomicU64,
    saved: AtomicU64,
    sent: AtomicU64,
    won: AtomicU64,
}

impl Hedging {
    /// How long the first instance has now.
    pub fn after(&self) -> Option<Duration> {
        let us = self.after_us.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    pub fn set_after(&self, after: Option<Duration>) {
        let us = after.map_or(0, |after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        self.after_us.store(us, Ordering::Relaxed);
    }

    /// One call came in.
    pub fn deposit(&self, budget_permille: u32) {
        self.add(budget_permille.into());
    }

    /// Whether a second attempt can be afforded; takes it if so.
    pub fn withdraw(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(ATTEMPT);
        let taken = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        self.sent.fetch_add(taken.into(), Ordering::Relaxed);
        taken
    }

    /// What was withdrawn is not needed: nobody can be asked.
    pub fn give_back(&self) {
        self.sent.fetch_sub(1, Ordering::Relaxed);
        self.add(ATTEMPT);
    }

    /// The second instance answered first.
    pub fn note_won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn won(&self) -> u64 {
        self.won.load(Ordering::Relaxed)
    }

    fn add(&self, amount: u64) {
        let more = |saved: u64| {
            let next = (saved + amount).min(SAVED_MAX);
            (next != saved).then_some(next)
        };
        // Refused only when nothing more can be saved; then nothing is lost.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests;
