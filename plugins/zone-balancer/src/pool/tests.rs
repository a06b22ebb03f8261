use super::*;

const WELL: Load = Load { ewma_us: 1000, errors_permille: 0, score: 100 };

fn member(slot: u32) -> Member {
    Member { slot, zone: String::new(), weight: 100 }
}

fn pool(loads: &[Load]) -> Pool {
    let mut pool = Pool::default();
    pool.set_members((0..loads.len() as u32).map(member).collect(), &Settings::default());
    pool.set_loads((0..).zip(loads.iter().copied()), &Settings::default());
    pool
}

/// How many of 10,000 picks each slot gets when every call ends at once.
fn idle_counts(pool: &Pool, slots: usize, tried: u64, ewma_us: impl Fn(u32) -> u32) -> Vec<u32> {
    let mut counts = vec![0; slots];
    for random in 0..10_000 {
        let figures = |slot| Figures { in_flight: 0, ewma_us: ewma_us(slot) };
        if let Some(slot) = pool.pick(random, tried, figures) {
            counts[slot as usize] += 1;
        }
    }
    counts
}

/// Calls in flight at each slot after `calls` calls that never end.
fn stuck_counts(pool: &Pool, slots: usize, calls: u64, ewma_us: impl Fn(u32) -> u32) -> Vec<u32> {
    let mut in_flight = vec![0; slots];
    for random in 0..calls {
        let figures = |slot: u32| Figures { in_flight: in_flight[slot as usize], ewma_us: ewma_us(slot) };
        let slot = pool.pick(random, 0, figures).expect("members can take calls");
        in_flight[slot as usize] += 1;
    }
    in_flight
}

#[test]
fn nobody_is_picked_from_an_empty_pool() {
    assert_eq!(pool(&[]).pick(1, 0, |_| Figures { in_flight: 0, ewma_us: 1 }), None);
}

#[test]
fn equal_members_share_equally() {
    for slots in [2, 3, 100] {
        let counts = idle_counts(&pool(&vec![WELL; slots]), slots, 0, |_| 1000);
        let fair = 10_000 / slots as u32;
        assert!(counts.iter().all(|count| (fair / 2..fair * 2).contains(count)), "{counts:?}");
    }
}

#[test]
fn what_must_not_be_picked_is_not_picked() {
    let mut down = [WELL; 5];
    down[3].score = 0;
    let counts = idle_counts(&pool(&down), 5, 0b0_0011, |_| 1000);
    assert_eq!((counts[0], counts[1], counts[3]), (0, 0, 0));
    assert!(counts[2] > 4000 && counts[4] > 4000, "{counts:?}");
    assert_eq!(idle_counts(&pool(&down), 5, 0b1_0111, |_| 1000), [0; 5]);
}

#[test]
fn a_single_free_member_among_a_hundred_is_found() {
    let counts = idle_counts(&pool(&[WELL; 60]), 60, !(1 << 41), |_| 1000);
    assert_eq!(counts[41], 10_000);
}

#[test]
fn slots_beyond_the_mask_stay_candidates() {
    let mut pool = Pool::default();
    pool.set_members(vec![member(3), member(64), member(70)], &Settings::default());
    let picked = |random| pool.pick(random, u64::MAX, |_| Figures { in_flight: 0, ewma_us: 1 });
    assert!((0..100).all(|random| matches!(picked(random), Some(64 | 70))));
}

#[test]
fn the_slower_and_the_busier_get_less() {
    let counts = idle_counts(&pool(&[WELL; 3]), 3, 0, |slot| if slot == 0 { 50_000 } else { 1000 });
    assert_eq!(counts[0], 0);
    let stuck = stuck_counts(&pool(&[WELL; 3]), 3, 300, |slot| if slot == 0 { 4000 } else { 1000 });
    assert!(stuck[0] < 60 && stuck[1].abs_diff(stuck[2]) < 20, "{stuck:?}");
}

#[test]
fn a_member_that_fails_fast_attracts_nothing() {
    let failing = Load { ewma_us: 10, errors_permille: 500, score: 80 };
    let counts = idle_counts(&pool(&[failing, WELL, WELL]), 3, 0, |slot| if slot == 0 { 10 } else { 1000 });
    assert_eq!(counts[0], 0);
}

#[test]
fn weights_and_health_scale_what_members_carry() {
    let mut heavy = Pool::default();
    let weights = vec![Member { weight: 300, ..member(0) }, member(1), Member { weight: 0, ..member(2) }];
    heavy.set_members(weights, &Settings::default());
    let stuck = stuck_counts(&heavy, 3, 400, |_| 1000);
    assert!(stuck[0].abs_diff(300) <= 5 && stuck[2] == 0, "{stuck:?}");

    let degraded = Load { score: 60, ..WELL };
    let stuck = stuck_counts(&pool(&[degraded, WELL]), 2, 500, |_| 1000);
    assert!(stuck[0].abs_diff(100) <= 5, "{stuck:?}");
}

#[test]
fn an_unmeasured_member_gets_calls_without_a_stampede() {
    let new = Load { ewma_us: 0, ..WELL };
    let pool = pool(&[new, WELL, WELL, WELL]);
    let counts = idle_counts(&pool, 4, 0, |slot| if slot == 0 { 0 } else { 1000 });
    assert!(counts[0] > 4000, "drawn about every second time: {counts:?}");
    let stuck = stuck_counts(&pool, 4, 400, |slot| if slot == 0 { 0 } else { 1000 });
    assert!((80..=120).contains(&stuck[0]), "{stuck:?}");
}

#[test]
fn without_any_measurement_calls_spread_evenly() {
    let stuck = stuck_counts(&pool(&[Load { ewma_us: 0, ..WELL }; 4]), 4, 400, |_| 0);
    assert!(stuck.iter().all(|count| (80..=120).contains(count)), "{stuck:?}");
}

#[test]
fn another_zone_helps_out_when_its_own_is_loaded() {
    let settings = Settings { zone: Some("a".into()), zone_penalty: 3.0, ..Settings::default() };
    let mut zoned = Pool::default();
    let members = (0..4).map(|slot| Member { zone: if slot < 2 { "a" } else { "b" }.into(), ..member(slot) });
    zoned.set_members(members.collect(), &settings);
    let idle = idle_counts(&zoned, 4, 0, |_| 1000);
    assert_eq!(idle[2] + idle[3], 0, "{idle:?}");
    let stuck = stuck_counts(&zoned, 4, 800, |_| 1000);
    assert!((180..=220).contains(&(stuck[2] + stuck[3])), "a third of the others' load: {stuck:?}");
    assert_eq!(idle_counts(&zoned, 4, 0b0011, |_| 1000)[..2], [0, 0], "the own zone is exhausted");

    let indifferent = Settings { zone_penalty: 1.0, ..settings };
    zoned.rebuild(&indifferent);
    assert!(idle_counts(&zoned, 4, 0, |_| 1000).iter().all(|count| *count > 2000));
}

#[test]
fn loads_outlive_a_change_of_members() {
    let mut known = pool(&[WELL, Load { score: 0, ..WELL }]);
    known.set_members(vec![member(0), member(1), member(2)], &Settings::default());
    let counts = idle_counts(&known, 3, 0, |_| 1000);
    assert!(counts[1] == 0 && counts[2] > 0, "{counts:?}");
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
