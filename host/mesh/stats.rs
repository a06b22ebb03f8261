//! Figures that calls leave behind: how long they took and how they ended. Lock-free; a snapshot taken while calls
//! end may have a call half accounted for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Exact up to 3 µs, then 4 buckets per octave up to 2³² µs (71 minutes).
const BUCKETS: usize = 124;
const SUB_BITS: u32 = 2;

/// A histogram of latencies with buckets no wider than a quarter of their lower bound.
#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl LatencyHistogram {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn record(&self, us: u32) {
        self.buckets[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::from(us), Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_us: 0 }
    }
}

impl HistogramSnapshot {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of all latencies in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The buckets in use, ascending: greatest latency in microseconds that the bucket takes, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let used = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(index, count)| {
            let (low, width) = bounds(index);
            (low + (width - 1), *count)
        })
    }

    /// The `q`-quantile (0-1) in microseconds, at most a quarter off; 0 when nothing was recorded.
    pub fn quantile(&self, q: f64) -> u32 {
        let count = self.count();
        let mut rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        for (index, in_bucket) in self.buckets.iter().enumerate() {
            if rank <= *in_bucket {
                let (low, width) = bounds(index);
                let within = (rank as f64 - 0.5) / *in_bucket as f64;
                return low + (f64::from(width) * within) as u32;
            }
            rank -= in_bucket;
        }
        0
    }

    /// What was recorded after `earlier`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|i| self.buckets[i].saturating_sub(earlier.buckets[i])),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }
}

fn bucket_of(us: u32) -> usize {
    let Some(shift) = us.checked_ilog2().and_then(|octave| octave.checked_sub(SUB_BITS)) else {
        return us as usize;
    };
    // The two bits below the leading one number the bucket within its octave.
    ((shift << SUB_BITS) + (us >> shift)) as usize
}

/// Least latency of a bucket, and how many microseconds it spans.
fn bounds(index: usize) -> (u32, u32) {
    let index = index as u32;
    let Some(shift) = (index >> SUB_BITS).checked_sub(1) else {
        return (index, 1);
    };
    let leading = (1 << SUB_BITS) + (index & ((1 << SUB_BITS) - 1));
    (leading << shift, 1 << shift)
}

/// Counts of a service's or an instance's calls since they were first seen, restarts included.
#[derive(Debug, Default)]
pub struct CallCounters {
    pub messages: AtomicU64,
    pub ok: AtomicU64,
    /// Answered with `isError: true` or a JSON-RPC error of the tool's own.
    pub tool_errors: AtomicU64,
    /// Transport, timeout, 5xx, malformed.
    pub failed: AtomicU64,
    /// Never sent: by policy, limit or lack of an instance.
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    pub request_bytes: AtomicU64,
    pub response_bytes: AtomicU64,
}

/// [`CallCounters`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    pub messages: u64,
    pub ok: u64,
    pub tool_errors: u64,
    pub failed: u64,
    pub refused: u64,
    pub retries: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl CallCounters {
    /// Goes on from what was stored.
    pub fn seeded(counts: CallCounts) -> Self {
        Self {
            messages: counts.messages.into(),
            ok: counts.ok.into(),
            tool_errors: counts.tool_errors.into(),
            failed: counts.failed.into(),
            refused: counts.refused.into(),
            retries: counts.retries.into(),
            request_bytes: counts.request_bytes.into(),
            response_bytes: counts.response_bytes.into(),
        }
    }

    pub fn snapshot(&self) -> CallCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallCounts {
            messages: read(&self.messages),
            ok: read(&self.ok),
            tool_errors: read(&self.tool_errors),
            failed: read(&self.failed),
            refused: read(&self.refused),
            retries: read(&self.retries),
            request_bytes: read(&self.request_bytes),
            response_bytes: read(&self.response_bytes),
        }
    }
}

/// One part in so many is what a call moves an [`Average`].
const AVERAGED: i64 = 16;

/// Moving average of the latencies of answered calls, in microseconds, each call the same whatever time lies between
/// them: what it was stays while nobody calls. Balancers have one of their own, which fades.
#[derive(Debug, Default)]
pub struct Average(AtomicU32);

impl Average {
    /// 0 before the first call.
    pub fn us(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn resume(&self, us: u32) {
        self.0.store(us, Ordering::Relaxed);
    }

    /// Of two calls that end at one moment, one may be left out.
    pub fn observe(&self, us: u32) {
        let (before, sample) = (i64::from(self.us()), i64::from(us.max(1)));
        let next = if before == 0 { sample } else { before + (sample - before) / AVERAGED };
        self.0.store(u32::try_from(next).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
