//! Children that nobody needs, and those that somebody needs again.

use std::collections::BTreeSet;

use super::Task;
use super::needs::Needs;
use crate::clock;
use crate::mesh::child::{Event, Start};
use crate::mesh::ids::Name;

impl Task {
    /// Puts to rest what nobody has used for long, and what need not be started before its first call.
    pub(super) fn let_rest(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let snapshot = self.registry.snapshot();
        for at in 0..self.children.len() {
            let kept = &mut self.children[at];
            let is_new = kept.life == 0 && !kept.is_settled() && kept.config.rules.start == Start::Lazy;
            if is_new && kept.is_known(&snapshot) || kept.may_rest() {
                self.step(at, Event::Rest);
            }
            self.children[at].watch(&mut self.lives, &self.reports);
        }
    }

    /// Who is about to start needs what rests.
    pub(super) fn wake_what_is_needed(&mut self) {
        let now = clock::mono();
        let needs = Needs::of(&self.children, &self.registry);
        let wants = self.children.iter().filter(|kept| kept.machine.wants_launch(now));
        let woken: BTreeSet<Name> =
            wants.flat_map(|kept| &kept.config.needs).filter(|need| needs.rests(need)).cloned().collect();
        for kept in self.children.iter_mut().filter(|kept| woken.contains(&kept.instance.spec.service)) {
            kept.machine.step(Event::Wake, now, 0);
        }
    }
}
