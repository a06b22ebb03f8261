//! The one task that changes the registry: commands in batches, and everything that time alone changes each second.

mod pools;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Record};
use super::judge::{judge, note_probe, said_of_child, said_of_probe, see_child};
use super::snapshot::Snapshot;
use super::{Command, Grant, Reconfigured, RegistryError, Shift};
use crate::clock;
use crate::mesh::drain::{Order, Told};
use crate::mesh::ids::Name;
use crate::mesh::lease::{LeasePhase, sweep};
use crate::mesh::observe::Event;
use crate::mesh::time::{Mono, Wall};
use crate::policy::PolicySet;
use crate::store::{Change, Store, StoreError};

/// Commands that share one commit.
const BATCH: usize = 512;
/// Distance of health and lease judgements.
const TICK: Duration = Duration::from_secs(1);
/// How long the row of an expired instance is kept.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Owns the book. Run by `app`.
pub struct Task {
    book: Book,
    store: Store,
    queue: mpsc::Receiver<Command>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
}

/// Answers that wait for the commit.
enum Reply {
    Granted(oneshot::Sender<Result<Grant, RegistryError>>, Grant),
    Gone(oneshot::Sender<Result<(), RegistryError>>, Name, Name),
    Drained(oneshot::Sender<Result<(), RegistryError>>, Option<(&'static str, String)>, Name, Name),
    Configured(oneshot::Sender<Reconfigured>, Reconfigured),
}

#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    replies: Vec<Reply>,
    before: Vec<(Name, Option<Record>)>,
    policies: Option<Arc<PolicySet>>,
    publish: bool,
}

impl Task {
    pub(super) fn new(
        book: Book,
        store: Store,
        queue: mpsc::Receiver<Command>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        published: watch::Sender<u64>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { book, store, queue, snapshot, published, events }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.tick().await,
                count = self.queue.recv_many(&mut commands, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.apply(commands.drain(..)).await;
                }
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let next = self.book.publish(&self.snapshot.load());
        let generation = next.generation;
        self.snapshot.store(Arc::new(next));
        self.published.send_replace(generation);
    }

    async fn apply(&mut self, commands: impl Iterator<Item = Command>) {
        let (now, wall) = (clock::mono(), clock::wall());
        let mut batch = Batch::default();
        for command in commands {
            self.step(command, &mut batch, now, wall);
        }
        let changes = std::mem::take(&mut batch.changes);
        let committed = self.commit(changes).await;
        if let Err(error) = &committed {
            self.book.undo(std::mem::take(&mut batch.before));
            self.book.settle_offers();
            tracing::error!(error = %error, "registry change not durable, taken back");
        }
        if let Some(policies) = batch.policies {
            let last = self.snapshot.load_full();
            let with = Snapshot { policies, ..self.book.publish(&last) };
            let generation = with.generation;
            self.snapshot.store(Arc::new(with));
            self.published.send_replace(generation);
        } else if batch.publish {
            self.publish();
        }
        let failed = committed.err().map(|error| error.to_string());
        for reply in batch.replies {
            self.answer(reply, failed.as_deref(), wall);
        }
    }

    /// Makes `changes` durable, and with them what services offer now.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.book.settle_offers();
        let (unwritten, mut all) = self.book.unwritten();
        // Behind what is owed: a name that is to be forgotten may have come back since.
        all.extend(changes);
        if all.is_empty() {
            return Ok(());
        }
        let committed = self.store.commit(all).await;
        if committed.is_err() {
            self.book.owe(unwritten);
        }
        committed
    }

    fn step(&mut self, command: Command, batch: &mut Batch, now: Mono, wall: Wall) {
        match command {
            Command::Register { spec, token, done } => {
                let before = (spec.name.clone(), self.book.records.get(&spec.name).cloned());
                match self.book.register(spec, &token, now, wall, &mut batch.changes) {
                    Ok(grant) => {
                        batch.before.push(before);
                        batch.publish = true;
                        batch.replies.push(Reply::Granted(done, grant));
                    }
                    // A caller that went away needs no answer; so below.
                    Err(error) => drop(done.send(Err(error))),
                }
            }
            Command::Deregister { name, token, done } => match self.book.authorized(&name, &token) {
                Ok(Some(record)) => {
                    let (service, present) = (record.spec.service.clone(), record.is_present());
                    if present {
                        self.book.leave_service(&name, now, wall, &mut batch.changes);
                    }
                    let left = self.book.records.remove_entry(&name);
                    let forgotten = left.into_iter().chain(self.book.forget_expired(&service));
                    for (name, record) in forgotten {
                        batch.changes.push(Change::InstanceGone(name.clone()));
                        batch.before.push((name, Some(record)));
                    }
                    self.book.touch_offer(&service);
                    batch.publish = true;
                    batch.replies.push(Reply::Gone(done, name, service));
                }
                Ok(None) => drop(done.send(Err(RegistryError::UnknownInstance(name)))),
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Drain { name, order, done } => self.drain(name, order, done, batch, now),
            Command::Heartbeat { name, token, done } => {
                let answer = self.heartbeat(&name, &token, (now, wall), &mut batch.publish);
                drop(done.send(answer));
            }
            Command::Offer { name, id, epoch, offer } => {
                let Some(record) = self.record_of(&name, id, epoch) else { return };
                if record.offer.as_deref() == Some(&offer) {
                    return;
                }
                record.offer = Some(Arc::new(offer));
                let service = record.spec.service.clone();
                self.book.touch_offer(&service);
                batch.publish = true;
            }
            Command::Probed { name, id, epoch, probe } => {
                let times = self.book.times;
                let Some(record) = self.record_of(&name, id, epoch) else { return };
                let (seen, before) = (record.lease.phase(), record.health.state());
                if note_probe(record, &probe, now, &times) {
                    let became = said_of_probe(record, seen, before);
                    if became.is_some() {
                        record.since = wall;
                    }
                    let service = record.spec.service.clone();
                    self.book.touch_service(&service);
                    batch.publish = true;
                    if let Some(detail) = became {
                        self.emit("instance_state", wall, &service, &name, detail);
                    }
                }
            }
            Command::Policies { policies } => batch.policies = Some(policies),
            Command::Child { name, id, sight } => {
                let times = self.book.times;
                let Some(record) = self.book.records.get_mut(&name).filter(|record| record.id == id) else {
                    return;
                };
                let said = said_of_child(record.child.as_ref(), &sight);
                see_child(record, sight, (now, wall), &times);
                let service = record.spec.service.clone();
                self.book.touch_service(&service);
                batch.publish = true;
                if let Some(detail) = said {
                    self.emit("instance_state", wall, &service, &name, detail);
                }
            }
            Command::Configure { terms, done } => {
                let changed = self.book.reconfigure(terms, now, wall, &mut batch.changes);
                batch.publish = true;
                batch.replies.push(Reply::Configured(done, changed));
            }
        }
    }

    fn drain(
        &mut self,
        name: Name,
        order: Option<Order>,
        done: oneshot::Sender<Result<(), RegistryError>>,
        batch: &mut Batch,
        now: Mono,
    ) {
        let reason = order.as_ref().map(|order| order.reason.clone()).unwrap_or_default();
        match self.book.drain(&name, order, now, &mut batch.changes) {
            Ok((before, told)) => {
                let (service, calls) = (before.spec.service.clone(), before.core.live.in_flight());
                let said = match told {
                    Some(Told::Revoked) => Some(("instance_undrained", String::new())),
                    Some(_) => Some(("instance_draining", format!("{reason}; {calls} calls are left"))),
                    None => None,
                };
                batch.publish |= said.is_some();
                batch.before.push((name.clone(), Some(before)));
                batch.replies.push(Reply::Drained(done, said, name, service));
            }
            Err(error) => drop(done.send(Err(error))),
        }
    }

    fn record_of(&mut self, name: &Name, id: u64, epoch: u64) -> Option<&mut Record> {
        self.book.records.get_mut(name).filter(|record| record.id == id && record.lease.epoch() == epoch)
    }

    fn heartbeat(
        &mut self,
        name: &Name,
        token: &super::Token,
        (now, wall): (Mono, Wall),
        publish: &mut bool,
    ) -> Result<u64, RegistryError> {
        let gone = || RegistryError::LeaseGone(name.clone());
        let record = self.book.authorized(name, token)?.ok_or_else(gone)?;
        let silent = now.since(record.lease.renewed_at());
        let changed = record.lease.heartbeat(now).map_err(|_| gone())?;
        record.core.heartbeat_at.store(now.as_micros(), Ordering::Relaxed);
        let epoch = record.lease.epoch();
        if changed.is_some() {
            record.touch();
            let service = record.spec.service.clone();
            self.book.touch_service(&service);
            *publish = true;
            let detail = format!("active: a heartbeat came again, after {} s", silent.as_secs());
            self.emit("instance_state", wall, &service, name, detail);
        }
        Ok(epoch)
    }

    fn answer(&self, reply: Reply, failed: Option<&str>, wall: Wall) {
        let failure = || failed.map(|why| RegistryError::Persistence(why.to_owned()));
        match reply {
            Reply::Granted(done, grant) => {
                if failed.is_none() {
                    let kind = if grant.renewed { "instance_renewed" } else { "instance_registered" };
                    self.emit(kind, wall, &grant.service, &grant.instance, format!("epoch {}", grant.epoch));
                }
                drop(done.send(failure().map_or(Ok(grant), Err)));
            }
            Reply::Gone(done, instance, service) => {
                if failed.is_none() {
                    self.emit("instance_deregistered", wall, &service, &instance, String::new());
                }
                drop(done.send(failure().map_or(Ok(()), Err)));
            }
            Reply::Drained(done, said, instance, service) => {
                if let Some((kind, detail)) = said.filter(|_| failed.is_none()) {
                    tracing::info!(instance = %instance, service = %service, detail, "{kind}");
                    self.emit(kind, wall, &service, &instance, detail);
                }
                drop(done.send(failure().map_or(Ok(()), Err)));
            }
            // The file says it again at the next start, whatever was written down.
            Reply::Configured(done, changed) => drop(done.send(changed)),
        }
    }

    /// Leases, health, availability: everything that changes without anybody asking.
    async fn tick(&mut self) {
        let (now, wall) = (clock::mono(), clock::wall());
        let mut changes = Vec::new();
        let swept = self.sweep_leases(now, wall, &mut changes);
        let judged = self.judge_health(now, wall);
        let purged = self.purge(wall, &mut changes);
        for (service, name) in self.book.look_at_drains(now) {
            tracing::info!(instance = %name, service = %service, "no call and no session is left");
            self.emit("instance_drained", wall, &service, &name, "nothing is left there".to_owned());
        }
        if let Err(error) = self.commit(changes).await {
            // The registry in memory is right; the next start judges the leases anew.
            tracing::warn!(error = %error, "expiry not written down");
        }
        if swept || judged || purged {
            self.publish();
        }
        self.judge_pools(now, wall);
        self.look_at_uptimes(now, wall);
    }

    fn sweep_leases(&mut self, now: Mono, wall: Wall, changes: &mut Vec<Change>) -> bool {
        let times = self.book.times;
        let leased = self.book.records.iter_mut().filter(|(_, record)| !record.configured);
        let mut leases: Vec<_> = leased.map(|(name, record)| (name.clone(), &mut record.lease)).collect();
        let sweep = sweep(&mut leases, now, &times);
        if let Some(first) = sweep.held.first() {
            let detail =
                format!("{} leases at once would have run out and are held one more TTL", sweep.held.len());
            tracing::warn!(
                count = sweep.held.len(),
                "mass expiry held, the proxy is likelier at fault than the fleet"
            );
            let service = self.book.records[first].spec.service.clone();
            self.emit("expiry_held", wall, &service, first, detail);
        }
        for (name, phase) in &sweep.transitions {
            let record = self.book.records.get_mut(name).expect("the sweep names only records it was given");
            record.touch();
            let silent = now.since(record.lease.renewed_at()).as_secs();
            let service = record.spec.service.clone();
            if *phase == LeasePhase::Expired {
                record.expired_at = Some(wall);
                tracing::info!(instance = %name, service = %service, "lease expired, instance removed");
                self.book.leave_service(name, now, wall, changes);
                changes.extend(self.book.row(name).map(Change::Instance));
                self.emit("instance_expired", wall, &service, name, format!("no heartbeat for {silent} s"));
            } else {
                self.book.touch_service(&service);
                let detail = format!("{}: no heartbeat for {silent} s", phase.as_str());
                self.emit("instance_state", wall, &service, name, detail);
            }
        }
        !sweep.transitions.is_empty()
    }

    fn judge_health(&mut self, now: Mono, wall: Wall) -> bool {
        let mut touched: Vec<Name> = Vec::new();
        let mut events = Vec::new();
        let times = self.book.times;
        for (name, record) in self.book.records.iter_mut().filter(|(_, record)| record.is_present()) {
            let before = (record.core.live.score(), record.core.live.share_permille());
            let shown = record.reason.clone();
            if judge(record, now, &times) {
                record.since = wall;
                let detail = format!("{}: {}", record.health.state().as_str(), record.reason);
                tracing::info!(instance = %name, state = record.health.state().as_str(), reason = record.reason, "health changed");
                events.push(("instance_state", record.spec.service.clone(), name.clone(), detail));
            }
            for Shift { state, why } in record.core.guard.shifts() {
                let detail = format!("{}: {why}", state.as_str());
                tracing::info!(instance = %name, state = state.as_str(), why, "breaker changed");
                events.push(("breaker_state", record.spec.service.clone(), name.clone(), detail));
            }
            record.core.guard.settle(now);
            let after = (record.core.live.score(), record.core.live.share_permille());
            if before != after || shown != record.reason {
                record.touch();
                touched.push(record.spec.service.clone());
            }
        }
        for (kind, service, name, detail) in events {
            self.emit(kind, wall, &service, &name, detail);
        }
        touched.dedup();
        for service in &touched {
            self.book.touch_service(service);
        }
        !touched.is_empty()
    }

    fn purge(&mut self, wall: Wall, changes: &mut Vec<Change>) -> bool {
        let kept = i64::try_from(EXPIRED_KEPT.as_millis()).unwrap_or(i64::MAX);
        let old: Vec<Name> = self
            .book
            .records
            .iter()
            .filter(|(_, record)| {
                record.expired_at.is_some_and(|at| wall.as_millis() - at.as_millis() > kept)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &old {
            if let Some(record) = self.book.records.remove(name) {
                self.book.touch_offer(&record.spec.service);
            }
            changes.push(Change::InstanceGone(name.clone()));
        }
        !old.is_empty()
    }

    fn emit(&self, kind: &'static str, at: Wall, service: &Name, instance: &Name, detail: String) {
        self.say(kind, at, service, Some(instance), detail);
    }

    /// An event that finds the channel full is dropped; alerters are level-triggered and see the state all the same.
    fn say(&self, kind: &'static str, at: Wall, service: &Name, instance: Option<&Name>, detail: String) {
        let event = Event { at, kind, service: Some(service.clone()), instance: instance.cloned(), detail };
        if self.events.try_send(event).is_err() {
            tracing::debug!(kind, service = %service, instance = instance.map(Name::as_str), "event dropped");
        }
    }
}
