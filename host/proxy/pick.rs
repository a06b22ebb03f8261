//! Which instance takes an attempt: the balancers are asked in order, each answer is checked, and the native
//! balancer has the last word.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mesh::balance;
use crate::mesh::breaker::{Admission, Trial};
use crate::mesh::drain::Wants;
use crate::mesh::ids::{Name, Slot};
use crate::mesh::limit::Waited;
use crate::mesh::pool::Member;
use crate::mesh::story::{Figures, Picker, RIVALS_MAX, Rival, Tried, TriedEnd};
use crate::mesh::time::Mono;
use crate::policy::{Ask, PolicySet};
use crate::registry::{Found, Instance, Service, Takers};

/// Slots that this call must not get: tried already, or refused by their breaker.
#[derive(Clone, Debug, Default)]
pub(super) struct Excluded {
    /// Slots under 64, a bit each.
    low: u64,
    high: Vec<Slot>,
}

impl Excluded {
    pub(super) fn add(&mut self, slot: Slot) {
        match slot.0 {
            bit @ 0..64 => self.low |= 1 << bit,
            _ => self.high.push(slot),
        }
    }

    fn has(&self, slot: Slot) -> bool {
        match slot.0 {
            bit @ 0..64 => self.low & (1 << bit) != 0,
            _ => self.high.contains(&slot),
        }
    }
}

/// What one pick needs to know of its call.
pub(super) struct Question<'a> {
    /// Instances that are full are passed over.
    pub counts: bool,
    /// It is the rest of what was begun at that instance.
    pub continues: bool,
    /// Whether it may be sent again when it may have been done; asked only when that matters.
    pub repeatable: &'a (dyn Fn() -> bool + Sync),
    pub policies: &'a PolicySet,
    pub target: Found<'a>,
    pub tag: Option<&'a Name>,
    pub affinity: u64,
}

/// An instance that may be sent the call now.
pub(super) struct Picked<'a> {
    pub instance: &'a Arc<Instance>,
    /// The call is the one trial of a breaker that is half open.
    pub trial: Option<Trial>,
    by: Picker,
    candidates: u32,
    rivals: [Option<Rival>; RIVALS_MAX],
}

impl Picked<'_> {
    /// What is written down of the attempt that begins now.
    pub(super) fn told(&self) -> Tried {
        Tried {
            instance: self.instance.name().clone(),
            by: self.by.clone(),
            figures: Figures::of(&self.instance.core.live),
            candidates: self.candidates,
            rivals: self.rivals,
            hedges: false,
            waited: Waited::default(),
            us: 0,
            end: TriedEnd::Left,
        }
    }
}

impl<'a> Question<'a> {
    /// The instance for the next attempt, and `None` when no instance is left that could be asked. Breakers are
    /// overruled when all that is left is behind open ones: at most half of a pool may be ejected.
    pub(super) fn pick(&self, tried: &Excluded, now: Mono) -> Option<Picked<'a>> {
        if let Some(picked) = self.trial(tried, now) {
            return Some(picked);
        }
        let mut excluded = Excluded { low: tried.low, high: tried.high.clone() };
        while let Some((instance, by)) = self.choose(&excluded, now) {
            if instance.core.guard.is_due(now) && !self.may_try(instance) {
                excluded.add(instance.slot);
                continue;
            }
            match instance.core.guard.admits(now) {
                Admission::Yes => return Some(self.picked(instance, None, by, &excluded)),
                Admission::Trial(trial) => {
                    return Some(self.picked(instance, Some(trial), by, &excluded));
                }
                Admission::No => excluded.add(instance.slot),
            }
        }
        self.choose(tried, now).map(|(instance, by)| {
            let trial = instance.core.guard.trial(now);
            self.picked(instance, trial, by, tried)
        })
    }

    /// What cannot be repeated is risked only where probes are answered.
    fn may_try(&self, instance: &Instance) -> bool {
        instance.answers_probes() || (self.repeatable)()
    }

    /// An instance whose breaker waits for a trial looks bad to every balancer, so it is not left to them.
    fn trial(&self, tried: &Excluded, now: Mono) -> Option<Picked<'a>> {
        let Found::Service(service) = self.target else { return None };
        let due = &service.core.trial_due;
        if !due.load(Ordering::Relaxed) {
            return None;
        }
        let waits = |instance: &&Arc<Instance>| {
            instance.is_due(now) && self.qualifies(instance, tried) && self.may_try(instance)
        };
        let instance = service.instances.iter().find(waits)?;
        if !due.swap(false, Ordering::Relaxed) {
            return None;
        }
        let trial = instance.core.guard.trial(now)?;
        Some(self.picked(instance, Some(trial), Picker::Trial, tried))
    }

    /// With those that could have been picked as well.
    fn picked(
        &self,
        instance: &'a Arc<Instance>,
        trial: Option<Trial>,
        by: Picker,
        excluded: &Excluded,
    ) -> Picked<'a> {
        let (mut candidates, mut rivals, mut known) = (0, [None; RIVALS_MAX], 0);
        match self.target {
            Found::Instance(..) => candidates = 1,
            Found::Service(service) => {
                let panics = service.core.panics.load(Ordering::Relaxed) || by == Picker::Panic;
                for other in &service.instances {
                    let figures = Figures::of(&other.core.live);
                    let usable = self.qualifies(other, excluded) && (panics || figures.share_permille > 0);
                    candidates += u32::from(usable);
                    if usable && known < RIVALS_MAX && other.slot != instance.slot {
                        rivals[known] = Some(Rival { slot: other.slot, figures });
                        known += 1;
                    }
                }
            }
        }
        Picked { instance, trial, by, candidates, rivals }
    }

    fn qualifies(&self, instance: &Instance, excluded: &Excluded) -> bool {
        self.may_take(instance, excluded) && !self.is_full(instance)
    }

    fn may_take(&self, instance: &Instance, excluded: &Excluded) -> bool {
        self.is_there(instance) && self.fits(instance, excluded)
    }

    fn fits(&self, instance: &Instance, excluded: &Excluded) -> bool {
        !excluded.has(instance.slot) && self.tag.is_none_or(|tag| instance.spec.tags.contains(tag))
    }

    fn is_there(&self, instance: &Instance) -> bool {
        let wants = if self.continues { Wants::Rest } else { Wants::New };
        instance.is_alive() && instance.admits(wants)
    }

    fn is_full(&self, instance: &Instance) -> bool {
        self.counts && instance.core.live.is_full()
    }

    /// The instances that would be picked from if they were not full.
    pub(super) fn takers(&self, tried: &Excluded) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.targets().filter(|instance| self.may_take(instance, tried))
    }

    fn targets(&self) -> impl Iterator<Item = &'a Arc<Instance>> {
        let (service, alone) = match self.target {
            Found::Service(service) => (service.instances.as_slice(), None),
            Found::Instance(_, instance) => (&[][..], Some(instance)),
        };
        service.iter().chain(alone)
    }

    /// Where a place is worth waiting for, be the instance there now or not.
    pub(super) fn waits_for(&self, tried: &Excluded) -> Takers {
        let fitting = self.targets().filter(|instance| self.fits(instance, tried));
        fitting.map(|instance| instance.slot).collect()
    }

    /// Calls that the takers have room for.
    pub(super) fn room(&self, tried: &Excluded) -> u32 {
        let rooms = self.takers(tried).map(|taker| &taker.core.live);
        rooms.fold(0, |all, live| all.saturating_add(live.limit().saturating_sub(live.in_flight())))
    }

    /// As much as `room`, and 1 when there is nothing to wait for.
    pub(super) fn openings(&self, tried: &Excluded) -> u32 {
        if self.is_crowded(tried) { 0 } else { self.room(tried).max(1) }
    }

    /// Whether there are takers, and all of them are full.
    pub(super) fn is_crowded(&self, tried: &Excluded) -> bool {
        let mut takers = self.takers(tried).peekable();
        takers.peek().is_some() && takers.all(|instance| self.is_full(instance))
    }

    fn choose(&self, excluded: &Excluded, now: Mono) -> Option<(&'a Arc<Instance>, Picker)> {
        let service = match self.target {
            Found::Service(service) => service,
            Found::Instance(_, instance) => {
                let usable =
                    self.is_there(instance) && !excluded.has(instance.slot) && !self.is_full(instance);
                return usable.then_some((instance, Picker::Caller));
            }
        };
        let panics = service.core.panics.load(Ordering::Relaxed);
        let random = fastrand::u64(..);
        let qualifies = |instance: &Instance| self.qualifies(instance, excluded);
        if let Some(picked) = self.ask_balancers(service, (random, now), &qualifies, panics) {
            return Some(picked);
        }
        let not_this =
            |member: &Member| service.instance(member.slot).is_none_or(|instance| !qualifies(instance));
        let slot = if panics { None } else { balance::pick(&service.pool, not_this, random) };
        let (slot, by) = match slot {
            Some(slot) => (slot, Picker::Native),
            None => (balance::pick_panic(&service.pool, not_this, random)?, Picker::Panic),
        };
        service.instance(slot).map(|instance| (instance, by))
    }

    fn ask_balancers(
        &self,
        service: &'a Service,
        (random, now): (u64, Mono),
        qualifies: &impl Fn(&Instance) -> bool,
        panics: bool,
    ) -> Option<(&'a Arc<Instance>, Picker)> {
        if self.policies.balancers.is_empty() {
            return None;
        }
        let usable =
            |instance: &Instance| qualifies(instance) && (panics || instance.core.live.share_permille() > 0);
        let excluded = service.instances.iter().filter(|i| i.slot.0 < 64 && !usable(i));
        let excluded = excluded.fold(0, |bits, instance| bits | (1 << instance.slot.0));
        let ask = Ask { affinity: self.affinity, random, excluded, now };
        for balancer in &self.policies.balancers {
            // A fault has been counted where it happened; the next balancer is asked.
            let Ok(Some(slot)) = balancer.pick(&service.pool, ask) else { continue };
            let instance = service.instance(slot);
            match instance.filter(|instance| usable(instance)) {
                Some(instance) => {
                    let by = Arc::clone(balancer.source());
                    let why = balancer.why(&service.pool, now);
                    return Some((instance, Picker::Plugin { by, why }));
                }
                None => balancer.overruled(&service.pool, ask, instance.is_some()),
            }
        }
        None
    }
}
