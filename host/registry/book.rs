//! The registry's own state, and how it becomes a snapshot.

mod drains;
mod offers;
mod publish;
mod restore;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::instance::{Instance, InstanceCore, Service, ServiceCore};
use super::{ChildSight, Grant, INSTANCES_MAX, InstanceLimits, RegistryError, Token};
use crate::mesh::drain::Drain;
use crate::mesh::exposure::Exposures;
use crate::mesh::health::{Health, HealthState};
use crate::mesh::ids::{Name, PoolId, Slot};
use crate::mesh::instance::InstanceSpec;
use crate::mesh::lease::{Lease, LeasePhase, LeaseTimes};
use crate::mesh::offer::Offer;
use crate::mesh::pool::Catalog;
use crate::mesh::stats::CallCounts;
use crate::mesh::time::{Mono, Wall};
use crate::process::Launcher;
use crate::store::{Change, InstanceRow};
use crate::upstream::Peer;
use offers::Unwritten;

/// How long a slot rests before another instance may get it.
const SLOT_REST: Duration = Duration::from_secs(60);
/// The node that instances run on when they name none: this one.
const LOCAL_NODE: &str = "local";

#[derive(Clone)]
pub(super) struct Record {
    pub spec: Arc<InstanceSpec>,
    pub id: u64,
    pub slot: Slot,
    pub token_hash: [u8; 32],
    /// From the configuration: it has no lease and no token, and is not written down.
    pub configured: bool,
    /// How it is seen by whoever supervises it, once it was.
    pub child: Option<ChildSight>,
    /// Whether the token may move the name to another endpoint: not when it was given to whoever repeated the
    /// registration of a living instance without showing one.
    pub may_move: bool,
    pub lease: Lease,
    pub registered_at: Wall,
    pub expired_at: Option<Wall>,
    pub health: Health,
    pub reason: String,
    pub since: Wall,
    pub drain: Option<Drain>,
    /// What it declared, or what it answered when it was asked; `None` before either.
    pub offer: Option<Arc<Offer>>,
    pub peer: Arc<Peer>,
    pub core: Arc<InstanceCore>,
    /// What the snapshot shows; `None` when it must be made anew.
    published: Option<Arc<Instance>>,
}

impl Record {
    pub(super) fn is_present(&self) -> bool {
        self.lease.phase() != LeasePhase::Expired
    }

    /// Makes the next snapshot show this record as it is now.
    pub(super) fn touch(&mut self) {
        self.published = None;
    }

    fn row(&self) -> InstanceRow {
        InstanceRow {
            spec: Arc::clone(&self.spec),
            id: self.id,
            token_hash: self.token_hash,
            epoch: self.lease.epoch(),
            registered_at: self.registered_at,
            expired_at: self.expired_at,
        }
    }

    fn publish(&mut self) -> Arc<Instance> {
        if let Some(instance) = &self.published {
            return Arc::clone(instance);
        }
        let lacks = self.child.as_ref().and_then(|child| child.lacks.as_ref());
        let health = self.health.state();
        let instance = Arc::new(Instance {
            spec: Arc::clone(&self.spec),
            id: self.id,
            slot: self.slot,
            epoch: self.lease.epoch(),
            registered_at: self.registered_at,
            phase: self.lease.phase(),
            configured: self.configured,
            // Who lacks what it needs is degraded at best.
            health: if lacks.is_some() { health.min(HealthState::Degraded) } else { health },
            reason: lacks.filter(|_| self.reason.is_empty()).unwrap_or(&self.reason).clone(),
            child: self.child.as_ref().map(|child| (child.state, child.next_try)),
            since: self.since,
            drain: self.drain.clone(),
            peer: Arc::clone(&self.peer),
            core: Arc::clone(&self.core),
        });
        self.published = Some(Arc::clone(&instance));
        instance
    }
}

struct ServiceRecord {
    pool: PoolId,
    pool_version: u64,
    next_slot: u32,
    /// Slots that are free, and since when.
    rested: VecDeque<(Slot, Mono)>,
    loads_version: Arc<AtomicU64>,
    core: Arc<ServiceCore>,
    since: Option<Wall>,
    /// What its instances offer, or offered when they were last asked; `None` when nothing of it is kept.
    offer: Option<Arc<Offer>>,
    /// The same with the operator's marks on it: what everybody else sees.
    marked: Option<Arc<Offer>>,
    published: Option<Arc<Service>>,
}

pub(super) struct Book {
    pub records: BTreeMap<Name, Record>,
    services: BTreeMap<Name, ServiceRecord>,
    pub times: LeaseTimes,
    workers: usize,
    launcher: Launcher,
    next_pool: u32,
    next_id: u64,
    generation: u64,
    catalog: Arc<Catalog>,
    exposures: Arc<Exposures>,
    limits: InstanceLimits,
    /// Services whose offers may be others now.
    unsettled: BTreeSet<Name>,
    unwritten: Unwritten,
}

/// Says whether `token` is that of `hash`, in constant time.
fn matches(token: &str, hash: &[u8; 32]) -> bool {
    hash_of(token).ct_eq(hash).into()
}

fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn new_token() -> String {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    hex::encode(bytes)
}

impl Book {
    fn service(&mut self, name: &Name) -> &mut ServiceRecord {
        self.services.entry(name.clone()).or_insert_with(|| {
            let pool = PoolId(self.next_pool);
            self.next_pool += 1;
            ServiceRecord {
                pool,
                pool_version: 0,
                next_slot: 0,
                rested: VecDeque::new(),
                loads_version: Arc::default(),
                core: Arc::default(),
                since: None,
                offer: None,
                marked: None,
                published: None,
            }
        })
    }

    /// What calls change of an instance of that service.
    fn core(&mut self, service: &Name, counts: CallCounts) -> InstanceCore {
        let limit = self.limits.of(service);
        InstanceCore::seeded(counts, limit, &self.service(service).core.line)
    }

    fn take_slot(&mut self, service: &Name, now: Mono) -> Slot {
        let service = self.service(service);
        if service.rested.front().is_some_and(|(_, since)| now.since(*since) >= SLOT_REST)
            && let Some((slot, _)) = service.rested.pop_front()
        {
            return slot;
        }
        let slot = Slot(service.next_slot);
        service.next_slot += 1;
        slot
    }

    fn give_slot_back(&mut self, service: &Name, slot: Slot, now: Mono) {
        self.service(service).rested.push_back((slot, now));
    }

    /// Makes the next snapshot show a service's membership as it is now.
    pub(super) fn touch_pool(&mut self, service: &Name) {
        self.touch_offer(service);
        let service = self.service(service);
        service.pool_version += 1;
        service.published = None;
    }

    /// Makes the next snapshot show a service's instances as they are now, and balancers hear of their loads.
    pub(super) fn touch_service(&mut self, service: &Name) {
        let service = self.service(service);
        service.loads_version.fetch_add(1, Ordering::Relaxed);
        service.published = None;
    }

    pub(super) fn register(
        &mut self,
        spec: InstanceSpec,
        token: &Token,
        now: Mono,
        wall: Wall,
        changes: &mut Vec<Change>,
    ) -> Result<Grant, RegistryError> {
        let name = spec.name.clone();
        if self.records.get(&name).is_some_and(|record| record.configured) {
            return Err(RegistryError::Configured(name));
        }
        let known = self.records.get(&name).map(|record| {
            let owner = token.as_deref().is_some_and(|token| matches(token, &record.token_hash));
            let same = record.spec.endpoint == spec.endpoint;
            (owner, same || (owner && record.may_move), record.is_present())
        });
        match known {
            Some((false, _, true)) if token.is_some() => return Err(RegistryError::WrongToken(name)),
            Some((_, false, true)) => {
                let endpoint = self.records[&name].spec.endpoint.to_string();
                return Err(RegistryError::NameTaken { name, endpoint });
            }
            None if self.records.len() >= INSTANCES_MAX => self.make_room(changes)?,
            _ => {}
        }
        let keeps_token = known.is_some_and(|(owner, ..)| owner);
        let token = match token {
            Some(token) if keeps_token => token.clone(),
            _ => new_token(),
        };
        let spec = Arc::new(spec);
        let renewed = known.is_some_and(|(.., present)| present);
        let moved = self.records.get(&name).is_some_and(|record| record.spec.service != spec.service);
        if moved && renewed {
            self.leave_service(&name, now, wall, changes);
        }
        if let Some(service) = self.records.get(&name).map(|record| record.spec.service.clone()) {
            self.touch_offer(&service);
        }
        let slot = match self.records.get(&name).filter(|record| !moved && record.is_present()) {
            Some(record) => record.slot,
            None => self.take_slot(&spec.service, now),
        };
        let fresh_id = self.next_id;
        let may_move = match self.records.get(&name) {
            Some(record) if keeps_token => record.may_move,
            _ => !renewed,
        };
        let record = self.renew(&spec, slot, fresh_id, hash_of(&token), now, wall);
        record.may_move = may_move;
        let grant = Grant {
            instance: name.clone(),
            service: spec.service.clone(),
            id: record.id,
            token,
            epoch: record.lease.epoch(),
            renewed,
        };
        changes.push(Change::Instance(record.row()));
        self.next_id = self.next_id.max(grant.id + 1);
        let service = self.service(&spec.service);
        if service.since.is_none() {
            service.since = Some(wall);
            changes.push(Change::ServiceSince(spec.service.clone(), Some(wall)));
        }
        self.touch_pool(&spec.service);
        Ok(grant)
    }

    /// Lets the oldest expired record go.
    fn make_room(&mut self, changes: &mut Vec<Change>) -> Result<(), RegistryError> {
        let expired = self.records.iter().filter(|(_, record)| !record.is_present());
        let oldest = expired.min_by_key(|(_, record)| record.expired_at).map(|(name, _)| name.clone());
        let oldest = oldest.ok_or(RegistryError::Full)?;
        if let Some(record) = self.records.remove(&oldest) {
            self.touch_offer(&record.spec.service);
        }
        changes.push(Change::InstanceGone(oldest));
        Ok(())
    }

    /// Puts the record of a registration in place; counts of an earlier one of the same name go on.
    fn renew(
        &mut self,
        spec: &Arc<InstanceSpec>,
        slot: Slot,
        fresh_id: u64,
        token_hash: [u8; 32],
        now: Mono,
        wall: Wall,
    ) -> &mut Record {
        let peer = Arc::new(Peer::new(&spec.endpoint, self.workers, &self.launcher));
        let counts = self.records.get(&spec.name).map(|old| old.core.counters.snapshot());
        let core = self.core(&spec.service, counts.unwrap_or_default());
        if let Some(old) = self.records.get(&spec.name) {
            core.succeed(&old.core, &spec.name, now);
        }
        let fresh = |core: Arc<InstanceCore>, id: u64, lease: Lease| {
            core.live.set_health(100, 1000, 1000);
            core.heartbeat_at.store(now.as_micros(), Ordering::Relaxed);
            core.refused.store(false, Ordering::Relaxed);
            Record {
                spec: Arc::clone(spec),
                id,
                slot,
                token_hash,
                configured: false,
                child: None,
                may_move: true,
                lease,
                registered_at: wall,
                expired_at: None,
                health: Health::new(now),
                reason: String::new(),
                since: wall,
                drain: None,
                offer: Record::declared(spec),
                peer,
                core,
                published: None,
            }
        };
        let record = match self.records.remove(&spec.name) {
            None => fresh(Arc::new(core), fresh_id, Lease::granted(now)),
            Some(mut old) if old.is_present() && old.spec.endpoint == spec.endpoint => {
                // What is known of it stays known; only the session may be another process's.
                old.peer.begin_anew();
                old.lease.reregister(now);
                old.core.heartbeat_at.store(now.as_micros(), Ordering::Relaxed);
                old.core.refused.store(false, Ordering::Relaxed);
                old.offer = Record::declared_again(old.offer, spec);
                Record { spec: Arc::clone(spec), slot, token_hash, published: None, ..old }
            }
            Some(old) => {
                let mut lease = old.lease.clone();
                lease.reregister(now);
                let offer = Record::declared(spec).or_else(|| old.offer.clone());
                let mut record = fresh(Arc::new(core), old.id, lease);
                record.drain = old.drain.clone();
                record.offer = offer;
                record.registered_at = if old.is_present() { old.registered_at } else { wall };
                record
            }
        };
        self.records.entry(spec.name.clone()).or_insert(record)
    }

    /// The instance stops being a member of its service; the last one ends the service.
    pub(super) fn leave_service(&mut self, name: &Name, now: Mono, wall: Wall, changes: &mut Vec<Change>) {
        let Some(record) = self.records.get(name) else { return };
        let (service, slot) = (record.spec.service.clone(), record.slot);
        self.give_slot_back(&service, slot, now);
        let others = self
            .records
            .values()
            .any(|other| other.spec.service == service && other.spec.name != *name && other.is_present());
        if !others {
            tracing::debug!(service = %service, at = wall.as_millis(), "service has no instance left");
            let pool = PoolId(self.next_pool);
            self.next_pool += 1;
            let record = self.service(&service);
            record.since = None;
            // Another pool if it comes back: balancers are told that this one is gone.
            record.pool = pool;
            record.loads_version = Arc::default();
            changes.push(Change::ServiceSince(service.clone(), None));
        }
        self.touch_pool(&service);
    }

    /// Takes back what could not be made durable.
    pub(super) fn undo(&mut self, before: Vec<(Name, Option<Record>)>) {
        for (name, record) in before.into_iter().rev() {
            if let Some(record) = record.as_ref().filter(|record| record.is_present()) {
                self.service(&record.spec.service).rested.retain(|(slot, _)| *slot != record.slot);
            }
            let touched = [self.records.remove(&name), record.clone()];
            if let Some(record) = record {
                self.records.insert(name, record);
            }
            for service in touched.into_iter().flatten().map(|record| record.spec.service.clone()) {
                let present: Vec<Wall> = self
                    .records
                    .values()
                    .filter(|record| record.spec.service == service && record.is_present())
                    .map(|record| record.registered_at)
                    .collect();
                self.service(&service).since = present.into_iter().min();
                self.touch_pool(&service);
            }
        }
    }

    /// The record, if `token` may act for it: any does while authentication is off and none is given.
    pub(super) fn authorized(
        &mut self,
        name: &Name,
        token: &Token,
    ) -> Result<Option<&mut Record>, RegistryError> {
        match (self.records.get_mut(name), token) {
            (None, _) => Ok(None),
            (Some(record), _) if record.configured => Err(RegistryError::Configured(name.clone())),
            (Some(record), Some(token)) if !matches(token, &record.token_hash) => {
                Err(RegistryError::WrongToken(name.clone()))
            }
            (Some(record), _) => Ok(Some(record)),
        }
    }

    pub(super) fn row(&self, name: &Name) -> Option<InstanceRow> {
        self.records.get(name).map(Record::row)
    }
}
