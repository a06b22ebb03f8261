//! The call that every peer gets, in the form that the peer takes.

use bytes::Bytes;
use clap::ValueEnum;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};

/// The revision that upstreams speak.
pub const REVISION: &str = "2026-07-28";
/// The one tool, and the one service.
pub const ECHO: &str = "echo";

/// How much text is echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Body {
    Tiny,
    #[value(name = "1k")]
    OneKib,
    #[value(name = "64k")]
    SixtyFourKib,
}

impl Body {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::OneKib => "1k",
            Self::SixtyFourKib => "64k",
        }
    }

    pub const fn text_bytes(self) -> usize {
        match self {
            Self::Tiny => 16,
            Self::OneKib => 1 << 10,
            Self::SixtyFourKib => 64 << 10,
        }
    }
}

/// What a peer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// `POST /mcp`, the request that an upstream gets.
    Mcp,
    /// `POST /call`.
    Call,
}

impl Form {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Call => "call",
        }
    }

    pub const fn path(self) -> &'static str {
        match self {
            Self::Mcp => "/mcp",
            Self::Call => "/call",
        }
    }

    pub fn headers(self, port: u16) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let host = HeaderValue::try_from(format!("127.0.0.1:{port}")).expect("visible ASCII");
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if self == Self::Mcp {
            headers.insert("mcp-protocol-version", HeaderValue::from_static(REVISION));
            headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
            headers.insert("mcp-name", HeaderValue::from_static(ECHO));
        }
        headers
    }

    pub fn body(self, text: &str) -> Bytes {
        let body = match self {
            Self::Mcp => format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{REVISION}","io.modelcontextprotocol/clientInfo":{{"name":"call_path","version":"0.1.0"}},"io.modelcontextprotocol/clientCapabilities":{{}}}},"name":"{ECHO}","arguments":{{"text":"{text}"}}}}}}"#
            ),
            Self::Call => {
                format!(
                    r#"{{"target_instance":"{ECHO}","tool_name":"{ECHO}","arguments":{{"text":"{text}"}}}}"#
                )
            }
        };
        Bytes::from(body)
    }
}

/// The text of one connection: no other connection's answer passes for its own.
pub fn text(connection: usize, bytes: usize) -> String {
    let mut text = format!("c{connection:04}-");
    let filler = ('a'..='z').cycle().skip(connection % 26);
    text.extend(filler.take(bytes - text.len()));
    text
}
