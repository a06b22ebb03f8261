use proptest::prelude::*;

use super::*;

proptest! {
    /// The window against a plain list of what happened.
    #[test]
    fn window_holds_the_calls_of_the_last_thirty_seconds(
        steps in prop::collection::vec((1u64..=20, 0u64..50, 0u64..50), 1..100),
    ) {
        let mut window = Window::default();
        let (mut now, mut ok_total, mut failed_total) = (1000, 7, 9);
        window.advance(Mono::from_secs(now), ok_total, failed_total);
        let mut calls: Vec<(u64, u64, u64)> = Vec::new();
        for (gap, ok, failed) in steps {
            now += gap;
            ok_total += ok;
            failed_total += failed;
            window.advance(Mono::from_secs(now), ok_total, failed_total);
            calls.push((now, ok, failed));
            let recent = calls.iter().filter(|(at, ..)| at + 30 > now);
            let sums = recent.fold((0, 0), |(a, b), (_, ok, failed)| (a + ok, b + failed));
            prop_assert_eq!(window.sums(), sums);
        }
    }
}
