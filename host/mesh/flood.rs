//! How many messages somebody may send whom nobody can ask to send fewer.

use std::time::Duration;

use super::time::Mono;

/// Messages in a second, in the long run.
pub const PER_S_MAX: u32 = 1_000;
/// Messages in a burst.
pub const BURST_MAX: u32 = 10_000;

/// Of one source of messages. The clock is read once in [`PER_S_MAX`] messages.
#[derive(Clone, Debug, Default)]
pub struct Flood {
    /// Since the clock was read.
    messages: u32,
    read: Option<Mono>,
    /// How much earlier the messages came than they may in the long run.
    ahead: Duration,
}

impl Flood {
    /// Counts messages; answers how long to wait with the next one, which is zero unless they are too many.
    pub fn add(&mut self, messages: u32, now: impl FnOnce() -> Mono) -> Duration {
        self.messages = self.messages.saturating_add(messages);
        if self.read.is_some() && self.messages < PER_S_MAX {
            return Duration::ZERO;
        }
        let now = now();
        if let Some(read) = self.read {
            let due = Duration::from_secs(1).mul_f64(f64::from(self.messages) / f64::from(PER_S_MAX));
            self.ahead = (self.ahead + due).saturating_sub(now.since(read));
            self.messages = 0;
        }
        self.read = Some(now);
        self.ahead.saturating_sub(Duration::from_secs(u64::from(BURST_MAX / PER_S_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these messages pass before one must wait.
    fn passed(flood: &mut Flood, from_us: u64, step_us: u64, count: u64) -> u64 {
        let wait = |flood: &mut Flood, n: u64| flood.add(1, || Mono::from_micros(from_us + n * step_us));
        (0..count).find(|n| !wait(flood, *n).is_zero()).unwrap_or(count)
    }

    #[test]
    fn as_many_as_are_allowed_pass_for_ever() {
        assert_eq!(passed(&mut Flood::default(), 0, 1_000, 1_000_000), 1_000_000);
    }

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut flood = Flood::default();
        assert_eq!(passed(&mut flood, 0, 0, 9_000), 9_000);
        let passed = passed(&mut flood, 60_000_000, 0, 1_000_000);
        assert!((9_000..=12_000).contains(&passed), "{passed}");
    }

    #[test]
    fn twice_as_many_pass_for_a_while() {
        let passed = passed(&mut Flood::default(), 0, 500, 1_000_000);
        assert!((18_000..=24_000).contains(&passed), "{passed}");
    }

    #[test]
    fn who_waits_as_long_as_is_said_keeps_to_the_rate() {
        let (mut flood, mut now, mut sent) = (Flood::default(), 0_u64, 0_u64);
        while now < 100_000_000 {
            let wait = flood.add(1, || Mono::from_micros(now));
            now += 1 + u64::try_from(wait.as_micros()).expect("a short time");
            sent += 1;
        }
        assert!((100_000..=112_000).contains(&sent), "{sent} in 100 s");
    }

    #[test]
    fn silence_saves_no_more_than_a_burst() {
        let mut flood = Flood::default();
        flood.add(1, || Mono::from_secs(0));
        let passed = passed(&mut flood, 3_600_000_000, 0, 1_000_000);
        assert!(passed <= 12_000, "{passed}");
    }
}
