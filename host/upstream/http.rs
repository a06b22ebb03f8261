//! Streamable HTTP: one message, one request.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::peer::Spoken;
use super::reply::{Events, Media, Reply, Stream, Whole};
use super::wire::{self, Connection, Pool, Target};
use super::{ANSWER_BYTES_MAX, SendError, Times};
use crate::mcp::deadline;
use crate::mcp::envelope::put_number;
use crate::mcp::era::Era;

/// A header of a request: its name in lower case, and its value.
pub type Header<'a> = (&'a str, &'a [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Post,
    Get,
    Delete,
}

/// The way to an instance over HTTP.
#[derive(Debug)]
pub(super) struct Http {
    pub target: Target,
    pool: Arc<Pool>,
}

impl Http {
    pub(super) fn new(target: Target, workers: usize) -> Self {
        Self { target, pool: Arc::new(Pool::new(workers)) }
    }

    pub(super) fn prune(&self) {
        self.pool.prune();
    }

    /// Sends on an idle connection of this worker or on a new one. `body` are the pieces of a message.
    pub(super) async fn exchange(
        &self,
        verb: Verb,
        spoken: Option<&Spoken>,
        headers: &[Header<'_>],
        body: &[&[u8]],
        times: &Times,
    ) -> Result<Reply, SendError> {
        let mut connection = match self.pool.take() {
            Some(connection) => connection,
            None => Connection::open(&self.target, times).await?,
        };
        let now = tokio::time::Instant::now();
        if now >= times.deadline {
            return Err(SendError::NoTimeLeft);
        }
        self.put_head(&mut connection.write, verb, spoken, headers, body);
        if verb == Verb::Post {
            end_head(&mut connection.write, times.left(now), body);
        } else {
            connection.write.put_slice(b"\r\n");
        }
        let first_byte = times.deadline.min(now + times.first_byte);
        let sent = async {
            connection.send(body).await?;
            connection.head().await
        };
        let head = match tokio::time::timeout_at(first_byte, sent).await {
            Ok(head) => head?,
            Err(_) if first_byte == times.deadline => return Err(SendError::DeadlinePassed),
            Err(_) => return Err(SendError::FirstByteTimeout(times.first_byte)),
        };
        let (status, session) = (head.status, head.session.clone());
        let answer = connection.into_body(&head, &self.pool);
        if head.media == wire::Media::EventStream && status.is_success() {
            return Ok(Reply::Stream(Stream { session, events: Events::http(answer) }));
        }
        let body = tokio::time::timeout_at(times.deadline, answer.collect(ANSWER_BYTES_MAX));
        let body = body.await.map_err(|_| SendError::DeadlinePassed)??;
        let media = match head.media {
            wire::Media::Json => Media::Json,
            wire::Media::EventStream => Media::Other("text/event-stream".to_owned()),
            wire::Media::Other(name) => Media::Other(name),
        };
        Ok(Reply::Whole(Whole { status, media, session, body }))
    }

    fn put_head(
        &self,
        out: &mut BytesMut,
        verb: Verb,
        spoken: Option<&Spoken>,
        headers: &[Header<'_>],
        body: &[&[u8]],
    ) {
        let size: usize = body.iter().map(|piece| piece.len()).sum();
        let more: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        out.clear();
        out.reserve(self.target.constant.len() + more + 320 + size.min(16 << 10));
        out.put_slice(match verb {
            Verb::Post => b"POST",
            Verb::Get => b"GET",
            Verb::Delete => b"DELETE",
        });
        out.put_slice(&self.target.constant);
        match verb {
            Verb::Post => {
                out.put_slice(
                    b"content-type: application/json\r\naccept: application/json, text/event-stream\r\n",
                );
            }
            Verb::Get => out.put_slice(b"accept: text/event-stream\r\n"),
            Verb::Delete => {}
        }
        if let Some(spoken) = spoken {
            put_header(out, "mcp-protocol-version", spoken.version.as_bytes());
            if let (Era::Legacy, Some(session)) = (spoken.era, &spoken.session) {
                put_header(out, "mcp-session-id", session.as_bytes());
            }
        }
        for (name, value) in headers {
            put_header(out, name, value);
        }
    }
}

/// What only messages have: how long their answer is waited for, and their length.
fn end_head(out: &mut BytesMut, left: u64, body: &[&[u8]]) {
    out.put_slice(deadline::HEADER.as_str().as_bytes());
    out.put_slice(b": ");
    put_number(out, left);
    out.put_slice(b"\r\ncontent-length: ");
    put_number(out, body.iter().map(|piece| piece.len() as u64).sum());
    out.put_slice(b"\r\n\r\n");
}

/// A value that no header can carry is left out: it cannot be what the other side would accept in its place.
fn put_header(out: &mut BytesMut, name: &str, value: &[u8]) {
    if value.iter().all(|b| *b >= 0x20 && *b != 0x7f || *b == b'\t') {
        out.put_slice(name.as_bytes());
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}
