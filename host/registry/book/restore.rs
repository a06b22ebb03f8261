//! The book at the start: what was kept, and what the configuration names, then and later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::offers::Unwritten;
use super::{Book, Record};
use crate::mesh::health::Health;
use crate::mesh::ids::Name;
use crate::mesh::instance::InstanceSpec;
use crate::mesh::lease::Lease;
use crate::mesh::reliability::{self, Subject};
use crate::mesh::stats::CallCounts;
use crate::mesh::time::{Mono, Wall};
use crate::registry::instance::ServiceCore;
use crate::registry::{Reconfigured, Settings, Terms};
use crate::store::{Change, Kept};
use crate::upstream::Peer;

impl Book {
    pub(in crate::registry) fn restore(mut kept: Kept, settings: &Settings, now: Mono, wall: Wall) -> Self {
        let (times, workers) = (settings.lease, settings.workers);
        let mut book = Self {
            records: BTreeMap::new(),
            services: BTreeMap::new(),
            times,
            workers,
            launcher: settings.launcher.clone(),
            next_pool: 0,
            next_id: 1,
            generation: 0,
            catalog: Arc::default(),
            exposures: Arc::clone(&settings.exposures),
            limits: settings.limits.clone(),
            unsettled: BTreeSet::new(),
            unwritten: Unwritten::default(),
        };
        for (totals, since) in kept.services {
            let service = book.service(&totals.name);
            service.since = since;
            service.core = Arc::new(ServiceCore::seeded(totals.counts));
        }
        for (name, offer) in kept.offers {
            book.service(&name).offer = Some(Arc::new(offer));
        }
        let configured: BTreeSet<&Name> = settings.instances.iter().map(|spec| &spec.name).collect();
        for (row, figures) in kept.instances {
            if configured.contains(&row.spec.name) {
                book.unwritten.gone.insert(row.spec.name.clone());
                kept.configured.extend(figures.map(|figures| (figures.name, figures.counts)));
                continue;
            }
            book.next_id = book.next_id.max(row.id + 1);
            let slot = book.take_slot(&row.spec.service, now);
            let mut lease = Lease::restored(now, row.epoch);
            if row.expired_at.is_some() {
                lease = Lease::expired(now, row.epoch);
            }
            let counts = figures.as_ref().map(|f| f.counts).unwrap_or_default();
            let core = book.core(&row.spec.service, counts);
            core.live.set_health(figures.as_ref().map_or(0, |f| f.score), 0, 1000);
            core.heartbeat_at.store(now.as_micros(), Ordering::Relaxed);
            let record = Record {
                id: row.id,
                slot,
                token_hash: row.token_hash,
                configured: false,
                child: None,
                may_move: true,
                lease,
                registered_at: row.registered_at,
                expired_at: row.expired_at,
                health: Health::new(now),
                reason: "restored, not probed yet".to_owned(),
                since: row.registered_at,
                drain: None,
                offer: Record::declared(&row.spec),
                peer: Arc::new(Peer::new(&row.spec.endpoint, workers, &book.launcher)),
                core: Arc::new(core),
                published: None,
                spec: row.spec,
            };
            book.records.insert(record.spec.name.clone(), record);
        }
        for spec in &settings.instances {
            let counts = kept.configured.remove(&spec.name).unwrap_or_default();
            book.configure(spec, counts, now, wall);
        }
        // The file lost them while nobody looked.
        let mut lost: BTreeSet<Name> = kept.configured.into_keys().collect();
        for kept in kept.reliability {
            lost.extend(book.resume_figures(kept, now));
        }
        // Whoever is to be out of use when it comes back is expected back.
        lost.retain(|lost| !kept.drains.iter().any(|(name, _)| name == lost));
        book.unwritten.gone.extend(lost);
        for (name, order) in kept.drains {
            book.resume_drain(&name, order, now);
        }
        book.settle_all_offers();
        book
    }

    /// The instance of these, when it is not there.
    fn resume_figures(&self, kept: reliability::Kept, now: Mono) -> Option<Name> {
        match &kept.of {
            Subject::Service(name) => {
                if let Some(service) = self.services.get(name) {
                    service.core.uptime(|uptime| *uptime = kept.record.uptime);
                }
            }
            Subject::Instance(name) => {
                let Some(record) = self.records.get(name) else { return Some(name.clone()) };
                record.core.resume(kept, now);
            }
        }
        None
    }

    /// Makes the instances of the configuration these; those that are named as before stay as they are. Answers
    /// the others, which were members until now, and how many are new.
    pub(in crate::registry) fn reconfigure(
        &mut self,
        terms: Terms,
        now: Mono,
        wall: Wall,
        changes: &mut Vec<Change>,
    ) -> Reconfigured {
        let Terms { instances: specs, exposures, limits } = terms;
        if self.limits.hedges != limits.hedges {
            self.services.values_mut().for_each(|service| service.published = None);
        }
        self.limits = limits;
        for record in self.records.values() {
            record.core.live.set_limit(self.limits.of(&record.spec.service));
        }
        let stays = |record: &Record| specs.iter().any(|spec| *spec == *record.spec);
        let leaving: Vec<Name> = self
            .records
            .iter()
            .filter(|(_, record)| record.configured && !stays(record))
            .map(|(name, _)| name.clone())
            .collect();
        let (mut left, mut past) = (Vec::new(), BTreeMap::new());
        for name in leaving {
            left.extend(self.records.get_mut(&name).map(Record::publish));
            changes.push(Change::Drain(name.clone(), None));
            self.leave_service(&name, now, wall, changes);
            past.extend(self.records.remove(&name).map(|record| (name, record.core)));
        }
        let mut joined = 0;
        for spec in &specs {
            self.unwritten.gone.remove(&spec.name);
            if self.records.get(&spec.name).is_some_and(|record| record.configured) {
                continue;
            }
            // The configuration comes first: who registered under that name is told so when it registers again.
            if self.records.get(&spec.name).is_some_and(Record::is_present) {
                self.leave_service(&spec.name, now, wall, changes);
            }
            if let Some(registered) = self.records.remove(&spec.name) {
                self.touch_offer(&registered.spec.service);
                changes.push(Change::InstanceGone(spec.name.clone()));
                past.insert(spec.name.clone(), registered.core);
            }
            let before = past.remove(&spec.name);
            let counts = before.as_ref().map(|core| core.counters.snapshot());
            self.configure(spec, counts.unwrap_or_default(), now, wall);
            if let (Some(before), Some(record)) = (before, self.records.get(&spec.name)) {
                record.core.succeed(&before, &spec.name, now);
            }
            self.touch_pool(&spec.service);
            joined += 1;
        }
        // Whoever left and has no successor is forgotten, as one that deregisters.
        self.unwritten.gone.extend(past.into_keys());
        if *self.exposures != *exposures {
            self.exposures = exposures;
            self.services.values_mut().for_each(|service| service.marked = None);
            self.settle_all_offers();
        }
        Reconfigured { joined, left }
    }

    /// Takes an instance of the configuration in. Like a restored one it is routed to after a good probe.
    fn configure(&mut self, spec: &InstanceSpec, counts: CallCounts, now: Mono, wall: Wall) {
        let slot = self.take_slot(&spec.service, now);
        let core = self.core(&spec.service, counts);
        core.live.set_health(0, 0, 1000);
        let record = Record {
            spec: Arc::new(spec.clone()),
            id: self.next_id,
            slot,
            token_hash: [0; 32],
            configured: true,
            child: None,
            may_move: false,
            lease: Lease::restored(now, 1),
            registered_at: wall,
            expired_at: None,
            health: Health::new(now),
            reason: "from the configuration, not probed yet".to_owned(),
            since: wall,
            drain: None,
            offer: None,
            peer: Arc::new(Peer::new(&spec.endpoint, self.workers, &self.launcher)),
            core: Arc::new(core),
            published: None,
        };
        self.next_id += 1;
        self.service(&spec.service).since.get_or_insert(wall);
        self.records.insert(spec.name.clone(), record);
    }
}
