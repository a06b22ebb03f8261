//! Talking to instances: streamable HTTP and standard input and output, in both eras.
//!
//! An instance's [`Peer`] holds what outlives a call: its idle connections or its process, and how it is spoken to. Knows the protocol and takes only permitted calls. Must not know how an instance was chosen, nor
//! what a caller is told.

mod ask;
mod child;
mod handshake;
mod http;
mod introspect;
mod lines;
mod own;
mod peer;
mod reader;
mod recall;
mod reply;
mod rest;
mod shared;
mod stdio;
mod unasked;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use thiserror::Error;

use crate::mcp::envelope::AnswerError;
use crate::mcp::sse::EventTooLarge;
use crate::mesh::deadline;
use crate::mesh::flood::{BURST_MAX, PER_S_MAX};
use crate::mesh::retry::Failure;
use crate::mesh::stall::STALL_MAX;
use crate::process::{Searched, StartError};

pub use self::http::Header;
pub use ask::{Answer, status_error};
pub use child::{Exit, Log, Standing};
pub use introspect::{ITEMS_MAX, Probe};
pub use peer::{Peer, Post, Spoken};
pub use reply::{Events, Media, Reply, Stream, Whole};
pub use rest::Hold;
pub use stdio::Process;
pub use wire::HeadError;

/// Largest answer that is collected.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Largest SSE event.
pub const EVENT_BYTES_MAX: usize = 16 << 20;

/// How long the steps of a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub connect: Duration,
    /// From the request's first byte to the answer's.
    pub first_byte: Duration,
    /// The end of everything.
    pub deadline: tokio::time::Instant,
    /// A process that rests is started for it, and waited for.
    pub wakes: bool,
    /// The caller or a router set the deadline: whoever has no headers is told in the message.
    pub stated: bool,
}

impl Times {
    /// What an instance is told of the time that is left, in milliseconds.
    pub fn left(&self, now: tokio::time::Instant) -> u64 {
        deadline::told(self.deadline.saturating_duration_since(now))
    }
}

/// Why an instance gave no answer.
#[derive(Debug, Error)]
pub enum SendError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("the connection was closed before the request was sent")]
    NotSent(#[source] std::io::Error),
    #[error("cannot start `{program}`")]
    Start { program: String, source: StartError },
    #[error(transparent)]
    Missing(#[from] Searched),
    /// The process that all share does not run.
    #[error("it does not run: {0}")]
    Down(Arc<str>),
    /// Each client session has a process, and there may be no more of them.
    #[error("{0} client sessions have a process there already, as many as may have (`sessions_max`)")]
    Full(usize),
    /// The process was put to rest just before: whoever sends waits for the next one.
    #[error("it rests")]
    Resting,
    #[error("the connection broke after the request was sent")]
    Broken(#[source] std::io::Error),
    #[error("the head of the answer cannot be understood")]
    Head(#[from] HeadError),
    #[error("no first byte within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the deadline passed")]
    DeadlinePassed,
    #[error("the deadline passed before the request was sent")]
    NoTimeLeft,
    #[error("the client cancelled the request, or ended its session")]
    Cancelled,
    #[error("the instance asked more than {0} times in a row")]
    TooManyRounds(u32),
    #[error("HTTP status {status}: {detail}")]
    Status { status: StatusCode, detail: String },
    #[error("the session is gone")]
    SessionGone,
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("an event of the answer is too large")]
    Event(#[from] EventTooLarge),
    #[error("more than {BURST_MAX} messages at once, or {PER_S_MAX} a second, came with the answer")]
    Flood,
    /// Of a process, whose output all its callers share: whoever holds them up is given up, and the process told.
    #[error(
        "the client reads too slowly: calls like it may hold a process that others use up for {STALL_MAX:?} together"
    )]
    SlowReader,
    #[error("the event stream ended without an answer")]
    StreamEnded,
    #[error("its process ended, or closed its output, without an answer")]
    ProcessEnded,
    #[error("the answer is `{0}`, neither JSON nor an event stream")]
    ContentType(String),
    #[error("the answer cannot be understood")]
    Malformed(#[from] AnswerError),
    /// Whatever broke before the instance could be spoken to: the call itself was not sent.
    #[error("the handshake failed: {why}")]
    Handshake { status: Option<StatusCode>, why: String },
}

/// What a failure says about the instance, for its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The instance is at fault.
    Instance,
    /// Nobody, or the instance if it does so most of the time: counts in the ratio only.
    Often,
    /// The request was at fault.
    Caller,
    /// Nothing can be said.
    Nobody,
}

impl SendError {
    /// How far the call had come (see the retry table).
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect(_)
            | Self::ConnectTimeout(_)
            | Self::NotSent(_)
            | Self::NoTimeLeft
            | Self::Start { .. }
            | Self::Missing(_)
            | Self::Down(_)
            | Self::Resting
            | Self::Full(_)
            | Self::Handshake { .. } => Failure::NotSent,
            Self::Broken(_)
            | Self::Head(_)
            | Self::FirstByteTimeout(_)
            | Self::DeadlinePassed
            | Self::Cancelled
            | Self::SlowReader
            | Self::StreamEnded
            | Self::ProcessEnded => Failure::Unanswered,
            Self::Status { status, .. } => match *status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Failure::Unanswered,
                _ => Failure::Answered,
            },
            Self::SessionGone
            | Self::TooManyRounds(_)
            | Self::TooLarge(_)
            | Self::Event(_)
            | Self::Flood
            | Self::ContentType(_)
            | Self::Malformed(_) => Failure::Answered,
        }
    }

    pub fn blame(&self) -> Blame {
        match self {
            Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS => Blame::Often,
            Self::Status { status, .. } if status.is_client_error() => Blame::Caller,
            Self::TooLarge(_) | Self::Event(_) | Self::Flood => Blame::Often,
            Self::Cancelled
            | Self::SlowReader
            | Self::NoTimeLeft
            | Self::Down(_)
            | Self::Resting
            | Self::Full(_) => Blame::Nobody,
            _ => Blame::Instance,
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Whether time ran out that the caller set, not the instance's own.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::DeadlinePassed | Self::NoTimeLeft | Self::ConnectTimeout(_))
    }

    /// Whether the request may be under way still, with nobody waiting for its answer.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::DeadlinePassed | Self::FirstByteTimeout(_))
    }
}

/// An error and its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
