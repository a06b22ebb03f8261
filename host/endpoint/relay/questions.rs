//! What an instance wants to know of its client while it works, in either era: questions on the stream, and answers
//! that ask for more.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Relay, Source, Step, Stopped, Waiting, put_event};
use crate::body::{Body, Out};
use crate::endpoint::Received;
use crate::endpoint::courier::{Client, Courier};
use crate::endpoint::held::PATIENCE;
use crate::endpoint::lane::Lane;
use crate::endpoint::session::{Question, Session};
use crate::endpoint::wanted::{Call, Wanted};
use crate::mcp::era::Era;
use crate::mcp::message::Message;
use crate::mcp::{answer, envelope, turn};
use crate::proxy::Carry;
use crate::upstream::{Events, Post, Reply, SendError, Times};

impl Relay {
    /// An instance asks its client something while it works.
    pub(super) async fn asked(
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
    pub(super) fn can(&self, method: &str) -> bool {
        let capability = match method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => return false,
        };
        turn::Members::of(&self.side.capabilities).is_some_and(|can| can.get(capability).is_some())
    }

    /// Sends the instance what it waits for.
    pub(super) async fn reply(&self, message: Bytes) {
        let post = Post { id: None, token: None, headers: &[], body: &[&message] };
        let times = self.endpoint.control_times();
        if let Err(error) = self.instance.peer.post(&self.spoken, &post, &times).await {
            tracing::debug!(error = crate::upstream::chain(&error), "question of the instance not answered");
        }
    }

    /// Keeps the call until its modern client comes back with the answer to a legacy instance's question.
    pub(super) fn hold(self, question: String, method: &str, params: &str, events: Events) -> Bytes {
        let (id, endpoint) = (self.side.id.clone(), Arc::clone(&self.endpoint));
        events.set_away(true);
        let state = endpoint.held.put(Waiting { relay: self, events, question });
        turn::ask_for_input(&id, method, params, &state)
    }

    /// Asks the legacy client what the modern instance wants to know, and tells the instance.
    pub(super) async fn round(&mut self, input: turn::InputRequired, out: &Out) -> Result<Source, Bytes> {
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
    pub(super) async fn again(&mut self, answers: &str, state: Option<&str>) -> Result<Source, SendError> {
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

    pub(super) async fn resend(
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
}

impl Waiting {
    /// Goes on with the client's answer, JSON text, and the id of the request that brought it.
    pub(in crate::endpoint) async fn resume(
        self,
        received: &Received<'_>,
        message: &Message<'_>,
        input: &str,
    ) -> Response<Body> {
        let Self { mut relay, events, question } = self;
        events.set_away(false);
        relay.side.id = message.id().unwrap_or("null").to_owned();
        relay.side.call = received.id;
        relay.side.token = message.progress_token().map(|token| token.get().to_owned());
        relay.deadline = Instant::now() + relay.endpoint.proxy.times().whole;
        relay.reply(envelope::result_to(&question, input)).await;
        let stream = crate::upstream::Stream { session: None, events };
        Box::pin(relay.respond(Reply::Stream(stream))).await
    }

    /// Asks again: the client came back without an answer.
    pub(in crate::endpoint) fn is_answered_by<'m>(&self, message: &Message<'m>) -> Option<&'m str> {
        let responses = message.params().and_then(|params| params.input_responses)?;
        turn::Members::of(responses.get()).and_then(|responses| responses.get(turn::QUESTION))
    }
}
