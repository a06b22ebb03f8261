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
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Stats {
    fn default() -> Self {
        Self { calls: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
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
        bump(&self.buckets[bucket(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))]);
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

fn upper_bound_us(bucket: usize) -> f64 {
    let power = FIRST_POWER + bucket as u32 / 4;
    let quarter = (bucket % 4) as u64 + 1;
    ((1u64 << power) + (quarter << (power - 2))) as f64 / 1_000.0
}

/// Calls of all `stats`, and the latency in microseconds that 99 of 100 did not exceed (0 before the first call;
/// at most a quarter too high).
pub fn total<'a>(stats: impl Iterator<Item = &'a Stats>) -> (u64, f64) {
    let mut calls = 0;
    let mut sums = [0u64; BUCKETS];
    for one in stats {
        calls += one.calls.load(Ordering::Relaxed);
        for (sum, bucket) in sums.iter_mut().zip(&one.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }
    let timed: u64 = sums.iter().sum();
    let rank = timed - timed / 100;
    let mut below = 0;
    let p99 = sums.iter().position(|count| {
        below += count;
        below >= rank && rank > 0
    });
    (calls, p99.map_or(0.0, upper_bound_us))
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
        let (calls, p99_us) = total([&stats].into_iter());
        assert_eq!(calls, 1_000);
        assert!((990.0..=1_238.0).contains(&p99_us), "{p99_us}");
    }

    #[test]
    fn nothing_called_has_no_latency() {
        assert_eq!(total([&Stats::default()].into_iter()), (0, 0.0));
    }

    #[test]
    fn extremes_stay_within_the_buckets() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
