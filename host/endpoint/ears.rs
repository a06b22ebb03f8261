//! Listening to several streams at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::mcp::sse::Event;
use crate::registry::Instance;
use crate::upstream::{Events, Hold, Reply, Spoken, Times};

type Next = Pin<Box<dyn Future<Output = (Arc<Instance>, Heard, Option<Stream>)> + Send>>;

/// What an instance says, and what keeps its process from resting meanwhile.
type Stream = (Events, Hold);

/// What a stream had to say.
pub(super) enum Heard {
    Event(Event),
    /// It was opened.
    Opened,
    /// It ended, or could not be opened.
    Ended,
}

/// Streams of instances, each with what comes next of it.
#[derive(Default)]
pub(super) struct Ears(FuturesUnordered<Next>);

/// What is listened for at modern instances.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    /// The `notifications` of `subscriptions/listen`, JSON text.
    pub notifications: String,
}

impl Ears {
    /// Opens a stream of what an instance says unasked, and listens to it.
    pub fn open(&self, instance: &Arc<Instance>, spoken: &Arc<Spoken>, interest: &Interest, times: Times) {
        let (instance, spoken, interest) = (Arc::clone(instance), Arc::clone(spoken), interest.clone());
        self.0.push(Box::pin(async move {
            let hold = instance.peer.hold();
            match instance.peer.listen_for(&spoken, &interest.notifications, &times).await {
                Ok(Reply::Stream(stream)) => (instance, Heard::Opened, Some((stream.events, hold))),
                // Servers need not offer one.
                Ok(Reply::Whole(_)) => (instance, Heard::Ended, None),
                Err(error) => {
                    tracing::debug!(instance = %instance.name(), error = crate::upstream::chain(&error), "stream not opened");
                    (instance, Heard::Ended, None)
                }
            }
        }));
    }

    /// What comes next of any of them; waits for ever when there are none.
    pub async fn next(&mut self) -> (Arc<Instance>, Heard) {
        match self.0.next().await {
            None => std::future::pending().await,
            Some((instance, heard, stream)) => {
                if let Some(stream) = stream {
                    self.0.push(Box::pin(hear(Arc::clone(&instance), stream)));
                }
                (instance, heard)
            }
        }
    }
}

async fn hear(instance: Arc<Instance>, mut stream: Stream) -> (Arc<Instance>, Heard, Option<Stream>) {
    match stream.0.next().await {
        Ok(Some(event)) => (instance, Heard::Event(event), Some(stream)),
        Ok(None) => (instance, Heard::Ended, None),
        Err(error) => {
            tracing::debug!(instance = %instance.name(), error = crate::upstream::chain(&error), "stream broke");
            (instance, Heard::Ended, None)
        }
    }
}

/// The list whose change a notification tells.
pub(super) fn changed_list(method: &str) -> Option<&'static str> {
    match method {
        "notifications/tools/list_changed" => Some("toolsListChanged"),
        "notifications/prompts/list_changed" => Some("promptsListChanged"),
        "notifications/resources/list_changed" => Some("resourcesListChanged"),
        _ => None,
    }
}

/// Tells of changes of the lists of a view: which of them have another revision than before.
#[derive(Default)]
pub(super) struct Revisions(Option<[u64; 4]>);

impl Revisions {
    /// The notifications for what has changed since the last look.
    pub fn changes(&mut self, view: &crate::mcp::catalogue::View) -> Vec<&'static str> {
        use crate::mesh::offer::Kind;
        let now = Kind::ALL.map(|kind| view.revision(kind));
        let Some(before) = self.0.replace(now) else { return Vec::new() };
        let mut methods = Vec::new();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let method = match kind {
                Kind::Tool => "notifications/tools/list_changed",
                Kind::Prompt => "notifications/prompts/list_changed",
                Kind::Resource | Kind::Template => "notifications/resources/list_changed",
            };
            if before[at] != now[at] && methods.last() != Some(&method) {
                methods.push(method);
            }
        }
        methods
    }
}

/// A notification with these `params`, JSON text.
pub(super) fn notification(method: &str, params: &str) -> Bytes {
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#))
}
