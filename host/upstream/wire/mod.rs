//! HTTP/1.1 to instances, as little of it as a proxy needs: one request at a time on a connection that the task that
//! uses it drives itself. No second task, no channel, no timer of its own.
//!
//! Knows sockets and framing (RFC 9112). Must not know what the bytes mean.

mod body;
mod connection;
mod head;

pub(super) use body::Incoming;
pub(super) use connection::{Connection, Pool, Target};
#[cfg(test)]
pub(super) use head::Head;
pub use head::HeadError;
pub(super) use head::Media;
