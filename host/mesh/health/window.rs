//! Calls of the last 30 s, from totals that only grow.

use super::{Mono, RECENT_SECONDS, WINDOW_SECONDS};

/// Good calls that every instance is credited with, so that one failure of one call condemns nobody.
const PRIOR: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    ok: u64,
    failed: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    seconds: [Second; WINDOW_SECONDS as usize],
    now: u64,
    /// Totals at the last tick; `None` before the first, whose totals may be those of earlier runs.
    totals: Option<(u64, u64)>,
}

impl Window {
    pub(super) fn advance(&mut self, now: Mono, ok_total: u64, failed_total: u64) {
        let number = now.as_micros() / 1_000_000;
        let missed = number.saturating_sub(self.now);
        self.now = self.now.max(number);
        // Totals that fall were counted anew: a new base, not a negative number of calls.
        let (ok_base, failed_base) = self.totals.unwrap_or((ok_total, failed_total));
        self.totals = Some((ok_total, failed_total));
        let recent = |total: u64, base: u64| {
            let delta = total.saturating_sub(base);
            // Ticks were missed for longer than the window: take its part of what happened meanwhile.
            if missed > WINDOW_SECONDS { per_window(delta, missed) } else { delta }
        };
        let second = &mut self.seconds[(self.now % WINDOW_SECONDS) as usize];
        if second.number != self.now {
            *second = Second { number: self.now, ..Second::default() };
        }
        second.ok += recent(ok_total, ok_base);
        second.failed += recent(failed_total, failed_base);
    }

    /// Calls that succeeded and that failed.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.sums_of(WINDOW_SECONDS)
    }

    /// Ratio of success, 0-1, with the prior.
    pub(super) fn success(&self) -> f64 {
        ratio(self.sums())
    }

    /// The same of the last [`RECENT_SECONDS`].
    pub(super) fn recent_success(&self) -> f64 {
        ratio(self.sums_of(RECENT_SECONDS))
    }

    fn sums_of(&self, seconds: u64) -> (u64, u64) {
        let within = self.seconds.iter().filter(|second| second.number + seconds > self.now);
        within.fold((0, 0), |(ok, failed), second| (ok + second.ok, failed + second.failed))
    }
}

fn ratio((ok, failed): (u64, u64)) -> f64 {
    (ok as f64 + PRIOR) / ((ok + failed) as f64 + PRIOR)
}

fn per_window(delta: u64, missed: u64) -> u64 {
    (u128::from(delta) * u128::from(WINDOW_SECONDS) / u128::from(missed)) as u64
}

#[cfg(test)]
mod tests;
