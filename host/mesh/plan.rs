//! Plans: how a pool is balanced until the next plan, worked out beforehand. Following one costs what the native
//! balancer costs.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{self, draw, mix};
use super::ids::Slot;
use super::pool::{Member, Pool};

/// Pools up to this size are balanced without allocation.
const STACK_MEMBERS: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub strategy: Strategy,
    /// How long it holds.
    pub ttl: Duration,
    /// One short phrase for people.
    pub why: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// In proportion to these, one for each member in order.
    Weighted(Vec<u32>),
    TwoChoices(TwoChoices),
    /// Points on a circle of 64 bits in ascending order, and who owns them.
    Ring(Vec<(u64, Slot)>),
    /// The first tier with an available member takes the call.
    Tiers(Vec<Vec<Slot>>),
}

/// Two members are drawn, and the one that costs less takes the call.
#[derive(Clone, Debug, PartialEq)]
pub struct TwoChoices {
    /// One for each member in order.
    pub choices: Vec<Choice>,
    /// The latency that a failed call is charged, in microseconds.
    pub failure_us: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Members are drawn in proportion to it; 0 is never picked.
    pub share: u32,
    /// What the member costs is multiplied by it.
    pub price: f32,
    /// While one of these can be picked, the first draw is among them.
    pub first: bool,
}

impl Plan {
    /// The member that takes a call; `None` when the plan has none for it. The plan must be of this membership.
    /// `random` and `affinity` are 64 uniform bits.
    pub fn pick(
        &self,
        pool: &Pool,
        excluded: impl Fn(&Member) -> bool,
        affinity: u64,
        random: u64,
    ) -> Option<Slot> {
        let usable = |member: &Member| member.live.share_permille() > 0 && !excluded(member);
        match &self.strategy {
            Strategy::Weighted(weights) => with_weights(
                pool,
                |index, member| if usable(member) { weights[index].into() } else { 0 },
                |weights| draw(weights, weights.iter().sum(), random),
            ),
            Strategy::TwoChoices(two) => two.pick(pool, usable, random),
            Strategy::Ring(points) => on_ring(pool, points, usable, affinity),
            Strategy::Tiers(tiers) => tiers.iter().find_map(|tier| {
                let not_this = |member: &Member| !tier.contains(&member.slot) || !usable(member);
                balance::pick(pool, not_this, random)
            }),
        }
    }
}

impl TwoChoices {
    fn pick(&self, pool: &Pool, usable: impl Fn(&Member) -> bool, random: u64) -> Option<Slot> {
        with_weights(
            pool,
            |index, member| if usable(member) { self.choices[index].share.into() } else { 0 },
            |weights| {
                let total: u64 = weights.iter().sum();
                let first = self.first(weights, total, random)?;
                let taken = std::mem::take(&mut weights[first]);
                let Some(second) = draw(weights, total - taken, mix(random)) else { return Some(first) };
                let typical_us = typical_us(pool, weights, first);
                let cost = |index: usize| self.cost(index, &pool.members[index], typical_us);
                Some(if cost(first) > cost(second) { second } else { first })
            },
        )
    }

    fn first(&self, weights: &[u64], total: u64, random: u64) -> Option<usize> {
        let preferred = |index: usize| if self.choices[index].first { weights[index] } else { 0 };
        let sum: u64 = (0..weights.len()).map(preferred).sum();
        if sum == 0 || sum == total {
            return draw(weights, total, random);
        }
        with_room(weights.len(), |of_first| {
            of_first.iter_mut().enumerate().for_each(|(index, weight)| *weight = preferred(index));
            draw(of_first, sum, random)
        })
    }

    /// Expected wait in microseconds, times the price. A member that was never measured is taken for a typical one,
    /// at half the price while it is idle: it gets its first call soon, and no second one before the first is over
    /// unless the others are loaded as well.
    fn cost(&self, index: usize, member: &Member, typical_us: f64) -> f64 {
        let in_flight = f64::from(member.live.in_flight());
        let expected_us = match member.live.ewma_us() {
            0 if in_flight == 0.0 => typical_us / 2.0,
            0 => typical_us,
            measured => f64::from(measured),
        }
        .max(1.0);
        let failing = f64::from(1000 - member.live.success_permille().min(1000)) / 1000.0;
        let failing_us = failing * (f64::from(self.failure_us) - expected_us).max(0.0);
        (expected_us + failing_us) * (in_flight + 1.0) * f64::from(self.choices[index].price)
    }
}

/// Mean latency of the members that were measured: what is expected of one that was not. `first` has been taken out
/// of the weights.
fn typical_us(pool: &Pool, weights: &[u64], first: usize) -> f64 {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for (index, member) in pool.members.iter().enumerate() {
        let us = member.live.ewma_us();
        if us > 0 && (weights[index] > 0 || index == first) {
            sum += u64::from(us);
            count += 1;
        }
    }
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

/// The owner of the first point from `affinity` on that can be picked.
fn on_ring(
    pool: &Pool,
    points: &[(u64, Slot)],
    usable: impl Fn(&Member) -> bool,
    affinity: u64,
) -> Option<Slot> {
    let start = points.partition_point(|(point, _)| *point < affinity);
    let (before, from) = points.split_at(start);
    let mut refused: Option<Slot> = None;
    from.iter().chain(before).map(|(_, slot)| *slot).find(|slot| {
        // Neighbouring points often have the same owner.
        if refused == Some(*slot) {
            return false;
        }
        let takes = pool.member(*slot).is_some_and(&usable);
        if !takes {
            refused = Some(*slot);
        }
        takes
    })
}

/// Lets `choose` take an index by the weights of the members, which are read once.
fn with_weights(
    pool: &Pool,
    weight: impl Fn(usize, &Member) -> u64,
    choose: impl FnOnce(&mut [u64]) -> Option<usize>,
) -> Option<Slot> {
    let index = with_room(pool.members.len(), |weights| {
        for (index, (member, place)) in pool.members.iter().zip(weights.iter_mut()).enumerate() {
            *place = weight(index, member);
        }
        choose(weights)
    })?;
    Some(pool.members[index].slot)
}

fn with_room<T>(length: usize, fill: impl FnOnce(&mut [u64]) -> T) -> T {
    if length <= STACK_MEMBERS { fill(&mut [0; STACK_MEMBERS][..length]) } else { fill(&mut vec![0; length]) }
}

#[cfg(test)]
mod tests;
