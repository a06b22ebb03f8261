//! Errors as callers see them: RFC 9457 `application/problem+json`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub const MEDIA_TYPE: &str = "application/problem+json";

/// What happened, where, why, and what to do. `code` is for programs and never changes its meaning.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// `"unknown"`: the tool may or may not have run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<&'a str>,
    /// The plugin that decided, `name version #generation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
    /// The tool's own result, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'a RawValue>,
    /// The instance's JSON-RPC error, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc: Option<&'a RawValue>,
    /// When to come again. Whoever sees no headers reads it here.
    #[serde(rename = "retry_after_ms", serialize_with = "millis", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

fn millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

impl<'a> Problem<'a> {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'a, str>>,
        hint: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            kind: format!("urn:meshwright:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            hint: hint.into(),
            call_id: None,
            outcome: None,
            service: None,
            instance: None,
            routed_by: None,
            why: None,
            result: None,
            rpc: None,
            retry_after: None,
        }
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("it was made from a status")
    }

    pub const fn code(&self) -> &'static str {
        self.code
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        headers
    }

    pub fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("a problem can always be written as JSON").into()
    }
}
