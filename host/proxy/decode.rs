//! From a request to what it asks for.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::CallFailure;
use crate::mesh::deadline::CALL_TIME_MAX;

/// How long a body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read, and for how long, before its sender is cut off.
const DISCARD_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);
/// How many times of what has come there is room for at most.
const ROOM_FACTOR: usize = 16;
/// Longest name of a tool, in bytes.
const TOOL_BYTES_MAX: usize = 1024;
/// Longest name of a client, in bytes.
const CLIENT_BYTES_MAX: usize = 256;

/// The body of `POST /call`, borrowed from its bytes.
#[derive(Debug)]
pub struct CallBody<'a> {
    pub target: Cow<'a, str>,
    pub tool: Cow<'a, str>,
    /// Who calls, by its own word; empty when it says nothing.
    pub client: Cow<'a, str>,
    /// A JSON object, as it came.
    pub arguments: &'a [u8],
    pub timeout: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow)]
    target_instance: Cow<'a, str>,
    #[serde(borrow)]
    tool_name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(borrow, default)]
    client: Cow<'a, str>,
}

impl<'a> CallBody<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, CallFailure> {
        // An array would be taken for the fields in their order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(CallFailure::Invalid("it is not an object".to_owned()));
        }
        let raw: Raw<'a> =
            serde_json::from_slice(body).map_err(|error| CallFailure::Invalid(error.to_string()))?;
        let wrong = |why: &str| Err(CallFailure::Invalid(why.to_owned()));
        if raw.target_instance.is_empty() || raw.tool_name.is_empty() {
            return wrong("`target_instance` and `tool_name` must not be empty");
        }
        if raw.tool_name.len() > TOOL_BYTES_MAX {
            return wrong("`tool_name` is longer than 1024 bytes");
        }
        if raw.client.len() > CLIENT_BYTES_MAX {
            return wrong("`client` is longer than 256 bytes");
        }
        let arguments = match raw.arguments.map(RawValue::get) {
            None | Some("null") => "{}",
            Some(object) if object.starts_with('{') => object,
            Some(_) => return wrong("`arguments` must be an object"),
        };
        let timeout = raw.timeout_ms.map(Duration::from_millis);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return wrong("`timeout_ms` must be 1 or more");
        }
        Ok(Self {
            target: raw.target_instance,
            tool: raw.tool_name,
            client: raw.client,
            arguments: arguments.as_bytes(),
            timeout: timeout.map(|timeout| timeout.min(CALL_TIME_MAX)),
        })
    }
}

/// Collects the body of a JSON request.
pub async fn read_body(
    headers: &HeaderMap,
    mut body: Incoming,
    bytes_max: usize,
) -> Result<Bytes, CallFailure> {
    if !is_json(headers) {
        return Err(CallFailure::MediaType);
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if announced.is_some_and(|length: usize| length > bytes_max) {
        discard(&mut body).await;
        return Err(CallFailure::BodyTooLarge(bytes_max));
    }
    let collected = tokio::time::timeout(BODY_TIME_MAX, collect(&mut body, announced, bytes_max)).await;
    let collected = collected.unwrap_or(Err(CallFailure::BodyTooSlow(BODY_TIME_MAX)));
    if matches!(collected, Err(CallFailure::BodyTooLarge(_))) {
        discard(&mut body).await;
    }
    collected
}

/// Reads on for a moment: a caller that is still sending would be cut off before it reads why.
async fn discard(body: &mut Incoming) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it came to its end or not, the answer is the same.
    tokio::time::timeout(DISCARD_TIME_MAX, rest).await.ok();
}

/// `announced` is the length that the headers tell, if they do.
async fn collect(
    body: &mut Incoming,
    announced: Option<usize>,
    bytes_max: usize,
) -> Result<Bytes, CallFailure> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CallFailure::Invalid(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > bytes_max {
            return Err(CallFailure::BodyTooLarge(bytes_max));
        }
        if let Some(all) = &mut all {
            reserve(all, data.len(), announced);
            all.extend_from_slice(&data);
        } else if first.is_empty() {
            first = data;
        } else {
            let mut both = BytesMut::new();
            reserve(&mut both, first.len() + data.len(), announced);
            both.extend_from_slice(&first);
            both.extend_from_slice(&data);
            all = Some(both);
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

/// Makes room for `more` bytes, and for all that is announced, if that is not much more than has come: whoever
/// announces much and sends little takes little.
fn reserve(bytes: &mut BytesMut, more: usize, announced: Option<usize>) {
    let needed = bytes.len() + more;
    if bytes.capacity() < needed {
        let wanted = announced.unwrap_or(0).min(needed * ROOM_FACTOR).max(needed);
        bytes.reserve(wanted - bytes.len());
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stay_as_they_came() {
        let body = br#"{"target_instance":"a\u0062","tool_name":"t","arguments":{ "n": 1.0, "n2":1e400 }}"#;
        let call = CallBody::decode(body).expect("a call");
        assert_eq!(call.target, "ab");
        assert_eq!(call.arguments, br#"{ "n": 1.0, "n2":1e400 }"#);
    }

    #[test]
    fn absent_and_null_arguments_are_an_empty_object() {
        for body in [
            r#"{"target_instance":"a","tool_name":"t"}"#,
            r#"{"target_instance":"a","tool_name":"t","arguments":null}"#,
        ] {
            assert_eq!(CallBody::decode(body.as_bytes()).expect("a call").arguments, b"{}");
        }
    }

    #[test]
    fn more_time_than_there_is_is_as_much_as_there_is() {
        let body = br#"{"target_instance":"a","tool_name":"t","timeout_ms":18446744073709551615}"#;
        assert_eq!(CallBody::decode(body).expect("a call").timeout, Some(CALL_TIME_MAX));
    }

    #[test]
    fn what_is_not_a_call_is_refused() {
        for body in [
            "",
            "[]",
            r#"["a","t",{}]"#,
            r#"{"target_instance":"a"}"#,
            r#"{"target_instance":"a","tool_name":""}"#,
            r#"{"target_instance":"a","tool_name":"t","arguments":[1]}"#,
            r#"{"target_instance":"a","tool_name":"t","tool_name":"u"}"#,
            r#"{"target_instance":"a","tool_name":"t","Tool_name":"u"}"#,
            r#"{"target_instance":"a","tool_name":"t","timeout_ms":0}"#,
            r#"{"target_instance":"a","tool_name":"t","timeout_ms":-1}"#,
        ] {
            assert!(matches!(CallBody::decode(body.as_bytes()), Err(CallFailure::Invalid(_))), "{body}");
        }
    }
}
