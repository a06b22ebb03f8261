//! The beginning of an instance's answer: one message, or a stream of them.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::broadcast;

use super::stdio::Call;
use super::unasked::Unasked;
use super::wire;
use super::{EVENT_BYTES_MAX, SendError};
use crate::clock;
use crate::mcp::sse::{Event, Frames};
use crate::mesh::flood::Flood;

/// An answer whose head has come.
#[derive(Debug)]
pub enum Reply {
    Whole(Whole),
    Stream(Stream),
}

/// An answer that is there to its last byte.
#[derive(Debug)]
pub struct Whole {
    pub status: StatusCode,
    pub media: Media,
    pub session: Option<HeaderValue>,
    pub body: Bytes,
}

/// What the media type says of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    /// Anything else, as it was named.
    Other(String),
}

impl Whole {
    pub fn is_json(&self) -> bool {
        self.media == Media::Json
    }
}

/// Messages that are still to come.
#[derive(Debug)]
pub struct Stream {
    pub session: Option<HeaderValue>,
    pub events: Events,
}

/// The messages of a stream, one by one. Dropping it closes the stream.
#[derive(Debug)]
pub struct Events {
    source: Source,
    flood: Flood,
}

#[derive(Debug)]
enum Source {
    Http {
        body: Box<wire::Incoming>,
        frames: Frames,
    },
    /// What a process says to one request.
    Call(Call),
    /// What a process says unasked.
    Unasked(Unasked),
}

impl Events {
    pub(super) fn http(body: wire::Incoming) -> Self {
        Self::of(Source::Http { body: Box::new(body), frames: Frames::new(EVENT_BYTES_MAX) })
    }

    pub(super) fn call(call: Call) -> Self {
        Self::of(Source::Call(call))
    }

    pub(super) fn unasked(channel: broadcast::Receiver<Bytes>) -> Self {
        Self::of(Source::Unasked(Unasked::new(channel)))
    }

    fn of(source: Source) -> Self {
        Self { source, flood: Flood::default() }
    }

    /// The next event; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, SendError>> {
        let next = ready!(self.poll_source(cx))?;
        if next.is_some() && !self.flood.add(1, clock::mono).is_zero() {
            return Poll::Ready(Err(SendError::Flood));
        }
        Poll::Ready(Ok(next))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, SendError>> {
        match &mut self.source {
            Source::Http { body, frames } => loop {
                if let Some(event) = frames.next_event()? {
                    return Poll::Ready(Ok(Some(event)));
                }
                match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => frames.push(&data),
                    Some(Err(error)) => return Poll::Ready(Err(SendError::Broken(error))),
                    None => return Poll::Ready(Ok(None)),
                }
            },
            Source::Call(call) => call.poll_next(cx).map_ok(|message| message.map(bare)),
            Source::Unasked(messages) => messages.poll(cx).map(|message| Ok(message.map(bare))),
        }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// The stream broke, an event is too large, or there are too many.
    pub async fn next(&mut self) -> Result<Option<Event>, SendError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whoever waits for these messages reads on later, or now again. A process that serves others, too, does not
    /// wait for him meanwhile: it keeps as many as always and the answer, and passes over the rest. Of HTTP instances the
    /// stream is his alone.
    pub fn set_away(&self, is_away: bool) {
        if let Source::Call(call) = &self.source {
            call.set_away(is_away);
        }
    }

    /// What its end means for who waits for an answer.
    pub fn ended(&self) -> SendError {
        match self.source {
            Source::Http { .. } => SendError::StreamEnded,
            Source::Call(_) | Source::Unasked(_) => SendError::ProcessEnded,
        }
    }

    /// Reads the end of a stream whose answer has come, so that the connection can be used again; servers end it at
    /// once. One that does not is cut.
    pub(super) async fn drain_briefly(mut self) {
        let end = async { while let Ok(Some(_)) = self.next().await {} };
        // Whether the end came or not, the answer is there; a connection that is still busy is not used again.
        tokio::time::timeout(std::time::Duration::from_millis(5), end).await.ok();
    }
}

/// A message that came without an event around it.
fn bare(message: Bytes) -> Event {
    Event { raw: Bytes::new(), data: Some(message), id: None }
}
