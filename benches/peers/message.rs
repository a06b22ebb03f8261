//! What every peer is asked, in the words of the era that it speaks.

use bytes::Bytes;
use clap::ValueEnum;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

/// The modern revision, which is spoken to all that speak it.
pub const MODERN: &str = "2026-07-28";
/// The legacy revision, spoken to all others.
pub const LEGACY: &str = "2025-06-18";
/// The one tool of upstreams, and the one service.
pub const ECHO: &str = "echo";

/// How much text is echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Body {
    Tiny,
    #[value(name = "1k")]
    OneKib,
    #[value(name = "64k")]
    SixtyFourKib,
    #[value(name = "1m")]
    OneMib,
}

impl Body {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::OneKib => "1k",
            Self::SixtyFourKib => "64k",
            Self::OneMib => "1m",
        }
    }

    pub const fn text_bytes(self) -> usize {
        match self {
            Self::Tiny => 16,
            Self::OneKib => 1 << 10,
            Self::SixtyFourKib => 64 << 10,
            Self::OneMib => 1 << 20,
        }
    }
}

/// Where a peer is asked, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// Connections are spread over these.
    pub ports: Vec<u16>,
    pub path: String,
    pub era: Era,
    /// What the peer calls the upstreams' tool.
    pub tool: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Era {
    /// Each request says in headers and `_meta` all that is to be known.
    Modern,
    /// Requests belong to a session that was initialized before.
    Legacy { session: Option<String> },
}

/// What is asked.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Question {
    /// `tools/call`, of so much text.
    Call { text_bytes: usize },
    /// `tools/list`.
    List,
}

impl Question {
    const fn method(self) -> &'static str {
        match self {
            Self::Call { .. } => "tools/call",
            Self::List => "tools/list",
        }
    }
}

impl Target {
    /// The upstreams themselves, or what passes bytes to them.
    pub fn upstream(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), path: "/mcp".to_owned(), era: Era::Modern, tool: ECHO.to_owned() }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.ports[0], self.path)
    }

    pub fn headers(&self, port: u16, question: Question) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::try_from(text).expect("visible ASCII");
        headers.insert(HOST, value(&format!("127.0.0.1:{port}")));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        match &self.era {
            Era::Modern => {
                headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
                headers.insert("mcp-method", HeaderValue::from_static(question.method()));
                if question != Question::List {
                    headers.insert("mcp-name", value(&self.tool));
                }
            }
            Era::Legacy { session } => {
                headers.insert("mcp-protocol-version", HeaderValue::from_static(LEGACY));
                if let Some(session) = session {
                    headers.insert("mcp-session-id", value(session));
                }
            }
        }
        headers
    }

    /// The request of one connection; in a session, its number tells its answers from those of the others.
    pub fn body(&self, question: Question, connection: usize, text: &str) -> Bytes {
        let meta = match self.era {
            Era::Modern => format!(
                r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}}}}"#
            ),
            Era::Legacy { .. } => r#""_meta":{}"#.to_owned(),
        };
        let rest = match question {
            Question::Call { .. } => format!(r#","name":"{}","arguments":{{"text":"{text}"}}"#, self.tool),
            Question::List => String::new(),
        };
        let (id, method) = (connection + 1, question.method());
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{meta}{rest}}}}}"#))
    }
}

/// The text of one connection: no other connection's answer passes for its own.
pub fn text(connection: usize, bytes: usize) -> String {
    let mut text = format!("c{connection:04}-");
    let filler = ('a'..='z').cycle().skip(connection % 26);
    text.extend(filler.take(bytes - text.len()));
    text
}
