//! How an instance is reached: over HTTP, or as a child process on its standard input and output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::instance::SpecError;

/// How an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Http(HttpEndpoint),
    Stdio(Arc<Command>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(endpoint) => endpoint.fmt(f),
            Self::Stdio(command) => command.fmt(f),
        }
    }
}

impl From<HttpEndpoint> for Endpoint {
    fn from(endpoint: HttpEndpoint) -> Self {
        Self::Http(endpoint)
    }
}

/// The words of a command as they stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    pub program: Arc<str>,
    pub args: Arc<[Arc<str>]>,
    pub cwd: Option<Arc<str>>,
}

/// A program that speaks MCP on its standard input and output.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// A path, or a name that is looked for in `PATH`.
    pub program: Arc<str>,
    pub args: Arc<[Arc<str>]>,
    /// Beside what the proxy's own environment passes on.
    pub env: BTreeMap<String, String>,
    /// Where it runs; where the proxy runs unless given.
    pub cwd: Option<PathBuf>,
    /// A process for each client session, not one that all share.
    pub per_session: bool,
    /// Processes for client sessions that there may be at once.
    pub sessions_max: usize,
    /// Where something was filled in, which may be secret: what people are shown instead.
    pub written: Option<Written>,
    /// Of a program that is another one when its file changes.
    pub stamp: Option<Stamp>,
}

/// When a file was written last, and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub modified: SystemTime,
    pub length: u64,
}

impl Command {
    pub fn shown_program(&self) -> &str {
        self.written.as_ref().map_or(&self.program, |written| &written.program)
    }

    pub fn shown_args(&self) -> &[Arc<str>] {
        self.written.as_ref().map_or(&self.args, |written| &written.args)
    }

    pub fn shown_cwd(&self) -> Option<Cow<'_, str>> {
        match &self.written {
            Some(written) => written.cwd.as_deref().map(Cow::Borrowed),
            None => self.cwd.as_deref().map(Path::to_string_lossy),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stdio: {}", self.shown_program())?;
        self.shown_args().iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

/// Without the values of the environment: they hold secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.shown_program())
            .field("args", &self.shown_args())
            .field("env", &self.env.keys())
            .field("cwd", &self.shown_cwd())
            .field("per_session", &self.per_session)
            .finish()
    }
}

/// Where an instance listens: plain HTTP.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpEndpoint {
    /// A host name, an IPv4 address, or an IPv6 address in brackets.
    host: Arc<str>,
    port: u16,
    path: Arc<str>,
    /// See [`Command::written`].
    written: Option<Arc<str>>,
}

impl HttpEndpoint {
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
        Ok(Self { host: host.into(), port, path: path.into(), written: None })
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

    /// The same, which people are shown as `written`.
    #[must_use]
    pub fn written_as(self, written: &str) -> Self {
        Self { written: Some(written.into()), ..self }
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

impl fmt::Display for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Some(written) => f.write_str(written),
            None => write!(f, "http://{}:{}{}", self.host, self.port, self.path),
        }
    }
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpEndpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_without_what_may_be_secret() {
        let command = Command {
            program: "npx".into(),
            args: ["-y".into(), "server".into()].into(),
            env: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
            cwd: None,
            per_session: false,
            sessions_max: 100,
            written: None,
            stamp: None,
        };
        let endpoint = Endpoint::Stdio(Arc::new(command.clone()));
        assert_eq!(endpoint.to_string(), "stdio: npx -y server");
        let debug = format!("{endpoint:?}");
        assert!(debug.contains("TOKEN") && !debug.contains("hunter2"), "{debug}");

        let args = [Arc::from("--key"), "${secret:key}".into()].into();
        let written = Some(Written { program: "npx".into(), args, cwd: Some("${HOME}".into()) });
        let filled = ["--key".into(), "hunter2".into()].into();
        let command = Command { args: filled, cwd: Some("/home/hunter2".into()), written, ..command };
        assert_eq!(command.to_string(), "stdio: npx --key ${secret:key}");
        let debug = format!("{command:?}");
        assert!(debug.contains("${HOME}") && !debug.contains("hunter2"), "{debug}");
    }

    #[test]
    fn urls_become_endpoints() {
        let endpoint = |url| HttpEndpoint::parse(url).map(|e| e.to_string());
        assert_eq!(endpoint("http://127.0.0.1:5000"), Ok("http://127.0.0.1:5000/mcp".to_owned()));
        assert_eq!(endpoint("http://h/x?y=1"), Ok("http://h:80/x?y=1".to_owned()));
        assert_eq!(endpoint("http://[::1]:5000/mcp"), Ok("http://[::1]:5000/mcp".to_owned()));
        assert_eq!(HttpEndpoint::new("::1", 5, "/").map(|e| e.bare_host().to_owned()), Ok("::1".to_owned()));
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
            assert!(HttpEndpoint::parse(url).is_err(), "{url}");
        }
        assert_eq!(HttpEndpoint::parse("https://h/x"), Err(SpecError::Tls("https://h/x".to_owned())));
    }
}
