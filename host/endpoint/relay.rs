//! From an instance's answer to the client's: message by message, each in the words of the client's era.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call::{Begun, Tie, capabilities};
use super::courier::{Client, Courier, Names, Recall, passes};
use super::held::PATIENCE;
use super::lane::Lane;
use super::session::{Busy, Question, Session};
use super::wanted::{Call, Wanted};
use super::{Endpoint, Received, Scope, failed, json, stream};
use crate::body::{Body, Out};
use crate::mcp::era::Era;
use crate::mcp::message::{self, Message, Shape};
use crate::mcp::{answer, envelope, sse, turn};
use crate::mesh::ids::CallId;
use crate::proxy::{Account, Attempt, CallFailure, Carry, Ending, Entered};
use crate::registry::Instance;
use crate::upstream::{Events, Post, Reply, SendError, Spoken, Times};

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

    /// An instance asks its client something while it works.
    async fn asked(
        &mut self,
        data: &Bytes,
        id: &str,
        method: &str,
        event_id: Option<Bytes>,
    ) -> Result<Option<Step>, Stopped> {
        if method == "ping" {
            self.reply(envelope::pong_to(id)).await;
            return Ok(None);
        }
        match (&self.side.session, self.lane()) {
            (Some(session), Some(lane)) => {
                let id = session.ask(Question::Lane { lane: Arc::clone(lane), id: id.to_owned() });
                self.deadline = self.deadline.max(Instant::now() + PATIENCE);
                Ok(Some(Step::Message(event_id.map(|id| self.event_id(&id)), turn::with_id(data, &id))))
            }
            _ if self.spoken.era == Era::Legacy && self.can(method) => {
                let message = std::str::from_utf8(data).ok().and_then(turn::Members::of);
                let params = message.and_then(|message| message.get("params")).unwrap_or("{}").to_owned();
                Err(Stopped::Held(id.to_owned(), method.to_owned(), params))
            }
            _ => {
                self.reply(envelope::refusal_to(id)).await;
                Ok(None)
            }
        }
    }

    /// Whether the modern client said that it can be asked this.
    fn can(&self, method: &str) -> bool {
        let capability = match method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => return false,
        };
        turn::Members::of(&self.side.capabilities).is_some_and(|can| can.get(capability).is_some())
    }

    /// Sends the instance what it waits for.
    async fn reply(&self, message: Bytes) {
        let post = Post { id: None, token: None, headers: &[], body: &[&message] };
        let times = self.endpoint.control_times();
        if let Err(error) = self.instance.peer.post(&self.spoken, &post, &times).await {
            tracing::debug!(error = crate::upstream::chain(&error), "question of the instance not answered");
        }
    }

    /// Keeps the call until its modern client comes back with the answer to a legacy instance's question.
    fn hold(self, question: String, method: &str, params: &str, events: Events) -> Bytes {
        let (id, endpoint) = (self.side.id.clone(), Arc::clone(&self.endpoint));
        let state = endpoint.held.put(Waiting { relay: self, events, question });
        turn::ask_for_input(&id, method, params, &state)
    }

    /// Asks the legacy client what the modern instance wants to know, and tells the instance.
    async fn round(&mut self, input: turn::InputRequired, out: &Out) -> Result<Source, Bytes> {
        let Some(session) = self.side.session.clone() else { return Err(self.fail(SendError::StreamEnded)) };
        self.deadline = self.deadline.max(Instant::now() + PATIENCE);
        let mut asked = Vec::new();
        for (key, method, params) in &input.questions {
            let (sender, answer) = oneshot::channel();
            let id = session.ask(Question::Here(sender));
            let method = turn::quoted(method);
            let question = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#);
            put_event(out, None, question.as_bytes()).await;
            asked.push((key.clone(), answer));
        }
        if asked.is_empty() {
            // It only wants to be asked again, later.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let mut answers = Vec::new();
        for (key, answer) in asked {
            let answer = tokio::select! {
                answer = answer => answer.ok(),
                () = tokio::time::sleep_until(self.deadline) => return Err(self.fail(SendError::DeadlinePassed)),
                () = self.ended() => return Err(self.fail(SendError::Cancelled)),
            };
            let answer = answer.unwrap_or_default();
            let members = std::str::from_utf8(&answer).ok().and_then(turn::Members::of);
            match members.as_ref().and_then(|members| members.get("result")) {
                Some(result) => answers.push((key, result.to_owned())),
                None => {
                    let error = members.and_then(|members| members.get("error")).unwrap_or("null");
                    let text = "the client did not answer what the instance asked";
                    let answer =
                        answer::error(Some(&self.side.id), answer::REFUSED, text, Some(error.as_bytes()));
                    return Err(self.settle(answer, StatusCode::OK));
                }
            }
        }
        let answers = turn::object(answers.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        self.again(&answers, input.state.as_deref()).await.map_err(|error| self.fail(error))
    }

    /// Sends the request once more, with the client's answers.
    async fn again(&mut self, answers: &str, state: Option<&str>) -> Result<Source, SendError> {
        let (Some(session), Some(lane)) = (&self.side.session, self.lane()) else {
            return Err(SendError::StreamEnded);
        };
        let snapshot = self.endpoint.registry.snapshot();
        let message = Message::read(&self.side.body).map_err(|_| SendError::StreamEnded)?;
        let view = self.side.scope.view(&snapshot).ok_or(SendError::StreamEnded)?;
        let Ok(Wanted::Call(mut call)) = Wanted::read(&self.side.scope, view, &snapshot, &message) else {
            return Err(SendError::StreamEnded);
        };
        call.tool = Cow::Borrowed(&self.names.tool);
        let mut more = vec![("inputResponses", answers)];
        more.extend(state.map(|state| ("requestState", state)));
        let reply = self.resend(session, lane, &message, &call, &more).await?;
        Ok(match reply {
            Reply::Stream(stream) => Source::Events(stream.events),
            Reply::Whole(whole) => Source::One(Some(whole.body)),
        })
    }

    async fn resend(
        &self,
        session: &Arc<Session>,
        lane: &Arc<Lane>,
        message: &Message<'_>,
        call: &Call<'_>,
        more: &[(&str, &str)],
    ) -> Result<Reply, SendError> {
        let times = Times { deadline: self.deadline, ..self.endpoint.control_times() };
        let client = Client::Legacy { session, lane };
        let headers = &self.side.headers;
        let (endpoint, names) = (&self.endpoint, self.names.clone());
        let courier =
            Courier { endpoint, permitted: None, times, call, message, headers, client, names, more };
        courier.carry(&lane.instance).await.map(|carried| carried.reply)
    }

    /// The instance's answer in the client's words.
    fn answer(&self, data: &Bytes) -> Bytes {
        let mut answer = match &self.names.id {
            Some(_) => turn::with_id(data, &self.side.id),
            None => data.clone(),
        };
        match (self.side.era, self.spoken.era) {
            (Era::Modern, Era::Legacy) => answer = turn::to_modern(&answer, &self.side.method),
            (Era::Legacy, Era::Modern) => answer = turn::to_legacy(&answer),
            (Era::Modern, Era::Modern) | (Era::Legacy, Era::Legacy) => {}
        }
        // A legacy session stays with its instance; everybody else is led back by a mark.
        if self.spoken.era == Era::Modern {
            turn::bound_to(&answer, self.instance.name().as_str()).unwrap_or(answer)
        } else {
            answer
        }
    }

    /// Closes the call with its answer.
    fn close(&mut self, answer: &[u8], status: StatusCode) {
        let failure = turn::is_failure(answer);
        if let Some(attempt) = self.attempt.take() {
            attempt.succeed(failure);
        }
        if let Some(account) = self.account.take() {
            account.settle(if failure { Ending::ToolError } else { Ending::Ok }, status, answer.len());
        }
    }

    fn settle(&mut self, answer: Bytes, status: StatusCode) -> Bytes {
        self.close(&answer, status);
        answer
    }

    /// Closes the call with what kept its answer from coming, and says so to the client.
    fn fail(&mut self, error: SendError) -> Bytes {
        if let Some(attempt) = self.attempt.take() {
            attempt.fail(&error, self.impatient);
        }
        let failure = CallFailure::of(&self.instance, error);
        if let Some(account) = self.account.take() {
            account.fail(&failure);
        }
        failed(self.side.call, &self.side.id, &failure)
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

impl Drop for Relay {
    /// A modern client that goes away cancels its request; a legacy instance has to be told.
    fn drop(&mut self) {
        if self.attempt.take().is_none() {
            return;
        }
        if let (Some(id), true) = (self.names.id.take(), self.side.era == Era::Modern) {
            drop(Recall::new(&self.endpoint, &self.instance.peer, &self.spoken, Some(id)));
        }
    }
}

impl Waiting {
    /// Goes on with the client's answer, JSON text, and the id of the request that brought it.
    pub async fn resume(self, received: &Received<'_>, message: &Message<'_>, input: &str) -> Response<Body> {
        let Self { mut relay, events, question } = self;
        relay.side.id = message.id().unwrap_or("null").to_owned();
        relay.side.call = received.id;
        relay.side.token = message.progress_token().map(|token| token.get().to_owned());
        relay.deadline = Instant::now() + relay.endpoint.proxy.times().whole;
        relay.reply(envelope::result_to(&question, input)).await;
        let stream = crate::upstream::Stream { session: None, events };
        Box::pin(relay.respond(Reply::Stream(stream))).await
    }

    /// Asks again: the client came back without an answer.
    pub fn is_answered_by<'m>(&self, message: &Message<'m>) -> Option<&'m str> {
        let responses = message.params().and_then(|params| params.input_responses)?;
        turn::Members::of(responses.get()).and_then(|responses| responses.get(turn::QUESTION))
    }
}

pub(super) async fn put_event(out: &Out, id: Option<&[u8]>, message: &[u8]) {
    let mut event = BytesMut::with_capacity(message.len() + 64);
    sse::put_event(&mut event, id, message);
    out.put(event.freeze()).await;
}
