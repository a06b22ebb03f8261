//! The clocks that this room reads: monotonic, wall and CPU time.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::mesh::time::{Mono, Wall};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since this room was first used; comparable only with itself.
pub fn now() -> Mono {
    Mono::from_micros(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

pub fn wall() -> Wall {
    // A clock before 1970 reads as 1970: nothing here depends on it.
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Wall::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// CPU time that the calling thread has used; a system call.
#[cfg(unix)]
pub fn thread_cpu() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(not(unix))]
pub fn thread_cpu() -> Option<Duration> {
    None
}
