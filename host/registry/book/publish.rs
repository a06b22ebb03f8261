//! From the book to a snapshot; what did not change is shared with the last one.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Book, LOCAL_NODE};
use crate::mesh::health::HealthState;
use crate::mesh::ids::Name;
use crate::mesh::pool::{Catalog, CatalogService, Member, Pool};
use crate::registry::instance::{Instance, Service, ServiceCore};
use crate::registry::snapshot::{Departed, Snapshot};

impl Book {
    /// A snapshot of everything; what did not change is shared with the last one.
    pub(in crate::registry) fn publish(&mut self, last: &Snapshot) -> Snapshot {
        self.generation += 1;
        let mut members: HashMap<Name, Vec<Arc<Instance>>> = HashMap::new();
        for record in self.records.values_mut().filter(|record| record.is_present()) {
            let service = record.spec.service.clone();
            members.entry(service).or_default().push(record.publish());
        }
        let mut services = HashMap::with_capacity(members.len());
        let mut instances = HashMap::with_capacity(self.records.len());
        for (name, mut of_service) in members {
            of_service.sort_by_key(|instance| instance.slot);
            let service = self.publish_service(&name, of_service);
            for instance in &service.instances {
                instances.insert(instance.name().clone(), (Arc::clone(&service), Arc::clone(instance)));
            }
            services.insert(name, service);
        }
        self.publish_catalog(&services);
        let offers =
            self.services.iter().filter_map(|(name, service)| Some((name, service.marked.as_ref()?)));
        let catalogue = last.catalogue.next(offers, &self.exposures);
        let departed = self.departed(&services);
        let departed =
            if departed == *last.departed { Arc::clone(&last.departed) } else { Arc::new(departed) };
        Snapshot {
            generation: self.generation,
            services,
            instances,
            departed,
            totals: self.totals(last),
            catalog: Arc::clone(&self.catalog),
            catalogue,
            policies: Arc::clone(&last.policies),
        }
    }

    fn departed(&self, present: &HashMap<Name, Arc<Service>>) -> HashMap<Name, Departed> {
        let mut departed: HashMap<Name, Departed> = HashMap::new();
        for (name, record) in &self.records {
            let (service, Some(at)) = (&record.spec.service, record.expired_at) else { continue };
            let later = departed.get(service).is_none_or(|last| last.at < at);
            if later && !present.contains_key(service) {
                let gone = Departed { service: service.clone(), instance: name.clone(), at };
                departed.insert(service.clone(), gone);
            }
        }
        departed
    }

    /// Services are never forgotten, so as many as before are the same as before.
    fn totals(&self, last: &Snapshot) -> Arc<[(Name, Arc<ServiceCore>)]> {
        if last.totals.len() == self.services.len() {
            return Arc::clone(&last.totals);
        }
        self.services.iter().map(|(name, service)| (name.clone(), Arc::clone(&service.core))).collect()
    }

    fn publish_service(&mut self, name: &Name, instances: Vec<Arc<Instance>>) -> Arc<Service> {
        if let Some(service) = self.services.get(name).and_then(|record| record.published.as_ref()) {
            return Arc::clone(service);
        }
        let hedge = self.limits.hedges.get(name).copied();
        let record = self.service(name);
        let local = Name::new(LOCAL_NODE).expect("a good name");
        let members = instances.iter().map(|instance| Member {
            slot: instance.slot,
            instance: instance.name().clone(),
            node: local.clone(),
            zone: instance.spec.zone.clone(),
            weight: instance.spec.weight,
            tags: Arc::clone(&instance.spec.tags),
            live: Arc::clone(&instance.core.live),
        });
        let pool = Arc::new(Pool {
            id: record.pool,
            version: record.pool_version,
            service: name.clone(),
            members: members.collect(),
            loads_version: Arc::clone(&record.loads_version),
        });
        let service = Arc::new(Service {
            name: name.clone(),
            pool,
            instances,
            offer: record.marked.clone().unwrap_or_default(),
            since: record.since.unwrap_or_default(),
            hedge,
            core: Arc::clone(&record.core),
        });
        record.published = Some(Arc::clone(&service));
        service
    }

    fn publish_catalog(&mut self, services: &HashMap<Name, Arc<Service>>) {
        let mut list: Vec<CatalogService> = services.values().map(|service| catalog_entry(service)).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        if list != self.catalog.services {
            self.catalog = Arc::new(Catalog { version: self.catalog.version + 1, services: list });
        }
    }
}

fn catalog_entry(service: &Service) -> CatalogService {
    // Tags that calls can be sent to now: a canary that crashed must not go on taking its share.
    let usable = service.instances.iter().filter(|i| i.is_routable() && i.core.live.share_permille() > 0);
    let mut tags: Vec<Name> = usable.flat_map(|i| i.spec.tags.iter().cloned()).collect();
    tags.sort();
    tags.dedup();
    let healthy =
        service.instances.iter().filter(|i| i.is_routable() && i.health == HealthState::Healthy).count();
    CatalogService {
        name: service.name.clone(),
        tags,
        tools: service.offer.tools().iter().map(|tool| tool.key.to_string()).collect(),
        instances: u32::try_from(service.instances.len()).unwrap_or(u32::MAX),
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
    }
}
