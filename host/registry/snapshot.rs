//! The world as one call sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::instance::{Instance, Service, ServiceCore};
use crate::clock;
use crate::mcp::catalogue::Catalogue;
use crate::mesh::ids::Name;
use crate::mesh::pool::Catalog;
use crate::mesh::time::Wall;
use crate::policy::PolicySet;

/// Everything that decides a call, immutable. A call takes one and keeps it to its end.
pub struct Snapshot {
    pub generation: u64,
    pub(super) services: HashMap<Name, Arc<Service>>,
    pub(super) instances: HashMap<Name, (Arc<Service>, Arc<Instance>)>,
    /// Services that are offered and have no instance now.
    pub(super) departed: Arc<HashMap<Name, Departed>>,
    /// Every service that ever was, with its counts: what was called is not forgotten with who answered.
    pub(super) totals: Arc<[(Name, Arc<ServiceCore>)]>,
    /// What routers are told of the services.
    pub catalog: Arc<Catalog>,
    /// Everything that is offered, also by services that are down.
    pub catalogue: Arc<Catalogue>,
    pub policies: Arc<PolicySet>,
}

/// A service whose last instance fell silent; what it offered is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    pub service: Name,
    /// The instance that was last there.
    pub instance: Name,
    /// When its lease ran out.
    pub at: Wall,
}

impl fmt::Display for Departed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = clock::iso(self.at);
        write!(f, "its last instance `{}` sent no more heartbeats and was removed at {at}", self.instance)
    }
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub enum Found<'a> {
    Service(&'a Arc<Service>),
    /// One instance and no other will do.
    Instance(&'a Arc<Service>, &'a Arc<Instance>),
}

impl<'a> Found<'a> {
    pub const fn service(self) -> &'a Arc<Service> {
        match self {
            Self::Service(service) | Self::Instance(service, _) => service,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            generation: 0,
            services: HashMap::new(),
            instances: HashMap::new(),
            departed: Arc::default(),
            totals: Arc::from([]),
            catalog: Arc::default(),
            catalogue: Arc::default(),
            policies: Arc::default(),
        }
    }
}

impl Snapshot {
    /// Counts of every service that ever was.
    pub fn totals(&self) -> &[(Name, Arc<ServiceCore>)] {
        &self.totals
    }

    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The instance of that name.
    pub fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.instances.get(name).map(|(_, instance)| instance)
    }

    /// The service that the instance of that name belongs to.
    pub fn service_of(&self, instance: &str) -> Option<&Arc<Service>> {
        self.instances.get(instance).map(|(service, _)| service)
    }

    /// A service, or else an instance, of that name.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        match self.services.get(name) {
            Some(service) => Some(Found::Service(service)),
            None => self.instances.get(name).map(|(service, instance)| Found::Instance(service, instance)),
        }
    }

    /// Why a service that is still offered has no instance, when it has none.
    pub fn departed(&self, name: &str) -> Option<&Departed> {
        self.departed.get(name)
    }

    pub fn all_departed(&self) -> impl Iterator<Item = &Departed> {
        self.departed.values()
    }

    /// All services by name.
    pub fn services(&self) -> Vec<&Arc<Service>> {
        let mut services: Vec<_> = self.services.values().collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().map(|(_, instance)| instance)
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }
}
