use proptest::prelude::*;

use super::*;
use crate::mesh::stats::LatencyHistogram;

fn seen(latencies: &[u32]) -> HistogramSnapshot {
    let histogram = LatencyHistogram::new();
    latencies.iter().for_each(|us| histogram.record(*us));
    histogram.snapshot()
}

#[test]
fn a_quantile_of_few_calls_is_none() {
    let hedge = Hedge { after: After::Quantile(950), budget_permille: 50 };
    assert_eq!(hedge.after(|| seen(&[20_000; 99])), None);
    let after = hedge.after(|| seen(&[20_000; 100])).expect("enough were seen");
    assert!((15..=25).contains(&after.as_millis()), "{after:?}");
    assert_eq!(hedge.after(|| seen(&[5; 100])), Some(AFTER_MIN));
    let fixed = Hedge { after: After::Time(Duration::from_millis(7)), budget_permille: 50 };
    assert_eq!(fixed.after(|| seen(&[])), Some(Duration::from_millis(7)));
}

#[test]
fn what_calls_took_long_ago_is_forgotten_once_there_were_enough_others() {
    let (histogram, mut lately) = (LatencyHistogram::new(), Lately::default());
    let mut at = |second: u64, us: u32, calls: u32| {
        (0..calls).for_each(|_| histogram.record(us));
        lately.of(histogram.snapshot(), Mono::from_secs(second))
    };
    assert_eq!(at(0, 1_000, 10_000).count(), 10_000, "all that there is");
    assert_eq!(at(59, 50_000, 500).count(), 10_500);
    let turned = at(60, 50_000, 500);
    assert_eq!(turned.count(), 1_000, "those of the first turn are gone");
    assert!(turned.quantile(0.5) > 30_000, "{}", turned.quantile(0.5));
    assert_eq!(at(119, 50_000, 0).count(), 1_000);
    assert_eq!(at(120, 50_000, 99).count(), 11_099, "too few to say anything");
    assert_eq!(at(121, 50_000, 1).count(), 100);
    assert_eq!(at(1000, 50_000, 0).count(), 11_100, "what was before a pause is old");
    assert_eq!(at(1001, 50_000, 100).count(), 100);
}

#[test]
fn good_times_save_no_more_than_ten_attempts() {
    let hedging = Hedging::default();
    assert!(!hedging.withdraw(), "nothing was earned yet");
    (0..100_000).for_each(|_| hedging.deposit(50));
    assert_eq!((0..1000).filter(|_| hedging.withdraw()).count(), 10);
    assert_eq!(hedging.sent(), 10);
}

proptest! {
    #[test]
    fn second_attempts_never_exceed_their_share_of_the_calls(
        permille in 0_u32..=1000,
        steps in prop::collection::vec((0_u32..40, 0_u32..10, any::<bool>()), 1..200),
    ) {
        let hedging = Hedging::default();
        let mut calls = 0;
        for (deposits, withdrawals, needed) in steps {
            (0..deposits).for_each(|_| hedging.deposit(permille));
            calls += u64::from(deposits);
            for _ in 0..withdrawals {
                if hedging.withdraw() && !needed {
                    hedging.give_back();
                }
            }
            prop_assert!(hedging.sent() * 1000 <= calls * u64::from(permille), "{} of {calls}", hedging.sent());
        }
    }

    #[test]
    fn who_waits_for_a_higher_quantile_never_waits_less(
        latencies in prop::collection::vec(0_u32..1_000_000, 100..300), one in 1_u32..1000, other in 1_u32..1000,
    ) {
        let seen = seen(&latencies);
        let after = |permille| Hedge { after: After::Quantile(permille), budget_permille: 0 }.after(|| seen.clone());
        prop_assert!(after(one.min(other)) <= after(one.max(other)));
        prop_assert!(after(one) >= Some(AFTER_MIN));
    }
}
