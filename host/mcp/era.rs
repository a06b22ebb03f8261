//! The two families of protocol revisions, and the headers that tell them apart.

use base64::Engine as _;
use http::HeaderName;

pub use crate::mesh::offer::Era;

/// Newest revision of the legacy era: what `initialize` asks for.
pub const LEGACY_VERSION: &str = "2025-11-25";
/// The revision of the modern era.
pub const MODERN_VERSION: &str = "2026-07-28";

pub static PROTOCOL_VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");
pub static METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
pub static NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// A tool's name as the `Mcp-Name` header carries it: as it is when it is plain visible ASCII without a leading
/// `=?base64?`, otherwise wrapped in `=?base64?…?=` (SEP-2243).
pub fn header_name(name: &str) -> String {
    let plain = !name.is_empty()
        && name.bytes().all(|b| (0x20..0x7f).contains(&b))
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !name.starts_with("=?base64?");
    if plain {
        name.to_owned()
    } else {
        format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(name))
    }
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
