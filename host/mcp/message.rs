//! One JSON-RPC message, looked into without being rebuilt, and changed by replacing spans of its bytes.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::object::object;

/// Deepest nesting of a message.
pub const DEPTH_MAX: usize = 64;
/// Most values and keys in a message.
pub const NODES_MAX: usize = 100_000;
/// Longest string in a message, in bytes.
pub const STRING_BYTES_MAX: usize = 2 << 20;

/// Why bytes are no message that is passed on.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error("the message is not UTF-8")]
    Encoding(#[from] std::str::Utf8Error),
    #[error("the message is not a JSON-RPC object: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("the message is a batch, which only revision 2025-03-26 had")]
    Batch,
    #[error("the message is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("the message has more than {NODES_MAX} values")]
    TooManyNodes,
    #[error("the message has a string of more than {STRING_BYTES_MAX} bytes")]
    StringTooLong,
}

object! {
    /// The members of a message.
    pub struct Envelope<'a> {
        version: "jsonrpc" => Text<'a>,
        id: "id" => &'a RawValue,
        method: "method" => Text<'a>,
        params: "params" => Params<'a>,
        result: "result" => &'a RawValue,
        error: "error" => &'a RawValue,
    }
}

object! {
    /// The members of `params` that a proxy looks at.
    pub struct Params<'a> {
        name: "name" => &'a RawValue,
        uri: "uri" => &'a RawValue,
        arguments: "arguments" => &'a RawValue,
        meta: "_meta" => Meta<'a>,
        cursor: "cursor" => &'a RawValue,
        request_state: "requestState" => &'a RawValue,
        input_responses: "inputResponses" => &'a RawValue,
        task_id: "taskId" => &'a RawValue,
        level: "level" => &'a RawValue,
        reference: "ref" => Reference<'a>,
        /// Of `notifications/cancelled`.
        request_id: "requestId" => &'a RawValue,
        /// Of `notifications/progress`.
        progress_token: "progressToken" => &'a RawValue,
        /// Of `initialize`.
        protocol_version: "protocolVersion" => Text<'a>,
        capabilities: "capabilities" => &'a RawValue,
        client_info: "clientInfo" => &'a RawValue,
        /// Of `subscriptions/listen`.
        notifications: "notifications" => &'a RawValue,
    }
}

object! {
    /// The members of `_meta` that a proxy looks at.
    pub struct Meta<'a> {
        protocol_version: "io.modelcontextprotocol/protocolVersion" => &'a RawValue,
        client_capabilities: "io.modelcontextprotocol/clientCapabilities" => &'a RawValue,
        client_info: "io.modelcontextprotocol/clientInfo" => &'a RawValue,
        log_level: "io.modelcontextprotocol/logLevel" => &'a RawValue,
        subscription_id: "io.modelcontextprotocol/subscriptionId" => &'a RawValue,
        progress_token: "progressToken" => &'a RawValue,
        /// See [`super::deadline::MEMBER`].
        timeout: "meshwright/timeoutMs" => &'a RawValue,
    }
}

object! {
    /// What `completion/complete` refers to: a prompt by its name, or a resource template by its URI.
    pub struct Reference<'a> {
        name: "name" => &'a RawValue,
        uri: "uri" => &'a RawValue,
    }
}

/// A string, borrowed when it has no escapes.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A message that was read. Borrows all from its bytes.
#[derive(Debug)]
pub struct Message<'a> {
    pub text: &'a str,
    pub envelope: Envelope<'a>,
}

impl<'a> Message<'a> {
    /// Reads a message that came from a client: within the limits, and strictly.
    ///
    /// # Errors
    /// What makes it none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(bytes)?;
        if text.trim_ascii_start().starts_with('[') {
            return Err(MessageError::Batch);
        }
        check_limits(bytes)?;
        Ok(Self { text, envelope: serde_json::from_str(text)? })
    }

    /// The method, empty when there is none.
    pub fn method(&self) -> &str {
        self.envelope.method.as_ref().map_or("", |method| &method.0)
    }

    pub fn params(&self) -> Option<&Params<'a>> {
        self.envelope.params.as_ref()
    }

    pub fn meta(&self) -> Option<&Meta<'a>> {
        self.params().and_then(|params| params.meta.as_ref())
    }

    /// The revision that the message itself names: only modern ones do.
    pub fn revision(&self) -> Option<Cow<'a, str>> {
        self.meta().and_then(|meta| meta.protocol_version).and_then(string)
    }

    /// The JSON text of the id, when it is a string or a number.
    pub fn id(&self) -> Option<&'a str> {
        self.envelope.id.map(RawValue::get).filter(|id| id.starts_with('"') || is_number(id))
    }

    pub fn progress_token(&self) -> Option<&'a RawValue> {
        self.meta().and_then(|meta| meta.progress_token)
    }

    /// Where a value that was borrowed from this message stands in it.
    pub fn span(&self, value: &str) -> Range<usize> {
        let at = value.as_ptr() as usize - self.text.as_ptr() as usize;
        at..at + value.len()
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// The string that a value is, if it is one.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(plain) if memchr::memchr(b'\\', plain.as_bytes()).is_none() => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str::<Text<'_>>(text).ok().map(|text| text.0),
    }
}

/// Changes to a message: spans and what takes their place. The rest stays as it is.
#[derive(Debug)]
pub struct Splice<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, Cow<'a, str>)>,
}

impl<'a> Splice<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// Puts `new` in the place of a span that no other change touches.
    pub fn replace(&mut self, span: Range<usize>, new: impl Into<Cow<'a, str>>) {
        let at = self.edits.partition_point(|(before, _)| before.start <= span.start);
        self.edits.insert(at, (span, new.into()));
    }

    /// The message in pieces, none of them copied.
    pub fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = Vec::with_capacity(self.edits.len() * 2 + 1);
        let mut at = 0;
        for (span, new) in &self.edits {
            pieces.push(&self.text.as_bytes()[at..span.start]);
            pieces.push(new.as_bytes());
            at = span.end;
        }
        pieces.push(&self.text.as_bytes()[at..]);
        pieces
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().concat()
    }
}

/// What a message is, for those who pass it on.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// `id` is JSON text.
    Request {
        id: &'a str,
        method: Cow<'a, str>,
    },
    Answer {
        id: &'a str,
    },
    Notification {
        progress_token: Option<&'a str>,
    },
}

/// What a message of an instance is; `None` when it is no JSON-RPC message. Instances are trusted more than clients:
/// members that are doubled are taken as they come.
pub fn shape(bytes: &[u8]) -> Option<Shape<'_>> {
    #[derive(Deserialize)]
    struct Lenient<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        method: Option<Text<'a>>,
        #[serde(borrow, default)]
        params: Option<&'a RawValue>,
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Token<'a> {
        #[serde(borrow, default)]
        progress_token: Option<&'a RawValue>,
    }
    let read: Lenient<'_> = serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let id = read.id.map(RawValue::get);
    match (read.method, id) {
        (Some(method), Some(id)) => Some(Shape::Request { id, method: method.0 }),
        (Some(method), None) if method.0 == "notifications/progress" => {
            let params = read.params.and_then(|params| serde_json::from_str::<Token<'_>>(params.get()).ok());
            let token = params.and_then(|params| params.progress_token).map(RawValue::get);
            Some(Shape::Notification { progress_token: token })
        }
        (Some(_), None) => Some(Shape::Notification { progress_token: None }),
        (None, id) if read.result.is_some() || read.error.is_some() => {
            Some(Shape::Answer { id: id.unwrap_or("null") })
        }
        _ => None,
    }
}

/// Counts what a reader of the message would have to hold, without holding it. Whether the text is JSON at all is
/// the parser's to say.
fn check_limits(bytes: &[u8]) -> Result<(), MessageError> {
    // Most messages are too short, and open too little, to be beyond any limit.
    if bytes.len() <= NODES_MAX && memchr::memchr2_iter(b'{', b'[', bytes).nth(DEPTH_MAX).is_none() {
        return Ok(());
    }
    let (mut depth, mut nodes, mut at) = (0_usize, 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let begin = at;
                loop {
                    match memchr::memchr2(b'"', b'\\', &bytes[at..]) {
                        None => at = bytes.len(),
                        Some(found) if bytes[at + found] == b'\\' => {
                            at = (at + found + 2).min(bytes.len());
                            continue;
                        }
                        Some(found) => at += found + 1,
                    }
                    break;
                }
                // The closing quote is counted, too.
                if at - begin > STRING_BYTES_MAX + 1 {
                    return Err(MessageError::StringTooLong);
                }
                nodes += 1;
            }
            b'{' | b'[' => {
                depth += 1;
                nodes += 1;
                if depth > DEPTH_MAX {
                    return Err(MessageError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            // Numbers and words; strings have counted themselves, so this counts at most twice too many.
            b',' => nodes += 1,
            _ => {}
        }
        if nodes > NODES_MAX {
            return Err(MessageError::TooManyNodes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
