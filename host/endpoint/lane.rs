//! A legacy client's way to an instance: opened when it is first needed, kept for as long as both are there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Endpoint;
use super::session::Session;
use crate::mcp::envelope;
use crate::mcp::era::Era;
use crate::mesh::drain::Wants;
use crate::mesh::ids::Name;
use crate::proxy::{CallFailure, Carry};
use crate::registry::{Berthed, Instance, Snapshot};
use crate::upstream::{Answer, Hold, Post, SendError, Spoken, Times};

/// How long an instance is waited for when its answer is known without it.
const KNOWN_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Lane {
    pub service: Name,
    pub instance: Arc<Instance>,
    pub spoken: Arc<Spoken>,
    /// A process does not rest while a session may use it.
    _hold: Hold,
    _berthed: Berthed,
}

impl Lane {
    /// Whether ids of clients may meet there: then the proxy uses its own.
    pub fn is_shared(&self) -> bool {
        self.instance.peer.is_process() && !self.instance.peer.starts_one_for_each()
    }

    /// Whether the session of this lane is the client's alone.
    pub fn is_own(&self) -> bool {
        self.spoken.era == Era::Legacy && !self.is_shared()
    }

    fn is_there(&self, snapshot: &Snapshot) -> bool {
        !self.spoken.is_gone() && self.is_in_use(snapshot)
    }

    /// Whether its instance is a member still, and keeps sessions.
    fn is_in_use(&self, snapshot: &Snapshot) -> bool {
        let present = snapshot.instance(self.instance.name().as_str());
        present.is_some_and(|present| {
            Arc::ptr_eq(&present.peer, &self.instance.peer) && present.admits(Wants::InSession)
        })
    }
}

/// A lane, and what the instance answered to `initialize` if it was opened with the client's own.
pub(super) struct Opened {
    pub lane: Arc<Lane>,
    pub initialized: Option<Answer>,
}

struct Opening<'a> {
    params: &'a str,
    service: &'a Name,
    times: Times,
}

impl Carry for Opening<'_> {
    type Answer = Opened;

    async fn carry(&self, instance: &Arc<Instance>) -> Result<Opened, SendError> {
        let peer = &instance.peer;
        let hold = peer.hold();
        let shared = if peer.starts_one_for_each() { None } else { Some(peer.ready(&self.times).await?) };
        let bridged = shared.as_ref().filter(|spoken| spoken.era == Era::Modern || peer.is_process());
        let (spoken, initialized) = match bridged {
            // An instance that speaks both eras is spoken to in the client's.
            Some(spoken) if peer.is_process() || !spoken.legacy_too => (Arc::clone(spoken), None),
            bridged => match (peer.open(self.params, &self.times).await, bridged) {
                (Ok((_, Answer::Error(_))) | Err(_), Some(spoken)) => (Arc::clone(spoken), None),
                (opened, _) => {
                    let (spoken, answer) = opened?;
                    (Arc::new(spoken), Some(answer))
                }
            },
        };
        let (service, instance) = (self.service.clone(), Arc::clone(instance));
        let _berthed = Berthed::at(&instance);
        let lane = Lane { service, instance, spoken, _hold: hold, _berthed };
        Ok(Opened { lane: Arc::new(lane), initialized })
    }
}

impl Endpoint {
    /// The client's lane to a service: the one that there is, or a new one.
    pub(super) async fn lane(
        &self,
        session: &Arc<Session>,
        snapshot: &Snapshot,
        service: &Name,
        tag: Option<&Name>,
        times: Times,
    ) -> Result<Arc<Lane>, CallFailure> {
        let berth = session.berth(service, tag);
        let there = || berth.lane.load_full().filter(|lane| lane.is_there(snapshot));
        if let Some(lane) = there() {
            return Ok(lane);
        }
        let _opening = berth.opening.lock().await;
        if let Some(lane) = there() {
            return Ok(lane);
        }
        // A session that a client sees as the instance's own is never moved: the client begins anew.
        if let Some(lane) = berth.lane.load_full()
            && session.scope.is_service()
            && lane.is_own()
            && !lane.is_in_use(snapshot)
        {
            return Err(CallFailure::of(&lane.instance, SendError::SessionGone));
        }
        let opened = self.open(session, snapshot, service, tag, times).await?;
        if opened.initialized.is_some() {
            self.greet(session, &opened.lane).await;
        }
        berth.lane.store(Some(Arc::clone(&opened.lane)));
        session.lanes_changed.notify_waiters();
        Ok(opened.lane)
    }

    /// Opens a lane to the instance that the balancers pick; another one when it cannot be spoken to.
    pub(super) async fn open(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        service: &Name,
        tag: Option<&Name>,
        times: Times,
    ) -> Result<Opened, CallFailure> {
        let opening = Opening { params: &session.params, service, times };
        self.proxy.bring(snapshot, service.as_str(), tag, session.affinity(), &opening).await
    }

    /// Says for the client what it said to the proxy alone.
    async fn greet(&self, session: &Session, lane: &Lane) {
        let mut messages: Vec<Bytes> = vec![envelope::notification("notifications/initialized")];
        if let Some(level) = session.log_level() {
            messages.push(Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","id":{},"method":"logging/setLevel","params":{{"level":{level}}}}}"#,
                lane.instance.peer.next_id()
            )));
        }
        for message in messages {
            let post = Post { id: None, token: None, headers: &[], body: &[&message] };
            if let Err(error) = lane.instance.peer.post(&lane.spoken, &post, &self.control_times()).await {
                tracing::debug!(instance = %lane.instance.name(), error = crate::upstream::chain(&error), "instance not greeted");
            }
        }
    }

    /// Forgets a lane whose session is gone.
    pub(super) fn lose(&self, session: &Session, lane: &Arc<Lane>) {
        session.clear_lanes(Some(lane));
        if !lane.is_own() {
            lane.instance.peer.forget(&lane.spoken);
        }
    }

    /// Ends a session, and those that were opened for it.
    pub(super) fn close(self: &Arc<Self>, session: Arc<Session>) {
        session.ended.cancel();
        let endpoint = Arc::clone(self);
        self.tasks.spawn(async move {
            let lanes = session.clear_lanes(None).into_iter().filter(|lane| lane.is_own());
            // At once: one that does not answer keeps no other from ending.
            let endings = lanes.map(|lane| {
                let times = endpoint.control_times();
                async move { lane.instance.peer.end(&lane.spoken, &times).await }
            });
            futures_util::future::join_all(endings).await;
        });
    }

    /// How long what is no call may take.
    pub(super) fn control_times(&self) -> Times {
        self.times_within(self.proxy.times().first_byte, true)
    }

    /// How long an instance is waited for; only briefly when what it says is known from before, and a process that rests
    /// goes on resting then.
    pub(super) fn times_when(&self, known: bool) -> Times {
        self.times_within(if known { KNOWN_PATIENCE } else { self.proxy.times().first_byte }, !known)
    }

    fn times_within(&self, limit: Duration, wakes: bool) -> Times {
        let times = self.proxy.times();
        let deadline = tokio::time::Instant::now() + limit;
        Times { connect: times.connect, first_byte: times.first_byte, deadline, wakes, stated: false }
    }
}

/// Whether a call's failure says that the client's session with the instance is no more, and that nothing was done.
pub(super) fn is_lost(failure: &CallFailure) -> bool {
    match failure {
        CallFailure::Upstream { error, unsure: false, .. } => matches!(
            error,
            SendError::SessionGone
                | SendError::Connect(_)
                | SendError::ConnectTimeout(_)
                | SendError::NotSent(_)
                | SendError::Start { .. }
                | SendError::Missing(_)
                | SendError::Down(_)
                | SendError::Resting
        ),
        _ => false,
    }
}
