//! What is kept of an instance between calls, and the ways to speak to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::child::Stdio;
use super::http::{Header, Http, Verb};
use super::reply::{Media, Reply, Stream, Whole};
use super::stdio::Process;
use super::wire::Target;
use super::{SendError, Times};
use crate::mcp::era::Era;
use crate::mesh::endpoint::Endpoint;
use crate::mesh::offer::About;
use crate::mesh::retry::Failure;
use crate::policy::chain::{Call, Permitted};
use crate::process::Launcher;

/// How an instance is spoken to: found out by a handshake, and ended with its session, if it has one.
#[derive(Debug)]
pub struct Spoken {
    pub era: Era,
    pub version: HeaderValue,
    pub session: Option<HeaderValue>,
    /// Where messages go when the instance is a process.
    pub(super) process: Option<Arc<Process>>,
    /// The instance also speaks the legacy era, beside the modern one that was found first.
    pub legacy_too: bool,
    /// `name version` of the server, for people.
    pub server: String,
    /// What the server says of itself.
    pub about: Arc<About>,
}

impl Spoken {
    /// Whether the other side can no longer be there.
    pub fn is_gone(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_gone())
    }
}

/// A message to an instance.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// The JSON text of a request's id; `None` for what is not answered.
    pub id: Option<&'a str>,
    /// The JSON text of its progress token.
    pub token: Option<&'a str>,
    /// Beside those that every request carries.
    pub headers: &'a [Header<'a>],
    /// The message in pieces.
    pub body: &'a [&'a [u8]],
}

#[derive(Debug)]
pub(super) enum Link {
    Http(Http),
    Stdio(Stdio),
}

/// Sessions that are kept for clients without sessions of their own, by what these can do.
const SESSIONS_BY_CAPABILITY_MAX: usize = 64;
/// Tries to end a session, and the pause between them, of which half is chance.
const ENDING_TRIES: u32 = 3;
const ENDING_PAUSE: Duration = Duration::from_secs(1);

/// The proxy's side of one instance. Shared by all snapshots that know it.
#[derive(Debug)]
pub struct Peer {
    pub(super) link: Link,
    pub(super) spoken: ArcSwapOption<Spoken>,
    /// Held by the one task that does the handshake.
    pub(super) handshake: tokio::sync::Mutex<()>,
    pub(super) by_capability: Mutex<HashMap<Box<str>, Arc<Spoken>>>,
    next_id: AtomicU64,
    /// The process died when it was asked the modern question first.
    pub(super) legacy_first: AtomicBool,
}

impl Peer {
    /// `workers` is the number of data-path workers; the launcher starts the processes of commands.
    pub fn new(endpoint: &Endpoint, workers: usize, launcher: &Launcher) -> Self {
        let link = match endpoint {
            Endpoint::Http(endpoint) => Link::Http(Http::new(Target::new(endpoint), workers)),
            Endpoint::Stdio(command) => Link::Stdio(Stdio::new(command, launcher)),
        };
        Self {
            link,
            spoken: ArcSwapOption::empty(),
            handshake: tokio::sync::Mutex::new(()),
            by_capability: Mutex::default(),
            next_id: AtomicU64::new(1),
            legacy_first: AtomicBool::new(false),
        }
    }

    /// How the instance is spoken to, once that is known.
    pub fn spoken(&self) -> Option<Arc<Spoken>> {
        self.spoken.load_full()
    }

    /// Whether several clients share what is said there: then ids must be the proxy's own.
    pub fn is_process(&self) -> bool {
        matches!(self.link, Link::Stdio(_))
    }

    /// Whether each client gets a process of its own.
    pub fn starts_one_for_each(&self) -> bool {
        match &self.link {
            Link::Http(_) => false,
            Link::Stdio(stdio) => stdio.command.per_session,
        }
    }

    /// A number that no other request to this instance has.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a permitted call.
    ///
    /// # Errors
    /// See [`SendError::failure`] for how far the call had come.
    pub async fn call(
        &self,
        _: &Permitted<Call<'_>>,
        spoken: &Spoken,
        post: &Post<'_>,
        times: &Times,
    ) -> Result<Reply, SendError> {
        self.post(spoken, post, times).await
    }

    /// Sends a message that is no call: it asks for nothing that a policy decides.
    ///
    /// # Errors
    /// See [`SendError::failure`] for how far it had come.
    pub async fn post(&self, spoken: &Spoken, post: &Post<'_>, times: &Times) -> Result<Reply, SendError> {
        let reply = match (&self.link, &spoken.process) {
            (Link::Http(http), _) => {
                http.exchange(Verb::Post, Some(spoken), post.headers, post.body, times).await?
            }
            (Link::Stdio(_), Some(process)) => self.post_to(process, spoken, post, times).await?,
            (Link::Stdio(_), None) => {
                return Err(SendError::NotSent(std::io::ErrorKind::NotConnected.into()));
            }
        };
        match &reply {
            Reply::Whole(whole) => check_session(spoken, whole)?,
            Reply::Stream(_) => {}
        }
        Ok(reply)
    }

    /// Opens the stream of what the instance says unasked.
    ///
    /// # Errors
    /// The instance could not be asked.
    pub async fn listen(
        &self,
        spoken: &Spoken,
        last_event_id: Option<&[u8]>,
        times: &Times,
    ) -> Result<Reply, SendError> {
        match (&self.link, &spoken.process) {
            (Link::Http(http), _) => {
                let resume = last_event_id.map(|id| ("last-event-id", id));
                let reply = http.exchange(Verb::Get, Some(spoken), resume.as_slice(), &[], times).await?;
                if let Reply::Whole(whole) = &reply {
                    check_session(spoken, whole)?;
                }
                Ok(reply)
            }
            (Link::Stdio(_), Some(process)) => {
                Ok(Reply::Stream(Stream { session: None, events: process.unasked() }))
            }
            (Link::Stdio(_), None) => Err(SendError::NotSent(std::io::ErrorKind::NotConnected.into())),
        }
    }

    /// Ends a session that was opened for one client.
    pub async fn end(&self, spoken: &Spoken, times: &Times) {
        match (&self.link, &spoken.process) {
            (Link::Http(http), _) if spoken.session.is_some() => {
                let mut tries = 1;
                // Servers need not end sessions when told to; they end them by themselves. When hundreds of sessions end
                // at once, some find no connection at first.
                while let Err(error) = http.exchange(Verb::Delete, Some(spoken), &[], &[], times).await {
                    if error.failure() == Failure::Answered || tries == ENDING_TRIES {
                        tracing::debug!(error = super::chain(&error), "session not ended");
                        return;
                    }
                    tries += 1;
                    tokio::time::sleep(ENDING_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                }
            }
            (Link::Stdio(stdio), Some(process)) if stdio.command.per_session => process.stop().await,
            _ => {}
        }
    }

    /// Ends what would outlive this process, but for what is shared: that is whose who supervises it.
    pub async fn stop(&self) {
        if !self.starts_one_for_each() {
            return;
        }
        let spoken = self.spoken.swap(None).and_then(|spoken| spoken.process.clone());
        let own = self.stdio().map(|stdio| stdio.own.living()).unwrap_or_default();
        let all = spoken.iter().chain(&own);
        // At once: one that does not heed it keeps no other from ending.
        futures_util::future::join_all(all.map(|process| process.stop())).await;
    }

    /// Closes the connections that no call will use again.
    pub fn prune(&self) {
        if let Link::Http(http) = &self.link {
            http.prune();
        }
    }

    /// Forgets how the instance is spoken to, unless somebody found out anew in the meantime.
    pub fn forget(&self, spoken: &Arc<Spoken>) {
        self.spoken.compare_and_swap(spoken, None);
        self.by_capability().retain(|_, kept| !Arc::ptr_eq(kept, spoken));
    }

    /// Forgets all sessions: whoever registers again may be another process at the same place.
    pub fn begin_anew(&self) {
        self.spoken.store(None);
        self.by_capability().clear();
    }

    pub(super) fn by_capability(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Arc<Spoken>>> {
        self.by_capability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep_for(&self, capabilities: &str, spoken: &Arc<Spoken>) {
        let mut kept = self.by_capability();
        if kept.len() >= SESSIONS_BY_CAPABILITY_MAX {
            // Which one goes is no matter: it is opened again when it is needed.
            let any = kept.keys().next().cloned();
            any.map(|key| kept.remove(&key));
        }
        kept.insert(capabilities.into(), Arc::clone(spoken));
    }
}

pub(super) fn accepted() -> Reply {
    let media = Media::Other(String::new());
    Reply::Whole(Whole { status: StatusCode::ACCEPTED, media, session: None, body: Bytes::new() })
}

/// A 404 where there was a session says that the session is gone, and that nothing was done.
fn check_session(spoken: &Spoken, whole: &Whole) -> Result<(), SendError> {
    let had_session = spoken.session.is_some() && spoken.era == Era::Legacy;
    if had_session && whole.status == StatusCode::NOT_FOUND { Err(SendError::SessionGone) } else { Ok(()) }
}
