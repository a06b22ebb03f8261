//! What clients of the endpoint are answered.

use bytes::{BufMut, Bytes, BytesMut};

use super::envelope::{put_number, put_string};
use super::era::{LEGACY_VERSION, MODERN_VERSION};

pub const PARSE_ERROR: i32 = -32700;
pub const INVALID_REQUEST: i32 = -32600;
pub const METHOD_NOT_FOUND: i32 = -32601;
pub const INVALID_PARAMS: i32 = -32602;
/// What legacy clients are told of a resource that is not there.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// The session is not known; comes with 404.
pub const SESSION_NOT_FOUND: i32 = -32001;
/// The client refused what the instance needs to go on.
pub const REFUSED: i32 = -32003;
/// Headers contradict the body, or one that is required is missing (2026-07-28).
pub const HEADER_MISMATCH: i32 = -32020;
/// A revision that is not spoken here (2026-07-28).
pub const UNSUPPORTED_VERSION: i32 = -32022;
/// The proxy could not get an answer; `data` is its problem document.
pub const NOT_ANSWERED: i32 = -32000;

/// Revisions that clients may speak, newest first.
pub const VERSIONS: [&str; 5] = [MODERN_VERSION, LEGACY_VERSION, "2025-06-18", "2025-03-26", "2024-11-05"];

/// The revision that `initialize` asks for, when it is one of the legacy era; the newest of that era otherwise.
pub fn negotiate(asked: &str) -> &'static str {
    let known = VERSIONS.into_iter().find(|version| *version == asked);
    known.filter(|version| *version != MODERN_VERSION).unwrap_or(LEGACY_VERSION)
}

/// What stands before a result, and what after it: `{"jsonrpc":"2.0","id":…,"result":` and `}`.
pub fn result_frame(id: &str) -> (BytesMut, &'static [u8]) {
    let mut head = BytesMut::with_capacity(id.len() + 64);
    put_head(&mut head, id);
    head.put_slice(b"\"result\":");
    (head, b"}")
}

/// A result that is ready as JSON text.
pub fn result(id: &str, result: &[u8]) -> Bytes {
    let (mut out, end) = result_frame(id);
    out.put_slice(result);
    out.put_slice(end);
    out.freeze()
}

/// A JSON-RPC error object that came from an instance, as it came.
pub fn raw_error(id: &str, error: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(error.len() + 64);
    put_head(&mut out, id);
    out.put_slice(b"\"error\":");
    out.put_slice(error);
    out.put_u8(b'}');
    out.freeze()
}

/// An error of the proxy's own. `data` is JSON text.
pub fn error(id: Option<&str>, code: i32, message: &str, data: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 128);
    put_head(&mut out, id.unwrap_or("null"));
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

    #[test]
    fn ids_come_back_as_they_were_sent() {
        for id in ["1", "\"a\\u0062\"", "12345678901234567890", "null"] {
            let answer = result(id, b"{}");
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
        assert_eq!(negotiate("2025-03-26"), "2025-03-26");
        assert_eq!(negotiate("2026-07-28"), LEGACY_VERSION);
        assert_eq!(negotiate("1999-01-01"), LEGACY_VERSION);
        assert_eq!(negotiate(""), LEGACY_VERSION);
    }
}
