//! Messages of the modern era: each carries all that is to be known of its client.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};

use super::held::Held;
use super::{Endpoint, Received, empty, json, listing, refuse, wanted};
use crate::body::Body;
use crate::mcp::answer::{self, VERSIONS};
use crate::mcp::era::{Era, METHOD, MODERN_VERSION, NAME, PROTOCOL_VERSION, header_value};
use crate::mcp::message::{Message, string};
use crate::mcp::turn;

/// Methods that the modern era does not have any more.
const GONE: [&str; 6] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list"];

impl Endpoint {
    pub(super) async fn modern(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Response<Body> {
        if let Err(refusal) = check(message, received.headers) {
            return refusal;
        }
        let method = message.method();
        let Some(id) = message.id() else {
            // The one notification that clients have, a cancellation, is said here by closing the stream.
            return empty(StatusCode::ACCEPTED);
        };
        if GONE.contains(&method) {
            let text = format!("there is no method `{method}` in {MODERN_VERSION}");
            return refuse(Era::Modern, Some(id), answer::METHOD_NOT_FOUND, &text);
        }
        let Some(view) = received.scope.view(received.snapshot) else {
            return super::problem(&received.scope.missing());
        };
        if method == "subscriptions/listen" {
            return Box::pin(self.subscribe(received, message)).await;
        }
        if wanted::is_call(method) {
            return match self.held(message) {
                None => self.call(received, message, None).await,
                Some(Ok((waiting, input))) => Box::pin(waiting.resume(received, message, &input)).await,
                Some(Err(text)) => {
                    json(StatusCode::OK, answer::error(Some(id), answer::INVALID_PARAMS, &text, None))
                }
            };
        }
        let about = view.about().filter(|_| received.scope.is_service());
        let kind = listing::kind_of(method);
        // What the service says itself is best; what is known of it comes next.
        let asks = received.scope.is_service()
            && match (method, kind) {
                ("server/discover", _) => about.is_none_or(|about| about.era == Era::Modern),
                (_, Some(_)) => !view.is_filtered(),
                _ => true,
            };
        if asks && let Some(response) = Box::pin(self.pass(received, message, None, kind.is_some())).await {
            return response;
        }
        match (method, kind) {
            ("server/discover", _) => listing::discovered(message, about.map(|about| &**about)),
            (_, Some(kind)) => listing::page(Era::Modern, view, kind, message),
            _ => {
                let text = format!("there is no method `{method}`");
                refuse(Era::Modern, Some(id), answer::METHOD_NOT_FOUND, &text)
            }
        }
    }

    /// The call that waits for what this request brings, if it is one that does.
    fn held(&self, message: &Message<'_>) -> Option<Result<(super::relay::Waiting, String), String>> {
        let state = message.params().and_then(|params| params.request_state).and_then(string)?;
        if !Held::is_one(&state) {
            return None;
        }
        let gone = || "what this request continues is not known, or was waited for too long".to_owned();
        let Some(waiting) = self.held.take(&state) else { return Some(Err(gone())) };
        Some(match waiting.is_answered_by(message).map(str::to_owned) {
            Some(input) => Ok((waiting, input)),
            None => Err(format!("`inputResponses` has no `{}`", turn::QUESTION)),
        })
    }
}

/// Checks what a message says of itself against its headers, and that it says all that it must (2026-07-28,
/// transports; SEP-2243).
fn check(message: &Message<'_>, headers: &HeaderMap) -> Result<(), Response<Body>> {
    let id = message.id();
    let mismatch = |text: &str| refuse(Era::Modern, id, answer::HEADER_MISMATCH, text);
    let revision = message.revision();
    let header = header_value(headers, &PROTOCOL_VERSION)
        .map_err(|_| mismatch("a header is there twice or is malformed"))?;
    match (&header, &revision) {
        (Some(header), Some(revision)) if header != revision => {
            return Err(mismatch("the header `MCP-Protocol-Version` does not say what `_meta` says"));
        }
        (None, Some(_)) => return Err(mismatch("the header `MCP-Protocol-Version` is missing")),
        _ => {}
    }
    let said =
        |name| header_value(headers, name).map_err(|_| mismatch("a header is there twice or is malformed"));
    if said(&METHOD)?.as_deref() != Some(message.method()) {
        return Err(mismatch("the header `Mcp-Method` does not say what the body says"));
    }
    let params = message.params();
    let named = match message.method() {
        "tools/call" | "prompts/get" => params.and_then(|params| params.name),
        "resources/read" => params.and_then(|params| params.uri),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.and_then(|params| params.task_id),
        _ => None,
    };
    if let Some(named) = named.and_then(string)
        && said(&NAME)?.as_deref() != Some(&*named)
    {
        return Err(mismatch("the header `Mcp-Name` does not say what the body says"));
    }
    if let Some(version) = revision.as_ref().filter(|version| ***version != *MODERN_VERSION) {
        return Err(unsupported(id, version));
    }
    if message.id().is_none() {
        return Ok(());
    }
    let meta = message.meta();
    let complete = meta.is_some_and(|meta| meta.client_capabilities.is_some()) && revision.is_some();
    if !complete {
        let text = "`_meta` must have `io.modelcontextprotocol/protocolVersion` and `io.modelcontextprotocol/clientCapabilities`";
        return Err(refuse(Era::Modern, id, answer::INVALID_PARAMS, text));
    }
    Ok(())
}

/// A revision that is not spoken here, with those that are.
pub(super) fn unsupported(id: Option<&str>, version: &str) -> Response<Body> {
    let requested = turn::quoted(version);
    let data = format!(r#"{{"supported":["{}"],"requested":{requested}}}"#, VERSIONS.join("\",\""));
    let text = format!("the protocol version `{version}` is not supported");
    let body = answer::error(id, answer::UNSUPPORTED_VERSION, &text, Some(data.as_bytes()));
    json(StatusCode::BAD_REQUEST, body)
}
