use proptest::prelude::*;

use super::*;

/// The random bits that leave the base as it is.
const NO_JITTER: u64 = u64::MAX / 2;

fn at(millis: u64) -> Mono {
    Mono::from_micros(millis * 1000)
}

fn open_s(transition: Option<Transition>, now: Mono) -> f64 {
    match transition {
        Some(Transition::Opened { until }) => until.since(now).as_secs_f64(),
        other => panic!("not opened: {other:?}"),
    }
}

fn tripped(now: Mono) -> Breaker {
    let mut breaker = Breaker::new();
    for _ in 0..FAILURES_IN_A_ROW {
        breaker.on_failure(now, NO_JITTER, None);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

/// The trial that is due.
fn trial_at(breaker: &mut Breaker, now: Mono) -> Option<Trial> {
    match breaker.admits(now) {
        Admission::Trial(trial) => Some(trial),
        other => panic!("no trial: {other:?}"),
    }
}

#[test]
fn fifth_failure_in_a_row_opens() {
    let mut breaker = Breaker::new();
    for _ in 0..4 {
        assert_eq!(breaker.on_failure(at(0), NO_JITTER, None), None);
    }
    assert_eq!(breaker.admits(at(0)), Admission::Yes);
    assert!((open_s(breaker.on_failure(at(0), NO_JITTER, None), at(0)) - 1.0).abs() < 1e-3);
    assert_eq!(breaker.admits(at(0)), Admission::No);
    assert_eq!(breaker.trips(), 1);
}

#[test]
fn success_breaks_the_row() {
    let mut breaker = Breaker::new();
    for second in 0..20 {
        // Far enough apart that the ratio never has its ten samples.
        for _ in 0..4 {
            assert_eq!(breaker.on_failure(at(second * 20_000), 0, None), None);
        }
        breaker.on_success(at(second * 20_000), None);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn ratio_under_half_of_ten_samples_opens() {
    let mut breaker = Breaker::new();
    for i in 0..4 {
        assert_eq!(breaker.on_failure(at(i * 1000), 0, None), None);
        breaker.on_success(at(i * 1000), None);
    }
    assert_eq!(breaker.on_failure(at(5000), 0, None), None, "nine samples");
    assert!(breaker.on_failure(at(5000), 0, None).is_some());
}

#[test]
fn half_of_the_calls_failing_does_not_open() {
    let mut breaker = Breaker::new();
    for i in 0..1000 {
        breaker.on_success(at(i * 10), None);
        assert_eq!(breaker.on_failure(at(i * 10), 0, None), None);
    }
}

#[test]
fn failures_older_than_ten_seconds_are_forgotten() {
    let mut breaker = Breaker::new();
    for _ in 0..9 {
        breaker.on_ratio_failure(at(500_000), 0, None);
    }
    assert_eq!(breaker.on_ratio_failure(at(510_000), 0, None), None);
    let mut young = Breaker::new();
    for _ in 0..9 {
        young.on_ratio_failure(at(500_000), 0, None);
    }
    assert!(young.on_ratio_failure(at(509_000), 0, None).is_some());
}

#[test]
fn throttling_counts_in_the_ratio_only() {
    let mut breaker = Breaker::new();
    for _ in 0..9 {
        assert_eq!(breaker.on_ratio_failure(at(0), 0, None), None);
    }
    assert!(breaker.on_ratio_failure(at(0), 0, None).is_some());

    let mut between = Breaker::new();
    for _ in 0..4 {
        between.on_failure(at(0), 0, None);
    }
    assert_eq!(between.on_ratio_failure(at(0), 0, None), None, "a 429 is no fifth failure");
    assert!(between.on_failure(at(0), 0, None).is_some(), "nor does it break the row");
}

#[test]
fn half_open_admits_one_trial_whose_success_closes() {
    let mut breaker = tripped(at(0));
    assert_eq!(breaker.on_success(at(500), None), None, "a straggler does not close");
    assert_eq!(breaker.admits(at(900)), Admission::No);
    let trial = trial_at(&mut breaker, at(1001));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.admits(at(1001)), Admission::No);
    assert_eq!(breaker.on_success(at(1100), trial), Some(Transition::Closed));
    assert_eq!(breaker.admits(at(1100)), Admission::Yes);
    assert_eq!(breaker.on_failure(at(1100), 0, None), None, "old failures do not count after closing");
}

#[test]
fn stragglers_do_not_prolong_an_open_breaker() {
    let mut breaker = tripped(at(0));
    for _ in 0..50 {
        assert_eq!(breaker.on_failure(at(500), u64::MAX, None), None);
    }
    assert_eq!(breaker.trips(), 1);
    let trial = trial_at(&mut breaker, at(1001));
    breaker.on_success(at(1001), trial);
    assert_eq!(breaker.on_failure(at(1001), 0, None), None, "nor do they count once it closed");
}

#[test]
fn ratio_that_opened_is_forgotten_once_closed() {
    let mut breaker = Breaker::new();
    for _ in 0..10 {
        breaker.on_ratio_failure(at(0), NO_JITTER, None);
    }
    let trial = trial_at(&mut breaker, at(1001));
    breaker.on_success(at(1001), trial);
    assert_eq!(breaker.on_failure(at(1001), 0, None), None);
}

#[test]
fn failed_trials_double_the_time_open_up_to_a_limit() {
    let mut breaker = tripped(at(0));
    let mut now = at(0);
    let mut open = Vec::new();
    for _ in 0..8 {
        now = now + Duration::from_secs(100);
        let trial = trial_at(&mut breaker, now);
        open.push(open_s(breaker.on_failure(now, NO_JITTER, trial), now).round() as u64);
    }
    assert_eq!(open, [2, 4, 8, 16, 16, 16, 16, 16]);
    now = now + Duration::from_secs(100);
    let trial = trial_at(&mut breaker, now);
    breaker.on_success(now, trial);
    for _ in 0..4 {
        breaker.on_failure(now, NO_JITTER, None);
    }
    assert_eq!(
        open_s(breaker.on_failure(now, NO_JITTER, None), now).round() as u64,
        1,
        "closing starts over"
    );
}

#[test]
fn throttled_trial_opens_again() {
    let mut breaker = tripped(at(0));
    let trial = trial_at(&mut breaker, at(2000));
    assert!(breaker.on_ratio_failure(at(2000), 0, trial).is_some());
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn trial_without_outcome_is_released_after_a_minute_or_when_abandoned() {
    let mut breaker = tripped(at(0));
    let first = trial_at(&mut breaker, at(2_000));
    assert_eq!(breaker.admits(at(61_999)), Admission::No);
    let trial = trial_at(&mut breaker, at(62_000));
    assert_eq!(breaker.admits(at(62_000)), Admission::No);
    breaker.on_abandoned(first.unwrap());
    assert_eq!(
        breaker.admits(at(62_000)),
        Admission::No,
        "the end of one that is not waited for frees no other"
    );
    breaker.on_abandoned(trial.unwrap());
    trial_at(&mut breaker, at(62_001));
}

#[test]
fn only_the_trial_decides_what_becomes_of_a_half_open_breaker() {
    let mut breaker = tripped(at(0));
    let trial = trial_at(&mut breaker, at(1_001));
    assert_eq!(breaker.on_success(at(1_002), None), None, "it was sent before it opened");
    assert_eq!(breaker.on_failure(at(1_002), 0, None), None);
    assert_eq!(breaker.on_ratio_failure(at(1_002), 0, None), None);
    assert_eq!((breaker.state(), breaker.trips()), (BreakerState::HalfOpen, 1));
    assert_eq!(breaker.admits(at(1_003)), Admission::No, "nor do they free the trial");
    assert_eq!(breaker.on_success(at(1_004), trial), Some(Transition::Closed));

    let mut again = tripped(at(0));
    let lost = trial_at(&mut again, at(1_001));
    again.on_recovery();
    let trial = trial_at(&mut again, at(1_002));
    assert_eq!(again.on_failure(at(1_003), 0, lost), None, "it was sent while it was down");
    assert_eq!(again.on_success(at(1_003), lost), None);
    assert!(again.on_failure(at(1_004), 0, trial).is_some());
}

proptest! {
    #[test]
    fn jitter_stays_within_half_of_the_base(random: u64, failed_trials in 0u32..12) {
        let mut breaker = tripped(at(0));
        let mut now = at(0);
        let mut base = 1.0_f64;
        for _ in 0..=failed_trials {
            now = now + Duration::from_secs(1000);
            let trial = trial_at(&mut breaker, now);
            base = (base * 2.0).min(OPEN_MAX.as_secs_f64());
            let open = open_s(breaker.on_failure(now, random, trial), now);
            prop_assert!(open >= base * 0.5 - 1e-3 && open <= base * 1.5 + 1e-3, "{open} for {base}");
        }
    }

    /// Against any history: trials come one at a time, calls flow freely only while closed, and of a half-open one
    /// only the trial's outcome makes anything.
    #[test]
    fn never_more_than_one_trial_at_a_time(
        steps in prop::collection::vec((0u8..9, 0u64..3_000, any::<u64>(), any::<bool>()), 1..400),
    ) {
        let mut breaker = Breaker::new();
        let mut now = at(0);
        let mut trial: Option<(Trial, Mono)> = None;
        let mut stale: Option<Trial> = None;
        for (kind, millis, random, is_trial) in steps {
            now = now + Duration::from_millis(millis);
            let before = breaker.trips();
            let was_half_open = breaker.state() == BreakerState::HalfOpen;
            let told = if is_trial { trial.map(|(trial, _)| trial) } else { stale };
            let transition = match kind {
                0..=2 => {
                    match breaker.admits(now) {
                        Admission::Yes => prop_assert_eq!(breaker.state(), BreakerState::Closed),
                        Admission::Trial(admitted) => {
                            prop_assert!(trial.is_none_or(|(_, since)| now.since(since) >= TRIAL_MAX));
                            prop_assert_eq!(breaker.state(), BreakerState::HalfOpen);
                            stale = trial.map(|(trial, _)| trial).or(stale);
                            trial = Some((admitted, now));
                        }
                        Admission::No => prop_assert_ne!(breaker.state(), BreakerState::Closed),
                    }
                    None
                }
                3 => breaker.on_success(now, told),
                4 => breaker.on_failure(now, random, told),
                5 => breaker.on_ratio_failure(now, random, told),
                6 => breaker.on_unhealthy(now, random),
                7 => {
                    told.into_iter().for_each(|told| breaker.on_abandoned(told));
                    if is_trial {
                        stale = trial.take().map(|(trial, _)| trial).or(stale);
                    }
                    None
                }
                _ => {
                    breaker.on_recovery();
                    stale = trial.take().map(|(trial, _)| trial).or(stale);
                    None
                }
            };
            prop_assert!(transition.is_none() || !was_half_open || is_trial && trial.is_some());
            match transition {
                Some(Transition::Opened { until }) => {
                    prop_assert!(until > now);
                    prop_assert_eq!(breaker.trips(), before + 1);
                    prop_assert_eq!(breaker.state(), BreakerState::Open);
                    stale = trial.take().map(|(trial, _)| trial).or(stale);
                }
                Some(Transition::Closed) => {
                    prop_assert_eq!(breaker.state(), BreakerState::Closed);
                    stale = trial.take().map(|(trial, _)| trial).or(stale);
                }
                None => prop_assert_eq!(breaker.trips(), before),
            }
        }
    }
}

#[test]
fn a_trial_is_due_when_the_time_is_over_or_a_probe_has_seen_recovery() {
    let mut breaker = tripped(at(0));
    assert!(!breaker.is_due(at(500)) && breaker.is_due(at(1_000)));
    breaker.on_recovery();
    assert!(breaker.is_due(at(1)), "what recovered need not be waited for");
    let trial = trial_at(&mut breaker, at(1));
    assert!(!breaker.is_due(at(2)), "one trial at a time");
    assert_eq!(breaker.on_success(at(2), trial), Some(Transition::Closed));
    assert!(!breaker.is_due(at(100_000)), "a closed one needs none");
    breaker.on_recovery();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn ill_health_opens_it_like_failures_in_a_row_and_only_when_closed() {
    let mut breaker = Breaker::new();
    breaker.on_failure(at(0), NO_JITTER, None);
    assert!((open_s(breaker.on_unhealthy(at(0), NO_JITTER), at(0)) - 1.0).abs() < 1e-3);
    assert_eq!((breaker.cause(), breaker.trips()), (Cause::Health, 1));
    assert_eq!(breaker.on_unhealthy(at(500), NO_JITTER), None, "it is open");
    let trial = trial_at(&mut breaker, at(1_001));
    assert_eq!(breaker.on_unhealthy(at(1_001), NO_JITTER), None, "its trial finds out");
    assert_eq!(breaker.on_success(at(1_002), trial), Some(Transition::Closed));
}

#[test]
fn a_trial_that_was_sent_while_it_was_down_is_not_waited_for_once_it_recovered() {
    let mut breaker = tripped(at(0));
    trial_at(&mut breaker, at(1_001));
    assert_eq!(breaker.admits(at(2_000)), Admission::No);
    breaker.on_recovery();
    assert_eq!((breaker.state(), breaker.cause()), (BreakerState::HalfOpen, Cause::Recovered));
    trial_at(&mut breaker, at(2_001));
}

#[test]
fn each_state_has_the_cause_that_brought_it_about() {
    let mut breaker = Breaker::new();
    assert_eq!(breaker.cause(), Cause::Unused);
    for _ in 0..6 {
        breaker.on_success(at(0), None);
    }
    for _ in 0..7 {
        breaker.on_ratio_failure(at(0), 0, None);
    }
    assert_eq!(breaker.cause(), Cause::Ratio { ok: 6, failed: 7 });
    assert_eq!(breaker.cause().to_string(), "7 of 13 calls in 10 s failed");
    let trial = trial_at(&mut breaker, at(1_001));
    assert_eq!(breaker.cause(), Cause::TrialSent);
    breaker.on_failure(at(1_002), NO_JITTER, trial);
    assert_eq!(breaker.cause(), Cause::TrialFailed);
    let trial = trial_at(&mut breaker, at(4_000));
    breaker.on_success(at(4_001), trial);
    assert_eq!(breaker.cause(), Cause::TrialSucceeded);
    for _ in 0..5 {
        breaker.on_failure(at(5_000), 0, None);
    }
    assert_eq!(breaker.cause(), Cause::InARow);
}

#[test]
fn calls_are_kept_away_until_a_trial_is_due_and_nobody_comes() {
    let mut breaker = Breaker::new();
    assert!(!breaker.keeps_away(at(0)));
    let mut tripped_one = tripped(at(0));
    assert!(tripped_one.keeps_away(at(500)) && tripped_one.keeps_away(at(5_000)));
    assert!(!tripped_one.keeps_away(at(6_001)), "the next call would be taken");
    tripped_one.admits(at(6_002));
    assert!(tripped_one.keeps_away(at(6_003)), "the trial is under way");
    tripped_one.on_recovery();
    assert!(!tripped_one.keeps_away(at(6_004)), "a probe was answered");
    breaker.on_unhealthy(at(0), NO_JITTER);
    assert!(breaker.keeps_away(at(10)));
}

#[test]
fn a_row_of_failures_ends_when_it_settles() {
    let mut breaker = Breaker::new();
    for _ in 0..4 {
        breaker.on_failure(at(0), 0, None);
    }
    breaker.settle();
    assert_eq!(breaker.on_failure(at(60_000), 0, None), None, "the first of another row");
}
