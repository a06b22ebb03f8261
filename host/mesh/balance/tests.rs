use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::super::ids::{Name, PoolId};
use super::super::pool::{InFlight, Live};
use super::super::time::Mono;
use super::*;

fn pool(members: usize) -> Pool {
    let name = |i: usize| Name::new(&format!("i{i}")).unwrap();
    let members = (0..members).map(|i| Member {
        slot: Slot(i as u32 * 3),
        instance: name(i),
        node: name(0),
        zone: None,
        weight: 100,
        tags: Arc::new([]),
        live: Arc::new(Live::default()),
    });
    Pool {
        id: PoolId(1),
        version: 1,
        service: name(0),
        members: members.collect(),
        loads_version: Arc::new(AtomicU64::new(0)),
    }
}

fn takes(pool: &Pool, index: usize, calls: u32) -> Vec<InFlight> {
    (0..calls).map(|_| pool.members[index].live.enter()).collect()
}

fn is_fast(pool: &Pool, index: usize, millis: u64) {
    pool.members[index].live.observe(Mono::from_secs(1), Duration::from_millis(millis));
}

fn share(pool: &Pool, index: usize, permille: u32) {
    pool.members[index].live.set_health(100, permille, 1000);
}

/// Part of 20 000 picks that each member got.
fn parts(pool: &Pool, pick: impl Fn(u64) -> Option<Slot>) -> Vec<f64> {
    let mut counts = vec![0_u32; pool.members.len()];
    let mut random = 7;
    for _ in 0..20_000 {
        random = mix(random);
        counts[pick(random).expect("someone is left").0 as usize / 3] += 1;
    }
    counts.into_iter().map(|count| f64::from(count) / 20_000.0).collect()
}

fn picked(pool: &Pool) -> Vec<f64> {
    parts(pool, |random| pick(pool, |_| false, random))
}

#[test]
fn empty_pool_and_wholly_excluded_pool_give_nothing() {
    assert_eq!(pick(&pool(0), |_| false, 9), None);
    assert_eq!(pick(&pool(3), |_| true, 9), None);
    assert_eq!(pick_panic(&pool(3), |_| true, 9), None);
}

#[test]
fn idle_equals_share_evenly() {
    for part in picked(&pool(4)) {
        assert!((part - 0.25).abs() < 0.02, "{part}");
    }
}

#[test]
fn busier_member_loses_every_comparison() {
    let pool = pool(2);
    let _held = takes(&pool, 0, 1);
    assert!(picked(&pool)[0].abs() < f64::EPSILON);
}

#[test]
fn slow_member_is_asked_now_and_then_while_idle_and_not_at_all_while_busy() {
    let pool = pool(2);
    is_fast(&pool, 0, 10);
    is_fast(&pool, 1, 5000);
    let explored = picked(&pool)[1];
    assert!(explored > 0.002 && explored < 0.02, "{explored}");
    let _held = takes(&pool, 1, 1);
    assert!(picked(&pool)[1].abs() < f64::EPSILON);
}

#[test]
fn heavier_member_carries_its_weight_in_calls_in_flight() {
    let mut pool = pool(2);
    pool.members[0].weight = 300;
    let _held = takes(&pool, 0, 1);
    assert!(picked(&pool)[0] > 0.9, "2 in flight for 300 are cheaper than 1 for 100");
    let _more = takes(&pool, 0, 2);
    assert!(picked(&pool)[0] < 0.1, "4 in flight for 300 are dearer than 1 for 100");
}

#[test]
fn degraded_member_is_used_when_nothing_better_is_free() {
    let pool = pool(2);
    share(&pool, 0, 250);
    assert!(picked(&pool)[0] < 0.02);
    let _held = takes(&pool, 1, 4);
    assert!(picked(&pool)[0] > 0.98);
}

#[test]
fn lower_share_is_drawn_less_often() {
    let pool = pool(6);
    share(&pool, 0, 100);
    let parts = picked(&pool);
    assert!(parts[0] < 0.03, "{parts:?}");
}

#[test]
fn member_without_share_is_picked_in_panic_only() {
    let pool = pool(3);
    share(&pool, 0, 0);
    assert!(picked(&pool)[0].abs() < f64::EPSILON);
    let panicked = parts(&pool, |random| pick_panic(&pool, |member| member.slot == Slot(3), random));
    assert!((panicked[0] - 0.5).abs() < 0.02, "{panicked:?}");
    assert!(panicked[1].abs() < f64::EPSILON);
    for index in 0..3 {
        share(&pool, index, 0);
    }
    assert_eq!(pick(&pool, |_| false, 5), None);
}

#[test]
fn unmeasured_member_takes_its_part_and_no_more() {
    let pool = pool(4);
    for index in 1..4 {
        is_fast(&pool, index, 20);
    }
    let idle = picked(&pool)[0];
    assert!((idle - 0.25).abs() < 0.02, "{idle}");
    let _held = takes(&pool, 0, 1);
    assert!(picked(&pool)[0].abs() < f64::EPSILON, "its first call is still out");
}

#[test]
fn fast_failer_attracts_nothing() {
    let pool = pool(2);
    is_fast(&pool, 1, 200);
    pool.members[0].live.observe(Mono::from_secs(1), failure_charge(Duration::from_millis(1)));
    assert!(picked(&pool)[0] < 0.02);
    assert_eq!(failure_charge(Duration::from_secs(30)), Duration::from_secs(30));
}

#[test]
fn pool_panics_under_half() {
    assert!(!panics(2, 4));
    assert!(panics(1, 4));
    assert!(panics(2, 5));
    assert!(panics(0, 1));
    assert!(!panics(0, 0));
}

proptest! {
    #[test]
    fn pick_is_always_an_eligible_member_if_there_is_one(
        figures in prop::collection::vec(
            (1u16..=1000, prop_oneof![Just(0u32), Just(250), Just(1000)], any::<bool>(), 0u64..2000, 0u32..4), 0..100),
        randoms in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut pool = pool(figures.len());
        let mut held = Vec::new();
        for (index, (weight, permille, _, millis, calls)) in figures.iter().enumerate() {
            pool.members[index].weight = *weight;
            share(&pool, index, *permille);
            if *millis > 0 {
                is_fast(&pool, index, *millis);
            }
            held.extend(takes(&pool, index, *calls));
        }
        let shut = |slot: Slot| figures[slot.0 as usize / 3].2;
        let open = |slot: Slot| !shut(slot) && figures[slot.0 as usize / 3].1 > 0;
        for random in randoms.into_iter().chain([0, u64::MAX]) {
            match pick(&pool, |member| shut(member.slot), random) {
                Some(slot) => prop_assert!(open(slot)),
                None => prop_assert!(pool.members.iter().all(|member| !open(member.slot))),
            }
            match pick_panic(&pool, |member| shut(member.slot), random) {
                Some(slot) => prop_assert!(!shut(slot)),
                None => prop_assert!(pool.members.iter().all(|member| shut(member.slot))),
            }
        }
    }

    /// Half of a pool may be ejected, and when more would be, all that live are asked; the dead never are.
    #[test]
    fn at_least_half_stay_eligible_or_all_that_live_do(
        states in prop::collection::vec(0u8..4, 1..40),
        randoms in prop::collection::vec(any::<u64>(), 1..40),
    ) {
        const EJECTED: u8 = 2;
        const DEAD: u8 = 3;
        let pool = pool(states.len());
        for (index, state) in states.iter().enumerate() {
            share(&pool, index, [1000, 250, 0, 0][usize::from(*state)]);
        }
        let state = |slot: Slot| states[slot.0 as usize / 3];
        let dead = |member: &Member| state(member.slot) == DEAD;
        let available = states.iter().filter(|state| **state < EJECTED).count();
        let panicked = panics(available, states.len());
        prop_assert!(panicked || available * 2 >= states.len());
        let is_eligible = |slot: Slot| state(slot) < if panicked { DEAD } else { EJECTED };
        let pick_one = |random| if panicked { pick_panic(&pool, dead, random) } else { pick(&pool, dead, random) };
        for random in randoms {
            let picked = pick_one(random);
            prop_assert!(picked.is_none_or(is_eligible), "{:?}", picked.map(state));
            prop_assert_eq!(picked.is_some(), pool.members.iter().any(|member| is_eligible(member.slot)));
        }
        // Each that is eligible is the first of two draws somewhere, and wins where the other is busy.
        for member in pool.members.iter().filter(|member| is_eligible(member.slot)) {
            let others = pool.members.iter().filter(|other| other.slot != member.slot);
            let _held: Vec<_> = others.flat_map(|other| [(); 8].map(|()| other.live.enter())).collect();
            let mut random = 1;
            let is_reached = (0..2_000).any(|_| {
                random = mix(random);
                pick_one(random) == Some(member.slot)
            });
            prop_assert!(is_reached, "{:?} in {:?}", member.slot, states);
        }
    }

    /// Of two, both are drawn, so the cheaper per weight wins whatever the dice say, but for a look at an idle one.
    #[test]
    fn dearer_busy_member_of_two_never_wins(
        weights in (1u16..=1000, 1u16..=1000), millis in (1u64..5000, 1u64..5000), calls in (1u32..50, 1u32..50),
        random: u64,
    ) {
        let mut pool = pool(2);
        (pool.members[0].weight, pool.members[1].weight) = weights;
        is_fast(&pool, 0, millis.0);
        is_fast(&pool, 1, millis.1);
        let _held = (takes(&pool, 0, calls.0), takes(&pool, 1, calls.1));
        let cost = |ms: u64, calls: u32, weight: u16| ms as f64 * f64::from(calls + 1) / f64::from(weight);
        let (a, b) = (cost(millis.0, calls.0, weights.0), cost(millis.1, calls.1, weights.1));
        prop_assume!((a - b).abs() > 1e-6 * a);
        prop_assert_eq!(pick(&pool, |_| false, random), Some(Slot(if a < b { 0 } else { 3 })));
    }
}
