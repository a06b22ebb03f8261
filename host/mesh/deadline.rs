//! How long a caller waits for the end of its call.

use std::time::Duration;

use thiserror::Error;

/// Longest time that a call may take; whoever gives it more gets this.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(600);

/// What was given is no time.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("it must be a whole number of milliseconds, 1 or more")]
pub struct NoTime;

/// The time that `text` gives, in milliseconds: digits and nothing else, as in a header or a JSON number.
///
/// # Errors
/// It gives none.
pub fn read(text: &str) -> Result<Duration, NoTime> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoTime);
    }
    // So many digits that they are no number any more are a long time.
    let milliseconds = text.parse().unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return Err(NoTime);
    }
    Ok(Duration::from_millis(milliseconds).min(CALL_TIME_MAX))
}

/// What is told of the time that is left: whole milliseconds, never more than there are, and never none.
pub fn told(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The shorter of two times, of those that were given.
pub fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (given, None) | (None, given) => given,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "0", "000", "-1", "+1", "1.5", "1e3", " 1", "1 ", "10s", "\"5\"", "null", "\u{661}"]
        {
            assert_eq!(read(text), Err(NoTime), "{text:?}");
        }
    }

    #[test]
    fn too_much_time_is_the_most_that_there_is() {
        for text in ["600000", "600001", "18446744073709551615", "99999999999999999999999999"] {
            assert_eq!(read(text), Ok(CALL_TIME_MAX), "{text}");
        }
        assert_eq!(read("0250"), Ok(Duration::from_millis(250)));
    }

    proptest! {
        #[test]
        fn every_number_is_a_time_within_the_limit(milliseconds in 1_u64..) {
            let time = read(&milliseconds.to_string()).expect("a number");
            prop_assert!(time <= CALL_TIME_MAX);
            prop_assert!(time == CALL_TIME_MAX || time == Duration::from_millis(milliseconds));
        }

        #[test]
        fn what_is_told_is_read_as_no_more_than_was_left(us in 0_u64..2_000_000_000) {
            let left = Duration::from_micros(us);
            let read = read(&told(left).to_string()).expect("a time");
            prop_assert!(read <= left.max(Duration::from_millis(1)));
            prop_assert!(left.min(CALL_TIME_MAX).saturating_sub(read) < Duration::from_millis(1));
        }

        #[test]
        fn nobody_gets_more_time_than_anybody_gave(a in proptest::option::of(1_u64..1000), b in proptest::option::of(1_u64..1000)) {
            let [a, b] = [a, b].map(|given| given.map(Duration::from_millis));
            let time = shorter(a, b);
            prop_assert_eq!(time, [a, b].into_iter().flatten().min());
        }
    }
}
