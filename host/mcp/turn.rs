//! Turning messages of one era, or of one instance, into what the other side knows. Values keep their bytes; only
//! what the two sides write differently is replaced.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::answer::{INVALID_PARAMS, RESOURCE_NOT_FOUND};
use super::message::Splice;

/// What marks a value that the proxy has put the name of an instance before: `mw:INSTANCE:VALUE`. Names have no colon.
const TAG: &str = "mw:";

/// The members of an object in their order: keys as they were written, values as JSON text.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(super::message::Text(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl<'a> Members<'a> {
    pub fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.get())
    }
}

/// A JSON string with the instance's name before its content.
pub fn tagged(value: &str, instance: &str) -> Option<String> {
    value.strip_prefix('"').map(|rest| format!("\"{TAG}{instance}:{rest}"))
}

/// The instance's name and the JSON string as it was before; `None` when there is no mark.
pub fn untagged(value: &str) -> Option<(&str, String)> {
    let (instance, rest) = value.strip_prefix('"')?.strip_prefix(TAG)?.split_once(':')?;
    Some((instance, format!("\"{rest}")))
}

/// An answer whose continuation only this instance knows, marked with the instance's name; `None` when there is
/// nothing to mark.
pub fn bound_to(message: &Bytes, instance: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(message).ok()?;
    let result = Members::of(text)?.get("result")?;
    let members = Members::of(result)?;
    let mut splice = Splice::new(text);
    let mut marked = false;
    for key in ["requestState", "taskId"] {
        if let Some(value) = members.get(key)
            && let Some(new) = tagged(value, instance)
        {
            splice.replace(span(text, value), new);
            marked = true;
        }
    }
    marked.then(|| splice.to_vec().into())
}

/// Whether an answer is an error, the protocol's or the tool's own.
pub fn is_failure(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Flag {
        #[serde(rename = "isError", default)]
        is_error: bool,
    }
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(message) else { return false };
    let failed =
        |result: &RawValue| serde_json::from_str::<Flag>(result.get()).is_ok_and(|flag| flag.is_error);
    answer.error.is_some() || answer.result.is_some_and(failed)
}

/// A message with another id.
pub fn with_id(message: &Bytes, id: &str) -> Bytes {
    replace_member(message, &["id"], id)
}

/// A progress notification with another token.
pub fn with_token(message: &Bytes, token: &str) -> Bytes {
    replace_member(message, &["params", "progressToken"], token)
}

/// A notification that names another subscription.
pub fn with_subscription(message: &Bytes, id: &str) -> Bytes {
    replace_member(message, &["params", "_meta", "io.modelcontextprotocol/subscriptionId"], id)
}

/// Replaces the value at the end of a path of keys; a message that has no such member stays as it is.
fn replace_member(message: &Bytes, path: &[&str], new: &str) -> Bytes {
    let replaced = || {
        let text = std::str::from_utf8(message).ok()?;
        let value = path.iter().try_fold(text, |object, key| Members::of(object)?.get(key))?;
        let mut splice = Splice::new(text);
        splice.replace(span(text, value), new.to_owned());
        Some(Bytes::from(splice.to_vec()))
    };
    replaced().unwrap_or_else(|| message.clone())
}

/// The code of a JSON-RPC error that a message is.
pub fn error_code(message: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(message).ok()?;
    Members::of(Members::of(text)?.get("error")?)?.get("code")?.parse().ok()
}

/// What a legacy instance answers, for a modern client: results say what they are, and how long they hold; what is
/// not there has another code.
pub fn to_modern(message: &Bytes, method: &str) -> Bytes {
    let turned = || {
        let text = std::str::from_utf8(message).ok()?;
        let members = Members::of(text)?;
        let Some(result) = members.get("result") else {
            let absent = error_code(message) == Some(i64::from(RESOURCE_NOT_FOUND));
            let code = INVALID_PARAMS.to_string();
            return absent.then(|| replace_member(message, &["error", "code"], &code));
        };
        let members = Members::of(result)?;
        let mut head = String::from("{");
        for (key, value) in [("resultType", "\"complete\""), ("ttlMs", "0"), ("cacheScope", "\"private\"")] {
            let wanted = key == "resultType" || is_cacheable(method);
            if wanted && members.get(key).is_none() {
                head.push_str(&format!("\"{key}\":{value},"));
            }
        }
        if members.0.is_empty() {
            head.pop();
        }
        let at = span(text, result).start;
        let mut splice = Splice::new(text);
        splice.replace(at..at + 1, head);
        Some(Bytes::from(splice.to_vec()))
    };
    turned().unwrap_or_else(|| message.clone())
}

/// Methods whose modern results say how long they hold.
fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read"
    )
}

/// What a modern instance answers, for a legacy client: `resultType` was not there yet, and strict clients refuse it.
pub fn to_legacy(message: &Bytes) -> Bytes {
    let turned = || {
        let text = std::str::from_utf8(message).ok()?;
        let result = Members::of(text)?.get("result")?;
        let members = Members::of(result)?;
        members.get("resultType")?;
        let kept = members.0.iter().filter(|(key, _)| key != "resultType");
        let mut splice = Splice::new(text);
        splice.replace(span(text, result), object(kept.map(|(key, value)| (&**key, value.get()))));
        Some(Bytes::from(splice.to_vec()))
    };
    turned().unwrap_or_else(|| message.clone())
}

/// An object of these members, values as JSON text.
pub fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (key, value) in members {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can always be written as JSON")
}

/// What a modern instance wants to know before it goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct InputRequired {
    /// Key, method and parameters (JSON text) of each question.
    pub questions: Vec<(String, String, String)>,
    /// JSON text.
    pub state: Option<String>,
}

/// `None` when the answer is not that more is wanted.
pub fn input_required(message: &[u8]) -> Option<InputRequired> {
    memchr::memmem::find(message, b"\"input_required\"")?;
    let text = std::str::from_utf8(message).ok()?;
    let result = Members::of(Members::of(text)?.get("result")?)?;
    if result.get("resultType") != Some("\"input_required\"") {
        return None;
    }
    let mut questions = Vec::new();
    if let Some(requests) = result.get("inputRequests") {
        for (key, request) in Members::of(requests)?.0 {
            let request = Members::of(request.get())?;
            let method = serde_json::from_str(request.get("method")?).ok()?;
            questions.push((key.into_owned(), method, request.get("params").unwrap_or("{}").to_owned()));
        }
    }
    Some(InputRequired { questions, state: result.get("requestState").map(str::to_owned) })
}

/// The answer that asks a modern client for one thing.
pub fn ask_for_input(id: &str, method: &str, params: &str, state: &str) -> Bytes {
    let method = quoted(method);
    let state = quoted(state);
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{"{QUESTION}":{{"method":{method},"params":{params}}}}},"requestState":{state}}}}}"#
    ))
}

/// The key under which a bridged question is asked.
pub const QUESTION: &str = "question";

/// A request with members put into its `params`, in the place of those of the same name.
pub fn with_params(text: &str, new: &[(&str, &str)]) -> Option<String> {
    let message = Members::of(text)?;
    let Some(params) = message.get("params") else {
        let at = text.rfind('}')?;
        return Some(format!("{},\"params\":{}{}", &text[..at], object(new.iter().copied()), &text[at..]));
    };
    let members = Members::of(params)?;
    let kept = members.0.iter().map(|(key, value)| (&**key, value.get()));
    let kept = kept.filter(|(key, _)| new.iter().all(|(other, _)| other != key));
    let mut splice = Splice::new(text);
    splice.replace(span(text, params), object(kept.chain(new.iter().copied())));
    String::from_utf8(splice.to_vec()).ok()
}

/// `params._meta` of a request with more members.
pub fn meta_with(text: &str, new: &[(&str, &str)]) -> String {
    let meta = Members::of(text)
        .and_then(|message| message.get("params"))
        .and_then(Members::of)
        .and_then(|params| params.get("_meta"))
        .and_then(Members::of);
    let kept = meta.map(|meta| meta.0).unwrap_or_default();
    let kept = kept.iter().map(|(key, value)| (&**key, value.get()));
    let kept = kept.filter(|(key, _)| new.iter().all(|(other, _)| other != key));
    object(kept.chain(new.iter().copied()))
}

/// Members of `_meta` that only modern requests have; a strict server of the other era refuses them.
const MODERN_META: [&str; 4] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
];

/// `params._meta` of a modern request as a legacy one has it.
pub fn legacy_meta(text: &str) -> String {
    let meta = Members::of(text)
        .and_then(|message| message.get("params"))
        .and_then(Members::of)
        .and_then(|params| params.get("_meta"))
        .and_then(Members::of);
    let kept = meta.map(|meta| meta.0).unwrap_or_default();
    let kept = kept.iter().map(|(key, value)| (&**key, value.get()));
    object(kept.filter(|(key, _)| !MODERN_META.contains(key)))
}

/// Where a part stands in the text that it was borrowed from.
fn span(text: &str, part: &str) -> std::ops::Range<usize> {
    let at = part.as_ptr() as usize - text.as_ptr() as usize;
    at..at + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn bound_values_carry_their_instance_and_come_back() {
        let answer = Bytes::from(r#"{"id":1,"result":{"x":1.0,"requestState":"a\"b","taskId":"t"}}"#);
        let marked = bound_to(&answer, "i-1").expect("something to mark");
        let wanted = r#"{"id":1,"result":{"x":1.0,"requestState":"mw:i-1:a\"b","taskId":"mw:i-1:t"}}"#;
        assert_eq!(text(&marked), wanted);
        assert_eq!(untagged(r#""mw:i-1:a\"b""#), Some(("i-1", r#""a\"b""#.to_owned())));
        assert_eq!(untagged(r#""mw:i-1:t-TAMPERED""#), Some(("i-1", r#""t-TAMPERED""#.to_owned())));
        assert_eq!(untagged("\"plain\""), None);
        assert_eq!(bound_to(&Bytes::from(r#"{"id":1,"result":{}}"#), "i"), None);
        // Only the result's own members are bound, not what a tool says.
        let inner = Bytes::from(r#"{"id":1,"result":{"structuredContent":{"taskId":"t"}}}"#);
        assert_eq!(bound_to(&inner, "i"), None);
    }

    #[test]
    fn results_change_eras_and_nothing_else() {
        let legacy = Bytes::from(r#"{"id":1, "result":{"tools":[ 1.0 ]}}"#);
        let modern = to_modern(&legacy, "tools/list");
        let wanted = r#"{"id":1, "result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[ 1.0 ]}}"#;
        assert_eq!(text(&modern), wanted);
        let empty = to_modern(&Bytes::from(r#"{"id":1,"result":{}}"#), "tools/call");
        assert_eq!(text(&empty), r#"{"id":1,"result":{"resultType":"complete"}}"#);
        let back = to_legacy(&Bytes::from(r#"{"id":1,"result":{"resultType":"complete","a":1.0}}"#));
        assert_eq!(text(&back), r#"{"id":1,"result":{"a":1.0}}"#);
        let error = Bytes::from(r#"{"id":1,"error":{}}"#);
        assert_eq!(to_modern(&error, "tools/call"), error);
    }

    #[test]
    fn ids_and_tokens_are_put_back() {
        let answer = with_id(&Bytes::from(r#"{"id":7,"result":{"id":7}}"#), "\"x\"");
        assert_eq!(text(&answer), r#"{"id":"x","result":{"id":7}}"#);
        let progress = with_token(&Bytes::from(r#"{"params":{"progressToken":7,"progress":7}}"#), "\"t\"");
        assert_eq!(text(&progress), r#"{"params":{"progressToken":"t","progress":7}}"#);
    }

    #[test]
    fn failures_are_found_even_behind_escapes() {
        for failure in
            [r#"{"error":{}}"#, r#"{"result":{"isError": true}}"#, r#"{"result":{"is\u0045rror":true}}"#]
        {
            assert!(is_failure(failure.as_bytes()), "{failure}");
        }
        for success in [
            r#"{"result":{}}"#,
            r#"{"result":{"isError":false}}"#,
            r#"{"result":{"text":"\"error\":"}}"#,
            r#"{"result":{"structuredContent":{"error":1,"isError":true}}}"#,
        ] {
            assert!(!is_failure(success.as_bytes()), "{success}");
        }
    }

    #[test]
    fn params_are_added_where_there_are_none() {
        let with = |message| with_params(message, &[("a", "1")]).expect("a request");
        assert_eq!(with(r#"{"id":1}"#), r#"{"id":1,"params":{"a":1}}"#);
        assert_eq!(with(r#"{"params":{}}"#), r#"{"params":{"a":1}}"#);
        assert_eq!(with(r#"{"params":{"a":2,"b":1.0}}"#), r#"{"params":{"b":1.0,"a":1}}"#);
        let meta = meta_with(r#"{"params":{"_meta":{"x":1.0}}}"#, &[("y", "2")]);
        assert_eq!(meta, r#"{"x":1.0,"y":2}"#);
    }

    #[test]
    fn questions_are_read() {
        let answer = br#"{"result":{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"s"}}"#;
        let wanted = InputRequired {
            questions: vec![("k".to_owned(), "roots/list".to_owned(), "{}".to_owned())],
            state: Some("\"s\"".to_owned()),
        };
        assert_eq!(input_required(answer), Some(wanted));
        assert_eq!(input_required(br#"{"result":{"text":"input_required"}}"#), None);
    }
}
