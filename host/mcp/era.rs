//! The two families of protocol revisions, and the headers that tell them apart.

use std::borrow::Cow;

use base64::Engine as _;
use http::{HeaderMap, HeaderName};

pub use crate::mesh::offer::Era;

/// Newest revision of the legacy era: what `initialize` asks for.
pub const LEGACY_VERSION: &str = "2025-11-25";
/// The revision of the modern era.
pub const MODERN_VERSION: &str = "2026-07-28";

/// Names of headers, ready to be looked up: a name as text would be parsed at each lookup.
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A tool's name as the `Mcp-Name` header carries it: as it is when it is plain visible ASCII without a leading
/// `=?base64?`, otherwise wrapped in `=?base64?…?=` (SEP-2243).
pub fn header_name(name: &str) -> Cow<'_, str> {
    let plain = !name.is_empty()
        && name.bytes().all(|b| (0x20..0x7f).contains(&b))
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !name.starts_with("=?base64?");
    if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(name)))
    }
}

/// A header that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHeader;

/// What a header says, unwrapped if need be; `None` when it is not there.
///
/// # Errors
/// It is there twice, or is not what it claims to be.
pub fn header_value<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<Cow<'h, str>>, BadHeader> {
    let mut values = headers.get_all(name).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(BadHeader),
    };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| BadHeader)?.trim_matches([' ', '\t']);
    let Some(wrapped) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Some(Cow::Borrowed(text)));
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(wrapped).map_err(|_| BadHeader)?;
    String::from_utf8(bytes).map(|text| Some(Cow::Owned(text))).map_err(|_| BadHeader)
}

#[cfg(test)]
mod tests {
    use super::header_name;

    #[test]
    fn names_beyond_ascii_are_wrapped() {
        assert_eq!(header_name("echo"), "echo");
        assert_eq!(header_name("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(header_name("=?base64?x"), "=?base64?PT9iYXNlNjQ/eA==?=");
    }
}
