//! What a client sends to the proxy's own MCP endpoint, and what it is answered.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::envelope::{put_number, put_string};
use super::era::{LEGACY_VERSION, METHOD_HEADER, MODERN_VERSION, NAME_HEADER, header_name};

pub const PARSE_ERROR: i32 = -32700;
pub const INVALID_REQUEST: i32 = -32600;
pub const METHOD_NOT_FOUND: i32 = -32601;
pub const INVALID_PARAMS: i32 = -32602;
/// The proxy could not get an answer; `data` is its problem document.
pub const NOT_ANSWERED: i32 = -32000;

/// Revisions that clients may speak, newest first.
pub const VERSIONS: [&str; 5] = [MODERN_VERSION, LEGACY_VERSION, "2025-06-18", "2025-03-26", "2024-11-05"];

#[derive(Debug, Error)]
#[error("the message is not JSON-RPC: {0}")]
pub struct NotJsonRpc(#[from] serde_json::Error);

/// One message of a client, borrowed from its bytes.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    /// Absent in notifications.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// Absent in answers to requests of the proxy.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

impl<'a> Incoming<'a> {
    /// # Errors
    /// Bytes that are no JSON-RPC message.
    pub fn read(bytes: &'a [u8]) -> Result<Self, NotJsonRpc> {
        // An array would be taken for the fields in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(NotJsonRpc(serde::de::Error::custom("it is not an object")));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Whether the headers that repeat method and name say what the body says. Absent ones contradict nothing: the
    /// body decides.
    pub fn agrees_with(&self, headers: &HeaderMap) -> bool {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default)]
            name: Cow<'a, str>,
        }
        let method = self.method.as_deref().unwrap_or_default();
        let named = self.params.and_then(|params| serde_json::from_str::<Named<'_>>(params.get()).ok());
        let name = named.map(|named| named.name).unwrap_or_default();
        let method_agrees =
            headers.get(&METHOD_HEADER).is_none_or(|value| value.as_bytes() == method.as_bytes());
        let name_agrees = headers.get(&NAME_HEADER).is_none_or(|value| {
            value.as_bytes() == header_name(&name).as_bytes() || value.as_bytes() == name.as_bytes()
        });
        method_agrees && name_agrees
    }
}

/// The parameters of `tools/call`, borrowed.
#[derive(Debug, Deserialize)]
pub struct CallParams<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub arguments: Option<&'a RawValue>,
}

/// The cursor of a listing's parameters.
pub fn cursor(params: Option<&RawValue>) -> Option<String> {
    #[derive(Deserialize)]
    struct Params {
        cursor: Option<String>,
    }
    serde_json::from_str::<Params>(params?.get()).ok()?.cursor
}

/// The revision that `initialize` asks for, when it is one of the legacy era; the newest of that era otherwise.
pub fn negotiate(params: Option<&RawValue>) -> &'static str {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "protocolVersion")]
        version: Cow<'a, str>,
    }
    let asked = params.and_then(|params| serde_json::from_str::<Params<'_>>(params.get()).ok());
    let known = asked.and_then(|asked| VERSIONS.into_iter().find(|version| *version == asked.version));
    known.filter(|version| *version != MODERN_VERSION).unwrap_or(LEGACY_VERSION)
}

/// What stands before a result, and what after it: `{"jsonrpc":"2.0","id":…,"result":` and `}`.
pub fn result_frame(id: &RawValue) -> (BytesMut, &'static [u8]) {
    let mut head = BytesMut::with_capacity(id.get().len() + 64);
    put_head(&mut head, id.get());
    head.put_slice(b"\"result\":");
    (head, b"}")
}

/// A result that is ready as JSON text.
pub fn result(id: &RawValue, result: &[u8]) -> Bytes {
    let (mut out, end) = result_frame(id);
    out.put_slice(result);
    out.put_slice(end);
    out.freeze()
}

/// A JSON-RPC error object that came from an instance, as it came.
pub fn raw_error(id: &RawValue, error: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(error.len() + 64);
    put_head(&mut out, id.get());
    out.put_slice(b"\"error\":");
    out.put_slice(error);
    out.put_u8(b'}');
    out.freeze()
}

/// An error of the proxy's own. `data` is JSON text.
pub fn error(id: Option<&RawValue>, code: i32, message: &str, data: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 128);
    put_head(&mut out, id.map_or("null", RawValue::get));
    out.put_slice(b"\"error\":{\"code\":-");
    put_number(&mut out, u64::from(code.unsigned_abs()));
    out.put_slice(b",\"message\":");
    put_string(&mut out, message);
    if let Some(data) = data {
        out.put_slice(b",\"data\":");
        out.put_slice(data);
    }
    out.put_slice(b"}}");
    out.freeze()
}

fn put_head(out: &mut BytesMut, id: &str) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.as_bytes());
    out.put_u8(b',');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn ids_come_back_as_they_were_sent() {
        for id in ["1", "\"a\\u0062\"", "12345678901234567890", "null"] {
            let answer = result(raw(id), b"{}");
            assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
    }

    #[test]
    fn errors_are_json() {
        let answer = error(None, METHOD_NOT_FOUND, "no \"such\" method", Some(b"{}"));
        let text =
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no \"such\" method","data":{}}}"#;
        assert_eq!(answer, text);
    }

    #[test]
    fn a_known_legacy_revision_is_kept_and_any_other_answered_with_the_newest() {
        let negotiated =
            |version: &str| negotiate(Some(raw(&format!(r#"{{"protocolVersion":"{version}"}}"#))));
        assert_eq!(negotiated("2025-03-26"), "2025-03-26");
        assert_eq!(negotiated("2026-07-28"), LEGACY_VERSION);
        assert_eq!(negotiated("1999-01-01"), LEGACY_VERSION);
        assert_eq!(negotiate(None), LEGACY_VERSION);
    }
}
