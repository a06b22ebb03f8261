//! The one table from what can go wrong with a call to what its caller is told.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::value::RawValue;
use thiserror::Error;

use super::account::Ending;
use super::reply;
use super::{RETRY_AFTER, RETRY_AFTER_MAX};
use crate::body::ReplyBody;
use crate::mcp::deadline::BadTime;
use crate::mcp::envelope;
use crate::mesh::ids::CallId;
use crate::mesh::limit::Shed;
use crate::mesh::retry::Failure;
use crate::policy::chain::Refused;
use crate::problem::Problem;
use crate::registry::{Instance, Snapshot};
use crate::upstream::{self, SendError};

/// The code of whatever there is no room for now.
pub const OVERLOADED: &str = "overloaded";

#[derive(Debug, Error)]
pub enum CallFailure {
    #[error("the request is not a call: {0}")]
    Invalid(String),
    #[error(transparent)]
    BadTime(#[from] BadTime),
    #[error("the body is not `application/json`")]
    MediaType,
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the body took longer than {0:?}")]
    BodyTooSlow(Duration),
    #[error("the proxy has {0} calls under way, which is its limit (`limits.in_flight`)")]
    Overloaded(usize),
    #[error("all instances of `{service}` have as many calls as they take at once, and {}", waited(*.shed))]
    Shed { service: String, shed: Shed },
    #[error("neither a service nor an instance is called `{0}`")]
    UnknownTarget(String),
    #[error("the configuration does not offer `{tool}` of `{service}`")]
    Hidden { service: String, tool: String },
    #[error("{}", .0.refusal.reason)]
    Refused(Refused),
    #[error("no instance of `{service}` can take the call: {why}")]
    NoInstance { service: String, why: String },
    /// The last attempt's end.
    #[error("`{instance}` of `{service}` gave no answer in {}: {}", times(*.attempts), upstream::chain(.error))]
    /// `unsure`: this or an earlier attempt was sent and not answered.
    Upstream { service: String, instance: String, attempts: u32, error: SendError, unsure: bool },
    #[error("`{tool}` failed: {text}")]
    ToolError { service: String, instance: String, tool: String, text: String, result: Bytes },
    #[error("`{instance}` refused `{tool}`: {message} (JSON-RPC error {code})")]
    RpcError { service: String, instance: String, tool: String, code: i64, message: String, error: Bytes },
}

impl CallFailure {
    /// How a call that failed like this is counted.
    pub(super) const fn ending(&self) -> Ending {
        match self {
            Self::Refused(_) | Self::NoInstance { .. } | Self::Shed { .. } => Ending::Refused,
            Self::ToolError { .. } | Self::RpcError { .. } => Ending::ToolError,
            _ => Ending::Failed,
        }
    }

    pub fn problem(&self) -> Problem<'_> {
        let make = |status, code, hint: &'static str| Problem::new(status, code, self.to_string(), hint);
        match self {
            Self::Invalid(_) => make(
                StatusCode::BAD_REQUEST,
                "invalid_call",
                r#"send {"target_instance": "…", "tool_name": "…", "arguments": {…}}"#,
            ),
            Self::BadTime(_) => {
                let hint = "give it as milliseconds, or leave it out for the configured `calls.timeout`";
                make(StatusCode::BAD_REQUEST, "invalid_call", hint)
            }
            Self::MediaType => make(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send `Content-Type: application/json`",
            ),
            Self::BodyTooLarge(_) => make(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "send less, or raise `server.body_bytes_max`",
            ),
            Self::BodyTooSlow(_) => {
                make(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "send the body at once")
            }
            Self::Shed { service, shed } => {
                let hint = "nothing was sent; call again later, add instances, or raise `concurrency` of the service";
                let mut problem = make(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, hint);
                problem.service = Some(service);
                let after = match shed {
                    Shed::TooLong(wait) => (*wait).clamp(RETRY_AFTER, RETRY_AFTER_MAX),
                    _ => RETRY_AFTER,
                };
                retry(problem, after)
            }
            Self::Overloaded(_) => retry(
                make(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, "try again a moment later"),
                RETRY_AFTER,
            ),
            Self::UnknownTarget(_) => {
                make(StatusCode::NOT_FOUND, "unknown_service", "`GET /services` lists what is registered")
            }
            Self::Hidden { service, .. } => {
                let hint = "`services.NAME.tools` of the configuration says what is offered";
                let mut problem = make(StatusCode::FORBIDDEN, "tool_hidden", hint);
                problem.service = Some(service);
                problem
            }
            Self::Refused(refused) => refused_problem(refused),
            Self::NoInstance { service, .. } => {
                let hint = "`GET /services/NAME` shows each instance's state and reason";
                let mut problem = make(StatusCode::SERVICE_UNAVAILABLE, "no_instance_available", hint);
                problem.service = Some(service);
                retry(problem, RETRY_AFTER)
            }
            Self::Upstream { service, instance, error, unsure, .. } => {
                let (status, code, hint) = upstream_row(error);
                let mut problem = make(status, code, if *unsure { UNSURE } else { hint });
                problem.service = Some(service);
                problem.instance = Some(instance);
                problem.outcome = unsure.then_some("unknown");
                // Who comes again by himself must not run twice what may have run.
                problem.retry_after = (matches!(error, SendError::Full(_)) && !unsure).then_some(RETRY_AFTER);
                problem
            }
            Self::ToolError { service, instance, result, .. } => {
                let mut problem = make(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "tool_error",
                    "`result` is what the tool answered",
                );
                problem.service = Some(service);
                problem.instance = Some(instance);
                problem.result = raw(result);
                problem
            }
            Self::RpcError { service, instance, error, .. } => {
                let mut problem =
                    make(StatusCode::UNPROCESSABLE_ENTITY, "rpc_error", "`rpc` is the instance's own error");
                problem.service = Some(service);
                problem.instance = Some(instance);
                problem.rpc = raw(error);
                problem
            }
        }
    }

    pub fn status(&self) -> StatusCode {
        self.problem().status()
    }

    pub fn respond(&self, id: CallId) -> Response<ReplyBody> {
        let mut problem = self.problem();
        problem.call_id = Some(id.to_string());
        reply::problem(&problem)
    }

    /// Nothing of that name is there, or not any more.
    pub(super) fn absent(snapshot: &Snapshot, name: &str) -> Self {
        match snapshot.departed(name) {
            Some(departed) => Self::NoInstance { service: name.to_owned(), why: departed.to_string() },
            None => Self::UnknownTarget(name.to_owned()),
        }
    }

    /// What kept one instance from answering.
    pub fn of(instance: &Instance, error: SendError) -> Self {
        let unsure = error.failure() == Failure::Unanswered;
        let (service, instance) = (instance.spec.service.to_string(), instance.name().to_string());
        Self::Upstream { service, instance, attempts: 1, error, unsure }
    }

    pub(super) fn tool_error(service: &str, instance: &str, tool: &str, result: Bytes) -> Self {
        Self::ToolError {
            service: service.to_owned(),
            instance: instance.to_owned(),
            tool: tool.to_owned(),
            text: envelope::first_text(&result, 500).unwrap_or_else(|| "it gave no text".to_owned()),
            result,
        }
    }

    pub(super) fn rpc_error(service: &str, instance: &str, tool: &str, error: Bytes) -> Self {
        let (code, message) = raw(&error).map(envelope::error_text).unwrap_or_default();
        Self::RpcError {
            service: service.to_owned(),
            instance: instance.to_owned(),
            tool: tool.to_owned(),
            code,
            message,
            error,
        }
    }
}

fn times(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

fn waited(shed: Shed) -> String {
    match shed {
        Shed::Crowded(waiting) => format!("{waiting} calls wait already"),
        Shed::TooLong(wait) => format!("the call would wait for {} ms", wait.as_millis()),
        Shed::Waited(time) => format!("the call waited for {} ms in vain", time.as_millis()),
    }
}

const UNSURE: &str = "the tool may have run: check before calling again";

fn upstream_row(error: &SendError) -> (StatusCode, &'static str, &'static str) {
    match error {
        SendError::Connect(_)
        | SendError::ConnectTimeout(_)
        | SendError::NotSent(_)
        | SendError::Start { .. }
        | SendError::Missing(_)
        | SendError::Down(_)
        | SendError::Resting
        | SendError::Handshake { .. } => {
            (StatusCode::BAD_GATEWAY, "upstream_unreachable", "nothing was sent, so calling again is safe")
        }
        SendError::Full(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            OVERLOADED,
            "nothing was sent; end sessions that nobody needs, or raise `sessions_max` of the service",
        ),
        SendError::NoTimeLeft => {
            (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "nothing was sent, so calling again is safe")
        }
        SendError::FirstByteTimeout(_) | SendError::DeadlinePassed => {
            (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", UNSURE)
        }
        SendError::Broken(_)
        | SendError::Head(_)
        | SendError::StreamEnded
        | SendError::ProcessEnded
        | SendError::SessionGone
        | SendError::SlowReader
        | SendError::Cancelled => (StatusCode::BAD_GATEWAY, "outcome_unknown", UNSURE),
        SendError::Status { .. } => {
            (StatusCode::BAD_GATEWAY, "upstream_status", "the instance's own log may tell more")
        }
        SendError::TooLarge(_)
        | SendError::TooManyRounds(_)
        | SendError::Event(_)
        | SendError::Flood
        | SendError::ContentType(_)
        | SendError::Malformed(_) => {
            (StatusCode::BAD_GATEWAY, "upstream_invalid", "the instance does not answer as the protocol says")
        }
    }
}

fn refused_problem(refused: &Refused) -> Problem<'_> {
    let retry_after = refused.refusal.retry_after;
    let status = if retry_after.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::FORBIDDEN };
    let hint = "a routing policy refused the call; `GET /plugins` lists the policies";
    let mut problem = Problem::new(status, "policy_refused", &*refused.refusal.reason, hint);
    problem.routed_by = Some(reply::source(&refused.ruling.by));
    problem.why = Some(&refused.ruling.why);
    problem.retry_after = retry_after;
    problem
}

fn retry(mut problem: Problem<'_>, after: Duration) -> Problem<'_> {
    problem.retry_after = Some(after);
    problem
}

/// Bytes that were cut out of a message that has been read.
fn raw(bytes: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
