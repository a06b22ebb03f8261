//! The process's two clocks, read here and nowhere in the domain.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::mesh::time::{Mono, Wall};

static START: OnceLock<Instant> = OnceLock::new();

/// Now, on the monotonic clock. The first call is its zero point.
pub fn mono() -> Mono {
    let start = START.get_or_init(Instant::now);
    Mono::from_micros(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
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
}
