//! Instances that are taken out of use, and back into it.

use std::sync::atomic::Ordering;

use super::{Book, Record};
use crate::mesh::drain::{Event, Order, Told, step};
use crate::mesh::ids::Name;
use crate::mesh::time::Mono;
use crate::registry::RegistryError;
use crate::registry::judge::judge;
use crate::store::Change;

impl Record {
    fn drain_step(&mut self, event: Event, now: Mono) -> Option<Told> {
        let (drain, told) = step(self.drain.take(), event, now);
        self.drain = drain;
        told
    }
}

impl Book {
    /// Takes an instance out of use, or with `None` back into it. Answers how it was before, and whether that was
    /// another state.
    pub(in crate::registry) fn drain(
        &mut self,
        name: &Name,
        order: Option<Order>,
        now: Mono,
        changes: &mut Vec<Change>,
    ) -> Result<(Record, Option<Told>), RegistryError> {
        let unknown = || RegistryError::UnknownInstance(name.clone());
        let record = self.records.get_mut(name).filter(|record| record.is_present()).ok_or_else(unknown)?;
        let before = record.clone();
        let told = record.drain_step(order.clone().map_or(Event::Revoked, Event::Ordered), now);
        if told.is_some() {
            judge(record, now, &self.times);
            record.touch();
            changes.push(Change::Drain(name.clone(), order));
            let service = record.spec.service.clone();
            self.touch_service(&service);
        }
        Ok((before, told))
    }

    /// Looks what is left where it was ordered; answers the instances where nothing is any more.
    pub(in crate::registry) fn look_at_drains(&mut self, now: Mono) -> Vec<(Name, Name)> {
        let drained = self.records.iter_mut().filter(|(_, record)| record.drain.is_some());
        let seen = drained.filter_map(|(name, record)| {
            let sessions = record.core.sessions.load(Ordering::Relaxed);
            let seen = Event::Seen { calls: record.core.live.in_flight(), sessions };
            let told = record.drain_step(seen, now);
            (told == Some(Told::Empty)).then(|| (record.spec.service.clone(), name.clone()))
        });
        seen.collect()
    }

    /// What was ordered before the restart.
    pub(super) fn resume_drain(&mut self, name: &Name, order: Order, now: Mono) {
        match self.records.get_mut(name) {
            Some(record) => drop(record.drain_step(Event::Ordered(order), now)),
            // One of the configuration that is left out now: it may be back at the next start.
            None => tracing::debug!(instance = %name, "an instance that was taken out of use is not there"),
        }
    }
}
