//! How long those who do not read may hold up who writes to them, and all who read beside them.

use std::time::Duration;

use super::time::Mono;

/// At a time, all of them together.
pub const STALL_MAX: Duration = Duration::from_secs(1);
/// What is given besides, in moments only: whoever reads, and is behind for a moment, is not given up because somebody
/// else read nothing before.
const RESERVE: Duration = Duration::from_millis(250);
/// At a time, of the reserve.
const MOMENT: Duration = Duration::from_millis(20);
/// In the long run: one part of the time in so many.
const ONE_IN: u32 = 10;

/// Of one writer.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    held: Duration,
    since: Mono,
}

impl Stall {
    pub const fn new(now: Mono) -> Self {
        Self { held: Duration::ZERO, since: now }
    }

    /// How long a reader may hold up the writer now.
    pub fn left(&mut self, now: Mono) -> Duration {
        self.held = self.held.saturating_sub(now.since(self.since) / ONE_IN);
        self.since = now;
        let reserve = (STALL_MAX + RESERVE).saturating_sub(self.held);
        STALL_MAX.saturating_sub(self.held).max(reserve.min(MOMENT))
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

    /// Readers that take `takes` ms each for a message, if they may, one message after another until 100 s are over;
    /// how long they held the writer up, and the longest while within 10 s.
    fn held_up(takes: u64) -> (u64, u64) {
        let (mut stall, mut now, mut waits) = (Stall::new(at(0)), 0, Vec::new());
        while now < 100_000 {
            let left = u64::try_from(stall.left(at(now)).as_millis()).expect("it is short");
            let wait = left.min(takes);
            waits.push((now, wait));
            now += wait;
            stall.held_until(at(now));
            now += 5;
        }
        let from = |start: u64| {
            let within = waits.iter().filter(|(at, _)| (start..start + 10_000).contains(at));
            within.map(|(_, wait)| wait).sum()
        };
        (waits.iter().map(|(_, wait)| wait).sum(), (0..90).map(|secs| from(secs * 1000)).max().expect("some"))
    }

    #[test]
    fn who_reads_nothing_holds_up_once_for_as_long_as_is_allowed() {
        let mut stall = Stall::new(at(0));
        assert_eq!(stall.left(at(5_000)), STALL_MAX);
        stall.held_until(at(6_000));
        assert_eq!(stall.left(at(6_000)), MOMENT, "whoever comes after him may be behind for a moment");
        assert_eq!(stall.left(at(7_000)), Duration::from_millis(100), "a tenth of the time comes back");
        assert_eq!(stall.left(at(60_000)), STALL_MAX, "and no more than all");
    }

    #[test]
    fn moments_come_to_an_end_too() {
        let mut stall = Stall::new(at(0));
        stall.held_until(at(1_245));
        assert_eq!(stall.left(at(1_245)), Duration::from_millis(5));
        stall.held_until(at(1_250));
        assert_eq!(stall.left(at(1_250)), Duration::ZERO);
    }

    #[test]
    fn however_slowly_readers_read_they_hold_up_a_tenth_of_the_time_in_the_long_run() {
        for takes in [1, 10, 300, 10_000] {
            let (held, within) = held_up(takes);
            assert!((9_000..=12_000).contains(&held), "{takes} ms each: {held} ms of 100 s");
            assert!(within <= 2_350, "{takes} ms each: {within} ms of 10 s");
        }
    }
}
