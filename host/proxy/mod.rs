//! The life of a call, read top to bottom: decode → permit → route → pick → attempt → reply.
//!
//! Moves bytes: arguments and results are never rebuilt. Knows the registry's snapshot, the policy chain and the
//! peers. Must not know how policies are made, what is stored, or any surface but the call's own.

mod account;
mod attempt;
mod decode;
mod endpoint;
mod failure;
mod pick;
mod reply;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::CallTimes;
use crate::mesh::ids::{CallId, Name};
use crate::mesh::observe::Finished;
use crate::mesh::offer::Kind;
use crate::mesh::time::Mono;
use crate::mesh::verdict::CallFacts;
use crate::policy::chain::{self, ToolCall};
use crate::registry::{Registry, Snapshot};

use account::{Account, Done};
use decode::CallBody;
use failure::CallFailure;
pub use reply::ReplyBody;

/// Calls that may be under way at once.
pub const IN_FLIGHT_MAX: usize = 4096;

/// Everything a call needs. Shared by all workers.
pub struct Proxy {
    registry: Registry,
    times: CallTimes,
    body_bytes_max: usize,
    finished: mpsc::Sender<Finished>,
    /// Records that found the channel full: meters and per-tool latencies miss them, counts do not.
    finished_dropped: AtomicU64,
    next_id: AtomicU64,
    in_flight: AtomicUsize,
}

impl Proxy {
    pub fn new(
        registry: Registry,
        times: CallTimes,
        body_bytes_max: usize,
        finished: mpsc::Sender<Finished>,
    ) -> Self {
        // Seconds of the start in the upper half keep ids apart across restarts.
        let first = (clock::wall().as_millis().unsigned_abs() / 1000) << 32;
        Self {
            registry,
            times,
            body_bytes_max,
            finished,
            finished_dropped: AtomicU64::new(0),
            next_id: AtomicU64::new(first),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Calls under way now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn finished_dropped(&self) -> u64 {
        self.finished_dropped.load(Ordering::Relaxed)
    }

    /// `POST /call`: one tool call to its end.
    pub async fn call(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let arrived = clock::mono();
        let id = self.next_id();
        self.answer(id, arrived, request).await.unwrap_or_else(|failure| failure.respond(id))
    }

    async fn answer(
        &self,
        id: CallId,
        arrived: Mono,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, CallFailure> {
        let body = decode::read_body(request, self.body_bytes_max).await?;
        self.answer_body(id, arrived, &body, "").await
    }

    /// A call whose body, as `POST /call` takes it, came another way. `client` says who calls when the body does not.
    pub async fn call_with(&self, body: &Bytes, client: &str) -> Response<ReplyBody> {
        let arrived = clock::mono();
        let id = self.next_id();
        self.answer_body(id, arrived, body, client).await.unwrap_or_else(|failure| failure.respond(id))
    }

    async fn answer_body(
        &self,
        id: CallId,
        arrived: Mono,
        body: &Bytes,
        client: &str,
    ) -> Result<Response<ReplyBody>, CallFailure> {
        let _entered = self.enter()?;
        let mut call = CallBody::decode(body)?;
        if call.client.is_empty() {
            call.client = client.into();
        }
        let snapshot = self.registry.snapshot();
        Ok(reply::success(id, &self.run(id, arrived, &snapshot, &call, body.len()).await?))
    }

    fn next_id(&self) -> CallId {
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
        let asked =
            snapshot.find(&call.target).ok_or_else(|| CallFailure::UnknownTarget(call.target.to_string()))?;
        let service = &asked.service().name;
        if !snapshot.catalogue.passes(service.as_str(), Kind::Tool, &call.tool) {
            let (service, tool) = (service.to_string(), call.tool.to_string());
            return Err(CallFailure::Hidden { service, tool });
        }
        let time = call.timeout.unwrap_or(self.times.whole);
        let random = fastrand::u64(..);
        let facts = CallFacts {
            id,
            arrived: clock::wall(),
            random,
            affinity: affinity(&call.client, random),
            service: &call.target,
            tool: &call.tool,
            method: "tools/call",
            client: &call.client,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            time_left: time,
        };
        let mut account = Account::open(self, &facts, arrived, asked.service());

        let tool_call = ToolCall { facts, arguments: call.arguments };
        let exists = |name: &Name| snapshot.find(name.as_str()).is_some();
        let permitted = match chain::review(&snapshot.policies.routers, &snapshot.catalog, tool_call, exists)
        {
            Ok(permitted) => permitted,
            Err(refused) => return Err(account.refuse(refused)),
        };
        let target = snapshot.find(permitted.service()).expect("the chain lets through only what exists");
        account.route_to(target.service(), permitted.tool());

        let time = permitted.timeout().map_or(time, |shorter| shorter.min(time));
        let spent = clock::mono().since(arrived);
        let deadline = tokio::time::Instant::now() + time.saturating_sub(spent);
        let run = attempt::Run {
            snapshot,
            target,
            impatient: time < self.times.whole,
            permitted: &permitted,
            times: crate::upstream::Times {
                connect: self.times.connect,
                first_byte: self.times.first_byte,
                deadline,
            },
        };
        let ended = run.to_the_end(&mut account).await;
        account.close(&permitted, ended)
    }

    fn enter(&self) -> Result<Entered<'_>, CallFailure> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = Entered(&self.in_flight);
        if before >= IN_FLIGHT_MAX { Err(CallFailure::Overloaded) } else { Ok(entered) }
    }

    fn report(&self, finished: Finished) {
        if self.finished.try_send(finished).is_err() {
            self.finished_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A call under way; dropping it counts it out.
struct Entered<'a>(&'a AtomicUsize);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

/// A text that many calls share.
fn shared(text: &str) -> Arc<str> {
    static EMPTY: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(""));
    if text.is_empty() { Arc::clone(&EMPTY) } else { Arc::from(text) }
}
