//! A client's call, from what it wants to its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::courier::{Carried, Client, Courier, Names};
use super::lane::{Lane, is_lost};
use super::relay::{Relay, Side};
use super::session::{Listed, Session, UnderWay};
use super::wanted::{self, NotThere, Wanted};
use super::{Endpoint, Received, json, refuse, unanswered};
use crate::body::Body;
use crate::clock;
use crate::mcp::answer;
use crate::mcp::deadline::{self, BadTime};
use crate::mcp::era::Era;
use crate::mcp::hints::Hints;
use crate::mcp::message::{Message, Text};
use crate::mcp::own::{OwnCall, OwnTool};
use crate::mcp::turn;
use crate::mesh::deadline::shorter;
use crate::proxy::{self, Account, Asked, Attempt, CallFailure, Ending, Run};
use crate::upstream::{Reply, SendError};

/// What a request without arguments asks with.
const NO_ARGUMENTS: &[u8] = b"{}";

impl Endpoint {
    /// A request that goes to an instance. `session` is that of a legacy client.
    pub(super) async fn call(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
        session: Option<&Arc<Session>>,
    ) -> Response<Body> {
        let era = if session.is_some() { Era::Legacy } else { Era::Modern };
        let id = message.id().unwrap_or("null");
        let Some(view) = received.scope.view(received.snapshot) else {
            return super::problem(&received.scope.missing());
        };
        let timeout = match time_of(received, message) {
            Ok(timeout) => timeout,
            Err(error) => return refuse(era, message.id(), answer::INVALID_REQUEST, &error.to_string()),
        };
        let wanted = match Wanted::read(received.scope, view, received.snapshot, message) {
            Ok(Wanted::Call(call)) => call,
            Ok(Wanted::Own(tool)) => return Box::pin(self.own(received, message, session, era, tool)).await,
            // What is not there is an answer, not an error of the transport.
            Err(NotThere(code, text)) => {
                return json(StatusCode::OK, answer::error(Some(id), code, &text, None));
            }
        };
        let entered = match self.proxy.enter() {
            Ok(entered) => entered,
            Err(failure) => return failure.respond(received.id).map(Body::Ready),
        };
        let response = match self.begin(received, message, session, (&wanted, timeout)).await {
            Ok(begun) => match begun.at_once() {
                Ok(response) => response,
                Err(begun) => {
                    let side = Side::new(received, message, session.cloned());
                    Box::pin(Relay::answer_with(self, *begun, side, entered)).await
                }
            },
            Err(CallFailure::Upstream { error: SendError::SessionGone, .. })
                if received.scope.is_service() && session.is_some() =>
            {
                self.gone(session)
            }
            Err(failure) if received.scope.is_service() && session.is_some() && is_lost(&failure) => {
                self.gone(session)
            }
            Err(failure) => unanswered(received.id, id, &failure),
        };
        proxy::named(response, received.id)
    }

    /// The client's session cannot go on: it is told to begin anew.
    pub(super) fn gone(self: &Arc<Self>, session: Option<&Arc<Session>>) -> Response<Body> {
        if let Some(session) = session.and_then(|session| self.sessions.remove(&session.id)) {
            tracing::info!(session = %session.id, "session ended with its instance, the client begins anew");
            self.close(session);
        }
        unknown_session()
    }

    /// Brings a call to an instance, and waits until its answer begins.
    async fn begin<'a>(
        self: &Arc<Self>,
        received: &Received<'a>,
        message: &Message<'a>,
        session: Option<&Arc<Session>>,
        (call, timeout): (&wanted::Call<'_>, Option<Duration>),
    ) -> Result<Begun, CallFailure> {
        let client = match session {
            Some(session) => Cow::Borrowed(&*session.client),
            None => client_name(message),
        };
        let arguments = message.params().and_then(|params| params.arguments);
        let asked = Asked {
            id: received.id,
            arrived: clock::mono(),
            target: call.bound.as_ref().unwrap_or(&call.service).as_str(),
            continues: call.bound.is_some(),
            tool: &call.tool,
            method: message.method(),
            client: &client,
            affinity: session.map(|session| session.affinity()),
            size: received.body.len(),
            timeout,
            arguments: arguments.map_or(NO_ARGUMENTS, |arguments| arguments.get().as_bytes()),
        };
        let (run, mut account) = self.proxy.permit(received.snapshot, &asked)?;
        let begun = match session {
            None => {
                let client = modern_client(message);
                let (permitted, times, headers) = (Some(&run.permitted), run.times, received.headers);
                let names = Names::default();
                let courier = Courier {
                    endpoint: self,
                    permitted,
                    times,
                    call,
                    message,
                    headers,
                    client,
                    names,
                    more: &[],
                };
                run.to_the_end(&mut account, &courier)
                    .await
                    .map(|(attempt, carried)| (attempt, carried, None))
            }
            Some(session) => {
                let legacy = Legacy { endpoint: self, received, message, session, call };
                let begun = Box::pin(legacy.begin(&run, &mut account)).await;
                begun.map(|(attempt, carried, tie)| (attempt, carried, Some(tie)))
            }
        };
        match begun {
            Ok((attempt, carried, tie)) => {
                let deadline = run.times.deadline;
                Ok(Begun {
                    attempt: Some(attempt),
                    carried,
                    tie,
                    account: Some(account),
                    deadline,
                    impatient: run.impatient,
                })
            }
            Err(failure) => {
                account.fail(&failure);
                Err(failure)
            }
        }
    }

    /// One of the proxy's own tools.
    async fn own(
        &self,
        received: &Received<'_>,
        message: &Message<'_>,
        session: Option<&Arc<Session>>,
        era: Era,
        tool: OwnTool,
    ) -> Response<Body> {
        let Some(id) = message.id() else {
            return refuse(era, None, answer::INVALID_REQUEST, "a call needs an `id`");
        };
        let _entered = match self.proxy.enter() {
            Ok(entered) => entered,
            Err(failure) => return failure.respond(received.id).map(Body::Ready),
        };
        let arguments = message.params().and_then(|params| params.arguments);
        let arguments = arguments.map_or(NO_ARGUMENTS, |arguments| arguments.get().as_bytes());
        let client = session.map_or_else(|| client_name(message), |session| Cow::Borrowed(&*session.client));
        let call = OwnCall {
            tool,
            arguments: Bytes::copy_from_slice(arguments),
            profile: received.scope.profile(),
            client: client.into_owned(),
        };
        let result = (self.own)(call).await;
        let answer = answer::result(id, &result);
        let answer = if era == Era::Modern { turn::to_modern(&answer, message.method()) } else { answer };
        json(StatusCode::OK, answer)
    }
}

/// A call whose answer has begun.
pub(super) struct Begun {
    /// `None` of what no policy decides and nobody counts.
    pub attempt: Option<Attempt>,
    pub carried: Carried,
    /// Of a legacy client.
    pub tie: Option<Tie>,
    pub account: Option<Account>,
    pub deadline: tokio::time::Instant,
    pub impatient: bool,
}

/// A legacy client's call, tied to its session: where it is done, and how it is cancelled.
pub(super) struct Tie {
    pub lane: Arc<Lane>,
    /// Ends what is done for the call here.
    pub cancel: CancellationToken,
    _listed: Listed,
}

impl Tie {
    /// Lists a call before it is sent, under the id that it has there.
    pub fn new(session: &Arc<Session>, lane: &Arc<Lane>, id: &str, inner: &str) -> Self {
        let cancel = CancellationToken::new();
        let under_way = UnderWay { lane: Arc::clone(lane), id: inner.to_owned(), cancel: cancel.clone() };
        Self { lane: Arc::clone(lane), cancel, _listed: session.list(id, under_way) }
    }
}

impl Begun {
    /// What was passed on without a policy's word.
    pub fn passed(carried: Carried, tie: Option<Tie>, deadline: tokio::time::Instant) -> Self {
        Self { attempt: None, carried, tie, account: None, deadline, impatient: false }
    }

    /// The response, when the answer is whole already and both sides write it alike: the way of most calls.
    fn at_once(mut self) -> Result<Response<Body>, Box<Self>> {
        let carried = &self.carried;
        let alike = carried.names.id.is_none() && self.tie.is_none() && carried.spoken.era == Era::Modern;
        let Reply::Whole(whole) = &carried.reply else { return Err(Box::new(self)) };
        if !alike || !whole.is_json() {
            return Err(Box::new(self));
        }
        let hints = Hints::of(&whole.body);
        let failure = hints.failure && turn::is_failure(&whole.body);
        let instance = carried.instance.name().as_str();
        let bound = if hints.continued { turn::bound_to(&whole.body, instance) } else { None };
        let body = bound.unwrap_or_else(|| whole.body.clone());
        if let Some(attempt) = self.attempt.take() {
            attempt.succeed(failure);
        }
        if let Some(mut account) = self.account.take() {
            account.answered(&whole.body);
            account.settle(if failure { Ending::ToolError } else { Ending::Ok }, whole.status, body.len());
        }
        Ok(json(whole.status, body))
    }
}

/// A legacy client's call: it goes where the client's session is.
struct Legacy<'r, 'a> {
    endpoint: &'r Arc<Endpoint>,
    received: &'r Received<'a>,
    message: &'r Message<'a>,
    session: &'r Arc<Session>,
    call: &'r wanted::Call<'r>,
}

impl Legacy<'_, '_> {
    /// A lane that turns out to be lost is opened anew once, where the client does not know of it: nothing was done.
    async fn begin(
        &self,
        run: &Run<'_>,
        account: &mut Account,
    ) -> Result<(Attempt, Carried, Tie), CallFailure> {
        let service = &run.target.service().name;
        let mut again = !self.received.scope.is_service();
        loop {
            let lane = self
                .endpoint
                .lane(self.session, self.received.snapshot, service, run.permitted.tag(), run.times)
                .await?;
            let client = Client::Legacy { session: self.session, lane: &lane };
            let (call, message, headers) = (self.call, self.message, self.received.headers);
            let (permitted, times) = (Some(&run.permitted), run.times);
            let names = Names::at(&lane, message);
            let id = message.id().unwrap_or("null");
            let tie = Tie::new(self.session, &lane, id, names.id.as_deref().unwrap_or(id));
            let endpoint = self.endpoint;
            let courier =
                Courier { endpoint, permitted, times, call, message, headers, client, names, more: &[] };
            let brought = tokio::select! {
                brought = run.to_instance(&lane.instance, account, &courier) => brought,
                () = tie.cancel.cancelled() => Err(CallFailure::of(&lane.instance, SendError::Cancelled)),
            };
            match brought {
                Ok((attempt, carried)) => return Ok((attempt, carried, tie)),
                Err(failure) if is_lost(&failure) => {
                    self.endpoint.lose(self.session, &lane);
                    if !std::mem::take(&mut again) {
                        return Err(failure);
                    }
                    tracing::info!(service = %service, instance = %lane.instance.name(), "session with the instance is gone, another is opened");
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The answer that makes a client begin anew.
pub(super) fn unknown_session() -> Response<Body> {
    let text = "the session is not known here; begin anew with `initialize`";
    json(StatusCode::NOT_FOUND, answer::error(None, answer::SESSION_NOT_FOUND, text, None))
}

/// What a modern request says that its client can do, JSON text.
pub(super) fn capabilities<'a>(message: &Message<'a>) -> &'a str {
    let said = message.meta().and_then(|meta| meta.client_capabilities);
    said.map_or("{}", |said| said.get())
}

pub(super) fn modern_client<'a>(message: &Message<'a>) -> Client<'a> {
    let log_level = message.meta().and_then(|meta| meta.log_level).map(|level| level.get());
    Client::Modern { capabilities: capabilities(message), log_level }
}

/// How long the client waits, by its header or its message.
fn time_of(received: &Received<'_>, message: &Message<'_>) -> Result<Option<Duration>, BadTime> {
    let by_message = deadline::in_message(message.meta().and_then(|meta| meta.timeout))?;
    Ok(shorter(deadline::in_header(received.headers)?, by_message))
}

/// Who a modern request says it is from.
fn client_name<'a>(message: &Message<'a>) -> Cow<'a, str> {
    let info = message.meta().and_then(|meta| meta.client_info);
    info.map(|info| name_in(info.get())).unwrap_or_default()
}

/// The `name` of a `clientInfo`.
pub(super) fn name_in(info: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Info<'a> {
        #[serde(borrow, default)]
        name: Option<Text<'a>>,
    }
    serde_json::from_str::<Info<'_>>(info)
        .ok()
        .and_then(|info| info.name)
        .map(|name| name.0)
        .unwrap_or_default()
}
