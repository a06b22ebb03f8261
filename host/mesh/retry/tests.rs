use proptest::prelude::*;

use super::*;

#[test]
fn call_that_was_never_sent_may_be_retried_whatever_it_does() {
    assert!(may_retry(Failure::NotSent, false, 1));
    assert!(may_retry(Failure::NotSent, true, 2));
}

#[test]
fn unanswered_call_is_retried_only_if_it_changes_nothing() {
    assert!(may_retry(Failure::Unanswered, true, 1));
    assert!(!may_retry(Failure::Unanswered, false, 1));
}

#[test]
fn answered_call_is_never_retried() {
    assert!(!may_retry(Failure::Answered, true, 1));
    assert!(!may_retry(Failure::Answered, false, 1));
}

#[test]
fn third_attempt_is_the_last() {
    assert!(may_retry(Failure::NotSent, true, 2));
    assert!(!may_retry(Failure::NotSent, true, 3));
    assert!(!may_retry(Failure::Unanswered, true, 4));
}

#[test]
fn pauses_reach_both_ends_of_their_range() {
    assert_eq!(pause(1, 0), Duration::from_millis(25));
    assert_eq!(pause(1, u64::MAX), Duration::from_millis(125));
    assert_eq!(pause(2, u64::MAX), Duration::from_millis(250));
}

#[test]
fn a_fifth_of_many_failing_calls_is_retried() {
    let budget = Budget::new();
    let now = Mono::from_secs(5000);
    let retried = (0..1000).filter(|_| {
        budget.deposit();
        budget.withdraw(now)
    });
    assert_eq!(retried.count(), 200 + 10);
}

#[test]
fn quiet_service_earns_three_retries_a_second() {
    let budget = Budget::new();
    while budget.withdraw(Mono::from_secs(100)) {}
    assert_eq!((0..10).filter(|_| budget.withdraw(Mono::from_secs(101))).count(), 3);
    assert_eq!((0..10).filter(|_| budget.withdraw(Mono::from_secs(103))).count(), 6);
}

#[test]
fn good_times_save_no_more_than_a_hundred_retries() {
    let budget = Budget::new();
    for _ in 0..100_000 {
        budget.deposit();
    }
    assert_eq!((0..1000).filter(|_| budget.withdraw(Mono::from_secs(1))).count(), 100);
    assert_eq!((0..1000).filter(|_| budget.withdraw(Mono::from_secs(100_000))).count(), 100);
}

#[test]
fn time_before_the_first_retry_earns_nothing() {
    let budget = Budget::new();
    assert_eq!((0..100).filter(|_| budget.withdraw(Mono::from_secs(3600))).count(), 10);
}

#[test]
fn time_is_paid_for_once_however_many_ask() {
    const THREADS: usize = 4;
    const SECONDS: u64 = 3000;
    let budget = Budget::new();
    let together = std::sync::Barrier::new(THREADS);
    let taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for second in 0..SECONDS {
                    together.wait();
                    let got = (0..8).filter(|_| budget.withdraw(Mono::from_secs(second))).count();
                    taken.fetch_add(got as u64, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), 3 * (SECONDS - 1) + 10);
}

proptest! {
    #[test]
    fn pause_is_between_25_and_250_ms(attempt: u32, random: u64) {
        let pause = pause(attempt, random);
        prop_assert!(pause >= Duration::from_millis(25) && pause <= Duration::from_millis(250));
    }

    #[test]
    fn attempts_and_pauses_fit_within_the_time_of_the_caller(
        attempts in prop::collection::vec((0_u64..40_000, 0_u8..3, any::<u64>()), 1..20),
        read_only: bool,
        time_ms in 1_u64..1000,
    ) {
        let (time, mut spent, mut made) = (Duration::from_millis(time_ms), Duration::ZERO, 0);
        for (us, failure, random) in attempts {
            let failure = [Failure::NotSent, Failure::Unanswered, Failure::Answered][usize::from(failure)];
            made += 1;
            spent += Duration::from_micros(us);
            let left = time.saturating_sub(spent);
            let Some(pause) = next(failure, read_only, made, left, random) else { break };
            prop_assert!(may_retry(failure, read_only, made));
            prop_assert_eq!(pause.is_zero(), failure == Failure::NotSent);
            spent += pause;
            prop_assert!(spent < time, "an attempt begins {spent:?} after the call, which has {time:?}");
        }
        prop_assert!(made <= ATTEMPTS_MAX);
    }

    #[test]
    fn withdrawals_never_exceed_a_fifth_of_calls_and_three_a_second(
        steps in prop::collection::vec((0u32..30, 0u32..30, 0u64..2_000_000), 1..200),
    ) {
        let budget = Budget::new();
        let start = Mono::from_secs(77);
        let (mut now, mut calls, mut taken) = (start, 0_u64, 0_u64);
        for (deposits, withdrawals, micros) in steps {
            for _ in 0..deposits {
                budget.deposit();
                calls += 1;
            }
            now = now + Duration::from_micros(micros);
            taken += (0..withdrawals).filter(|_| budget.withdraw(now)).count() as u64;
            let most = calls as f64 / 5.0 + 3.0 * now.since(start).as_secs_f64() + 10.0;
            prop_assert!(taken as f64 <= most + 1e-6, "{taken} of {most}");
        }
    }
}
