//! What services offer, and how long that is remembered: as long as a registration of the service is kept, so for
//! 24 hours after the last one ran out. An instance that leaves by itself (`/deregister`) is not waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Book, Record};
use crate::mesh::ids::Name;
use crate::mesh::instance::InstanceSpec;
use crate::mesh::offer::{Kind, Offer};
use crate::store::Change;

/// What differs from what is on disk, and is nobody's reason to wait.
#[derive(Default)]
pub(in crate::registry) struct Unwritten {
    /// Services whose offers changed.
    pub(super) offers: BTreeSet<Name>,
    /// Kept instances whose names the configuration took, or lost.
    pub(super) gone: BTreeSet<Name>,
}

impl Record {
    /// What is known of a record from its registration alone.
    pub(super) fn declared(spec: &InstanceSpec) -> Option<Arc<Offer>> {
        let tools = &spec.tools;
        (!tools.is_empty()).then(|| Arc::new(Offer::default().with(Kind::Tool, tools.to_vec())))
    }

    /// What is known after the same instance registered again: tools that it declares now replace the others.
    pub(super) fn declared_again(before: Option<Arc<Offer>>, spec: &InstanceSpec) -> Option<Arc<Offer>> {
        match before {
            Some(known) if !spec.tools.is_empty() => {
                Some(Arc::new(Offer::clone(&known).with(Kind::Tool, spec.tools.to_vec())))
            }
            Some(known) => Some(known),
            None => Self::declared(spec),
        }
    }
}

impl Book {
    /// Has a service's offer looked at before the next commit.
    pub(in crate::registry) fn touch_offer(&mut self, service: &Name) {
        self.unsettled.insert(service.clone());
    }

    /// Makes the offer of each touched service what its instances say now, or what they said last; forgets it when
    /// nothing of the service is kept. What changed is to be written down.
    pub(in crate::registry) fn settle_offers(&mut self) {
        let mut kept: BTreeMap<Name, Vec<&Record>> =
            std::mem::take(&mut self.unsettled).into_iter().map(|name| (name, Vec::new())).collect();
        if kept.is_empty() {
            return;
        }
        for record in self.records.values() {
            if let Some(records) = kept.get_mut(&record.spec.service) {
                records.push(record);
            }
        }
        for (name, records) in kept {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let known = records.iter().filter(|r| r.is_present()).filter_map(|r| r.offer.as_ref());
            let next = if known.clone().next().is_some() {
                Some(Offer::union(known))
            } else if records.is_empty() {
                None
            } else {
                Some(service.offer.clone().unwrap_or_default())
            };
            let changed = next != service.offer;
            if changed || service.marked.is_none() {
                let exposure = self.exposures.services.get(&name);
                service.marked = next.as_ref().map(|offer| {
                    exposure.map_or_else(|| Arc::clone(offer), |exposure| exposure.marked(offer))
                });
                service.published = None;
            }
            if changed {
                service.offer = next;
                self.unwritten.offers.insert(name);
            }
        }
    }

    pub(super) fn settle_all_offers(&mut self) {
        self.unsettled = self.services.keys().cloned().collect();
        self.settle_offers();
    }

    /// The last living instance of a service has left of its own accord: those whose leases ran out are not waited
    /// for either.
    pub(in crate::registry) fn forget_expired(&mut self, service: &Name) -> Vec<(Name, Record)> {
        let of_service = || self.records.iter().filter(|(_, record)| record.spec.service == *service);
        if of_service().any(|(_, record)| record.is_present()) {
            return Vec::new();
        }
        let expired: Vec<Name> = of_service().map(|(name, _)| name.clone()).collect();
        expired.into_iter().filter_map(|name| self.records.remove_entry(&name)).collect()
    }

    /// What is to be written down with the next commit; [`Book::owe`] takes it back when that fails.
    pub(in crate::registry) fn unwritten(&mut self) -> (Unwritten, Vec<Change>) {
        let unwritten = std::mem::take(&mut self.unwritten);
        let offers = unwritten.offers.iter().map(|name| {
            let offer = self.services.get(name).and_then(|record| record.offer.clone());
            offer.map_or_else(|| Change::OfferGone(name.clone()), |offer| Change::Offer(name.clone(), offer))
        });
        let gone = unwritten.gone.iter().cloned().map(Change::InstanceGone);
        let changes = gone.chain(offers).collect();
        (unwritten, changes)
    }

    /// What instances offer is as they say, written or not.
    pub(in crate::registry) fn owe(&mut self, unwritten: Unwritten) {
        self.unwritten.offers.extend(unwritten.offers);
        self.unwritten.gone.extend(unwritten.gone);
    }
}
