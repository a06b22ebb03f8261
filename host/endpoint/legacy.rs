//! Messages of the legacy era: they belong to a session, which begins with `initialize`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::call::{name_in, unknown_session};
use super::lane::{Lane, Opened};
use super::session::{Question, Session};
use super::wanted::{self, Wanted};
use super::{Endpoint, Received, Scope, empty, json, listing, modern, refuse, unanswered};
use crate::body::Body;
use crate::mcp::answer::{self, VERSIONS};
use crate::mcp::era::{Era, PROTOCOL_VERSION, SESSION};
use crate::mcp::message::{Message, Splice};
use crate::mcp::turn;
use crate::upstream::{Answer, Post};

/// How long a client waits while instances are told what it says; whoever takes longer is told without it waiting.
const TELLING: Duration = Duration::from_millis(250);

impl Endpoint {
    pub(super) async fn legacy(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Response<Body> {
        let version =
            received.headers.get(&PROTOCOL_VERSION).map(|version| version.to_str().unwrap_or_default());
        if let Some(version) = version.filter(|version| !VERSIONS.contains(version)) {
            return modern::unsupported(message.id(), version);
        }
        if message.method() == "initialize" {
            return self.initialize(received, message).await;
        }
        let session = match self.session(received.headers, received.scope) {
            Ok(session) => session,
            Err(refusal) => return refusal,
        };
        let _busy = session.busy();
        match (message.method(), message.id()) {
            ("", Some(id)) => self.answered(message, &session, id).await,
            ("", None) => {
                refuse(Era::Legacy, None, answer::INVALID_REQUEST, "the message has neither method nor id")
            }
            (_, None) => self.notified(message, &session).await,
            (_, Some(id)) => self.request(received, message, &session, id).await,
        }
    }

    /// The session that a request names.
    pub(super) fn session(&self, headers: &HeaderMap, scope: &Scope) -> Result<Arc<Session>, Response<Body>> {
        let Some(id) = headers.get(&SESSION) else {
            let text = "the header `Mcp-Session-Id` is missing; begin with `initialize`";
            return Err(refuse(Era::Legacy, None, answer::INVALID_REQUEST, text));
        };
        let session = id.to_str().ok().and_then(|id| self.sessions.find(id, scope));
        session.ok_or_else(unknown_session)
    }

    /// `DELETE`: the client ends its session.
    pub(super) async fn end(self: &Arc<Self>, headers: &HeaderMap, scope: &Scope) -> Response<Body> {
        match self.session(headers, scope) {
            Ok(session) => {
                if let Some(session) = self.sessions.remove(&session.id) {
                    self.close(session);
                }
                empty(StatusCode::NO_CONTENT)
            }
            Err(refusal) => refusal,
        }
    }

    async fn initialize(self: &Arc<Self>, received: &Received<'_>, message: &Message<'_>) -> Response<Body> {
        let Some(id) = message.id() else {
            return refuse(Era::Legacy, None, answer::INVALID_REQUEST, "`initialize` needs an `id`");
        };
        let params =
            turn::Members::of(message.text).and_then(|message| message.get("params")).unwrap_or("{}");
        let said = message.params();
        let asked = said
            .and_then(|params| params.protocol_version.as_ref().map(|version| &*version.0))
            .unwrap_or_default();
        let capabilities = said.and_then(|params| params.capabilities).map_or("{}", |raw| raw.get());
        let client = said.and_then(|params| params.client_info).map(|info| name_in(info.get()));
        let session = Session::new(received.scope.clone(), params, capabilities, &client.unwrap_or_default());
        let session = Arc::new(session);
        let about = received.scope.view(received.snapshot).and_then(|view| view.about());
        let times = self.times_when(about.is_some());
        let result = match received.scope {
            Scope::Service(service) => {
                match self.open(&session, received.snapshot, service, None, times).await {
                    Ok(Opened { initialized: Some(Answer::Error(error)), .. }) => {
                        return json(StatusCode::OK, answer::raw_error(id, &error));
                    }
                    Ok(Opened { lane, initialized }) => {
                        let result = match initialized {
                            Some(Answer::Result(result)) => result,
                            _ => listing::initialized(asked, Some(&lane.spoken.about)).into(),
                        };
                        session.berth(service, None).lane.store(Some(lane));
                        result
                    }
                    // Whoever is down now is known from before: the client need not wait for it.
                    Err(failure) => match about {
                        Some(about) => listing::initialized(asked, Some(about)).into(),
                        None => return unanswered(received.id, id, &failure),
                    },
                }
            }
            Scope::Merged | Scope::Profile(_) => Bytes::from(listing::initialized(asked, None)),
        };
        if let Some(evicted) = self.sessions.add(&session) {
            tracing::warn!(session = %evicted.id, "too many sessions, the one that was idle longest is ended");
            self.close(evicted);
        }
        let mut response = json(StatusCode::OK, answer::result(id, &result));
        let value = HeaderValue::from_str(&session.id).expect("a session's id is hexadecimal");
        response.headers_mut().insert(SESSION.clone(), value);
        response
    }

    async fn request(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: &Arc<Session>,
        id: &str,
    ) -> Response<Body> {
        let method = message.method();
        if wanted::is_call(method) {
            return self.call(received, message, Some(session)).await;
        }
        if method == "ping" {
            return json(StatusCode::OK, answer::result(id, b"{}"));
        }
        let Some(view) = received.scope.view(received.snapshot) else { return unknown_session() };
        let kind = listing::kind_of(method);
        let passes = received.scope.is_service() && (kind.is_none() || !view.is_filtered());
        if passes
            && !self.is_kept_here(session, method)
            && let Some(response) = self.pass(received, message, Some(session), kind.is_some()).await
        {
            return response;
        }
        match (method, kind) {
            (_, Some(kind)) => listing::page(Era::Legacy, view, kind, message),
            ("logging/setLevel", _) => self.set_log_level(message, session, id).await,
            _ if wanted::is_subscription(method) => self.watch(received, message, session, id).await,
            _ => {
                let text = format!("there is no method `{method}`");
                refuse(Era::Legacy, Some(id), answer::METHOD_NOT_FOUND, &text)
            }
        }
    }

    /// Whether a method is the session's own matter, because the instance's era has no such method.
    fn is_kept_here(&self, session: &Session, method: &str) -> bool {
        let stateful = method == "logging/setLevel" || wanted::is_subscription(method);
        stateful && session.lanes().iter().any(|lane| lane.spoken.era == Era::Modern)
    }

    /// The level holds for all instances behind the session, those that are reached later too.
    async fn set_log_level(
        self: &Arc<Self>,
        message: &Message<'_>,
        session: &Arc<Session>,
        id: &str,
    ) -> Response<Body> {
        let Some(level) = message.params().and_then(|params| params.level) else {
            return refuse(Era::Legacy, Some(id), answer::INVALID_PARAMS, "`level` is missing");
        };
        session.set_log_level(level.get());
        let told = own_lanes(session).into_iter().map(|lane| {
            let mut splice = Splice::new(message.text);
            splice.replace(message.span(id), lane.instance.peer.next_id().to_string());
            (lane, splice.to_vec())
        });
        self.tell(told).await;
        json(StatusCode::OK, answer::result(id, b"{}"))
    }

    /// Subscribes to a resource, or ends that.
    async fn watch(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: &Arc<Session>,
        id: &str,
    ) -> Response<Body> {
        let Some(view) = received.scope.view(received.snapshot) else { return unknown_session() };
        let call = match Wanted::read(received.scope, view, received.snapshot, message) {
            Ok(Wanted::Call(call)) => call,
            Ok(Wanted::Own(_)) => {
                return refuse(Era::Legacy, Some(id), answer::INVALID_PARAMS, "that is no resource");
            }
            Err(wanted::NotThere(code, text)) => {
                return json(StatusCode::OK, answer::error(Some(id), code, &text, None));
            }
        };
        let lane =
            match self.lane(session, received.snapshot, &call.service, None, self.control_times()).await {
                Ok(lane) => lane,
                Err(failure) => return unanswered(received.id, id, &failure),
            };
        let uri = call.name.as_deref().unwrap_or_default();
        let begins = message.method() == "resources/subscribe";
        session.subscribe(uri, Some(&call.service).filter(|_| begins));
        if lane.spoken.era == Era::Legacy {
            return self.forward(received, message, session, &lane, &call).await;
        }
        json(StatusCode::OK, answer::result(id, b"{}"))
    }

    /// The client answers what an instance asked.
    async fn answered(
        self: &Arc<Self>,
        message: &Message<'_>,
        session: &Arc<Session>,
        id: &str,
    ) -> Response<Body> {
        match session.answered(id) {
            Some(Question::Lane { lane, id: inner }) => {
                let mut splice = Splice::new(message.text);
                splice.replace(message.span(id), inner);
                self.tell([(lane, splice.to_vec())]).await;
            }
            // Whoever waited may have gone; there is nobody else to tell.
            Some(Question::Here(waiting)) => {
                drop(waiting.send(Bytes::copy_from_slice(message.text.as_bytes())))
            }
            None if session.scope.is_service() => {
                self.tell(as_it_is(message, session)).await;
            }
            None => tracing::debug!(session = %session.id, id, "answer to nothing that was asked"),
        }
        empty(StatusCode::ACCEPTED)
    }

    async fn notified(self: &Arc<Self>, message: &Message<'_>, session: &Arc<Session>) -> Response<Body> {
        match message.method() {
            "notifications/cancelled" => self.cancelled(message, session).await,
            // To those that were greeted with the client's own words, its word that it is ready goes on too.
            "notifications/initialized" if !session.scope.is_service() => {}
            _ => {
                self.tell(as_it_is(message, session)).await;
            }
        }
        empty(StatusCode::ACCEPTED)
    }

    async fn cancelled(self: &Arc<Self>, message: &Message<'_>, session: &Arc<Session>) {
        let Some(raw) = message.params().and_then(|params| params.request_id) else { return };
        let Some(request) = session.under_way(raw.get()) else { return };
        if request.lane.spoken.era == Era::Legacy {
            let mut splice = Splice::new(message.text);
            splice.replace(message.span(raw.get()), request.id.as_str());
            self.tell([(request.lane, splice.to_vec())]).await;
        } else {
            // There, the end of the connection is the cancellation.
            request.cancel.cancel();
        }
    }

    /// Sends what is not answered, to each lane apart: one that hangs keeps neither the others from hearing it nor,
    /// for long, the client from going on. That an instance cannot be told is its client's loss alone.
    async fn tell(self: &Arc<Self>, told: impl IntoIterator<Item = (Arc<Lane>, Vec<u8>)>) {
        let telling = told.into_iter().map(|(lane, message)| {
            let endpoint = Arc::clone(self);
            self.tasks.spawn(async move {
                let post = Post { id: None, token: None, headers: &[], body: &[&message] };
                let told = lane.instance.peer.post(&lane.spoken, &post, &endpoint.control_times()).await;
                if let Err(error) = told {
                    tracing::debug!(instance = %lane.instance.name(), error = crate::upstream::chain(&error), "message not passed on");
                }
            })
        });
        tokio::time::timeout(TELLING, futures_util::future::join_all(telling)).await.ok();
    }
}

/// A message for all lanes whose sessions are the client's own.
fn as_it_is(message: &Message<'_>, session: &Session) -> impl Iterator<Item = (Arc<Lane>, Vec<u8>)> {
    let text = message.text.as_bytes().to_vec();
    own_lanes(session).into_iter().map(move |lane| (lane, text.clone()))
}

/// The lanes whose sessions are the client's own.
fn own_lanes(session: &Session) -> Vec<Arc<Lane>> {
    session.lanes().into_iter().filter(|lane| lane.is_own()).collect()
}
