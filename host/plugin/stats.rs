//! Counts and latencies of one instance's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four buckets for each power of two of nanoseconds, from 64 ns to 4 s.
const BUCKETS: usize = 4 * 26;
const FIRST_POWER: u32 = 6;
const TIMED_ONE_IN: u64 = 8;

/// Written by whoever holds the instance, so a load and a store do for an increment; read by anyone.
pub struct Stats {
    calls: AtomicU64,
    /// Of the calls that were timed, together.
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Stats {
    /// Counts a call, and says whether it is one of those that are timed: reading the clock twice would be a tenth
    /// of what a short call costs.
    pub fn count(&self) -> bool {
        bump(&self.calls).is_multiple_of(TIMED_ONE_IN)
    }

    /// The latency of a call that was counted.
    pub fn time(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(self.nanos.load(Ordering::Relaxed).saturating_add(nanos), Ordering::Relaxed);
        bump(&self.buckets[bucket(nanos)]);
    }
}

/// Answers the count before.
fn bump(count: &AtomicU64) -> u64 {
    let before = count.load(Ordering::Relaxed);
    count.store(before + 1, Ordering::Relaxed);
    before
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1 << FIRST_POWER);
    let power = nanos.ilog2();
    let quarter = (nanos >> (power - 2)) & 3;
    (((power - FIRST_POWER) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

fn lower_bound_us(bucket: usize) -> f64 {
    bound_us(bucket, 0)
}

fn upper_bound_us(bucket: usize) -> f64 {
    bound_us(bucket, 1)
}

fn bound_us(bucket: usize, quarters_more: u64) -> f64 {
    let power = FIRST_POWER + bucket as u32 / 4;
    let quarter = (bucket % 4) as u64 + quarters_more;
    ((1u64 << power) + (quarter << (power - 2))) as f64 / 1_000.0
}

/// Calls of all `stats`.
pub fn calls<'a>(stats: impl Iterator<Item = &'a Stats>) -> u64 {
    stats.map(|one| one.calls.load(Ordering::Relaxed)).sum()
}

/// What the timed calls of all `stats` took together.
pub fn took<'a>(stats: impl Iterator<Item = &'a Stats>) -> Duration {
    Duration::from_nanos(stats.map(|one| one.nanos.load(Ordering::Relaxed)).sum())
}

/// The latencies of calls that were timed.
#[derive(Clone, Debug)]
pub struct Times([u64; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Times {
    pub fn of<'a>(stats: impl Iterator<Item = &'a Stats>) -> Self {
        let mut times = Self::default();
        for one in stats {
            for (sum, bucket) in times.0.iter_mut().zip(&one.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
        }
        times
    }

    /// Those that came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut times = self.clone();
        for (sum, before) in times.0.iter_mut().zip(&before.0) {
            *sum = sum.saturating_sub(*before);
        }
        times
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Microseconds that 99 of 100 did not exceed: 0 of none, at most a quarter too high.
    pub fn p99_us(&self) -> f64 {
        self.p99().map_or(0.0, upper_bound_us)
    }

    /// The same, at most a quarter too low: whoever is over this is over it for certain.
    pub fn p99_us_at_least(&self) -> f64 {
        self.p99().map_or(0.0, lower_bound_us)
    }

    fn p99(&self) -> Option<usize> {
        let timed = self.count();
        let rank = timed - timed / 100;
        let mut below = 0;
        self.0.iter().position(|count| {
            below += count;
            below >= rank && rank > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_at_most_a_quarter_too_high() {
        let stats = Stats::default();
        for nanos in 1..=1_000u64 {
            stats.count();
            stats.time(Duration::from_nanos(nanos * 1_000));
        }
        let times = Times::of([&stats].into_iter());
        let p99_us = times.p99_us();
        assert_eq!((calls([&stats].into_iter()), times.count()), (1_000, 1_000));
        assert!((990.0..=1_238.0).contains(&p99_us), "{p99_us}");
        assert_eq!(took([&stats].into_iter()), Duration::from_micros(500_500));
        assert!((792.0..=990.0).contains(&times.p99_us_at_least()), "{}", times.p99_us_at_least());
    }

    #[test]
    fn a_window_has_what_came_after_the_one_before() {
        let stats = Stats::default();
        (0..100).for_each(|_| stats.time(Duration::from_millis(1)));
        let before = Times::of([&stats].into_iter());
        (0..10).for_each(|_| stats.time(Duration::from_micros(1)));
        let window = Times::of([&stats].into_iter()).since(&before);
        assert_eq!(window.count(), 10);
        assert!(window.p99_us() < 2.0, "{}", window.p99_us());
    }

    #[test]
    fn nothing_called_has_no_latency() {
        let times = Times::of([&Stats::default()].into_iter());
        assert_eq!((times.count(), times.p99_us(), times.p99_us_at_least()), (0, 0.0, 0.0));
    }

    #[test]
    fn extremes_stay_within_the_buckets() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
