use proptest::prelude::*;

use super::*;

fn recorded(latencies: &[u32]) -> LatencyHistogram {
    let histogram = LatencyHistogram::new();
    latencies.iter().for_each(|us| histogram.record(*us));
    histogram
}

#[test]
fn buckets_join_without_gap_or_overlap_from_zero_to_the_greatest_latency() {
    let mut next = 0_u64;
    for index in 0..BUCKETS {
        let (low, width) = bounds(index);
        assert_eq!(u64::from(low), next);
        assert_eq!(bucket_of(low), index);
        assert_eq!(bucket_of(low + (width - 1)), index);
        next += u64::from(width);
    }
    assert_eq!(next, u64::from(u32::MAX) + 1);
}

#[test]
fn empty_histogram_answers_zero() {
    let empty = LatencyHistogram::new().snapshot();
    assert_eq!((empty.count(), empty.sum_us(), empty.quantile(0.5)), (0, 0, 0));
    assert_eq!(empty, HistogramSnapshot::default());
}

#[test]
fn difference_of_snapshots_holds_only_what_came_between() {
    let histogram = recorded(&[10, 10, 10]);
    let earlier = histogram.snapshot();
    histogram.record(90_000);
    let between = histogram.snapshot().since(&earlier);
    assert_eq!((between.count(), between.sum_us()), (1, 90_000));
    assert!(between.quantile(0.01) > 70_000);
    assert_eq!(between.buckets().collect::<Vec<_>>(), [(98_303, 1)]);
}

#[test]
fn quantiles_outside_of_their_range_are_the_extremes() {
    let snapshot = recorded(&[2, 3_600_000_000]).snapshot();
    assert_eq!(snapshot.quantile(-1.0), 2);
    assert_eq!(snapshot.quantile(f64::NAN), 2);
    assert!(snapshot.quantile(7.0) > 3_000_000_000);
}

#[test]
fn seeded_counters_go_on_from_what_was_stored() {
    let stored = CallCounts {
        messages: 1,
        ok: 2,
        tool_errors: 3,
        failed: 4,
        refused: 5,
        retries: 6,
        request_bytes: 7,
        response_bytes: 8,
    };
    let counters = CallCounters::seeded(stored);
    assert_eq!(counters.snapshot(), stored);
    counters.ok.fetch_add(40, Ordering::Relaxed);
    assert_eq!(counters.snapshot(), CallCounts { ok: 42, ..stored });
}

proptest! {
    #[test]
    fn quantiles_are_at_most_a_quarter_off_and_never_fall(
        mut latencies in prop::collection::vec((0u32..32, any::<u32>()).prop_map(|(bits, us)| us >> bits), 1..300),
        mut quantiles in prop::collection::vec(0.0f64..=1.0, 1..20),
    ) {
        let snapshot = recorded(&latencies).snapshot();
        latencies.sort_unstable();
        quantiles.sort_by(f64::total_cmp);
        prop_assert_eq!(snapshot.count(), latencies.len() as u64);
        prop_assert_eq!(snapshot.sum_us(), latencies.iter().map(|us| u64::from(*us)).sum::<u64>());
        let mut last = 0;
        for q in quantiles {
            let rank = ((q * latencies.len() as f64).ceil() as usize).clamp(1, latencies.len());
            let (exact, found) = (latencies[rank - 1], snapshot.quantile(q));
            prop_assert!(found.abs_diff(exact) <= exact / 4, "{found} for {exact}");
            prop_assert!(found >= last);
            last = found;
        }
    }
}

#[test]
fn an_average_follows_its_calls_and_stays_where_they_left_it() {
    let average = Average::default();
    assert_eq!(average.us(), 0);
    average.observe(10_000);
    assert_eq!(average.us(), 10_000, "the first is all that is known");
    average.observe(26_000);
    assert_eq!(average.us(), 11_000);
    (0..200).for_each(|_| average.observe(1_000));
    assert!((1_000..=1_020).contains(&average.us()), "{}", average.us());
    let later = Average::default();
    later.resume(average.us());
    assert_eq!(later.us(), average.us());
}
