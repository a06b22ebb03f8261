//! JSON out, JSON in, and problems.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::registry::{Departed, RegistryError};

/// A problem on its way to the caller.
pub(super) struct Refusal(Problem<'static>);

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Problem::new(status, code, detail, hint))
    }

    pub(super) fn body(&self) -> Bytes {
        self.0.body()
    }

    /// `departed` says why a service that is still offered is not there.
    pub(super) fn unknown_service(name: &str, departed: Option<&Departed>) -> Self {
        let detail = match departed {
            Some(departed) => format!("no instance of `{name}` is registered now: {departed}"),
            None => format!("no service is called `{name}`"),
        };
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_service",
            detail,
            "`GET /services` lists what is registered",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0.body()));
        *response.status_mut() = self.0.status();
        *response.headers_mut() = self.0.headers();
        response
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let (status, code, hint) = match &error {
            RegistryError::NameTaken { .. } => (
                StatusCode::CONFLICT,
                "name_taken",
                "choose another `instance_name`, or show its `lease_token`",
            ),
            RegistryError::Configured(_) => (
                StatusCode::CONFLICT,
                "name_taken",
                "choose another `instance_name`, or take it out of the configuration",
            ),
            RegistryError::WrongToken(_) => (
                StatusCode::FORBIDDEN,
                "wrong_lease_token",
                "show the token of the newest registration, or none",
            ),
            RegistryError::LeaseGone(_) => (StatusCode::GONE, "lease_gone", "register again"),
            RegistryError::UnknownInstance(_) => {
                (StatusCode::NOT_FOUND, "unknown_instance", "`GET /services` lists what is registered")
            }
            RegistryError::Full => {
                (StatusCode::INSUFFICIENT_STORAGE, "registry_full", "deregister what is no longer used")
            }
            RegistryError::Persistence(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "persistence_degraded",
                "calls go on; free the disk of the data folder and try again",
            ),
            RegistryError::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping", "try again after the restart")
            }
        };
        let mut problem = Problem::new(status, code, error.to_string(), hint);
        problem.retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(2));
        Self(problem)
    }
}

/// JSON that a page answers with, and one of the proxy's own tools.
pub(super) struct Document {
    status: StatusCode,
    body: Vec<u8>,
}

impl Document {
    pub(super) const fn new(status: StatusCode, body: Vec<u8>) -> Self {
        Self { status, body }
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// As a body that no cache may keep.
impl IntoResponse for Document {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

pub(super) fn document(status: StatusCode, value: &impl Serialize) -> Document {
    match serde_json::to_vec(value) {
        Ok(body) => Document { status, body },
        Err(error) => {
            tracing::error!(error = %error, "answer cannot be written");
            let refusal = Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the answer cannot be written",
                "the log tells more",
            );
            Document { status: StatusCode::INTERNAL_SERVER_ERROR, body: refusal.body().into() }
        }
    }
}

/// A JSON body that no cache may keep.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    document(status, value).into_response()
}

/// Reads a JSON body. `example` is what a right one looks like.
pub(super) fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
    code: &'static str,
    example: &'static str,
) -> Result<T, Refusal> {
    let media = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !media.eq_ignore_ascii_case(b"application/json") {
        let detail = "the body is not `application/json`";
        let hint = "send `Content-Type: application/json`";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail, hint));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, code, format!("the body is not understood: {error}"), example)
    })
}
