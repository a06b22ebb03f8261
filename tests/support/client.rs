//! An MCP client that hides nothing: it sends text as it is given and shows each message of the answer.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::SOON;
use super::raw_upstream::Era;

pub const LEGACY_VERSION: &str = "2025-11-25";
pub const MODERN_VERSION: &str = "2026-07-28";

pub struct Client {
    pub url: String,
    pub era: Era,
    /// Of a legacy client.
    pub session: Option<String>,
    capabilities: Value,
    http: reqwest::Client,
}

/// An answer that has begun.
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    response: Option<reqwest::Response>,
    is_events: bool,
    read: Vec<u8>,
}

/// One message, as it was written.
#[derive(Clone, Debug)]
pub struct Said {
    pub event_id: Option<String>,
    pub text: String,
}

impl Said {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }
}

impl Client {
    /// A modern client; it has nothing to do before its first request.
    pub fn modern(url: &str) -> Self {
        Self::new(url, Era::Modern, json!({}))
    }

    fn new(url: &str, era: Era, capabilities: Value) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a plain client");
        Self { url: url.to_owned(), era, session: None, capabilities, http }
    }

    /// A legacy client that has not begun its session.
    pub fn stranger(url: &str) -> Self {
        Self::new(url, Era::Legacy, json!({}))
    }

    /// A legacy client with a session.
    pub async fn legacy(url: &str) -> Self {
        Self::legacy_that_can(url, json!({})).await
    }

    pub async fn legacy_that_can(url: &str, capabilities: Value) -> Self {
        let mut client = Self::new(url, Era::Legacy, capabilities);
        client.begin().await;
        client
    }

    pub fn that_can(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A client of that era, ready for requests.
    pub async fn of(era: Era, url: &str) -> Self {
        match era {
            Era::Legacy => Self::legacy(url).await,
            Era::Modern => Self::modern(url),
        }
    }

    /// `initialize` and `notifications/initialized`; a session that there was is forgotten. Gives back the result.
    pub async fn begin(&mut self) -> Value {
        self.session = None;
        let params = json!({"protocolVersion": LEGACY_VERSION, "capabilities": self.capabilities,
                            "clientInfo": {"name": "t", "version": "0"}});
        let mut stream = self.open("initialize", &params).await;
        let answer = stream.answer().await;
        assert_eq!(stream.status, 200, "{answer}");
        let session = stream.headers.get("mcp-session-id").unwrap_or_else(|| panic!("no session: {answer}"));
        self.session = Some(session.to_str().expect("an id is visible ASCII").to_owned());
        let ready = self.notify("notifications/initialized", &json!({})).await;
        assert_eq!(ready, 202);
        answer["result"].clone()
    }

    /// The message of a request as this client writes it. `id` and `params` (an object) are JSON text.
    pub fn body(&self, id: &str, method: &str, params: &str) -> String {
        let params = match self.era {
            Era::Legacy => params.to_owned(),
            Era::Modern => self.with_meta(params),
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    }

    fn with_meta(&self, params: &str) -> String {
        let own = json!({"io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
                         "io.modelcontextprotocol/clientCapabilities": self.capabilities,
                         "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"}})
        .to_string();
        let inner = &own[1..own.len() - 1];
        let (before, after) = match params.split_once("\"_meta\":{") {
            Some((before, after)) => (format!("{before}\"_meta\":{{{inner}"), after),
            None => {
                let rest = params.strip_prefix('{').expect("params are an object");
                (format!("{{\"_meta\":{{{inner}}}"), rest)
            }
        };
        let comma = if after.trim_start().starts_with('}') { "" } else { "," };
        format!("{before}{comma}{after}")
    }

    /// A request with the headers that this client sends with a message of that method; `name` is what stands in
    /// `Mcp-Name`.
    pub fn request(&self, verb: Method, method: &str, name: Option<&str>) -> reqwest::RequestBuilder {
        let mut request = self
            .http
            .request(verb, &self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        match self.era {
            Era::Legacy => {
                if let Some(session) = &self.session {
                    request = request
                        .header("mcp-session-id", session)
                        .header("mcp-protocol-version", LEGACY_VERSION);
                }
            }
            Era::Modern => {
                request = request.header("mcp-protocol-version", MODERN_VERSION).header("mcp-method", method);
                if let Some(name) = name {
                    request = request.header("mcp-name", name);
                }
            }
        }
        request
    }

    /// Posts text as it is, with the headers that belong to the message.
    pub async fn post(&self, body: &str) -> Stream {
        #[derive(serde::Deserialize)]
        struct Head {
            #[serde(default)]
            method: String,
            params: Option<Name>,
        }
        #[derive(serde::Deserialize)]
        struct Name {
            name: Option<String>,
            uri: Option<String>,
        }
        let head: Option<Head> = serde_json::from_str(body).ok();
        let method = head.as_ref().map_or("", |head| &head.method);
        let name = head.as_ref().and_then(|head| head.params.as_ref());
        let name = name.and_then(|params| params.name.as_deref().or(params.uri.as_deref()));
        let request = self.request(Method::POST, method, name).body(body.to_owned());
        Stream::of(request.send().await.expect("the proxy answers"))
    }

    pub async fn open_as(&self, id: &str, method: &str, params: &Value) -> Stream {
        self.post(&self.body(id, method, &params.to_string())).await
    }

    pub async fn open(&self, method: &str, params: &Value) -> Stream {
        self.open_as("1", method, params).await
    }

    /// The answer to a request: its result, or its error.
    pub async fn ask(&self, method: &str, params: Value) -> Result<Value, Value> {
        let mut stream = self.open(method, &params).await;
        let mut answer = stream.answer().await;
        if answer["error"].is_null() { Ok(answer["result"].take()) } else { Err(answer["error"].take()) }
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Value, Value> {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The first text of what a tool answers.
    #[track_caller]
    pub fn tool_text(&self, tool: &str, arguments: Value) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        let tool = tool.to_owned();
        async move {
            let result = self.call(&tool, arguments).await;
            let text = result.as_ref().ok().and_then(|result| result["content"][0]["text"].as_str());
            text.unwrap_or_else(|| panic!("{caller}: no text from `{tool}`: {result:?}")).to_owned()
        }
    }

    /// All names of a list, page by page.
    pub async fn names(&self, list: &str, member: &str) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let params = cursor.as_ref().map_or(json!({}), |cursor| json!({"cursor": cursor}));
            let result = self.ask(&format!("{list}/list"), params).await.expect("a list");
            let members = result[list].as_array().unwrap_or_else(|| panic!("no `{list}` in {result}"));
            names.extend(members.iter().filter_map(|item| item[member].as_str().map(str::to_owned)));
            match &result["nextCursor"] {
                Value::Null => return names,
                next => cursor = Some(next.clone()),
            }
        }
    }

    pub async fn tools(&self) -> Vec<String> {
        self.names("tools", "name").await
    }

    /// Sends what is not answered; gives back the status.
    pub async fn notify(&self, method: &str, params: &Value) -> u16 {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.post(&body.to_string()).await.status
    }

    /// Answers a question of a server.
    pub async fn reply(&self, question: &Value, result: &Value) {
        let body = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
        let status = self.post(&body.to_string()).await.status;
        assert_eq!(status, 202, "the answer to {question} is taken");
    }

    /// The stream of what the client is told unasked.
    pub async fn listen(&self) -> Stream {
        let request = self.request(Method::GET, "", None);
        Stream::of(request.send().await.expect("the proxy answers"))
    }

    pub async fn delete(&self) -> u16 {
        let request = self.request(Method::DELETE, "", None);
        request.send().await.expect("the proxy answers").status().as_u16()
    }
}

impl Stream {
    pub fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let media = headers.get("content-type").and_then(|media| media.to_str().ok()).unwrap_or_default();
        let is_events = media.starts_with("text/event-stream");
        Self { status, headers, response: Some(response), is_events, read: Vec::new() }
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        let response = self.response.as_mut()?;
        let chunk = timeout(SOON, response.chunk()).await;
        let chunk =
            chunk.unwrap_or_else(|_| panic!("nothing more within {SOON:?}; so far: {}", self.so_far()));
        chunk.unwrap_or_else(|error| panic!("{error}; so far: {}", self.so_far()))
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// All that is still to come, as text.
    pub async fn rest(&mut self) -> String {
        while let Some(chunk) = self.chunk().await {
            self.read.extend_from_slice(&chunk);
        }
        String::from_utf8(std::mem::take(&mut self.read)).expect("UTF-8")
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Said> {
        if !self.is_events {
            let text = self.rest().await;
            return (!text.is_empty()).then_some(Said { event_id: None, text });
        }
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("UTF-8");
                let field = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name));
                    lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>()
                };
                let text = field("data:").join("\n");
                if text.is_empty() {
                    continue;
                }
                return Some(Said { event_id: field("id:").pop().map(str::to_owned), text });
            }
            match self.chunk().await {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return None,
            }
        }
    }

    /// The next message that has this method; others are passed over.
    pub async fn next_with(&mut self, method: &str) -> Value {
        loop {
            let said = self.next().await.unwrap_or_else(|| panic!("the stream ended before `{method}`"));
            let message = said.json();
            if message["method"] == method {
                return message;
            }
        }
    }

    /// The answer, with what came before passed over.
    pub async fn answer_text(&mut self) -> String {
        loop {
            let said = self.next().await.unwrap_or_else(|| panic!("status {}, no answer", self.status));
            // Not as a tree: what is passed on need not fit into one.
            let message: HashMap<&str, &RawValue> = serde_json::from_str(&said.text).expect("an object");
            if !message.contains_key("method") {
                return said.text;
            }
        }
    }

    pub async fn answer(&mut self) -> Value {
        serde_json::from_str(&self.answer_text().await).expect("it was parsed before")
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent_for(&mut self, pause: Duration) -> bool {
        timeout(pause, self.next()).await.is_err()
    }
}
