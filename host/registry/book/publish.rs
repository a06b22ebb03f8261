//! From the book to a snapshot; what did not change is shared with the last one.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Book, LOCAL_NODE};
use crate::mcp::catalogue::Catalogue;
use crate::mesh::health::HealthState;
use crate::mesh::ids::Name;
use crate::mesh::instance::Tool;
use crate::mesh::pool::{Catalog, CatalogService, Member, Pool};
use crate::registry::instance::{Instance, Service, ServiceCore, ToolSet};
use crate::registry::snapshot::Snapshot;

/// The merged tools, and what they were made of.
#[derive(Default)]
pub(super) struct Merged {
    catalogue: Arc<Catalogue>,
    sources: Vec<(Name, Arc<ToolSet>)>,
}

impl Merged {
    /// Made anew only when some service's tools are others.
    fn of(&mut self, services: &HashMap<Name, Arc<Service>>) -> Arc<Catalogue> {
        let mut sources: Vec<(Name, Arc<ToolSet>)> =
            services.values().map(|service| (service.name.clone(), Arc::clone(&service.tools))).collect();
        sources.sort_by(|a, b| a.0.cmp(&b.0));
        let same = sources.len() == self.sources.len()
            && sources
                .iter()
                .zip(&self.sources)
                .all(|(new, old)| new.0 == old.0 && Arc::ptr_eq(&new.1, &old.1));
        if !same {
            self.catalogue =
                Arc::new(Catalogue::new(sources.iter().map(|(name, tools)| (name, &**tools.list()))));
            self.sources = sources;
        }
        Arc::clone(&self.catalogue)
    }

    /// The set of before, when `tools` is the same.
    fn reuse(&self, service: &Name, tools: ToolSet) -> Arc<ToolSet> {
        let known = self.sources.iter().find(|(name, known)| name == service && **known == tools);
        known.map_or_else(|| Arc::new(tools), |(_, known)| Arc::clone(known))
    }
}

impl Book {
    /// The tools that a service's present instances declare, or that it is remembered for.
    fn tools_of(&self, service: &Name) -> Vec<Tool> {
        let present =
            self.records.values().filter(|record| record.spec.service == *service && record.is_present());
        let tools: Vec<Tool> = present.flat_map(|record| record.tools.iter().cloned()).collect();
        if tools.is_empty() {
            self.services.get(service).map(|s| s.remembered_tools.clone()).unwrap_or_default()
        } else {
            tools
        }
    }

    /// The tools to write down for a service when its instances have been asked.
    pub(in crate::registry) fn remember_tools(&mut self, service: &Name) -> Arc<[Tool]> {
        let set = ToolSet::new(self.tools_of(service));
        self.service(service).remembered_tools = set.list().to_vec();
        Arc::clone(set.list())
    }

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
        let tools = self.merged.of(&services);
        Snapshot {
            generation: self.generation,
            services,
            instances,
            totals: self.totals(last),
            catalog: Arc::clone(&self.catalog),
            tools,
            policies: Arc::clone(&last.policies),
        }
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
        let tools = self.merged.reuse(name, ToolSet::new(self.tools_of(name)));
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
            tools,
            since: record.since.unwrap_or_default(),
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
        tools: service.tools.list().iter().map(|tool| tool.name.to_string()).collect(),
        instances: u32::try_from(service.instances.len()).unwrap_or(u32::MAX),
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
    }
}
