//! How many calls an instance takes at once, and how many may wait for one of them to end.

use std::time::Duration;

/// Defaults of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way in all.
    pub in_flight: usize,
    /// Calls under way at one instance, unless its service says otherwise.
    pub per_instance: u32,
    /// Calls to one service that may wait.
    pub waiting: u32,
    /// How long one of them may be expected to wait; twice as long, and it is refused.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 4096, per_instance: 128, waiting: 1000, wait: Duration::from_secs(1) }
    }
}

/// Why a call is not let wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// So many wait already.
    Crowded(u32),
    /// Those before it take that long.
    TooLong(Duration),
    /// It waited that long.
    Waited(Duration),
}

/// What a call knows of its wait when it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    pub time: Duration,
    /// Calls that were before it in the line when it came.
    pub ahead: u32,
}

impl Waited {
    /// With another wait behind it: it came once.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let ahead = if self == Self::default() { next.ahead } else { self.ahead };
        Self { time: self.time + next.time, ahead }
    }
}

/// How long the next of `waiting` calls waits, when `places` calls at a time take `latency` each.
pub fn expected_wait(waiting: u32, places: u32, latency: Duration) -> Duration {
    latency.saturating_mul(waiting.saturating_add(1)) / places.max(1)
}

/// Whether one more call may wait, who has no more time than `at_most`: better a refusal now than one later.
///
/// # Errors
/// Too many wait, or it would wait for longer.
pub fn may_wait(
    waiting: u32,
    places: u32,
    latency: Duration,
    at_most: Duration,
    limits: &Limits,
) -> Result<(), Shed> {
    if waiting >= limits.waiting {
        return Err(Shed::Crowded(waiting));
    }
    let expected = expected_wait(waiting, places, latency);
    if expected > at_most.min(limits.wait) { Err(Shed::TooLong(expected)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_waits_while_its_turn_comes_in_time() {
        let limits = Limits::default();
        let (ms, second) = (Duration::from_millis, Duration::from_secs(1));
        assert_eq!(may_wait(0, 1, ms(1000), second, &limits), Ok(()));
        assert_eq!(may_wait(1, 1, ms(1000), second, &limits), Err(Shed::TooLong(ms(2000))));
        assert_eq!(may_wait(99, 10, ms(100), second, &limits), Ok(()));
        assert_eq!(may_wait(100, 10, ms(100), second, &limits), Err(Shed::TooLong(ms(1010))));
        assert_eq!(may_wait(5, 1, ms(100), ms(500), &limits), Err(Shed::TooLong(ms(600))));
        assert_eq!(may_wait(1000, 128, ms(1), second, &limits), Err(Shed::Crowded(1000)));
        assert_eq!(may_wait(0, 0, ms(1), second, &limits), Ok(()), "places that are not known yet");
    }

    proptest! {
        #[test]
        fn waits_add_up_and_the_place_is_that_of_the_first(
            waits in proptest::collection::vec((1_u64..1_000_000, 0_u32..100), 1..10),
        ) {
            let waits = waits.into_iter().map(|(us, ahead)| Waited { time: Duration::from_micros(us), ahead });
            let waits: Vec<Waited> = waits.collect();
            let all = waits.iter().copied().fold(Waited::default(), Waited::then);
            prop_assert_eq!(all.time, waits.iter().map(|wait| wait.time).sum::<Duration>());
            prop_assert_eq!(all.ahead, waits[0].ahead);
        }

        #[test]
        fn who_comes_later_never_waits_less_and_more_places_never_make_it_longer(
            waiting in 0_u32..2000, places in 0_u32..1000, us in 0_u64..10_000_000
        ) {
            let latency = Duration::from_micros(us);
            let wait = expected_wait(waiting, places, latency);
            prop_assert!(expected_wait(waiting + 1, places, latency) >= wait);
            prop_assert!(expected_wait(waiting, places + 1, latency) <= wait);
            if may_wait(waiting + 1, places, latency, Duration::MAX, &Limits::default()).is_ok() {
                prop_assert!(may_wait(waiting, places, latency, Duration::MAX, &Limits::default()).is_ok());
            }
        }
    }
}
