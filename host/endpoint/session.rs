//! Sessions of legacy clients: their own ids, their limits, and what is between two messages.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::lane::Lane;
use crate::clock;
use crate::config::SessionLimits;
use crate::mesh::ids::Name;
use crate::mesh::time::Mono;

const SHARDS: usize = 16;
/// Questions of instances that one client may leave unanswered.
const ASKED_MAX: usize = 256;

/// One client's session.
pub(super) struct Session {
    pub id: Box<str>,
    pub scope: Scope,
    /// The `params` of its `initialize`, JSON text.
    pub params: Box<str>,
    /// What the client can do, JSON text.
    pub capabilities: Box<str>,
    /// Who it says it is; empty when it does not.
    pub client: Box<str>,
    /// By service and tag.
    berths: Mutex<Berths>,
    /// A lane was opened or lost.
    pub lanes_changed: Notify,
    /// What instances asked the client, by the id that the client knows.
    asked: Mutex<HashMap<String, Question>>,
    /// The client's requests under way, by their ids.
    under_way: Mutex<HashMap<String, UnderWay>>,
    /// JSON text of the level that the client set.
    pub log_level: Mutex<Option<Box<str>>>,
    /// URIs that the client subscribed to, and whose they are.
    pub subscriptions: Mutex<BTreeMap<String, Name>>,
    /// Nothing of the session goes on after this.
    pub ended: CancellationToken,
    created: Mono,
    used: AtomicU64,
    /// Requests and streams under way: a session with one is not idle.
    busy: AtomicUsize,
    next_question: AtomicU64,
}

type Berths = HashMap<(Name, Option<Name>), Arc<Berth>>;

/// The place of a lane. Whoever opens it holds its lock: one client has one session with an instance, and nobody who
/// wants another lane waits.
#[derive(Default)]
pub(super) struct Berth {
    pub opening: tokio::sync::Mutex<()>,
    pub lane: ArcSwapOption<Lane>,
}

/// A question of an instance that waits for the client's answer.
pub(super) enum Question {
    /// The answer goes to the lane's instance, under this id.
    Lane { lane: Arc<Lane>, id: String },
    /// Somebody here waits for the answer.
    Here(oneshot::Sender<Bytes>),
}

/// A request under way, for its cancellation.
#[derive(Clone)]
pub(super) struct UnderWay {
    pub lane: Arc<Lane>,
    /// Its id there.
    pub id: String,
    /// Ends what is done for it here.
    pub cancel: CancellationToken,
}

/// Keeps a session from being idle.
pub(super) struct Busy(Arc<Session>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a request off the list when it is over.
pub(super) struct Listed {
    session: Arc<Session>,
    id: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.session.under_way).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub fn new(scope: Scope, params: &str, capabilities: &str, client: &str) -> Self {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        let now = clock::mono();
        Self {
            id: hex::encode(bytes).into(),
            scope,
            params: params.into(),
            capabilities: capabilities.into(),
            client: client.into(),
            berths: Mutex::default(),
            lanes_changed: Notify::new(),
            asked: Mutex::default(),
            under_way: Mutex::default(),
            log_level: Mutex::default(),
            subscriptions: Mutex::default(),
            ended: CancellationToken::new(),
            created: now,
            used: AtomicU64::new(now.as_micros()),
            busy: AtomicUsize::new(0),
            next_question: AtomicU64::new(1),
        }
    }

    pub fn berth(&self, service: &Name, tag: Option<&Name>) -> Arc<Berth> {
        Arc::clone(lock(&self.berths).entry((service.clone(), tag.cloned())).or_default())
    }

    /// The lanes that are open.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        lock(&self.berths).values().filter_map(|berth| berth.lane.load_full()).collect()
    }

    /// Takes a lane out, or all of them.
    pub fn clear_lanes(&self, lost: Option<&Arc<Lane>>) -> Vec<Arc<Lane>> {
        let berths = lock(&self.berths);
        let gone = |lane: &Arc<Lane>| lost.is_none_or(|lost| Arc::ptr_eq(lane, lost));
        let taken = berths.values().filter(|berth| berth.lane.load().as_ref().is_some_and(gone));
        taken.filter_map(|berth| berth.lane.swap(None)).collect()
    }

    /// What keeps the calls of one session together.
    pub fn affinity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.id.hash(&mut hasher);
        hasher.finish()
    }

    fn touch(&self) {
        self.used.store(clock::mono().as_micros(), Ordering::Relaxed);
    }

    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Busy(Arc::clone(self))
    }

    fn is_over(&self, now: Mono, limits: &SessionLimits) -> bool {
        let used = Mono::from_micros(self.used.load(Ordering::Relaxed));
        let idle = self.busy.load(Ordering::Relaxed) == 0 && now.since(used) > limits.idle_timeout;
        idle || now.since(self.created) > limits.age_max
    }

    /// Notes a question and gives it an id that the client knows it by, JSON text. The oldest question is forgotten
    /// when the client answers none.
    pub fn ask(&self, question: Question) -> String {
        let number = self.next_question.fetch_add(1, Ordering::Relaxed);
        let id = format!("\"mw-{number}\"");
        let mut asked = lock(&self.asked);
        if asked.len() >= ASKED_MAX {
            let oldest = asked.keys().min_by_key(|id| (id.len(), (*id).clone())).cloned();
            oldest.map(|id| asked.remove(&id));
        }
        asked.insert(id.clone(), question);
        id
    }

    /// Takes the question that the client answers.
    pub fn answered(&self, id: &str) -> Option<Question> {
        lock(&self.asked).remove(id)
    }

    /// Lists a request until what is returned is dropped.
    pub fn list(self: &Arc<Self>, id: &str, request: UnderWay) -> Listed {
        lock(&self.under_way).insert(id.to_owned(), request);
        Listed { session: Arc::clone(self), id: id.to_owned() }
    }

    pub fn under_way(&self, id: &str) -> Option<UnderWay> {
        lock(&self.under_way).get(id).cloned()
    }

    pub fn log_level(&self) -> Option<Box<str>> {
        lock(&self.log_level).clone()
    }

    pub fn set_log_level(&self, level: &str) {
        *lock(&self.log_level) = Some(level.into());
    }

    pub fn subscribed(&self) -> Vec<(String, Name)> {
        lock(&self.subscriptions).iter().map(|(uri, service)| (uri.clone(), service.clone())).collect()
    }

    pub fn subscribe(&self, uri: &str, service: Option<&Name>) {
        match service {
            Some(service) => lock(&self.subscriptions).insert(uri.to_owned(), service.clone()),
            None => lock(&self.subscriptions).remove(uri),
        };
        self.lanes_changed.notify_waiters();
    }
}

/// All sessions. Each shard has a lock of its own, held for a look-up.
pub(super) struct Sessions {
    shards: [Mutex<HashMap<Box<str>, Arc<Session>>>; SHARDS],
    limits: SessionLimits,
}

impl Sessions {
    pub fn new(limits: SessionLimits) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), limits }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        lock(&self.shards[hasher.finish() as usize % SHARDS])
    }

    pub fn find(&self, id: &str, scope: &Scope) -> Option<Arc<Session>> {
        self.shard(id).get(id).filter(|session| session.scope == *scope).cloned()
    }

    /// Adds a session. Over the limit the one that was used least lately comes back, to be ended.
    pub fn add(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        self.shard(&session.id).insert(session.id.clone(), Arc::clone(session));
        if self.count() <= self.limits.max {
            return None;
        }
        let all = self.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>());
        let others = all.filter(|other| !Arc::ptr_eq(other, session));
        let oldest = others.min_by_key(|other| {
            (other.busy.load(Ordering::Relaxed) > 0, other.used.load(Ordering::Relaxed))
        })?;
        self.remove(&oldest.id)
    }

    pub fn remove(&self, id: &str) -> Option<Arc<Session>> {
        self.shard(id).remove(id)
    }

    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Takes out the sessions that are over.
    pub fn idle(&self) -> Vec<Arc<Session>> {
        let now = clock::mono();
        let mut over = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|_, session| {
                let is_over = session.is_over(now, &self.limits);
                if is_over {
                    over.push(Arc::clone(session));
                }
                !is_over
            });
        }
        over
    }

    pub fn take_all(&self) -> Vec<Arc<Session>> {
        let all = self.shards.iter().flat_map(|shard| std::mem::take(&mut *lock(shard)).into_values());
        all.collect()
    }

    pub fn sweep_every(&self) -> Duration {
        (self.limits.idle_timeout / 4).clamp(Duration::from_millis(100), Duration::from_secs(10))
    }
}
