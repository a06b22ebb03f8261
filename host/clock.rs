//! The process's two clocks, read here and nowhere in the domain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::mesh::time::{Mono, Wall};

static START: OnceLock<Instant> = OnceLock::new();
static RUNNING: Running = Running::new();

/// Longest time without a reading, in microseconds, in which the process is taken to have run: the registry reads
/// every second.
const SILENCE_MAX_US: u64 = 5_000_000;
/// A reading is noted when the last note is older, so that readers do not contend for one place.
const NOTED_EVERY_US: u64 = 250_000;

/// Now, on the monotonic clock. The first call is its zero point. It stands still while the process does not run
/// (stopped, frozen, starved): nobody's silence is held against them while nobody listened.
pub fn mono() -> Mono {
    let start = START.get_or_init(Instant::now);
    let elapsed = || u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    Mono::from_micros(RUNNING.read(elapsed))
}

/// From time that passes to time in which somebody looked.
struct Running {
    /// When somebody last looked, give or take [`NOTED_EVERY_US`].
    noted: AtomicU64,
    /// How long nobody did, in all. Written before `noted`.
    away: AtomicU64,
    finding: Mutex<()>,
}

impl Running {
    const fn new() -> Self {
        Self { noted: AtomicU64::new(0), away: AtomicU64::new(0), finding: Mutex::new(()) }
    }

    fn read(&self, elapsed: impl Fn() -> u64) -> u64 {
        loop {
            let away = self.away.load(Ordering::Acquire);
            let silence_from = self.noted.load(Ordering::Acquire);
            let now = elapsed();
            let silence = now.saturating_sub(silence_from);
            if silence > SILENCE_MAX_US {
                self.find(now);
                continue;
            }
            if silence > NOTED_EVERY_US {
                self.noted.fetch_max(now, Ordering::Release);
            }
            // Else the process stood still within these lines, and `now` may be of either side.
            if self.away.load(Ordering::Acquire) == away {
                return now.saturating_sub(away);
            }
        }
    }

    #[cold]
    fn find(&self, now: u64) {
        // The two numbers are whole at every moment.
        let _finding = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = now.saturating_sub(self.noted.load(Ordering::Acquire));
        if silence > SILENCE_MAX_US {
            // The latest reading may be that much newer than its note; none is older than an earlier one.
            self.away.fetch_add(silence - NOTED_EVERY_US, Ordering::Release);
            self.noted.fetch_max(now, Ordering::Release);
        }
    }
}

/// Now, for people; 1970 when the system's clock is set before it.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// ISO 8601 with microseconds and a numeric offset, which older Python's `fromisoformat` can read.
pub fn iso(at: Wall) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_a_numeric_offset() {
        assert_eq!(iso(Wall::from_millis(1_770_373_845_123)), "2026-02-06T10:30:45.123000+00:00");
        assert_eq!(iso(Wall::from_millis(0)), "1970-01-01T00:00:00.000000+00:00");
    }

    fn at(running: &Running, ms: u64) -> u64 {
        running.read(|| ms * 1_000) / 1_000
    }

    #[test]
    fn a_clock_that_is_looked_at_runs() {
        let running = Running::new();
        for second in 0..1_000 {
            assert_eq!(at(&running, second * 1_000), second * 1_000);
            assert_eq!(at(&running, second * 1_000 + 900), second * 1_000 + 900);
        }
    }

    #[test]
    fn a_time_in_which_nobody_looks_does_not_pass() {
        let running = Running::new();
        assert_eq!(at(&running, 1_000), 1_000);
        assert_eq!(at(&running, 131_000), 1_250);
        assert_eq!(at(&running, 132_000), 2_250);
        assert_eq!(at(&running, 3_732_000), 2_500);
        assert_eq!(at(&running, 3_736_000), 6_500, "as long as somebody may miss");
    }

    #[test]
    fn no_reading_is_older_than_one_before_it() {
        let running = Running::new();
        let (mut random, mut elapsed, mut last) = (7_u64, 0, 0);
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let long = random >> 60 == 0;
            elapsed += (random >> 33) % if long { 60_000_000 } else { 400_000 };
            let now = running.read(|| elapsed);
            assert!(now >= last && now <= elapsed, "{now} at {elapsed} after {last}");
            last = now;
        }
    }

    #[test]
    fn readers_at_once_agree() {
        let (running, begun) = (Running::new(), Instant::now());
        // A thousand times the speed, so that a pause of 10 ms is one of 10 s.
        let elapsed = || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut last = 0;
                    for turn in 0..20_000 {
                        let now = running.read(elapsed);
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                        if turn % 5_000 == 4_999 {
                            std::thread::sleep(std::time::Duration::from_millis(20));
                        }
                    }
                });
            }
        });
    }
}
