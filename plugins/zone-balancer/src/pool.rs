//! One pool: its members, their last loads, and the choice between two of them.
//!
//! Peak-EWMA power of two choices (as in Finagle and linkerd2): two members are drawn by their share, and the one
//! whose expected wait is lower takes the call. With a zone of its own, the first of the two is always drawn from
//! that zone while it has a member that can be used; calls spill over when a member elsewhere is cheaper even
//! after the penalty.

mod draw;

use draw::{Draw, Randoms};

use crate::settings::Settings;

/// A member as the host announced it.
#[derive(Clone, Debug)]
pub struct Member {
    pub slot: u32,
    pub zone: String,
    pub weight: u16,
}

/// What the host last said about a member.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub ewma_us: u32,
    pub errors_permille: u16,
    pub score: u8,
}

/// Members are taken to be well until the first load arrives.
const UNKNOWN: Load = Load { ewma_us: 0, errors_permille: 0, score: 100 };

/// Live figures of a member.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub in_flight: u32,
    pub ewma_us: u32,
}

/// A member that can take calls, with everything that does not change from call to call worked out.
#[derive(Debug)]
struct Candidate {
    slot: u32,
    /// Part of calls that fail, 0 to 1.
    failing: f64,
    /// Zone penalty divided by share.
    factor: f64,
}

/// How often in a row a draw may hit a member that is out of the question before the list is walked instead.
const DRAWS_MAX: u32 = 4;

#[derive(Debug, Default)]
pub struct Pool {
    members: Vec<(Member, Load)>,
    /// Those of the own zone first.
    candidates: Vec<Candidate>,
    all: Draw,
    /// Over the candidates of the own zone; empty when there are none or zones are alike.
    home: Draw,
    /// Median latency of the measured candidates: what is expected of one that has not been measured.
    typical_us: f64,
    failure_us: f64,
}

impl Pool {
    /// Takes a new membership and keeps the loads of those who stay.
    pub fn set_members(&mut self, members: Vec<Member>, settings: &Settings) {
        let before = std::mem::take(&mut self.members);
        let load_of = |slot| before.iter().find(|(member, _)| member.slot == slot).map(|(_, load)| *load);
        self.members = members
            .into_iter()
            .map(|member| {
                let load = load_of(member.slot).unwrap_or(UNKNOWN);
                (member, load)
            })
            .collect();
        self.members.sort_unstable_by_key(|(member, _)| member.slot);
        self.rebuild(settings);
    }

    /// Takes loads by slot; members that are not among them keep theirs.
    pub fn set_loads(&mut self, loads: impl Iterator<Item = (u32, Load)>, settings: &Settings) {
        for (slot, load) in loads {
            if let Ok(found) = self.members.binary_search_by_key(&slot, |(member, _)| member.slot) {
                self.members[found].1 = load;
            }
        }
        self.rebuild(settings);
    }

    /// Works out again what `pick` needs. Linear in the number of members.
    pub fn rebuild(&mut self, settings: &Settings) {
        let is_home = |member: &Member| settings.zone.as_ref().is_some_and(|zone| *zone == member.zone);
        let mut usable: Vec<_> =
            self.members.iter().filter(|(member, load)| member.weight > 0 && load.score > 0).collect();
        // A stable sort: equal configurations give equal picks for equal random numbers.
        usable.sort_by_key(|(member, _)| !is_home(member));
        let shares: Vec<f64> = usable.iter().map(|(member, load)| share(member.weight, load.score)).collect();
        let at_home = usable.iter().filter(|(member, _)| is_home(member)).count();
        let any_home = at_home > 0 && settings.zone_penalty > 1.0;
        self.all = Draw::new(&shares);
        self.home = Draw::new(if any_home { &shares[..at_home] } else { &[] });
        self.candidates = usable
            .iter()
            .zip(&shares)
            .enumerate()
            .map(|(index, ((member, load), share))| Candidate {
                slot: member.slot,
                failing: f64::from(load.errors_permille.min(1000)) / 1000.0,
                factor: if any_home && index >= at_home { settings.zone_penalty } else { 1.0 } / share,
            })
            .collect();
        self.typical_us = median(usable.iter().map(|(_, load)| load.ewma_us).filter(|us| *us > 0).collect());
        self.failure_us = f64::from(settings.failure_penalty_ms) * 1000.0;
    }

    /// The slot that should take a call; `None` when no member can. `live` is asked for two members at most.
    pub fn pick(&self, random: u64, tried: u64, live: impl Fn(u32) -> Figures) -> Option<u32> {
        let mut randoms = Randoms(random);
        let from = if self.home.is_empty() { &self.all } else { &self.home };
        let first = self.draw(from, &mut randoms, tried, None)?;
        let Some(second) = self.draw(&self.all, &mut randoms, tried, Some(first)) else {
            return Some(self.candidates[first].slot);
        };
        let (first, second) = (&self.candidates[first], &self.candidates[second]);
        let dearer = self.cost(first, live(first.slot)) > self.cost(second, live(second.slot));
        Some(if dearer { second.slot } else { first.slot })
    }

    /// A candidate other than `taken` and those in `tried`.
    fn draw(&self, from: &Draw, randoms: &mut Randoms, tried: u64, taken: Option<usize>) -> Option<usize> {
        let free = |index: &usize| {
            let slot = self.candidates[*index].slot;
            Some(*index) != taken && !(slot < 64 && tried >> slot & 1 == 1)
        };
        if self.candidates.len() > 2 {
            for _ in 0..DRAWS_MAX {
                if let Some(index) = from.index(randoms.next()).filter(|index| free(index)) {
                    return Some(index);
                }
            }
        } else if taken.is_none()
            && let Some(index) = from.index(randoms.next()).filter(|index| free(index))
        {
            return Some(index);
        }
        let length = self.candidates.len();
        let start = (((randoms.next() >> 32) * length as u64) >> 32) as usize;
        (start..length).chain(0..start).find(free)
    }

    /// How long a call would wait at a candidate, in microseconds, made dearer by zone and share.
    ///
    /// A member that was never measured is taken for a typical one, at half the price while it is idle: it gets its
    /// first call soon and no second one before the first is over, unless the others are loaded as well.
    fn cost(&self, candidate: &Candidate, figures: Figures) -> f64 {
        let expected_us = match figures {
            Figures { ewma_us: 0, in_flight: 0 } => self.typical_us / 2.0,
            Figures { ewma_us: 0, .. } => self.typical_us,
            Figures { ewma_us, .. } => f64::from(ewma_us),
        }
        .max(1.0);
        let failing_us = candidate.failing * (self.failure_us - expected_us).max(0.0);
        (expected_us + failing_us) * (f64::from(figures.in_flight) + 1.0) * candidate.factor
    }
}

/// What a member gets in relation to others. A degraded instance (score under 80) has a quarter of its weight, as
/// in the host's own health states; one under 50 is left in the pool only in need, and gets a twentieth.
fn share(weight: u16, score: u8) -> f64 {
    let health = match score {
        80.. => 1.0,
        50.. => 0.25,
        _ => 0.05,
    };
    f64::from(weight) * health
}

/// The upper median; 0 of nothing.
fn median(mut values: Vec<u32>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    f64::from(*values.select_nth_unstable(middle).1)
}

/// Picks from a pool whose right answers are known.
///
/// # Errors
/// The first pick that is wrong.
pub fn self_test() -> Result<(), String> {
    let settings = Settings { zone: Some("here".into()), ..Settings::default() };
    let member = |slot, zone: &str| Member { slot, zone: zone.into(), weight: 100 };
    let mut pool = Pool::default();
    pool.set_members(vec![member(0, "here"), member(1, "there"), member(2, "there")], &settings);
    let idle = |_| Figures { in_flight: 0, ewma_us: 1000 };
    if (0..100).any(|random| pool.pick(random, 0, idle) != Some(0)) {
        return Err("an idle member of the own zone was not preferred".into());
    }
    let busy_at_home = |slot| Figures { in_flight: if slot == 0 { 9 } else { 0 }, ewma_us: 1000 };
    if (0..100).any(|random| pool.pick(random, 0, busy_at_home) == Some(0)) {
        return Err("a busy member of the own zone kept calls that another zone could take".into());
    }
    if (0..100).any(|random| pool.pick(random, 0b011, idle) != Some(2)) {
        return Err("a member that must not be picked was picked".into());
    }
    if let Some(slot) = pool.pick(0, 0b111, idle) {
        return Err(format!("slot {slot} was picked from nothing"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
