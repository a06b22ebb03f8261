//! What an instance says of itself, checked.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::ids::{Name, NameError};
use super::offer::Item;

/// Most tags of one instance.
pub const TAGS_MAX: usize = 64;
/// Weight of an instance that names none.
pub const WEIGHT_DEFAULT: u16 = 100;
/// Largest weight.
pub const WEIGHT_MAX: u16 = 1000;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("`{field}`: {source}")]
    Name { field: &'static str, source: NameError },
    #[error("either `port` or `url` must say where the instance listens")]
    NoEndpoint,
    #[error("`{0}` is not an address; write `http://HOST:PORT/PATH`")]
    Endpoint(String),
    #[error("`https` upstreams are not supported; `{0}` must start with `http://`")]
    Tls(String),
    #[error("`weight` is {0}; it must be between 1 and {WEIGHT_MAX}")]
    Weight(u64),
    #[error("{0} tags are given, at most {TAGS_MAX} are allowed")]
    TooManyTags(usize),
    #[error("{0} tools are given, at most 1000 are allowed")]
    TooManyTools(usize),
    #[error("`metadata` must be an object")]
    Metadata,
    #[error("a tool must be a name or an object with `name`: {0}")]
    Tool(String),
}

/// Where an instance listens: plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name, an IPv4 address, or an IPv6 address in brackets.
    host: Arc<str>,
    port: u16,
    path: Arc<str>,
}

impl Endpoint {
    /// # Errors
    /// A host with foreign characters, port 0, or a path that is not one.
    pub fn new(host: &str, port: u16, path: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::Endpoint(format!("http://{host}:{port}{path}"));
        let host_ok = !host.is_empty()
            && host.len() <= 255
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
        let path_ok = path.starts_with('/')
            && path.len() <= 2048
            && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\'));
        if !host_ok || port == 0 || !path_ok {
            return Err(wrong());
        }
        let bare_v6 = host.contains(':') && !host.starts_with('[');
        let host = if bare_v6 { format!("[{host}]") } else { host.to_owned() };
        Ok(Self { host: host.into(), port, path: path.into() })
    }

    /// Reads `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// Anything else, with what would be right.
    pub fn parse(url: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::Endpoint(url.to_owned());
        if url.starts_with("https://") {
            return Err(SpecError::Tls(url.to_owned()));
        }
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/mcp"),
        };
        let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[after_bracket..].rfind(':') {
            Some(at) => {
                let at = after_bracket + at;
                (&authority[..at], authority[at + 1..].parse().map_err(|_| wrong())?)
            }
            None => (authority, 80),
        };
        Self::new(host, port, path)
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without the brackets of an IPv6 address, as resolvers want it.
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// `HOST:PORT`, as in a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

/// A registration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    pub name: Name,
    pub service: Name,
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
    pub tags: Arc<[Name]>,
    pub zone: Option<Name>,
    pub weight: u16,
    /// JSON text of an object, as it came.
    pub metadata: Arc<str>,
    /// Declared at registration; empty: the instance is asked.
    pub tools: Arc<[Item]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_endpoints() {
        let endpoint = |url| Endpoint::parse(url).map(|e| e.to_string());
        assert_eq!(endpoint("http://127.0.0.1:5000"), Ok("http://127.0.0.1:5000/mcp".to_owned()));
        assert_eq!(endpoint("http://h/x?y=1"), Ok("http://h:80/x?y=1".to_owned()));
        assert_eq!(endpoint("http://[::1]:5000/mcp"), Ok("http://[::1]:5000/mcp".to_owned()));
        assert_eq!(Endpoint::new("::1", 5, "/").map(|e| e.bare_host().to_owned()), Ok("::1".to_owned()));
    }

    #[test]
    fn urls_with_credentials_spaces_or_line_breaks_are_refused() {
        for url in [
            "http://u:p@h:1/x",
            "http://h:0/x",
            "http://h:1/a b",
            "http://h:1/\r\nx: y",
            "ftp://h/x",
            "http:///x",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
        assert_eq!(Endpoint::parse("https://h/x"), Err(SpecError::Tls("https://h/x".to_owned())));
    }
}
