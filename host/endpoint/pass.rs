//! Requests that no policy decides, passed to a service as they are: listings, and methods that the proxy does not
//! know.

use std::sync::Arc;

use http::Response;

use super::call::{Begun, Tie, modern_client};
use super::courier::{Client, Courier, Names};
use super::lane::{Lane, is_lost};
use super::relay::{Relay, Side};
use super::session::Session;
use super::wanted::Call;
use super::{Endpoint, Received, Scope, unanswered};
use crate::body::Body;
use crate::mcp::message::Message;
use crate::proxy::{CallFailure, Carry};
use crate::upstream::{SendError, Times};

impl Endpoint {
    /// Passes a request on and its answer back. `None` when there is nobody to ask and `known` says that the answer
    /// is known without asking.
    pub(super) async fn pass(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: Option<&Arc<Session>>,
        known: bool,
    ) -> Option<Response<Body>> {
        let Scope::Service(service) = received.scope else { return None };
        let call = Call::plain(service);
        let id = message.id().unwrap_or("null");
        let times = self.times_when(known);
        let passed = match session {
            None => self.pass_modern(received, message, &call, known).await,
            Some(session) => match self.lane(session, received.snapshot, service, None, times).await {
                Ok(lane) => {
                    let passed = self.pass_legacy(received, message, session, &lane, &call, times).await;
                    if passed.as_ref().is_err_and(is_lost) {
                        return Some(self.gone(Some(session)));
                    }
                    passed
                }
                Err(CallFailure::Upstream { error: SendError::SessionGone, .. }) => {
                    return Some(self.gone(Some(session)));
                }
                Err(failure) => Err(failure),
            },
        };
        match passed {
            Ok(response) => Some(response),
            Err(_) if known => None,
            Err(failure) => Some(unanswered(received.id, id, &failure)),
        }
    }

    async fn pass_modern(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        call: &Call<'_>,
        known: bool,
    ) -> Result<Response<Body>, CallFailure> {
        let client = modern_client(message);
        let (headers, times) = (received.headers, self.times_when(known));
        let names = Names::default();
        let courier = Courier {
            endpoint: self,
            permitted: None,
            times,
            call,
            message,
            headers,
            client,
            names,
            more: &[],
        };
        let affinity = fastrand::u64(..);
        let carried =
            self.proxy.bring(received.snapshot, call.service.as_str(), None, affinity, &courier).await?;
        let begun = Begun::passed(carried, None, courier.times.deadline);
        let entered = self.proxy.enter()?;
        Ok(Relay::answer_with(self, begun, Side::new(received, message, None), entered).await)
    }

    async fn pass_legacy(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: &Arc<Session>,
        lane: &Arc<Lane>,
        call: &Call<'_>,
        times: Times,
    ) -> Result<Response<Body>, CallFailure> {
        let client = Client::Legacy { session, lane };
        let headers = received.headers;
        let names = Names::at(lane, message);
        let id = message.id().unwrap_or("null");
        let tie = Tie::new(session, lane, id, names.id.as_deref().unwrap_or(id));
        let courier = Courier {
            endpoint: self,
            permitted: None,
            times,
            call,
            message,
            headers,
            client,
            names,
            more: &[],
        };
        let carried =
            courier.carry(&lane.instance).await.map_err(|error| CallFailure::of(&lane.instance, error))?;
        let begun = Begun::passed(carried, Some(tie), courier.times.deadline);
        let entered = self.proxy.enter()?;
        let side = Side::new(received, message, Some(Arc::clone(session)));
        Ok(Relay::answer_with(self, begun, side, entered).await)
    }

    /// Passes a session's request on to one of its lanes.
    pub(super) async fn forward(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: &Arc<Session>,
        lane: &Arc<Lane>,
        call: &Call<'_>,
    ) -> Response<Body> {
        let id = message.id().unwrap_or("null");
        let passed = self.pass_legacy(received, message, session, lane, call, self.control_times()).await;
        passed.unwrap_or_else(|failure| unanswered(received.id, id, &failure))
    }
}
