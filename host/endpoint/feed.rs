//! The stream of what a legacy client is told unasked (`GET`), and taking up a stream that broke.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::ears::{Ears, Heard, Interest, Revisions, changed_list, notification};
use super::lane::Lane;
use super::relay::put_event;
use super::session::{Question, Session};
use super::{Endpoint, Scope, problem, stream};
use crate::body::{Body, Out};
use crate::mcp::era::{Era, LAST_EVENT_ID};
use crate::mcp::message::{self, Shape};
use crate::mcp::turn;
use crate::problem::Problem;
use crate::registry::Snapshot;
use crate::upstream::{Reply, SendError};

/// Distance of comments that keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Endpoint {
    /// `GET`: opens the session's stream, or takes one up again behind `Last-Event-ID`.
    pub(super) async fn listen(
        self: &Arc<Self>,
        headers: &HeaderMap,
        scope: &Scope,
        snapshot: &Snapshot,
    ) -> Response<Body> {
        let session = match self.session(headers, scope) {
            Ok(session) => session,
            Err(refusal) => return refusal,
        };
        let last = headers.get(&LAST_EVENT_ID).map(|id| id.as_bytes().to_vec());
        if let Scope::Service(service) = scope {
            return match self.lane(&session, snapshot, service, None, self.control_times()).await {
                Ok(lane) if lane.is_own() && !lane.instance.peer.is_process() => {
                    self.take_up(&session, &lane, last.as_deref(), None).await
                }
                _ => self.open_feed(session),
            };
        }
        // Events of instances behind the session have the service's name before their id.
        let last = last.as_deref().and_then(|last| {
            let at = last.iter().position(|b| *b == b'/')?;
            Some((std::str::from_utf8(&last[..at]).ok()?, &last[at + 1..]))
        });
        let Some((service, id)) = last else { return self.open_feed(session) };
        let lane = session.lanes().into_iter().find(|lane| lane.service.as_str() == service);
        match lane {
            Some(lane) => self.take_up(&session, &lane, Some(id), Some(service)).await,
            None => self.open_feed(session),
        }
    }

    /// Passes on the instance's own stream. `mark` is put before the ids of its events.
    async fn take_up(
        self: &Arc<Self>,
        session: &Arc<Session>,
        lane: &Arc<Lane>,
        last: Option<&[u8]>,
        mark: Option<&str>,
    ) -> Response<Body> {
        let mut events = match lane.instance.peer.listen(&lane.spoken, last, &self.control_times()).await {
            Ok(Reply::Stream(stream)) => stream.events,
            Ok(Reply::Whole(whole)) => {
                let mut response = super::json(whole.status, whole.body);
                if whole.status == StatusCode::METHOD_NOT_ALLOWED {
                    let allowed = http::HeaderValue::from_static("POST, DELETE");
                    response.headers_mut().insert(http::header::ALLOW, allowed);
                }
                return response;
            }
            Err(SendError::SessionGone) => return self.gone(Some(session)),
            Err(error) => {
                let detail = crate::upstream::chain(&error);
                let hint = "the stream can be opened again later";
                return problem(&Problem::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", detail, hint));
            }
        };
        let (session, lane, mark) = (Arc::clone(session), Arc::clone(lane), mark.map(str::to_owned));
        stream(move |out| async move {
            let _busy = session.busy();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = session.ended.cancelled() => return,
                };
                let Ok(Some(event)) = event else { return };
                match (&mark, event.data) {
                    (None, _) => out.put(event.raw).await,
                    (Some(_), None) => {}
                    (Some(mark), Some(data)) => {
                        let id = event.id.map(|id| [mark.as_bytes(), b"/", &id].concat());
                        put_event(&out, id.as_deref(), &asked_through(&session, &lane, data)).await;
                    }
                }
            }
        })
    }

    /// The session's own stream: changes of the catalogue, and what the instances behind the session say.
    fn open_feed(self: &Arc<Self>, session: Arc<Session>) -> Response<Body> {
        let endpoint = Arc::clone(self);
        stream(move |out| async move {
            let _busy = session.busy();
            tokio::select! {
                () = endpoint.feed(&session, &out) => {}
                () = session.ended.cancelled() => {}
                () = endpoint.stop.cancelled() => {}
            }
        })
    }

    async fn feed(&self, session: &Arc<Session>, out: &Out) {
        let mut generations = self.registry.generations();
        let mut revisions = Revisions::default();
        let mut ears = Ears::default();
        let mut heard: HashSet<(usize, usize)> = HashSet::new();
        let mut ended: HashSet<usize> = HashSet::new();
        let mut ticks = tokio::time::interval(KEEP_ALIVE);
        loop {
            let changed = session.lanes_changed.notified();
            for lane in session.lanes() {
                // Subscriptions are part of what is listened for: with others, the stream is another.
                let subscribed = session.subscribed();
                let key = (
                    Arc::as_ptr(&lane) as usize,
                    if lane.spoken.era == Era::Modern { subscribed.len() } else { 0 },
                );
                if heard.insert(key) {
                    let interest = interest(session, &lane);
                    ears.open(&lane.instance, &lane.spoken, &interest, self.control_times());
                }
            }
            if let Some(view) =
                session.scope.view(&self.registry.snapshot()).filter(|_| !session.scope.is_service())
            {
                for method in revisions.changes(view) {
                    put_event(out, None, &notification(method, "{}")).await;
                }
            }
            tokio::select! {
                () = changed => {}
                changed = generations.changed() => if changed.is_err() { return },
                _ = ticks.tick() => {
                    out.put(Bytes::from_static(b": keep-alive\n\n")).await;
                    // Streams that ended are opened again, but not at once.
                    heard.retain(|key| !ended.contains(&key.0));
                    ended.clear();
                }
                (instance, heard) = ears.next() => {
                    let mut lanes = session.lanes().into_iter();
                    let lane = lanes.find(|lane| Arc::ptr_eq(&lane.instance.peer, &instance.peer));
                    match (lane, heard) {
                        (Some(lane), Heard::Event(event)) => {
                            let data = event.data.filter(|data| !data.is_empty() && passes(session, data));
                            if let Some(data) = data {
                                put_event(out, None, &asked_through(session, &lane, data)).await;
                            }
                        }
                        (Some(lane), Heard::Ended) => drop(ended.insert(Arc::as_ptr(&lane) as usize)),
                        (_, _) => {}
                    }
                }
            }
        }
    }
}

/// Whether a client is told what an instance said: changes of its lists show in the merged ones, when they do.
fn passes(session: &Session, data: &[u8]) -> bool {
    let method =
        std::str::from_utf8(data).ok().and_then(turn::Members::of).and_then(|message| message.get("method"));
    let method = method.map(|method| method.trim_matches('"')).unwrap_or_default();
    let own = matches!(method, "notifications/subscriptions/acknowledged");
    !own && (session.scope.is_service() || changed_list(method).is_none())
}

/// A question gets an id under which its answer finds the way back.
fn asked_through(session: &Arc<Session>, lane: &Arc<Lane>, data: Bytes) -> Bytes {
    match message::shape(&data) {
        Some(Shape::Request { id, .. }) => {
            let id = session.ask(Question::Lane { lane: Arc::clone(lane), id: id.to_owned() });
            turn::with_id(&data, &id)
        }
        _ => data,
    }
}

fn interest(session: &Session, lane: &Lane) -> Interest {
    let uris = session.subscribed().into_iter().filter(|(_, service)| *service == lane.service);
    let uris: Vec<String> = uris.map(|(uri, _)| turn::quoted(&uri)).collect();
    let lists = r#""toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true"#;
    Interest { notifications: format!(r#"{{{lists},"resourceSubscriptions":[{}]}}"#, uris.join(",")) }
}
