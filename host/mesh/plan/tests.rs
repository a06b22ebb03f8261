use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::mesh::ids::{Name, PoolId};
use crate::mesh::pool::{InFlight, Live};
use crate::mesh::time::Mono;

const CALLS: u64 = 4_000;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Members with slots that are not their places: 10, 11, and so on.
fn pool(latencies_us: &[u32]) -> Pool {
    let member = |(index, us): (usize, &u32)| {
        let live = Arc::new(Live::default());
        if *us > 0 {
            live.observe(Mono::from_secs(1), Duration::from_micros((*us).into()));
        }
        Member {
            slot: Slot(10 + index as u32),
            instance: name(&format!("i{index}")),
            node: name("n"),
            zone: None,
            weight: 100,
            tags: [].into(),
            live,
        }
    };
    let members = latencies_us.iter().enumerate().map(member).collect();
    Pool {
        id: PoolId(1),
        version: 1,
        service: name("s"),
        members,
        loads_version: Arc::new(AtomicU64::new(1)),
    }
}

fn plan(strategy: Strategy) -> Plan {
    Plan { strategy, ttl: Duration::from_secs(1), why: "".into() }
}

fn two_choices(choices: &[(u32, f32, bool)]) -> Plan {
    let choices =
        choices.iter().map(|(share, price, first)| Choice { share: *share, price: *price, first: *first });
    plan(Strategy::TwoChoices(TwoChoices { choices: choices.collect(), failure_us: 1_000_000 }))
}

/// How many of the calls each slot gets.
fn spread(plan: &Plan, pool: &Pool, excluded: &[u32]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for call in 0..CALLS {
        let random = mix(call);
        let picked = plan.pick(pool, |member| excluded.contains(&member.slot.0), mix(random), random);
        *counts.entry(picked.map_or(0, |slot| slot.0)).or_default() += 1;
    }
    counts
}

fn share(counts: &BTreeMap<u32, u64>, slot: u32) -> f64 {
    counts.get(&slot).copied().unwrap_or(0) as f64 / CALLS as f64
}

fn busy(pool: &Pool, index: usize, calls: usize) -> Vec<InFlight> {
    (0..calls).map(|_| pool.members[index].live.enter()).collect()
}

#[test]
fn weights_are_shares_of_those_that_can_be_picked() {
    let pool = pool(&[0, 0, 0]);
    let plan = plan(Strategy::Weighted(vec![1, 3, 0]));
    let all = spread(&plan, &pool, &[]);
    assert!((share(&all, 11) - 0.75).abs() < 0.05, "{all:?}");
    assert_eq!(share(&all, 12), 0.0, "{all:?}");
    assert_eq!(spread(&plan, &pool, &[11]), [(10, CALLS)].into());
    assert_eq!(spread(&plan, &pool, &[10, 11]), [(0, CALLS)].into(), "nobody is left");
    pool.members[1].live.set_health(0, 0, 1000);
    assert_eq!(spread(&plan, &pool, &[]), [(10, CALLS)].into());
}

#[test]
fn the_cheaper_of_two_takes_the_call() {
    let pool = pool(&[1_000, 10_000]);
    let plan = two_choices(&[(1, 1.0, false), (1, 1.0, false)]);
    assert_eq!(spread(&plan, &pool, &[]), [(10, CALLS)].into());
    let held = busy(&pool, 0, 10);
    assert_eq!(spread(&plan, &pool, &[]), [(11, CALLS)].into());
    drop(held);
    // What fails is as slow as a failure is dear.
    pool.members[0].live.set_health(100, 1000, 900);
    assert_eq!(spread(&plan, &pool, &[]), [(11, CALLS)].into());
    assert_eq!(spread(&plan, &pool, &[11]), [(10, CALLS)].into());
}

#[test]
fn the_preferred_take_calls_until_others_are_cheaper_at_their_price() {
    let pool = pool(&[1_000, 1_000, 1_000, 1_000]);
    let plan = two_choices(&[(1, 1.0, true), (1, 2.0, false), (1, 2.0, false), (1, 2.0, false)]);
    assert_eq!(spread(&plan, &pool, &[]), [(10, CALLS)].into());
    let _held = busy(&pool, 0, 3);
    let counts = spread(&plan, &pool, &[]);
    assert_eq!(share(&counts, 10), 0.0, "{counts:?}");
    assert!((share(&counts, 12) - 1.0 / 3.0).abs() < 0.05, "{counts:?}");
    let counts = spread(&plan, &pool, &[10]);
    assert!((share(&counts, 13) - 1.0 / 3.0).abs() < 0.05, "{counts:?}");
}

#[test]
fn a_member_that_was_never_measured_gets_one_call_and_no_second_at_once() {
    let pool = pool(&[1_000, 0]);
    let plan = two_choices(&[(1, 1.0, false), (1, 1.0, false)]);
    assert_eq!(spread(&plan, &pool, &[]), [(11, CALLS)].into());
    let _held = busy(&pool, 1, 1);
    assert_eq!(spread(&plan, &pool, &[]), [(10, CALLS)].into());
}

#[test]
fn a_ring_keeps_what_belongs_together_and_moves_only_what_was_lost() {
    let pool = pool(&[0, 0, 0]);
    let mut points: Vec<_> = (0..300).map(|n| (mix(n), Slot(10 + (n % 3) as u32))).collect();
    points.sort_unstable();
    let plan = plan(Strategy::Ring(points));
    let (all, without) = (|_: &Member| false, |member: &Member| member.slot.0 == 11);
    for call in 0..CALLS {
        let affinity = mix(call);
        let before = plan.pick(&pool, all, affinity, 0).expect("somebody");
        assert_eq!(plan.pick(&pool, all, affinity, u64::MAX), Some(before), "chance has no say");
        let after = plan.pick(&pool, without, affinity, 0).expect("somebody");
        assert!(after.0 != 11 && (before.0 == 11 || after == before));
    }
    let counts = spread(&plan, &pool, &[]);
    assert!((10..13).all(|slot| share(&counts, slot) > 0.2), "{counts:?}");
    assert_eq!(spread(&plan, &pool, &[10, 11, 12]), [(0, CALLS)].into());
}

#[test]
fn a_lower_tier_serves_only_when_the_higher_one_cannot() {
    let pool = pool(&[1_000, 1_000, 1_000]);
    let plan = plan(Strategy::Tiers(vec![vec![Slot(10)], vec![Slot(11), Slot(12)]]));
    let _held = busy(&pool, 0, 100);
    assert_eq!(spread(&plan, &pool, &[]), [(10, CALLS)].into());
    let counts = spread(&plan, &pool, &[10]);
    assert!((share(&counts, 12) - 0.5).abs() < 0.1, "{counts:?}");
}

#[test]
fn large_pools_are_balanced_too() {
    let pool = pool(&[1_000; 100]);
    let plan = two_choices(&[(1, 1.0, false); 100]);
    let counts = spread(&plan, &pool, &[]);
    assert!(counts.len() > 90 && !counts.contains_key(&0), "{counts:?}");
}

proptest! {
    /// Whatever goes, comes and gets busy elsewhere: a session is led to its instance until that goes, and to one
    /// other from then on.
    #[test]
    fn a_session_stays_with_its_instance_while_that_lives(
        members in 1usize..12, seed: u64, affinity: u64,
        steps in prop::collection::vec((0usize..12, any::<bool>(), any::<u64>()), 1..60),
    ) {
        let pool = pool(&vec![1_000; members]);
        let points = members as u64 * 20;
        let owner = |n: u64| Slot(10 + u32::try_from(n % members as u64).expect("a few"));
        let mut ring: Vec<_> = (0..points).map(|n| (mix(seed ^ mix(n)), owner(n))).collect();
        ring.sort_unstable();
        let plan = plan(Strategy::Ring(ring));
        let mut lives = vec![true; members];
        let mut at: Option<Slot> = None;
        let mut held = Vec::new();
        for (index, comes, random) in steps {
            let index = index % members;
            let lived = lives[index];
            lives[index] = comes;
            held.extend(busy(&pool, index, 1));
            let gone = |member: &Member| !lives[member.slot.0 as usize - 10];
            let picked = plan.pick(&pool, gone, affinity, random);
            prop_assert_eq!(picked, plan.pick(&pool, gone, affinity, !random), "chance has no say");
            match picked {
                Some(slot) => prop_assert!(lives[slot.0 as usize - 10], "the dead get nothing"),
                None => prop_assert!(!lives.contains(&true)),
            }
            let others_only = at.is_some_and(|slot| lives[slot.0 as usize - 10]);
            // Who comes back gets its own sessions again, and nobody else's move.
            let came = comes && !lived && picked == Some(Slot(10 + index as u32));
            prop_assert!(picked == at || !others_only || came, "from {:?} to {:?}", at, picked);
            at = picked;
        }
    }
}
