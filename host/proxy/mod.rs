//! The life of a call, read top to bottom: decode → permit → route → pick → attempt → reply.
//!
//! Moves bytes: arguments and results are never rebuilt. Knows the registry's snapshot, the policy chain and the
//! peers. Must not know how policies are made, what is stored, or any surface but the call's own.

mod account;
mod attempt;
mod decode;
mod failure;
mod hedge;
mod mirror;
mod pick;
mod reply;
mod turn;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::body::ReplyBody;
use crate::clock;
use crate::config::CallTimes;
use crate::mcp::deadline;
use crate::mesh::deadline::shorter;
use crate::mesh::ids::{CallId, Name};
use crate::mesh::limit::Limits;
use crate::mesh::observe::Finished;
use crate::mesh::offer::Kind;
use crate::mesh::time::Mono;
use crate::mesh::verdict::CallFacts;
use crate::policy::chain::{self, Call};
use crate::registry::{Instance, Registry, Snapshot};
use crate::upstream::{SendError, Times};

pub use account::{Account, Ending};
pub use attempt::{Attempt, Carry, Run};
pub use decode::read_body;
pub use failure::{CallFailure, OVERLOADED};
pub use mirror::{Copied, MirrorBook, MirrorCounts, Mirroring, WAITING_MAX as COPIES_WAITING_MAX};
pub use reply::{framed, json, named, problem};

use account::Done;
use decode::CallBody;

/// Everything a call needs. Shared by all workers.
pub struct Proxy {
    registry: Registry,
    times: CallTimes,
    limits: Limits,
    body_bytes_max: usize,
    books: Arc<Books>,
    next_id: AtomicU64,
    /// What goes on for a moment when a caller does not wait any more.
    tasks: TaskTracker,
}

/// Where calls are counted, while they are under way and when they are over.
pub(crate) struct Books {
    finished: mpsc::Sender<Finished>,
    /// Records that found the channel full: meters and per-tool latencies miss them, counts do not.
    dropped: AtomicU64,
    copies: mpsc::Sender<Copied>,
    /// Copies that found the queue full.
    copies_dropped: AtomicU64,
    in_flight: AtomicUsize,
}

impl Books {
    fn report(&self, finished: Finished) {
        if self.finished.try_send(finished).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the copy is on its way.
    fn copy(&self, copied: Copied) -> bool {
        let sent = self.copies.try_send(copied).is_ok();
        if !sent {
            self.copies_dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

impl Proxy {
    pub fn new(
        registry: Registry,
        times: CallTimes,
        limits: Limits,
        body_bytes_max: usize,
        finished: mpsc::Sender<Finished>,
        copies: mpsc::Sender<Copied>,
        tasks: TaskTracker,
    ) -> Self {
        // Seconds of the start in the upper half keep ids apart across restarts.
        let first = (clock::wall().as_millis().unsigned_abs() / 1000) << 32;
        let books = Books {
            finished,
            dropped: AtomicU64::new(0),
            copies,
            copies_dropped: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        };
        Self {
            registry,
            times,
            limits,
            body_bytes_max,
            books: Arc::new(books),
            next_id: AtomicU64::new(first),
            tasks,
        }
    }

    /// Calls under way now.
    pub fn in_flight(&self) -> usize {
        self.books.in_flight.load(Ordering::Relaxed)
    }

    pub fn finished_dropped(&self) -> u64 {
        self.books.dropped.load(Ordering::Relaxed)
    }

    /// Copies of calls that were not sent, because too many waited.
    pub fn copies_dropped(&self) -> u64 {
        self.books.copies_dropped.load(Ordering::Relaxed)
    }

    pub const fn times(&self) -> &CallTimes {
        &self.times
    }

    pub const fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// `POST /call`: one tool call to its end.
    pub async fn call(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let arrived = clock::mono();
        let id = self.next_id();
        let answered = self.answer(id, arrived, request).await;
        reply::named(answered.unwrap_or_else(|failure| failure.respond(id)), id)
    }

    async fn answer(
        &self,
        id: CallId,
        arrived: Mono,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, CallFailure> {
        let (head, body) = request.into_parts();
        let timeout = deadline::in_header(&head.headers)?;
        let body = decode::read_body(&head.headers, body, self.body_bytes_max).await?;
        self.answer_body(id, arrived, &body, ("", timeout)).await
    }

    /// A call whose body, as `POST /call` takes it, came another way. `client` says who calls when the body does not.
    pub async fn call_with(&self, body: &Bytes, client: &str) -> Response<ReplyBody> {
        let arrived = clock::mono();
        let id = self.next_id();
        let answered = self.answer_body(id, arrived, body, (client, None)).await;
        answered.unwrap_or_else(|failure| failure.respond(id))
    }

    /// `client` and `timeout` are what the call's way here says of them.
    async fn answer_body(
        &self,
        id: CallId,
        arrived: Mono,
        body: &Bytes,
        (client, timeout): (&str, Option<Duration>),
    ) -> Result<Response<ReplyBody>, CallFailure> {
        let _entered = self.enter()?;
        let mut call = CallBody::decode(body)?;
        if call.client.is_empty() {
            call.client = client.into();
        }
        call.timeout = shorter(call.timeout, timeout);
        let snapshot = self.registry.snapshot();
        Ok(reply::success(id, &self.run(id, arrived, &snapshot, &call, body.len()).await?))
    }

    pub fn next_id(&self) -> CallId {
        CallId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// A call that has been read, to its end. `size` is that of the request's body.
    async fn run(
        &self,
        id: CallId,
        arrived: Mono,
        snapshot: &Snapshot,
        call: &CallBody<'_>,
        size: usize,
    ) -> Result<Done, CallFailure> {
        let asked = Asked {
            id,
            arrived,
            target: &call.target,
            continues: false,
            tool: &call.tool,
            method: "tools/call",
            client: &call.client,
            affinity: None,
            size,
            timeout: call.timeout,
            arguments: call.arguments,
        };
        let (run, mut account) = self.permit(snapshot, &asked)?;
        let ended = run.to_the_end(&mut account, &Whole { run: &run, tasks: &self.tasks }).await;
        let ended = ended.map(|(attempt, answer)| {
            let instance = attempt.instance.name().clone();
            attempt.succeed(matches!(answer, crate::upstream::Answer::Error(_)));
            (instance, answer)
        });
        account.close(&run.permitted, ended)
    }

    /// Has the routers look at a call, and says where it goes.
    ///
    /// # Errors
    /// Nothing is called so, or a router refused.
    pub fn permit<'a>(
        &self,
        snapshot: &'a Snapshot,
        asked: &Asked<'a>,
    ) -> Result<(Run<'a>, Account), CallFailure> {
        let found = snapshot.find(asked.target).ok_or_else(|| CallFailure::absent(snapshot, asked.target))?;
        let service = &found.service().name;
        if asked.method == "tools/call"
            && !snapshot.catalogue.passes(service.as_str(), Kind::Tool, asked.tool)
        {
            let (service, tool) = (service.to_string(), asked.tool.to_owned());
            return Err(CallFailure::Hidden { service, tool });
        }
        let time = asked.timeout.unwrap_or(self.times.whole);
        let random = fastrand::u64(..);
        let facts = CallFacts {
            id: asked.id,
            arrived: clock::wall(),
            now: asked.arrived,
            random,
            affinity: asked.affinity.unwrap_or_else(|| affinity(asked.client, random)),
            service: asked.target,
            tool: asked.tool,
            method: asked.method,
            client: asked.client,
            size: u32::try_from(asked.size).unwrap_or(u32::MAX),
            time_left: time,
            arguments: if asked.method == "tools/call" { asked.arguments } else { b"" },
        };
        let mut account = Account::open(&self.books, &facts, asked.arrived, found);

        let call = Call { facts, arguments: asked.arguments };
        let exists = |name: &Name| snapshot.find(name.as_str()).is_some();
        let (routers, catalog) = (&snapshot.policies.routers, &snapshot.catalog);
        let permitted = match chain::review(routers, catalog, call, account.opinions(), exists) {
            Ok(permitted) => permitted,
            Err(refused) => return Err(account.refuse(refused)),
        };
        let target = snapshot.find(permitted.service()).expect("the chain lets through only what exists");
        account.route_to(target.service(), permitted.tool());

        let time = permitted.timeout().map_or(time, |shorter| shorter.min(time));
        account.original = self.mirror(&permitted, snapshot, target.service(), time);
        let spent = clock::mono().since(asked.arrived);
        let deadline = tokio::time::Instant::now() + time.saturating_sub(spent);
        let stated = asked.timeout.or(permitted.timeout()).is_some();
        let (connect, first_byte) = (self.times.connect, self.times.first_byte);
        let run = Run {
            snapshot,
            target,
            limits: self.limits,
            continues: asked.continues,
            impatient: time < self.times.whole,
            permitted,
            times: Times { connect, first_byte, deadline, wakes: true, stated },
        };
        Ok((run, account))
    }

    /// Brings what is no call to an instance of a service, and to another one when it cannot be brought there.
    ///
    /// # Errors
    /// There is none that could be asked, or it did not answer.
    pub async fn bring<C: Carry>(
        &self,
        snapshot: &Snapshot,
        service: &str,
        tag: Option<&Name>,
        affinity: u64,
        carry: &C,
    ) -> Result<C::Answer, CallFailure> {
        let target = snapshot.find(service).ok_or_else(|| CallFailure::absent(snapshot, service))?;
        attempt::bring(snapshot, target, tag, affinity, carry).await
    }

    /// Counts a call in, until the value is dropped.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn enter(&self) -> Result<Entered, CallFailure> {
        let before = self.books.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = Entered(Arc::clone(&self.books));
        let limit = self.limits.in_flight;
        if before >= limit { Err(CallFailure::Overloaded(limit)) } else { Ok(entered) }
    }
}

/// What a caller asks for.
pub struct Asked<'a> {
    pub id: CallId,
    pub arrived: Mono,
    /// A service or an instance.
    pub target: &'a str,
    /// Only the target, an instance, can do it: it was begun there.
    pub continues: bool,
    /// The tool's own name; empty for methods other than `tools/call`.
    pub tool: &'a str,
    /// JSON-RPC method.
    pub method: &'a str,
    pub client: &'a str,
    /// Hash of what should stay together; by the client when there is none.
    pub affinity: Option<u64>,
    /// Bytes of the request's body.
    pub size: usize,
    pub timeout: Option<Duration>,
    /// JSON text.
    pub arguments: &'a [u8],
}

/// A call under way; dropping it counts it out.
pub struct Entered(Arc<Books>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls a tool and reads its whole answer.
struct Whole<'r, 'a> {
    run: &'r Run<'a>,
    tasks: &'r TaskTracker,
}

impl Carry for Whole<'_, '_> {
    type Answer = crate::upstream::Answer;

    async fn carry(&self, instance: &Arc<Instance>) -> Result<Self::Answer, SendError> {
        let tool = self.run.target.service().offer.get(Kind::Tool, self.run.permitted.tool());
        let declaration = tool.map(|tool| &*tool.json);
        instance.peer.call_tool(&self.run.permitted, declaration, &self.run.times, self.tasks).await
    }
}

/// What should stay together: calls of the same client, or nothing.
fn affinity(client: &str, random: u64) -> u64 {
    if client.is_empty() {
        return random;
    }
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish()
}

/// Shortest time that a caller is told to wait before trying again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A text that many calls share.
fn shared(text: &str) -> Arc<str> {
    static EMPTY: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(""));
    if text.is_empty() { Arc::clone(&EMPTY) } else { Arc::from(text) }
}
