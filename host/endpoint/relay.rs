//! From an instance's answer to the client's: message by message, each in the words of the client's era.

mod ending;
mod questions;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::call::{Begun, Tie, capabilities};
use super::courier::{Names, passes};
use super::held::PATIENCE;
use super::lane::Lane;
use super::session::{Busy, Session};
use super::{Endpoint, Received, Scope, json, stream};
use crate::body::{Body, Out};
use crate::mcp::era::Era;
use crate::mcp::message::{self, Message, Shape};
use crate::mcp::{answer, sse, turn};
use crate::mesh::ids::CallId;
use crate::proxy::{Account, Attempt, Ending, Entered};
use crate::registry::Instance;
use crate::upstream::{Events, Reply, SendError, Spoken};

/// Questions in a row that an instance may have before it answers.
const ROUNDS_MAX: u32 = 16;

/// The client's side of a call.
pub(super) struct Side {
    call: CallId,
    scope: Scope,
    era: Era,
    method: String,
    /// JSON text.
    id: String,
    /// JSON text.
    token: Option<String>,
    capabilities: String,
    /// The client wants to be told the log.
    logs: bool,
    body: Bytes,
    headers: HeaderMap,
    session: Option<Arc<Session>>,
    _busy: Option<Busy>,
}

impl Side {
    pub fn new(received: &Received<'_>, message: &Message<'_>, session: Option<Arc<Session>>) -> Self {
        let era = if session.is_some() { Era::Legacy } else { Era::Modern };
        // Copied only when the call may have to be told again.
        let again = received.headers.iter().filter(|(name, _)| passes(name.as_str()));
        Self {
            call: received.id,
            scope: received.scope.clone(),
            era,
            method: message.method().to_owned(),
            id: message.id().unwrap_or("null").to_owned(),
            token: message.progress_token().map(|token| token.get().to_owned()),
            capabilities: capabilities(message).to_owned(),
            logs: message.meta().is_some_and(|meta| meta.log_level.is_some()),
            body: received.body.clone(),
            headers: again.map(|(name, value)| (name.clone(), value.clone())).collect(),
            _busy: session.as_ref().map(Session::busy),
            session,
        }
    }
}

/// A call whose answer is on its way to the client. It is closed once: with the answer, with what kept it from
/// coming, or by being dropped when the client goes away.
pub(super) struct Relay {
    endpoint: Arc<Endpoint>,
    side: Side,
    spoken: Arc<Spoken>,
    tie: Option<Tie>,
    names: Names,
    instance: Arc<Instance>,
    attempt: Option<Attempt>,
    account: Option<Account>,
    deadline: Instant,
    impatient: bool,
    _entered: Entered,
}

/// What comes from the instance: an open stream, or one message.
enum Source {
    Events(Events),
    One(Option<Bytes>),
}

/// A call that waits for its client's input: all of it, and the id of the instance's question.
pub(super) struct Waiting {
    relay: Relay,
    events: Events,
    question: String,
}

/// What is next for the client.
enum Step {
    /// A message before the answer, with the id of its event.
    Message(Option<Bytes>, Bytes),
    /// The answer, the last message.
    Answer(Bytes),
    /// The instance wants to know more before it answers.
    Round(turn::InputRequired),
}

impl Relay {
    /// Answers the client with what has begun.
    pub async fn answer_with(
        endpoint: &Arc<Endpoint>,
        begun: Begun,
        side: Side,
        entered: Entered,
    ) -> Response<Body> {
        let Begun { attempt, carried, tie, account, deadline, impatient } = begun;
        let relay = Self {
            endpoint: Arc::clone(endpoint),
            side,
            spoken: carried.spoken,
            tie,
            names: carried.names,
            instance: carried.instance,
            attempt,
            account,
            deadline,
            impatient,
            _entered: entered,
        };
        relay.respond(carried.reply).await
    }

    fn lane(&self) -> Option<&Arc<Lane>> {
        self.tie.as_ref().map(|tie| &tie.lane)
    }

    /// Whether messages pass as they are, events and all: client and instance share one legacy session.
    fn is_transparent(&self) -> bool {
        self.side.era == Era::Legacy
            && self.spoken.era == Era::Legacy
            && self.side.scope.is_service()
            && self.names.id.is_none()
            && !self.instance.peer.is_process()
    }

    /// The client's answer: JSON when the instance has nothing to say before, a stream otherwise.
    async fn respond(mut self, reply: Reply) -> Response<Body> {
        let mut source = match reply {
            Reply::Stream(events) if self.is_transparent() => {
                return stream(move |out| self.pass_on(events.events, out));
            }
            Reply::Stream(events) => Source::Events(events.events),
            Reply::Whole(whole) => {
                // Statuses of the protocol's own errors are the modern era's; a client of the other knows 200.
                let status = if self.spoken.era == Era::Modern && self.side.era == Era::Modern
                    || self.is_transparent()
                {
                    whole.status
                } else {
                    StatusCode::OK
                };
                if !whole.is_json() && !whole.body.is_empty() {
                    let name = match whole.media {
                        crate::upstream::Media::Other(name) => name,
                        crate::upstream::Media::Json => String::new(),
                    };
                    return json(StatusCode::OK, self.fail(SendError::ContentType(name)));
                }
                if self.is_transparent() || memchr::memmem::find(&whole.body, b"\"input_required\"").is_none()
                {
                    let answer = self.answer(&whole.body);
                    let status = if status == StatusCode::OK { self.status_of(&answer) } else { status };
                    return json(status, self.settle(answer, status));
                }
                Source::One(Some(whole.body))
            }
        };
        match self.next(&mut source).await {
            Ok(Step::Answer(answer)) => {
                let status = self.status_of(&answer);
                json(status, self.settle(answer, status))
            }
            Ok(Step::Message(id, message)) => stream(move |out| async move {
                self.put(&out, id.as_deref(), &message).await;
                self.drive(source, out).await;
            }),
            Ok(Step::Round(input)) => stream(move |out| async move {
                match self.round(input, &out).await {
                    Ok(source) => self.drive(source, out).await,
                    Err(answer) => self.put(&out, None, &answer).await,
                }
            }),
            Err(Stopped::Failed(error)) => json(StatusCode::OK, self.fail(error)),
            Err(Stopped::Held(question, method, params)) => {
                let Source::Events(events) = source else {
                    return json(StatusCode::OK, self.fail(SendError::StreamEnded));
                };
                json(StatusCode::OK, self.hold(question, &method, &params, events))
            }
        }
    }

    /// The modern era has a status for methods that are not there.
    fn status_of(&self, message: &[u8]) -> StatusCode {
        let bridged = self.side.era == Era::Modern && self.spoken.era == Era::Legacy;
        if bridged
            && turn::is_failure(message)
            && turn::error_code(message) == Some(i64::from(answer::METHOD_NOT_FOUND))
        {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::OK
        }
    }

    /// Message after message, the answer last.
    async fn drive(mut self, mut source: Source, out: Out) {
        let mut rounds = 0;
        loop {
            match self.next(&mut source).await {
                Ok(Step::Message(id, message)) => self.put(&out, id.as_deref(), &message).await,
                Ok(Step::Answer(answer)) => {
                    let answer = self.settle(answer, StatusCode::OK);
                    return put_event(&out, None, &answer).await;
                }
                Ok(Step::Round(input)) if rounds < ROUNDS_MAX => {
                    rounds += 1;
                    match self.round(input, &out).await {
                        Ok(again) => source = again,
                        Err(answer) => return put_event(&out, None, &answer).await,
                    }
                }
                Ok(Step::Round(_)) => {
                    let answer = self.fail(SendError::TooManyRounds(ROUNDS_MAX));
                    return put_event(&out, None, &answer).await;
                }
                Err(Stopped::Held(question, method, params)) => {
                    let Source::Events(events) = source else { return };
                    let answer = self.hold(question, &method, &params, events);
                    return put_event(&out, None, &answer).await;
                }
                Err(Stopped::Failed(error)) => {
                    let answer = self.fail(error);
                    return put_event(&out, None, &answer).await;
                }
            }
        }
    }

    async fn put(&self, out: &Out, id: Option<&[u8]>, message: &[u8]) {
        put_event(out, id, message).await;
    }

    /// Passes a stream on as it is. Its end without an answer is the client's to deal with: it may resume.
    async fn pass_on(mut self, mut events: Events, out: Out) {
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                () = tokio::time::sleep_until(self.deadline) => Err(SendError::DeadlinePassed),
                () = self.ended() => return,
            };
            match next {
                Ok(Some(event)) => {
                    let data = event.data.clone().unwrap_or_default();
                    out.put(event.raw).await;
                    match message::shape(&data) {
                        Some(Shape::Answer { id }) if id == self.side.id => self.close(&data, StatusCode::OK),
                        // A person may have to answer.
                        Some(Shape::Request { .. }) => {
                            self.deadline = self.deadline.max(Instant::now() + PATIENCE)
                        }
                        _ => {}
                    }
                }
                Ok(None) => return self.leave(),
                Err(error) => {
                    if self.attempt.is_some() {
                        let answer = self.fail(error);
                        put_event(&out, None, &answer).await;
                    }
                    return;
                }
            }
        }
    }

    /// The stream ended, and the answer may come another way.
    fn leave(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.succeed(false);
        }
        if let Some(account) = self.account.take() {
            account.settle(Ending::Ok, StatusCode::OK, 0);
        }
    }

    /// The client's session has ended, or the client has cancelled.
    async fn ended(&self) {
        let ended = async {
            match &self.side.session {
                Some(session) => session.ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            match &self.tie {
                Some(tie) => tie.cancel.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            () = cancelled => {}
        }
    }

    async fn next(&mut self, source: &mut Source) -> Result<Step, Stopped> {
        loop {
            let (event_id, data) = match source {
                Source::One(one) => (None, one.take().ok_or(SendError::StreamEnded)?),
                Source::Events(events) => {
                    let event = tokio::select! {
                        next = events.next() => next?.ok_or(SendError::StreamEnded)?,
                        () = tokio::time::sleep_until(self.deadline) => return Err(SendError::DeadlinePassed.into()),
                        () = self.ended() => return Err(SendError::Cancelled.into()),
                    };
                    match event.data.filter(|data| !data.is_empty()) {
                        Some(data) => (event.id, data),
                        None => continue,
                    }
                }
            };
            let inner = self.names.id.as_deref().unwrap_or(&self.side.id);
            match message::shape(&data) {
                Some(Shape::Answer { id }) if id == inner || id == "null" => {
                    if self.side.era == Era::Legacy
                        && self.spoken.era == Era::Modern
                        && let Some(input) = turn::input_required(&data)
                    {
                        return Ok(Step::Round(input));
                    }
                    return Ok(Step::Answer(self.answer(&data)));
                }
                Some(Shape::Request { id, method }) => {
                    if let Some(step) = self.asked(&data, id, &method, event_id).await? {
                        return Ok(step);
                    }
                }
                Some(Shape::Notification { progress_token }) => {
                    let data = match (&self.names.token, &self.side.token, progress_token) {
                        (Some(inner), Some(outer), Some(token)) if inner == token => {
                            turn::with_token(&data, outer)
                        }
                        _ => data.clone(),
                    };
                    if self.is_unwanted_log(&data) {
                        continue;
                    }
                    return Ok(Step::Message(event_id.map(|id| self.event_id(&id)), data));
                }
                // An answer to another, or no message at all.
                _ => {
                    tracing::debug!(call = %self.side.call, "message of the instance belongs to nothing here")
                }
            }
        }
    }

    /// Modern clients are told the log of a request only when the request asks for it.
    fn is_unwanted_log(&self, data: &[u8]) -> bool {
        self.side.era == Era::Modern
            && !self.side.logs
            && memchr::memmem::find(data, b"\"notifications/message\"").is_some()
    }

    /// The id of an event of one of the instances behind a client's session.
    fn event_id(&self, id: &[u8]) -> Bytes {
        match self.lane() {
            Some(lane) if !self.side.scope.is_service() => {
                [lane.service.as_str().as_bytes(), b"/", id].concat().into()
            }
            _ => Bytes::copy_from_slice(id),
        }
    }
}

/// Why no message is next.
enum Stopped {
    Failed(SendError),
    /// The instance asks something that a modern client is asked by an answer: id, method and parameters.
    Held(String, String, String),
}

impl From<SendError> for Stopped {
    fn from(error: SendError) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn put_event(out: &Out, id: Option<&[u8]>, message: &[u8]) {
    let mut event = BytesMut::with_capacity(message.len() + 64);
    sse::put_event(&mut event, id, message);
    out.put(event.freeze()).await;
}
