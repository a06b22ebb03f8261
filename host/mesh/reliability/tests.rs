use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_was_never_watched_has_no_availability() {
    let mut uptime = Uptime::default();
    assert_eq!(uptime.ever().ratio(), None);
    uptime.look(true, Mono::from_secs(1), Wall::default());
    assert_eq!(uptime.ever().ratio(), None, "one look is no time");
    uptime.look(true, Mono::from_secs(3), Wall::default());
    assert_eq!(uptime.ever(), Share { watched_us: 2_000_000, up_us: 2_000_000 });
}

#[test]
fn time_in_which_nobody_looked_counts_neither_way() {
    let mut uptime = Uptime::default();
    uptime.look(true, Mono::from_secs(0), Wall::default());
    uptime.look(false, Mono::from_secs(1), Wall::default());
    uptime.look(false, Mono::from_secs(3600), Wall::default());
    uptime.pause();
    uptime.look(true, Mono::from_secs(3602), Wall::default());
    assert_eq!(uptime.ever(), Share { watched_us: 1_000_000, up_us: 1_000_000 });
}

#[test]
fn a_day_later_only_what_was_ever_is_left() {
    let mut uptime = Uptime::default();
    let wall = |hours: i64| Wall::from_millis(hours * 3_600_000);
    for at in 0..10 {
        uptime.look(false, Mono::from_secs(at), wall(5));
    }
    assert_eq!(uptime.day(wall(5)).ratio(), Some(0.0));
    assert_eq!(uptime.day(wall(28)).watched_us, 9_000_000);
    assert_eq!(uptime.day(wall(29)).ratio(), None);
    assert_eq!(uptime.day(wall(4)).ratio(), None, "the clock was set back");
    assert_eq!(uptime.ever().ratio(), Some(0.0));
}

proptest! {
    #[test]
    fn it_was_never_up_for_longer_than_it_was_watched_nor_watched_for_longer_than_time_passed(
        looks in prop::collection::vec((any::<bool>(), 0_u64..8_000, -2_000_000_i64..4_000_000), 1..300),
        restart_at in 0_usize..300,
    ) {
        let (mut now, mut wall) = (Mono::from_secs(9), Wall::from_millis(1_700_000_000_000));
        let (start, mut uptime, mut last) = (now, Uptime::default(), None::<bool>);
        let mut up = Duration::ZERO;
        for (index, (is_up, ms, jump)) in looks.into_iter().enumerate() {
            let passed = Duration::from_millis(ms);
            now = now + passed;
            wall = Wall::from_millis(wall.as_millis() + ms as i64 + jump);
            if index == restart_at {
                uptime = Uptime::resumed(uptime.ever(), uptime.parts().copied().collect::<Vec<_>>());
                last = None;
            }
            if last == Some(true) && passed <= LOOK_MAX {
                up += passed;
            }
            uptime.look(is_up, now, wall);
            last = Some(is_up);
            let (ever, day) = (uptime.ever(), uptime.day(wall));
            prop_assert_eq!(u128::from(ever.up_us), up.as_micros());
            prop_assert!(ever.up_us <= ever.watched_us && day.up_us <= day.watched_us);
            prop_assert!(day.watched_us <= ever.watched_us);
            prop_assert!(u128::from(ever.watched_us) <= now.since(start).as_micros());
            prop_assert!(uptime.parts().count() <= 96);
        }
    }

    #[test]
    fn whoever_is_looked_at_each_second_has_the_share_that_was_seen(looks in prop::collection::vec(any::<bool>(), 2..500)) {
        let mut uptime = Uptime::default();
        for (at, up) in looks.iter().enumerate() {
            let passed = SECOND * u32::try_from(at).expect("few looks");
            uptime.look(*up, Mono::default() + passed, Wall::default() + passed);
        }
        let seen = &looks[..looks.len() - 1];
        let up = seen.iter().filter(|up| **up).count() as f64 / seen.len() as f64;
        prop_assert!((uptime.ever().ratio().expect("it was watched") - up).abs() < 1e-9);
    }
}
