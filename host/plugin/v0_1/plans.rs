//! Plans of guests, checked: the native balancer follows them without a look.

use std::collections::HashSet;
use std::time::Duration;

use super::Answer;
use super::answers::why;
use super::exports::planner;
use crate::mesh::ids::Slot;
use crate::mesh::plan::{Choice, Plan, Strategy, TwoChoices};
use crate::mesh::pool::Pool;

/// A plan holds at most this long.
const TTL_MAX: Duration = Duration::from_mins(1);
const POINTS_MAX: usize = 65_536;

pub fn plan(said: planner::Plan, pool: &Pool) -> Answer<Plan> {
    let strategy = match said.strategy {
        planner::Strategy::Weighted(weights) => {
            if weights.len() != pool.members.len() {
                return Err("a plan has not one weight for each member");
            }
            Strategy::Weighted(weights)
        }
        planner::Strategy::TwoChoices(said) => Strategy::TwoChoices(two_choices(&said, pool)?),
        planner::Strategy::Ring(points) => Strategy::Ring(ring(points, pool)?),
        planner::Strategy::Tiers(said) => Strategy::Tiers(tiers(said, pool)?),
    };
    let ttl = Duration::from_millis(said.ttl_ms.into()).min(TTL_MAX);
    Ok(Plan { strategy, ttl, why: why(said.why) })
}

fn two_choices(said: &planner::TwoChoices, pool: &Pool) -> Answer<TwoChoices> {
    if said.choices.len() != pool.members.len() {
        return Err("a plan has not one choice for each member");
    }
    if !said.choices.iter().all(|choice| choice.price.is_finite() && choice.price > 0.0) {
        return Err("a price in a plan is not above 0");
    }
    let choice = |said: &planner::Choice| Choice { share: said.share, price: said.price, first: said.first };
    Ok(TwoChoices { choices: said.choices.iter().map(choice).collect(), failure_us: said.failure_us })
}

fn ring(points: Vec<(u64, u32)>, pool: &Pool) -> Answer<Vec<(u64, Slot)>> {
    if points.len() > POINTS_MAX {
        return Err("a ring has more than 65536 points");
    }
    let slots: HashSet<u32> = pool.members.iter().map(|member| member.slot.0).collect();
    if !points.iter().all(|(_, slot)| slots.contains(slot)) {
        return Err("a ring names a slot that does not exist");
    }
    let mut points: Vec<_> = points.into_iter().map(|(point, slot)| (point, Slot(slot))).collect();
    points.sort_unstable();
    Ok(points)
}

fn tiers(said: Vec<Vec<u32>>, pool: &Pool) -> Answer<Vec<Vec<Slot>>> {
    let slots: HashSet<u32> = pool.members.iter().map(|member| member.slot.0).collect();
    let mut seen = HashSet::new();
    if !said.iter().flatten().all(|slot| slots.contains(slot) && seen.insert(*slot)) {
        return Err("a tier names a slot that does not exist, or twice");
    }
    let tiers = said.into_iter().filter(|tier| !tier.is_empty());
    Ok(tiers.map(|tier| tier.into_iter().map(Slot).collect()).collect())
}
