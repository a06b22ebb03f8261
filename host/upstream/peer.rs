//! What is kept of an instance between calls, and how a request becomes an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::connection::{self, Connection};
use super::{ANSWER_BYTES_MAX, EVENT_BYTES_MAX, SendError, Target, Times};
use crate::mcp::envelope::{self, AnswerError, Message};
use crate::mcp::era::{self, Era};
use crate::mcp::sse::Frames;
use crate::mesh::instance::{Endpoint, HttpEndpoint};
use crate::mesh::offer::About;
use crate::policy::chain::{Permitted, ToolCall};
use crate::worker;

/// Idle connections that one worker keeps to one instance.
const IDLE_PER_WORKER_MAX: usize = 64;

/// Room for all headers of a request, the body's length included: growing costs more than the headers do.
const HEADERS: usize = 9;

/// How an instance is spoken to, found out by the handshake.
#[derive(Debug)]
pub struct Spoken {
    pub era: Era,
    pub version: HeaderValue,
    pub session: Option<HeaderValue>,
    /// `name version` of the server, for people.
    pub server: String,
    /// What the server says of itself.
    pub about: Arc<About>,
}

/// An instance's answer to a request: bytes as they came.
#[derive(Debug)]
pub enum Answer {
    Result(Bytes),
    /// A JSON-RPC error object.
    Error(Bytes),
}

/// The proxy's side of one instance. Shared by all snapshots that know it.
#[derive(Debug)]
pub struct Peer {
    pub(super) target: Target,
    /// The seam for instances that are child processes: this build has no transport for them, and says so before
    /// anything is sent.
    pub(super) is_stdio: bool,
    /// Idle connections, newest last. Each pool is used by its worker alone, and pruned now and then.
    pools: Box<[Mutex<Vec<Connection>>]>,
    pub(super) spoken: ArcSwapOption<Spoken>,
    /// Held by the one task that does the handshake.
    pub(super) handshake: tokio::sync::Mutex<()>,
    next_id: AtomicU64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// A request of the proxy's own making.
pub(super) struct Ask<'a> {
    pub method: &'static str,
    /// What the `Mcp-Name` header repeats.
    pub name: Option<&'a str>,
    /// Members of `params`, JSON text without braces.
    pub members: &'a [&'a [u8]],
}

impl Peer {
    /// `workers` is the number of data-path workers; control tasks get a pool of their own.
    pub fn new(endpoint: &Endpoint, workers: usize) -> Self {
        let nowhere = || HttpEndpoint::new("stdio.invalid", 1, "/").expect("a well-formed endpoint");
        let (http, is_stdio) = match endpoint {
            Endpoint::Http(endpoint) => (endpoint.clone(), false),
            Endpoint::Stdio(_) => (nowhere(), true),
        };
        Self {
            target: Target::new(&http),
            is_stdio,
            pools: (0..=workers).map(|_| Mutex::new(Vec::new())).collect(),
            spoken: ArcSwapOption::empty(),
            handshake: tokio::sync::Mutex::new(()),
            next_id: AtomicU64::new(1),
        }
    }

    /// How the instance is spoken to, once that is known.
    pub fn spoken(&self) -> Option<Arc<Spoken>> {
        self.spoken.load_full()
    }

    /// Calls a tool. `tool` is the name that the instance knows, `arguments` is a JSON value.
    ///
    /// # Errors
    /// See [`SendError::failure`] for how far the call had come.
    pub async fn call_tool(
        &self,
        call: &Permitted<ToolCall<'_>>,
        times: &Times,
    ) -> Result<Answer, SendError> {
        let mut quoted = bytes::BytesMut::with_capacity(call.tool().len() + 16);
        quoted.extend_from_slice(b"\"name\":");
        envelope::put_string(&mut quoted, call.tool());
        let arguments = call.arguments();
        self.ask(
            &Ask {
                method: "tools/call",
                name: Some(call.tool()),
                members: &[&quoted, b",\"arguments\":", arguments],
            },
            times,
        )
        .await
    }

    /// Asks, and once more after a new handshake when the instance has forgotten the session: such a request was
    /// refused unread, so sending it again is safe.
    pub(super) async fn ask(&self, ask: &Ask<'_>, times: &Times) -> Result<Answer, SendError> {
        let spoken = self.ready(times).await?;
        match self.ask_as(&spoken, ask, times).await {
            Err(SendError::SessionGone) => {
                self.forget(&spoken);
                let spoken = self.ready(times).await?;
                let again = self.ask_as(&spoken, ask, times).await;
                // A fresh session that is refused too is no matter of sessions.
                again.map_err(|error| match error {
                    SendError::SessionGone => SendError::Status {
                        status: StatusCode::BAD_REQUEST,
                        detail: "the instance refuses a session that it has just given out".to_owned(),
                    },
                    other => other,
                })
            }
            other => other,
        }
    }

    /// Forgets how the instance is spoken to, unless somebody found out anew in the meantime.
    pub(super) fn forget(&self, spoken: &Arc<Spoken>) {
        self.spoken.compare_and_swap(spoken, None);
    }

    pub(super) async fn ask_as(
        &self,
        spoken: &Spoken,
        ask: &Ask<'_>,
        times: &Times,
    ) -> Result<Answer, SendError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = envelope::request(spoken.era, id, ask.method, ask.members);
        let request = self.request(Some(spoken), Some(ask), body);
        self.exchange(request, times, |response| self.read_answer(response, Some(spoken), id, times)).await
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A POST with `body`. Without `spoken` it carries no version and no session, as a first request does.
    pub(super) fn request(
        &self,
        spoken: Option<&Spoken>,
        ask: Option<&Ask<'_>>,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone().into();
        let headers = request.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(HOST, self.target.host_header.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let Some(spoken) = spoken else { return request };
        headers.insert(&era::PROTOCOL_VERSION_HEADER, spoken.version.clone());
        if let Some(session) = &spoken.session {
            headers.insert(&era::SESSION_HEADER, session.clone());
        }
        if let (Era::Modern, Some(ask)) = (spoken.era, ask) {
            headers.insert(&era::METHOD_HEADER, HeaderValue::from_static(ask.method));
            // A name that fits no header cannot be the name of a tool that this header's check would accept.
            if let Some(Ok(name)) = ask.name.map(|name| HeaderValue::try_from(era::header_name(name))) {
                headers.insert(&era::NAME_HEADER, name);
            }
        }
        request
    }

    /// Sends on an idle connection of this worker or on a new one. A connection that turns out to be closed before
    /// anything was sent is replaced once.
    pub(super) async fn exchange<T, R>(
        &self,
        request: Request<Full<Bytes>>,
        times: &Times,
        read: impl FnOnce(Response<Incoming>) -> R,
    ) -> Result<T, SendError>
    where
        R: Future<Output = Result<T, SendError>>,
    {
        let mut connection = match self.idle() {
            Some(connection) => connection,
            None => Connection::open(&self.target, times).await?,
        };
        let result = connection.exchange(request, times, read).await;
        let reusable = match &result {
            Ok(_) => true,
            Err(error) => {
                matches!(error, SendError::Status { .. } | SendError::SessionGone | SendError::Malformed(_))
            }
        };
        if reusable {
            self.rest(connection);
        }
        result
    }

    fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.pool()?.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    fn rest(&self, mut connection: Connection) {
        let Some(pool) = self.pool() else { return };
        connection.rest();
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < IDLE_PER_WORKER_MAX {
            pool.push(connection);
        }
    }

    /// Closes the connections that no call will use again.
    pub fn prune(&self) {
        for pool in &self.pools {
            let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.retain(Connection::is_fresh);
        }
    }

    fn pool(&self) -> Option<&Mutex<Vec<Connection>>> {
        self.pools.get(worker::index())
    }

    /// Reads what answers request `id`, out of a JSON body or an event stream.
    pub(super) async fn read_answer(
        &self,
        response: Response<Incoming>,
        spoken: Option<&Spoken>,
        id: u64,
        times: &Times,
    ) -> Result<Answer, SendError> {
        if connection::announces_too_much(&response) {
            return Err(SendError::TooLarge(ANSWER_BYTES_MAX));
        }
        let status = response.status();
        if status.is_success()
            && connection::media_type(response.headers()).eq_ignore_ascii_case(b"text/event-stream")
        {
            return self.read_stream(response.into_body(), spoken, id, times).await;
        }
        let json = connection::media_type(response.headers()).eq_ignore_ascii_case(b"application/json");
        let (head, body) = response.into_parts();
        let body = connection::collect(body, times).await?;
        let message = if json { Some(envelope::read(&body, id)) } else { None };
        if status.is_success() {
            let message = message.ok_or_else(|| {
                let media = connection::media_type(&head.headers);
                SendError::ContentType(String::from_utf8_lossy(media).into_owned())
            })??;
            return answer_in(&body, &message).ok_or(SendError::Malformed(AnswerError::Empty));
        }
        // Errors of the protocol come with 4xx statuses. What is addressed to this request answers it; a 404 about a
        // session, or a 400 that does not even name the request, says that the session is gone and nothing was done.
        let had_session = spoken.is_some_and(|spoken| spoken.session.is_some());
        match message {
            Some(Ok(Message::Error(error))) => Ok(Answer::Error(body.slice_ref(error.get().as_bytes()))),
            _ if had_session && status == StatusCode::NOT_FOUND => Err(SendError::SessionGone),
            Some(Ok(Message::Unidentified(_)) | Err(AnswerError::WrongId))
                if had_session && status == StatusCode::BAD_REQUEST =>
            {
                Err(SendError::SessionGone)
            }
            _ => Err(SendError::Status { status, detail: snippet(&body) }),
        }
    }

    async fn read_stream(
        &self,
        mut body: Incoming,
        spoken: Option<&Spoken>,
        id: u64,
        times: &Times,
    ) -> Result<Answer, SendError> {
        let mut frames = Frames::new(EVENT_BYTES_MAX);
        loop {
            while let Some(data) = frames.next_data()? {
                if data.is_empty() {
                    continue;
                }
                if let Some(answer) = self.read_event(&data, spoken, id, times).await? {
                    drain_briefly(body).await;
                    return Ok(answer);
                }
            }
            let frame = tokio::time::timeout_at(times.deadline, body.frame())
                .await
                .map_err(|_| SendError::DeadlinePassed)?
                .ok_or(SendError::StreamEnded)?;
            if let Ok(data) = frame.map_err(SendError::Broken)?.into_data() {
                frames.push(&data);
            }
        }
    }

    /// Requests that the instance sends meanwhile are answered: `ping` with a pong, all others with a refusal, as
    /// no capability was offered for them.
    async fn read_event(
        &self,
        data: &Bytes,
        spoken: Option<&Spoken>,
        id: u64,
        times: &Times,
    ) -> Result<Option<Answer>, SendError> {
        let reply = match envelope::read(data, id) {
            Ok(Message::Request { id, method }) if method == "ping" => envelope::pong(id),
            Ok(Message::Request { id, .. }) => envelope::refusal(id),
            Ok(message) => return Ok(answer_in(data, &message)),
            // A stray answer on a stream is none of ours; ours may still come.
            Err(AnswerError::WrongId) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Best effort: the call was sent long ago, and its outcome does not hang on this.
        if let Err(error) = self.reply(spoken, reply, times).await {
            tracing::debug!(error = super::chain(&error), "request of the instance not answered");
        }
        Ok(None)
    }

    async fn reply(&self, spoken: Option<&Spoken>, reply: Bytes, times: &Times) -> Result<(), SendError> {
        let deadline = times.deadline.min(tokio::time::Instant::now() + 2 * times.connect);
        let times = Times { first_byte: times.connect, deadline, ..*times };
        let mut connection = Connection::open(&self.target, &times).await?;
        let request = self.request(spoken, None, reply);
        let read = |response: Response<Incoming>| async move {
            connection::collect(response.into_body(), &times).await.map(drop)
        };
        connection.exchange(request, &times, read).await
    }

    /// Forgets the session: whoever registers again may be another process at the same place.
    pub fn begin_anew(&self) {
        self.spoken.store(None);
    }
}

/// The result or error that a message carries, cut out of its bytes without copying; `None` when it is neither.
fn answer_in(body: &Bytes, message: &Message<'_>) -> Option<Answer> {
    match message {
        Message::Result(result) => Some(Answer::Result(body.slice_ref(result.get().as_bytes()))),
        Message::Error(error) | Message::Unidentified(error) => {
            Some(Answer::Error(body.slice_ref(error.get().as_bytes())))
        }
        Message::Request { .. } | Message::Notification => None,
    }
}

/// Reads the end of a stream whose answer has come, so that the connection can be used again; servers end it at
/// once. One that does not is cut.
async fn drain_briefly(mut body: Incoming) {
    let end = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether the end came or not, the answer is there; a connection that is still busy is not used again.
    tokio::time::timeout(std::time::Duration::from_millis(5), end).await.ok();
}

fn snippet(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(&body[..body.len().min(400)]).chars().take(200).collect();
    text.replace(|c: char| c.is_control(), " ")
}
