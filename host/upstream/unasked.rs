//! A broadcast channel that can be polled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::broadcast;

type Next = Pin<Box<dyn Future<Output = (Option<Bytes>, broadcast::Receiver<Bytes>)> + Send + Sync>>;

/// What a process says unasked, from a moment on.
pub(super) struct Unasked(Next);

impl fmt::Debug for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unasked")
    }
}

impl Unasked {
    pub(super) fn new(channel: broadcast::Receiver<Bytes>) -> Self {
        Self(Box::pin(next(channel)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.as_mut().poll(cx).map(|(message, channel)| {
            self.0 = Box::pin(next(channel));
            message
        })
    }
}

/// Messages that came too fast to be kept are passed over: they are notifications, and what they notify of is asked
/// for anew.
async fn next(mut channel: broadcast::Receiver<Bytes>) -> (Option<Bytes>, broadcast::Receiver<Bytes>) {
    loop {
        match channel.recv().await {
            Ok(message) => return (Some(message), channel),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "notifications passed over");
            }
            Err(broadcast::error::RecvError::Closed) => return (None, channel),
        }
    }
}
