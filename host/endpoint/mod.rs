//! The address where MCP clients reach the mesh: `/mcp` (all services), `/mcp/PROFILE` (a part of them) and
//! `/servers/SERVICE/mcp` (one service as it is), for clients of both eras, before instances of both eras.
//!
//! Owns clients' sessions and what is between two messages of a client. Knows the catalogue, the proxy's way of a
//! call and the peers. Must not decide: routing, picking and retrying are `proxy`'s.

mod call;
mod courier;
mod ears;
mod feed;
mod held;
mod lane;
mod legacy;
mod listing;
mod modern;
mod pass;
mod relay;
mod session;
mod subscription;
mod wanted;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{Body, Made, Out};
use crate::config::SessionLimits;
use crate::mcp::answer;
use crate::mcp::catalogue::View;
use crate::mcp::era::{Era, MODERN_VERSION, PROTOCOL_VERSION};
use crate::mcp::message::{Message, MessageError};
use crate::mcp::own::OwnTools;
use crate::mesh::ids::{CallId, Name};
use crate::problem::Problem;
use crate::proxy::{self, CallFailure, OVERLOADED, Proxy};
use crate::registry::{Registry, Snapshot};

use held::Held;
use session::Sessions;

/// What a client of an address sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All services, under merged names.
    Merged,
    /// Those of a profile, under merged names.
    Profile(Name),
    /// One service, under its own names.
    Service(Name),
}

impl Scope {
    /// The scope that a path names; `None` when it is no path of an endpoint.
    pub fn of(path: &str) -> Option<Self> {
        if path == "/mcp" {
            return Some(Self::Merged);
        }
        if let Some(profile) = path.strip_prefix("/mcp/") {
            return Name::new(profile).ok().map(Self::Profile);
        }
        let service = path.strip_prefix("/servers/")?.strip_suffix("/mcp")?;
        Name::new(service).ok().map(Self::Service)
    }

    fn view<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<View>> {
        match self {
            Self::Merged => snapshot.catalogue.view(None),
            Self::Profile(profile) => snapshot.catalogue.view(Some(profile.as_str())),
            Self::Service(service) => snapshot.catalogue.service(service.as_str()),
        }
    }

    /// Whether the client sees one service just as it is.
    const fn is_service(&self) -> bool {
        matches!(self, Self::Service(_))
    }

    fn profile(&self) -> Option<String> {
        match self {
            Self::Profile(profile) => Some(profile.to_string()),
            Self::Merged | Self::Service(_) => None,
        }
    }

    /// Why there is nothing here.
    fn missing(&self) -> Problem<'static> {
        let (detail, hint) = match self {
            Self::Merged => ("there is no catalogue yet".to_owned(), "try again a moment later"),
            Self::Profile(profile) => (
                format!("no profile is called `{profile}`"),
                "profiles are `[profiles.NAME]` of the configuration",
            ),
            Self::Service(service) => {
                (format!("no service is called `{service}`"), "`GET /services` lists what is registered")
            }
        };
        Problem::new(StatusCode::NOT_FOUND, "unknown_endpoint", detail, hint)
    }
}

/// Everything that clients of the endpoint share.
pub struct Endpoint {
    proxy: Arc<Proxy>,
    registry: Registry,
    own: OwnTools,
    sessions: Sessions,
    held: Held,
    tasks: TaskTracker,
    /// Streams that have no end of their own end with this.
    stop: CancellationToken,
}

/// A message that came in, and what came with it.
struct Received<'a> {
    id: CallId,
    scope: &'a Scope,
    headers: &'a HeaderMap,
    body: &'a Bytes,
    snapshot: &'a Arc<Snapshot>,
}

impl Endpoint {
    pub fn new(
        proxy: Arc<Proxy>,
        registry: Registry,
        own: OwnTools,
        limits: SessionLimits,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let sessions = Sessions::new(limits);
        Self { proxy, registry, own, sessions, held: Held::default(), tasks, stop }
    }

    /// Answers one request of a client.
    pub async fn serve(self: &Arc<Self>, request: Request<Incoming>, scope: Scope) -> Response<Body> {
        let id = self.proxy.next_id();
        let snapshot = self.registry.snapshot();
        if scope.view(&snapshot).is_none() {
            return problem(&scope.missing());
        }
        let modern =
            request.headers().get(&PROTOCOL_VERSION).is_some_and(|version| version == MODERN_VERSION);
        match *request.method() {
            Method::POST => {}
            Method::GET if !modern => {
                return Box::pin(self.listen(request.headers(), &scope, &snapshot)).await;
            }
            Method::DELETE if !modern => return Box::pin(self.end(request.headers(), &scope)).await,
            _ => return wrong_method(modern),
        }
        let (head, body) = request.into_parts();
        let limit = self.proxy.body_bytes_max();
        let body = match proxy::read_body(&head.headers, body, limit).await {
            Ok(body) => body,
            Err(failure) => return failure.respond(id).map(Body::Ready),
        };
        let received =
            Received { id, scope: &scope, headers: &head.headers, body: &body, snapshot: &snapshot };
        match Message::read(&body) {
            Ok(message) if is_modern(&message, &head.headers) => self.modern(&received, &message).await,
            Ok(message) => Box::pin(self.legacy(&received, &message)).await,
            Err(error) => malformed(&error),
        }
    }

    /// Ends sessions that nobody uses, until `stop`.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.sessions.sweep_every());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.held.sweep();
            for session in self.sessions.idle() {
                tracing::debug!(session = %session.id, "session ended, it was idle or too old");
                self.close(session);
            }
        }
    }

    /// Ends all sessions.
    pub fn close_all(self: &Arc<Self>) {
        for session in self.sessions.take_all() {
            self.close(session);
        }
    }

    /// Sessions of clients now.
    pub fn session_count(&self) -> usize {
        self.sessions.count()
    }
}

/// Whether a message is of the modern era: it says so itself, or its header does.
fn is_modern(message: &Message<'_>, headers: &HeaderMap) -> bool {
    let by_header = headers.get(&PROTOCOL_VERSION).is_some_and(|version| version == MODERN_VERSION);
    by_header
        || message.meta().is_some_and(|meta| meta.protocol_version.is_some())
        || message.method() == "server/discover"
}

fn malformed(error: &MessageError) -> Response<Body> {
    let code = match error {
        MessageError::Encoding(_) => answer::PARSE_ERROR,
        MessageError::Syntax(error) if !error.is_data() => answer::PARSE_ERROR,
        _ => answer::INVALID_REQUEST,
    };
    json(StatusCode::BAD_REQUEST, answer::error(None, code, &error.to_string(), None))
}

fn wrong_method(modern: bool) -> Response<Body> {
    let allowed = if modern { "POST" } else { "GET, POST, DELETE" };
    let detail = format!("this address takes {allowed}");
    let hint = "send messages with POST";
    let mut response = problem(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail, hint));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn problem(problem: &Problem<'_>) -> Response<Body> {
    proxy::problem(problem).map(Body::Ready)
}

fn json(status: StatusCode, body: impl Into<crate::body::ReplyBody>) -> Response<Body> {
    proxy::json(status, body).map(Body::Ready)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Ready(crate::body::ReplyBody::default()));
    *response.status_mut() = status;
    response
}

/// An event stream that a future makes.
fn stream<F: Future<Output = ()> + Send + 'static>(make: impl FnOnce(Out) -> F) -> Response<Body> {
    let mut response = Response::new(Body::Made(Made::new(make)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}

/// An error of the proxy's own. The modern era has statuses for them, the legacy era answers 200.
fn refuse(era: Era, id: Option<&str>, code: i32, message: &str) -> Response<Body> {
    let status = match (era, code) {
        (_, answer::PARSE_ERROR | answer::INVALID_REQUEST) => StatusCode::BAD_REQUEST,
        (Era::Legacy, _) => StatusCode::OK,
        (Era::Modern, answer::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        (Era::Modern, _) => StatusCode::BAD_REQUEST,
    };
    json(status, answer::error(id, code, message, None))
}

/// The answer to a request that no instance answered. That there is no room for it says the status as well, and when to
/// come again a header: clients know what to do then without understanding the error. Of all else the status says
/// nothing: there are clients that take a failed status for the end of the connection.
fn unanswered(call: CallId, id: &str, failure: &CallFailure) -> Response<Body> {
    let problem = failure.problem();
    if problem.code() != OVERLOADED || problem.retry_after.is_none() {
        return json(StatusCode::OK, failed(call, id, failure));
    }
    let mut response = json(problem.status(), failed(call, id, failure));
    if let Some(after) = problem.headers().remove(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, after);
    }
    response
}

/// A call that no instance answered, as a JSON-RPC error that carries the problem.
fn failed(call: CallId, id: &str, failure: &CallFailure) -> Bytes {
    let mut problem = failure.problem();
    problem.call_id = Some(call.to_string());
    answer::error(Some(id), answer::NOT_ANSWERED, &failure.to_string(), Some(&problem.body()))
}
