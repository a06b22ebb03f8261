//! JSON-RPC envelopes: requests written around raw bytes, answers looked into without building a tree.

use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::deadline;
use super::era::{Era, MODERN_VERSION};
use super::hints::says_false;

/// Who the proxy says it is when it speaks for itself.
pub const CLIENT_INFO: &str =
    concat!(r#"{"name":"meshwright","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// Writes `{"jsonrpc":"2.0","id":ID,"method":METHOD,"params":{…}}`. `members` are the members of `params` as JSON
/// text, without braces; `_meta` is put before them: the modern era's, and how much time is left, in milliseconds, for
/// those who are told so in the message.
pub fn request(era: Era, id: u64, method: &str, left: Option<u64>, members: &[&[u8]]) -> Bytes {
    let size: usize = members.iter().map(|m| m.len()).sum();
    let mut out = BytesMut::with_capacity(size + 384);
    out.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    put_number(&mut out, id);
    out.put_slice(br#","method":""#);
    out.put_slice(method.as_bytes());
    out.put_slice(br#"","params":{"#);
    if era == Era::Modern {
        out.put_slice(br#""_meta":{"io.modelcontextprotocol/protocolVersion":""#);
        out.put_slice(MODERN_VERSION.as_bytes());
        out.put_slice(br#"","io.modelcontextprotocol/clientInfo":"#);
        out.put_slice(CLIENT_INFO.as_bytes());
        out.put_slice(br#","io.modelcontextprotocol/clientCapabilities":{}"#);
    }
    if let Some(left) = left {
        out.put_slice(if era == Era::Modern { b",\"" } else { b"\"_meta\":{\"" });
        out.put_slice(deadline::MEMBER.as_bytes());
        out.put_slice(b"\":");
        put_number(&mut out, left);
    }
    if era == Era::Modern || left.is_some() {
        out.put_slice(if size > 0 { b"}," } else { b"}" });
    }
    for member in members {
        out.put_slice(member);
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// Writes a notification without parameters.
pub fn notification(method: &str) -> Bytes {
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#))
}

/// Writes the refusal of a request that the other side sent us. `id` is JSON text.
pub fn refusal_to(id: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"this client offers no such method"}}}}"#
    ))
}

/// Writes the answer to a `ping` that the other side sent us. `id` is JSON text.
pub fn pong_to(id: &str) -> Bytes {
    result_to(id, "{}")
}

/// Writes the result of a request of the other side; both are JSON text.
pub fn result_to(id: &str, result: &str) -> Bytes {
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// Writes that a request is no longer wanted. `id` is JSON text.
pub fn cancelled(id: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    ))
}

/// Writes a modern request to be told of changes; both are JSON text.
pub fn listen(id: &str, notifications: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN_VERSION}","io.modelcontextprotocol/clientInfo":{CLIENT_INFO},"io.modelcontextprotocol/clientCapabilities":{{}}}},"notifications":{notifications}}}}}"#
    ))
}

/// Writes a legacy request to be told of changes of a resource.
pub fn subscribe(id: &str, uri: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"#).as_bytes(),
    );
    put_string(&mut out, uri);
    out.put_slice(b"}}");
    out.freeze()
}

/// Appends `text` as a JSON string.
pub fn put_string(out: &mut BytesMut, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        let quoted = serde_json::to_vec(text).expect("a string can always be written as JSON");
        out.put_slice(&quoted);
    }
}

/// Appends a decimal number.
pub fn put_number(out: &mut BytesMut, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[derive(Debug, Error)]
pub enum AnswerError {
    #[error("the answer is not JSON-RPC")]
    Malformed(#[source] serde_json::Error),
    #[error("the answer has neither result nor error")]
    Empty,
    #[error("the answer is to another request")]
    WrongId,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// One message of the other side.
#[derive(Debug)]
pub enum Message<'a> {
    /// The result of our request, as it came.
    Result(&'a RawValue),
    /// The JSON-RPC error that answers our request, as it came.
    Error(&'a RawValue),
    /// A JSON-RPC error without an id: the request could not be read (JSON-RPC 2.0, section 5), or was not looked at.
    Unidentified(&'a RawValue),
    /// A request of the other side; it waits for our answer.
    Request {
        id: &'a RawValue,
        method: String,
    },
    Notification,
}

/// Looks into one message and tells what it is to the request `id`.
///
/// # Errors
/// Bytes that are no JSON-RPC message, or an answer to a request that was never sent here.
pub fn read(bytes: &[u8], id: u64) -> Result<Message<'_>, AnswerError> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(AnswerError::Malformed)?;
    if let Some(method) = envelope.method {
        let method = serde_json::from_str(method.get()).map_err(AnswerError::Malformed)?;
        return Ok(match envelope.id {
            Some(id) => Message::Request { id, method },
            None => Message::Notification,
        });
    }
    let answered = envelope.id.map_or("null", RawValue::get);
    if let (Some(error), "null") = (envelope.error, answered) {
        return Ok(Message::Unidentified(error));
    }
    if answered.parse() != Ok(id) {
        return Err(AnswerError::WrongId);
    }
    match (envelope.result, envelope.error) {
        (_, Some(error)) => Ok(Message::Error(error)),
        (Some(result), None) => Ok(Message::Result(result)),
        (None, None) => Err(AnswerError::Empty),
    }
}

/// Whether a `tools/call` result says `"isError": true`.
pub fn is_tool_error(result: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Flag {
        #[serde(rename = "isError", default)]
        is_error: bool,
    }
    // The key may be written with escapes, so only a result without these, in which every key of that name says
    // `false`, is known to be none.
    let suspect = KEY.find_iter(result).any(|at| !says_false(&result[at + KEY.needle().len()..]))
        || ESCAPE.find(result).is_some();
    suspect && serde_json::from_slice::<Flag>(result).is_ok_and(|flag| flag.is_error)
}

static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"isError\""));
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));

/// The first text of a `tools/call` result, cut to `chars_max` characters, for people.
pub fn first_text(result: &[u8], chars_max: usize) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        content: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        text: Option<String>,
    }
    let content: Content = serde_json::from_slice(result).ok()?;
    let text = content.content.into_iter().find_map(|item| item.text)?;
    Some(text.chars().take(chars_max).collect())
}

/// Code and message of a JSON-RPC error, for people.
pub fn error_text(error: &RawValue) -> (i64, String) {
    #[derive(Deserialize)]
    struct RpcError {
        code: i64,
        #[serde(default)]
        message: String,
    }
    serde_json::from_str::<RpcError>(error.get())
        .map_or((0, "the error has no code".to_owned()), |error| (error.code, error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_without_touching_them() {
        let bytes = br#"{"jsonrpc":"2.0","id":7,"result":{"n":1.0,"big":123456789012345678901234567890,"z":"\u0000"}}"#;
        let Ok(Message::Result(result)) = read(bytes, 7) else { panic!("a result") };
        assert_eq!(result.get(), r#"{"n":1.0,"big":123456789012345678901234567890,"z":"\u0000"}"#);
    }

    #[test]
    fn foreign_answers_are_refused() {
        assert!(matches!(read(br#"{"id":8,"result":{}}"#, 7), Err(AnswerError::WrongId)));
        assert!(matches!(read(br#"{"id":"7","result":{}}"#, 7), Err(AnswerError::WrongId)));
        assert!(matches!(read(br#"{"id":7}"#, 7), Err(AnswerError::Empty)));
        assert!(matches!(read(b"<html>", 7), Err(AnswerError::Malformed(_))));
        assert!(matches!(read(br#"{"id":null,"error":{"code":-32700}}"#, 7), Ok(Message::Unidentified(_))));
        assert!(matches!(read(br#"{"id":7,"error":{"code":-32700}}"#, 7), Ok(Message::Error(_))));
        assert!(matches!(read(br#"{"id":null,"result":{}}"#, 7), Err(AnswerError::WrongId)));
    }

    #[test]
    fn requests_and_notifications_of_the_other_side_are_told_apart() {
        assert!(
            matches!(read(br#"{"id":1,"method":"ping"}"#, 1), Ok(Message::Request { method, .. }) if method == "ping")
        );
        assert!(matches!(
            read(br#"{"method":"notifications/message","params":{}}"#, 1),
            Ok(Message::Notification)
        ));
    }

    #[test]
    fn tool_errors_are_found_even_behind_escapes() {
        assert!(is_tool_error(br#"{"content":[],"isError":true}"#));
        assert!(is_tool_error(br#"{"content":[],"is\u0045rror":true}"#));
        assert!(!is_tool_error(br#"{"content":[{"text":"\"isError\":true"}]}"#));
        assert!(!is_tool_error(br#"{"content":[],"isError":false}"#));
    }

    #[test]
    fn requests_carry_the_context_of_their_era() {
        let legacy = request(Era::Legacy, 12, "tools/call", None, &[br#""name":"#, br#""x""#]);
        assert_eq!(&legacy[..], br#"{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"name":"x"}}"#);
        let modern = request(Era::Modern, 1, "tools/list", None, &[]);
        let text = std::str::from_utf8(&modern).expect("text");
        assert!(
            text.contains(r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28""#),
            "{text}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
    }
}
