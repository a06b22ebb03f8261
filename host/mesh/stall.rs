//! How long somebody who does not read may hold up who writes to him, and all who read beside him.

use std::time::Duration;

use super::time::Mono;

/// At a time.
pub const STALL_MAX: Duration = Duration::from_secs(1);
/// In the long run: one part of the time in so many.
const ONE_IN: u32 = 10;

/// Of one reader.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    held: Duration,
    since: Mono,
}

impl Stall {
    pub const fn new(now: Mono) -> Self {
        Self { held: Duration::ZERO, since: now }
    }

    /// How long he may hold up the writer now.
    pub fn left(&mut self, now: Mono) -> Duration {
        self.held = self.held.saturating_sub(now.since(self.since) / ONE_IN);
        self.since = now;
        STALL_MAX.saturating_sub(self.held)
    }

    /// He held it up until `now`, from when `left` was asked.
    pub fn held_until(&mut self, now: Mono) {
        self.held += now.since(self.since);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_micros(millis * 1000)
    }

    #[test]
    fn who_reads_nothing_holds_up_once_for_as_long_as_is_allowed() {
        let mut stall = Stall::new(at(0));
        assert_eq!(stall.left(at(5_000)), STALL_MAX);
        stall.held_until(at(6_000));
        assert_eq!(stall.left(at(6_000)), Duration::ZERO);
        assert_eq!(stall.left(at(7_000)), Duration::from_millis(100), "a tenth of the time comes back");
        assert_eq!(stall.left(at(60_000)), STALL_MAX, "and no more than all");
    }

    #[test]
    fn who_reads_a_little_each_time_holds_up_a_tenth_of_the_time_in_the_long_run() {
        let (mut stall, mut now, mut held) = (Stall::new(at(0)), 0, 0);
        while now < 100_000 {
            let wait = stall.left(at(now)).min(Duration::from_millis(300)).as_millis() as u64;
            now += wait;
            held += wait;
            stall.held_until(at(now));
            now += 5;
        }
        assert!((9_000..=12_000).contains(&held), "{held} ms of 100 s");
    }
}
