//! The native balancer: power of two choices on peak-EWMA latency × (calls in flight + 1), per unit of weight
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"; the cost as in Finagle's Peak EWMA).

use std::cmp::Ordering;
use std::time::Duration;

use super::ids::Slot;
use super::pool::{Member, Pool};

/// Least latency that a failed call is charged with, so that an instance that fails fast attracts nothing.
pub const FAILURE_CHARGE: Duration = Duration::from_secs(5);

/// Pools up to this size are balanced without allocation.
const STACK_MEMBERS: usize = 64;

/// One pick in this many takes its first draw as it is, when that is idle. An average moves only when calls are
/// observed, so without this an instance that was slow once would, beside a faster one, never be asked again.
const EXPLORE_ONE_IN: u64 = 64;

/// What [`Live::observe`](super::pool::Live::observe) is to be told of a failed call.
pub fn failure_charge(latency: Duration) -> Duration {
    latency.max(FAILURE_CHARGE)
}

/// Whether so few of a pool's instances are available that calls go to all that are not dead ([`pick_panic`]).
pub fn panics(available: usize, total: usize) -> bool {
    available * 2 < total
}

/// The instance that takes the next call; `None` when none is left. Members are drawn by weight × share, and the
/// cheaper of two draws per unit of weight × share wins: a degraded member wins only when the other is far busier or
/// slower. `excluded` is asked once per member; `random` is 64 uniform bits.
pub fn pick(pool: &Pool, excluded: impl Fn(&Member) -> bool, random: u64) -> Option<Slot> {
    choose(pool, random, |member| {
        if excluded(member) { 0 } else { u64::from(member.weight) * u64::from(member.live.share_permille()) }
    })
}

/// Like [`pick`], among all that are not excluded, whatever share their health gives them.
pub fn pick_panic(pool: &Pool, excluded: impl Fn(&Member) -> bool, random: u64) -> Option<Slot> {
    choose(pool, random, |member| if excluded(member) { 0 } else { u64::from(member.weight) })
}

fn choose(pool: &Pool, random: u64, weight: impl Fn(&Member) -> u64) -> Option<Slot> {
    let members = &pool.members[..];
    let mut on_stack = [0_u64; STACK_MEMBERS];
    let mut on_heap = Vec::new();
    let weights = if members.len() <= STACK_MEMBERS {
        &mut on_stack[..members.len()]
    } else {
        on_heap.resize(members.len(), 0);
        &mut on_heap[..]
    };
    // Read once: shares may change while this runs, and both draws must see the same ones.
    let mut total = 0;
    for (member, slot) in members.iter().zip(weights.iter_mut()) {
        *slot = weight(member);
        total += *slot;
    }

    let first = draw(weights, total, random)?;
    let first_weight = std::mem::take(&mut weights[first]);
    let mixed = mix(random);
    let Some(second) = draw(weights, total - first_weight, mixed) else {
        return Some(members[first].slot);
    };
    let explores = mix(mixed).is_multiple_of(EXPLORE_ONE_IN) && members[first].live.in_flight() == 0;
    let keeps_first =
        explores || compare((&members[first], first_weight), (&members[second], weights[second])).is_le();
    Some(members[if keeps_first { first } else { second }].slot)
}

/// Index of the weight under which `random`'s share of `total`, the sum of `weights`, falls.
pub(super) fn draw(weights: &[u64], total: u64, random: u64) -> Option<usize> {
    let mut point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    weights.iter().position(|weight| {
        let hit = point < *weight;
        point = point.saturating_sub(*weight);
        hit
    })
}

/// Compares costs per weight by multiplying crosswise: 32 + 33 + 26 bits at most, so nothing overflows or rounds.
/// A member that was never measured is thought as fast as the other, so that a new one takes its part and no more.
fn compare((a, a_weight): (&Member, u64), (b, b_weight): (&Member, u64)) -> Ordering {
    let (a_us, b_us) = match (a.live.ewma_us(), b.live.ewma_us()) {
        (0, 0) => (1, 1),
        (0, known) | (known, 0) => (known, known),
        both => both,
    };
    let cost = |us: u32, member: &Member, other_weight: u64| {
        u128::from(us) * (u128::from(member.live.in_flight()) + 1) * u128::from(other_weight)
    };
    cost(a_us, a, b_weight).cmp(&cost(b_us, b, a_weight))
}

/// `SplitMix64`'s output function: a second random number from the one that is given.
pub(super) fn mix(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
