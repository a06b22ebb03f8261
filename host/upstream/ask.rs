//! Requests of the proxy's own making, and reading an answer to its end.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio_util::task::TaskTracker;

use super::http::Header;
use super::peer::{Peer, Post, Spoken};
use super::recall::{Recalls, Unheard};
use super::reply::{Media, Reply, Whole};
use super::{SendError, Times};
use crate::mcp::envelope::{self, AnswerError, Message};
use crate::mcp::era::{Era, METHOD, NAME, header_name};
use crate::mcp::mirrored;
use crate::policy::chain::{Call, Permitted};

/// An instance's answer to a request: bytes as they came.
#[derive(Debug)]
pub enum Answer {
    Result(Bytes),
    /// A JSON-RPC error object.
    Error(Bytes),
}

/// A request of the proxy's own making.
pub(super) struct Ask<'a> {
    pub method: &'static str,
    /// What the `Mcp-Name` header repeats.
    pub name: Option<&'a str>,
    /// Members of `params`, JSON text without braces.
    pub members: &'a [&'a [u8]],
    /// Headers that repeat arguments.
    pub mirrored: &'a [(String, String)],
    /// Who tells the instance when the answer is not waited for any more.
    pub recalls: Option<Recalls<'a>>,
}

impl Peer {
    /// Calls a tool and reads the answer. Arguments are those of the call; `declaration` is the tool's, JSON text, when
    /// it is known: it may say that arguments are repeated in headers. When nobody waits any more, one of `tasks` tells
    /// the instance so.
    ///
    /// # Errors
    /// See [`SendError::failure`] for how far the call had come.
    pub async fn call_tool(
        self: &Arc<Self>,
        call: &Permitted<Call<'_>>,
        declaration: Option<&str>,
        times: &Times,
        tasks: &TaskTracker,
    ) -> Result<Answer, SendError> {
        let mut quoted = bytes::BytesMut::with_capacity(call.tool().len() + 16);
        quoted.extend_from_slice(b"\"name\":");
        envelope::put_string(&mut quoted, call.tool());
        let members: [&[u8]; 3] = [&quoted, b",\"arguments\":", call.arguments()];
        let arguments = std::str::from_utf8(call.arguments()).unwrap_or("{}");
        let mirrored = declaration.map(|declaration| mirrored::headers(declaration, arguments));
        let mirrored = mirrored.unwrap_or_default();
        let ask = Ask {
            method: "tools/call",
            name: Some(call.tool()),
            members: &members,
            mirrored: &mirrored,
            recalls: Some(Recalls { peer: self, tasks }),
        };
        self.ask(&ask, times).await
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

    pub(super) async fn ask_as(
        &self,
        spoken: &Spoken,
        ask: &Ask<'_>,
        times: &Times,
    ) -> Result<Answer, SendError> {
        let id = self.next_id();
        let told = times.stated && self.is_process();
        let left = told.then(|| times.left(tokio::time::Instant::now()));
        let body = envelope::request(spoken.era, id, ask.method, left, ask.members);
        let name = ask.name.map(header_name);
        let mut headers: Vec<Header<'_>> = Vec::new();
        if spoken.era == Era::Modern {
            headers.push((METHOD.as_str(), ask.method.as_bytes()));
            headers.extend(name.as_deref().map(|name| (NAME.as_str(), name.as_bytes())));
            headers.extend(ask.mirrored.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        }
        let text = id.to_string();
        let post = Post { id: Some(&text), token: None, headers: &headers, body: &[&body] };
        let unheard = ask.recalls.map(|recalls| Unheard::new(recalls, spoken, id));
        let answered = async {
            let reply = self.post(spoken, &post, times).await?;
            self.answer(reply, spoken, id, times).await
        };
        let answered = answered.await;
        if let Some(unheard) = unheard {
            unheard.heard(&answered);
        }
        answered
    }

    /// Reads what answers request `id`, out of one message or a stream of them.
    pub(super) async fn answer(
        &self,
        reply: Reply,
        spoken: &Spoken,
        id: u64,
        times: &Times,
    ) -> Result<Answer, SendError> {
        let mut events = match reply {
            Reply::Whole(whole) => return whole_answer(&whole, spoken, id),
            Reply::Stream(stream) => stream.events,
        };
        loop {
            let event = tokio::time::timeout_at(times.deadline, events.next())
                .await
                .map_err(|_| SendError::DeadlinePassed)??
                .ok_or_else(|| events.ended())?;
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            if let Some(answer) = self.read_event(&data, spoken, id, times).await? {
                events.drain_briefly().await;
                return Ok(answer);
            }
        }
    }

    /// Requests that the instance sends meanwhile are answered: `ping` with a pong, all others with a refusal, as
    /// no capability was offered for them.
    async fn read_event(
        &self,
        data: &Bytes,
        spoken: &Spoken,
        id: u64,
        times: &Times,
    ) -> Result<Option<Answer>, SendError> {
        let reply = match envelope::read(data, id) {
            Ok(Message::Request { id, method }) if method == "ping" => envelope::pong_to(id.get()),
            Ok(Message::Request { id, .. }) => envelope::refusal_to(id.get()),
            Ok(message) => return Ok(answer_in(data, &message)),
            // A stray answer on a stream is none of ours; ours may still come.
            Err(AnswerError::WrongId) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let deadline = times.deadline.min(tokio::time::Instant::now() + 2 * times.connect);
        let times = Times { first_byte: times.connect, deadline, ..*times };
        let post = Post { id: None, token: None, headers: &[], body: &[&reply] };
        // Best effort: the call was sent long ago, and its outcome does not hang on this.
        if let Err(error) = self.post(spoken, &post, &times).await {
            tracing::debug!(error = super::chain(&error), "request of the instance not answered");
        }
        Ok(None)
    }
}

/// Errors of the protocol come with 4xx statuses. What is addressed to this request answers it; a 404 about a
/// session, or a 400 that does not even name the request, says that the session is gone and nothing was done.
fn whole_answer(whole: &Whole, spoken: &Spoken, id: u64) -> Result<Answer, SendError> {
    let message = whole.is_json().then(|| envelope::read(&whole.body, id));
    if whole.status.is_success() {
        let message = message.ok_or_else(|| match &whole.media {
            Media::Other(name) => SendError::ContentType(name.clone()),
            Media::Json => SendError::ContentType(String::new()),
        })??;
        return answer_in(&whole.body, &message).ok_or(SendError::Malformed(AnswerError::Empty));
    }
    let had_session = spoken.session.is_some();
    match message {
        Some(Ok(Message::Error(error))) => Ok(Answer::Error(whole.body.slice_ref(error.get().as_bytes()))),
        Some(Ok(Message::Unidentified(_)) | Err(AnswerError::WrongId))
            if had_session && whole.status == StatusCode::BAD_REQUEST =>
        {
            Err(SendError::SessionGone)
        }
        _ => Err(status_error(whole)),
    }
}

/// What a status and a body that is no answer say.
pub fn status_error(whole: &Whole) -> SendError {
    let text: String =
        String::from_utf8_lossy(&whole.body[..whole.body.len().min(400)]).chars().take(200).collect();
    SendError::Status { status: whole.status, detail: text.replace(|c: char| c.is_control(), " ") }
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
