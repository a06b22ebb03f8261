//! How long those who do not read may hold up who writes to them, and all who read beside them.

use std::time::Duration;

use super::time::Mono;

/// At a time, all of them together.
pub const STALL_MAX: Duration = Duration::from_secs(1);
/// So long for each message is always given, and does not count: whoever reads on, if slower than the writer writes, is
/// waited for.
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
        STALL_MAX.saturating_sub(self.held).max(MOMENT)
    }

    /// He held it up until `now`, from when `left` was asked.
    pub fn held_until(&mut self, now: Mono) {
        self.held += now.since(self.since).saturating_sub(MOMENT);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_micros(millis * 1000)
    }

    /// Readers that take `takes` ms each for a message, if they may, one message after another until 100 s are over:
    /// how long they held the writer up.
    fn held_up(takes: u64) -> u64 {
        let (mut stall, mut now, mut held) = (Stall::new(at(0)), 0, 0);
        while now < 100_000 {
            let left = u64::try_from(stall.left(at(now)).as_millis()).expect("it is short");
            let wait = left.min(takes);
            stall.held_until(at(now + wait));
            held += wait;
            // Whoever is given up leaves time for others.
            now += wait + if left < takes { 1_000 } else { 5 };
        }
        held
    }

    #[test]
    fn who_reads_nothing_holds_up_once_for_as_long_as_is_allowed() {
        let mut stall = Stall::new(at(0));
        assert_eq!(stall.left(at(5_000)), STALL_MAX);
        stall.held_until(at(6_000));
        assert_eq!(stall.left(at(6_000)), MOMENT, "whoever comes after him may be behind for a moment");
        assert_eq!(stall.left(at(7_000)), Duration::from_millis(120), "a tenth of the time comes back");
        assert_eq!(stall.left(at(60_000)), STALL_MAX, "and no more than all");
    }

    #[test]
    fn who_reads_on_is_waited_for() {
        assert!(held_up(20) > 70_000, "20 ms of each 25");
    }

    #[test]
    fn who_takes_long_for_a_message_holds_up_a_tenth_of_the_time_in_the_long_run() {
        for takes in [300, 10_000] {
            let held = held_up(takes);
            assert!(held <= 14_000, "{takes} ms each: {held} ms of 100 s");
        }
    }
}
