//! An MCP server written byte by byte on a TCP socket, so that it can fail in every way a server can. It speaks
//! enough MCP to be introspected and probed, notes all it receives, and notes what a polite client never sends.

use std::collections::HashSet;
use std::slice::Chunks;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Legacy is 2025-11-25, modern is 2026-07-28; a server of one era refuses the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

/// How a good answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// A priming event, a comment and a notification come first.
    Sse,
    /// The same with CRLF, no blank behind the colons, data on two lines, and three bytes a packet.
    RaggedSse,
}

/// What becomes of a `tools/call`; everything else is answered well.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    Answer,
    AnswerAfter(Duration),
    StatusAfter(Duration, u16),
    /// Reads the request, then closes without a byte.
    Reset,
    Hang,
    /// Begins an event stream, says something, and never answers.
    HangAfterFirst,
    /// Also what is asked beside calls is left unanswered.
    HangAll,
    /// Nobody listens at its port, and its connections are closed: a server that is down.
    Refuse,
    /// Takes connections and bytes, and reads none of them: a host that is gone while its connections stay.
    HalfOpen,
    /// Every answer comes byte by byte, with this pause between them.
    Drip(Duration),
    /// 200, `application/json`, and a body that is not JSON.
    Garbage,
    /// Bytes that are not HTTP.
    NotHttp,
    /// JSON, but no JSON-RPC.
    NotRpc,
    /// An answer to a question that nobody asked.
    WrongId,
    Status(u16),
    /// Announces more bytes than it sends.
    Truncated,
    /// An event stream that ends before the answer.
    TruncatedSse,
    ToolError,
    RpcError,
    /// An answer of that many bytes.
    Big(usize),
    /// Announces and sends that many bytes, a piece at a time.
    Huge(u64),
    /// The same without an announcement.
    HugeChunks(u64),
    /// An event stream that says something without end.
    Chatter,
}

#[derive(Clone, Copy, Debug)]
pub struct RawOptions {
    pub era: Era,
    pub sessions: bool,
    pub form: Form,
}

impl Default for RawOptions {
    fn default() -> Self {
        Self { era: Era::Legacy, sessions: true, form: Form::Json }
    }
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub http_method: String,
    /// JSON-RPC method, empty where there is none.
    pub method: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The bytes between `"arguments":` and the end of that value.
    pub fn arguments(&self) -> &str {
        let envelope: Envelope<'_> = serde_json::from_str(&self.body).expect("a call is JSON-RPC");
        let params: Params<'_> =
            serde_json::from_str(envelope.params.expect("params").get()).expect("params of a call");
        params.arguments.expect("arguments").get()
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Params<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

struct State {
    options: RawOptions,
    how: Mutex<How>,
    seen: Mutex<Vec<Seen>>,
    impolite: Mutex<Vec<String>>,
    sessions: Mutex<HashSet<String>>,
    session_next: AtomicU64,
    /// Status of an answer to a session that is not known.
    gone: AtomicU16,
    /// Requests whose connection was closed before their answer was whole.
    abandoned: AtomicU64,
}

pub struct RawUpstream {
    pub port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// What `verbatim` answers: numbers, escapes, blanks, an order and members that do not survive a typed copy.
pub const VERBATIM: &str = "{ \"zeta\": 1.0, \"content\" :[{\"type\":\"text\",\"text\":\"\\u00fc \u{1f9f5} \\/ \\ud83e\\uddf5\"},\
     {\"type\":\"hologram\",\"big\":123456789012345678901234567890,\"exp\":1E+2,\"neg\":-0}],  \
     \"structuredContent\":{\"b\":18446744073709551616,\"a\":0.10},\"_meta\":{\"x/y\":[ ]}, \"isError\":false }";

/// Tools that all do the same, under names that differ in their annotations, and `verbatim`.
fn tools() -> Value {
    let tool = |name: &str, annotations: Value| {
        json!({"name": name, "description": format!("the tool {name}"), "annotations": annotations,
               "inputSchema": {"type": "object", "properties": {"n": {"type": "number"}}}})
    };
    json!([
        tool("act", json!({})),
        tool("act_read_only", json!({"readOnlyHint": true})),
        tool("act_idempotent", json!({"readOnlyHint": false, "idempotentHint": true})),
        tool("verbatim", json!({"readOnlyHint": true})),
    ])
}

impl RawUpstream {
    pub async fn start(options: RawOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a port");
        Self::serve(listener, options)
    }

    pub async fn plain() -> Self {
        Self::start(RawOptions::default()).await
    }

    /// A server at a port that was free a moment ago, for one that comes back.
    pub async fn start_at(port: u16, options: RawOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind the port again");
        Self::serve(listener, options)
    }

    fn serve(listener: TcpListener, options: RawOptions) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(State {
            options,
            how: Mutex::new(How::Answer),
            seen: Mutex::default(),
            impolite: Mutex::default(),
            sessions: Mutex::default(),
            session_next: AtomicU64::new(1),
            gone: AtomicU16::new(404),
            abandoned: AtomicU64::new(0),
        });
        let serving = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut listener = listener;
            loop {
                tokio::select! {
                    () = accept(&listener, &serving) => return,
                    () = until(&serving, |how| *how == How::Refuse) => {}
                }
                drop(listener);
                // Bound and not listened at, so that nobody else gets it.
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_reuseaddr(true).expect("connections that were there keep nobody from the port");
                socket.bind(([127, 0, 0, 1], port).into()).expect("bind the port again");
                until(&serving, |how| *how != How::Refuse).await;
                listener = socket.listen(1024).expect("listen again");
            }
        });
        Self { port, state, accepting }
    }

    pub fn now(&self, how: How) {
        *lock(&self.state.how) = how;
    }

    /// What a restart does to a server's sessions.
    pub fn forget_sessions(&self) {
        lock(&self.state.sessions).clear();
    }

    /// The same, of servers that answer 400 to a session that they do not know.
    pub fn forget_sessions_as(&self, status: u16) {
        self.state.gone.store(status, Ordering::Relaxed);
        self.forget_sessions();
    }

    /// Sessions that were begun and not ended.
    pub fn session_count(&self) -> usize {
        lock(&self.state.sessions).len()
    }

    /// How many requests were given up by closing their connection.
    pub fn abandoned(&self) -> u64 {
        self.state.abandoned.load(Ordering::Relaxed)
    }

    pub fn seen(&self, method: &str) -> Vec<Seen> {
        lock(&self.state.seen).iter().filter(|seen| seen.method == method).cloned().collect()
    }

    pub fn calls(&self) -> usize {
        lock(&self.state.seen).iter().filter(|seen| seen.method == "tools/call").count()
    }

    /// Fails when the proxy ever broke a rule of the server's revision.
    #[track_caller]
    pub fn assert_polite(&self) {
        let impolite = lock(&self.state.impolite);
        assert!(impolite.is_empty(), "{impolite:#?}");
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port at which nobody listens.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a port");
    listener.local_addr().expect("bound").port()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Serves until the listener fails. Connections end with this.
async fn accept(listener: &TcpListener, state: &Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(state);
        connections.spawn(async move { connection(stream, &state).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn until(state: &State, is_so: impl Fn(&How) -> bool) {
    while !is_so(&lock(&state.how)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connection(stream: TcpStream, state: &State) {
    drop(stream.set_nodelay(true));
    let mut stream = BufReader::new(stream);
    loop {
        if stream.fill_buf().await.is_err() {
            return;
        }
        until(state, |how| *how != How::HalfOpen).await;
        let Some(seen) = read_request(&mut stream).await else { return };
        lock(&state.seen).push(seen.clone());
        let answered = answer(&seen, state);
        let bytes = tokio::select! {
            bytes = answered => bytes,
            () = closed(&mut stream) => {
                state.abandoned.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let Some(bytes) = bytes else { return };
        let ragged = state.options.form == Form::RaggedSse && seen.method == "tools/call";
        let how = lock(&state.how).clone();
        let sent = match how {
            How::Drip(pause) => drip(&mut stream, bytes.0.chunks(1), pause).await,
            _ if ragged => drip(&mut stream, bytes.0.chunks(3), Duration::ZERO).await,
            _ => stream.write_all(&bytes.0).await,
        };
        if seen.method == "tools/call" && sent.is_ok() && pour(&mut stream, &how).await {
            state.abandoned.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if bytes.0.ends_with(UNFINISHED) {
            closed(&mut stream).await;
            state.abandoned.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if sent.is_err() || bytes.1 {
            return;
        }
    }
}

/// Waits until the other side has closed the connection.
async fn closed(stream: &mut BufReader<TcpStream>) {
    match stream.fill_buf().await {
        // It has sent its next request already.
        Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

/// What stands behind a stream that has begun and goes no further.
const UNFINISHED: &[u8] = b": unfinished\n\n\r\n";

async fn drip(
    stream: &mut BufReader<TcpStream>,
    packets: Chunks<'_, u8>,
    pause: Duration,
) -> std::io::Result<()> {
    for packet in packets {
        stream.write_all(packet).await?;
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Sends what stands behind a head that promised a lot; whether the other side had enough before its end.
async fn pour(stream: &mut BufReader<TcpStream>, how: &How) -> bool {
    let (mut left, piece) = match how {
        How::Huge(bytes) => (*bytes, vec![b'x'; 64 << 10]),
        How::HugeChunks(bytes) => (*bytes, format!("10000\r\n{}\r\n", "x".repeat(64 << 10)).into()),
        How::Chatter => (u64::MAX, chatter()),
        _ => return false,
    };
    while left > 0 {
        if stream.write_all(&piece).await.is_err() {
            return true;
        }
        left = left.saturating_sub(64 << 10);
    }
    false
}

/// A chunk of a hundred events.
fn chatter() -> Vec<u8> {
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "on it"}});
    let events = format!("event: message\ndata: {log}\n\n").repeat(100);
    format!("{:x}\r\n{events}\r\n", events.len()).into()
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let http_method = line.split(' ').next()?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let from = body.len();
            body.resize(from + size, 0);
            stream.read_exact(&mut body[from..]).await.ok()?;
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    }
    let body = String::from_utf8(body).ok()?;
    let method = serde_json::from_str::<Envelope<'_>>(&body).ok().and_then(|envelope| envelope.method);
    Some(Seen { http_method, method: method.unwrap_or_default(), headers, body })
}

/// The bytes to send and whether the connection ends behind them; `None` ends it at once.
async fn answer(seen: &Seen, state: &State) -> Option<(Vec<u8>, bool)> {
    if seen.http_method == "DELETE" {
        let session = seen.header("mcp-session-id").unwrap_or_default();
        let known = lock(&state.sessions).remove(session);
        return keep(http(if known { 200 } else { 404 }, &[], ""));
    }
    if seen.http_method != "POST" {
        return keep(http(405, &[("allow", "POST, DELETE")], ""));
    }
    let envelope: Envelope<'_> = serde_json::from_str(&seen.body).expect("a client posts JSON-RPC");
    complain(seen, &envelope, state);
    let Some(id) = envelope.id else { return keep(http(202, &[], "")) };
    let hangs = *lock(&state.how) == How::HangAll;
    if hangs {
        std::future::pending::<()>().await;
    }
    let id = id.get();
    match state.options.era {
        Era::Legacy => legacy(seen, &envelope, id, state).await,
        Era::Modern => modern(seen, &envelope, id, state).await,
    }
}

async fn legacy(seen: &Seen, envelope: &Envelope<'_>, id: &str, state: &State) -> Option<(Vec<u8>, bool)> {
    let sessions = state.options.sessions;
    if seen.method == "initialize" {
        let result = json!({"protocolVersion": "2025-11-25", "instructions": "be kind",
                            "capabilities": {"tools": {"listChanged": true}, "prompts": {}, "resources": {}},
                            "serverInfo": {"name": "raw", "version": "1"}});
        let session = format!("raw-{}", state.session_next.fetch_add(1, Ordering::Relaxed));
        lock(&state.sessions).insert(session.clone());
        let header = [("mcp-session-id", session.as_str())];
        return keep(good(id, &result.to_string(), if sessions { &header } else { &[] }));
    }
    if sessions {
        let error = |code: i32, message: &str| {
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}}).to_string()
        };
        match seen.header("mcp-session-id") {
            None => return keep(http(400, JSON, &error(-32000, "Bad Request: Missing session ID"))),
            Some(session) if !lock(&state.sessions).contains(session) => {
                let status = state.gone.load(Ordering::Relaxed);
                return keep(http(status, JSON, &error(-32001, "Session not found")));
            }
            Some(_) => {}
        }
    }
    match seen.method.as_str() {
        "ping" => keep(good(id, "{}", &[])),
        "tools/list" => keep(good(id, &json!({"tools": tools()}).to_string(), &[])),
        "prompts/list" => {
            keep(good(id, &json!({"prompts": [{"name": "greet", "arguments": []}]}).to_string(), &[]))
        }
        "resources/list" => {
            let second = envelope.params.is_some_and(|params| params.get().contains("cursor"));
            let result = if second {
                json!({"resources": [{"uri": "raw:///second", "name": "second"}]})
            } else {
                json!({"resources": [{"uri": "raw:///first", "name": "first"}], "nextCursor": "2"})
            };
            keep(good(id, &result.to_string(), &[]))
        }
        "tools/call" => call(envelope, id, state).await,
        _ => keep(rpc_error(200, id, -32601, "Method not found")),
    }
}

async fn modern(seen: &Seen, envelope: &Envelope<'_>, id: &str, state: &State) -> Option<(Vec<u8>, bool)> {
    match seen.method.as_str() {
        "server/discover" => {
            let result = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0,
                                "cacheScope": "private", "capabilities": {"tools": {}},
                                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "raw", "version": "1"}}});
            keep(good(id, &result.to_string(), &[]))
        }
        "tools/list" => {
            let result =
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": tools()});
            keep(good(id, &result.to_string(), &[]))
        }
        "tools/call" => call(envelope, id, state).await,
        _ => keep(rpc_error(404, id, -32601, "Method not found")),
    }
}

async fn call(envelope: &Envelope<'_>, id: &str, state: &State) -> Option<(Vec<u8>, bool)> {
    let params: Params<'_> =
        serde_json::from_str(envelope.params.map_or("", |params| params.get())).expect("params of a call");
    let arguments = params.arguments.map_or("{}", |arguments| arguments.get());
    let result_type = if state.options.era == Era::Modern { "\"resultType\":\"complete\"," } else { "" };
    let result = if params.name == "verbatim" {
        VERBATIM.replacen('{', &format!("{{{result_type}"), 1)
    } else {
        format!(
            "{{{result_type}\"content\":[{{\"type\":\"text\",\"text\":\"done\"}}],\"structuredContent\":{arguments}}}"
        )
    };
    let how = lock(&state.how).clone();
    match how {
        How::Answer | How::HalfOpen | How::Refuse | How::Drip(_) => {}
        How::AnswerAfter(pause) => tokio::time::sleep(pause).await,
        How::Reset => return None,
        How::Hang | How::HangAll => std::future::pending().await,
        How::Huge(bytes) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
            );
            return keep(head.into());
        }
        How::HugeChunks(_) => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            return keep(head.into());
        }
        How::Chatter => return keep(CHUNKED_EVENTS.into()),
        How::HangAfterFirst => {
            let head = CHUNKED_EVENTS;
            let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "on it"}});
            let event = format!("event: message\nid: 1\ndata: {log}\n\n: unfinished\n\n");
            return Some((format!("{head}{:x}\r\n{event}\r\n", event.len()).into(), true));
        }
        How::Garbage => return keep(http(200, JSON, "<html>what?</html>")),
        How::NotHttp => return Some((b"\x00\x01\x02 definitely not HTTP\r\n\r\n".to_vec(), true)),
        How::NotRpc => return keep(http(200, JSON, "{\"hello\":\"world\"}")),
        How::WrongId => return keep(good("424242", &result, &[])),
        How::StatusAfter(pause, status) => {
            tokio::time::sleep(pause).await;
            return keep(http(status, &[("content-type", "text/plain")], "no"));
        }
        How::Status(status) => return keep(http(status, &[("content-type", "text/plain")], "no")),
        How::Truncated => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{\"jsonrpc\"";
            return Some((head.into(), true));
        }
        How::TruncatedSse => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: wait\n\n";
            return Some((head.into(), true));
        }
        How::ToolError => {
            let result = format!(
                "{{{result_type}\"content\":[{{\"type\":\"text\",\"text\":\"it broke\"}}],\"isError\":true}}"
            );
            return keep(good(id, &result, &[]));
        }
        How::RpcError => return keep(rpc_error(200, id, -32602, "no such thing")),
        How::Big(bytes) => {
            let text = "x".repeat(bytes);
            let result = format!("{{{result_type}\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]}}");
            return keep(good(id, &result, &[]));
        }
    }
    keep(match state.options.form {
        Form::Json => good(id, &result, &[]),
        Form::Sse => sse(&format!("event: message\nid: 2\ndata: {}\n\n", rpc(id, &result)), "\n"),
        Form::RaggedSse => {
            let (head, tail) = rpc(id, &result).split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            sse(&format!("id:2\ndata:{head},\ndata:{tail}\n\n"), "\r\n")
        }
    })
}

const CHUNKED_EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn keep(bytes: Vec<u8>) -> Option<(Vec<u8>, bool)> {
    Some((bytes, false))
}

fn rpc(id: &str, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")
}

fn good(id: &str, result: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    http(200, &[JSON, headers].concat(), &rpc(id, result))
}

fn rpc_error(status: u16, id: &str, code: i32, message: &str) -> Vec<u8> {
    let error = json!({"code": code, "message": message, "data": {"kept": true}});
    http(status, JSON, &format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}"))
}

fn sse(last: &str, newline: &str) -> Vec<u8> {
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "on it"}});
    let events =
        format!(": hello\nid: 0\nretry: 3000\ndata:\n\nevent: message\nid: 1\ndata: {log}\n\n{last}");
    let events = events.replace('\n', newline);
    let head = CHUNKED_EVENTS;
    let (first, second) = events.split_at(events.find("event: message").unwrap_or(0) + 9);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    format!("{head}{}{}0\r\n\r\n", chunk(first), chunk(second)).into()
}

fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}\r\n{body}").into()
}

/// Notes what a client of this revision must not do.
fn complain(seen: &Seen, envelope: &Envelope<'_>, state: &State) {
    let mut found: Vec<String> = Vec::new();
    let mut expect = |right: bool, what: &str| {
        if !right {
            found.push(format!("{}: {what}: {seen:?}", seen.method));
        }
    };
    let accept = seen.header("accept").unwrap_or_default();
    expect(
        accept.contains("application/json") && accept.contains("text/event-stream"),
        "both types in Accept",
    );
    expect(
        seen.header("content-type").is_some_and(|kind| kind.starts_with("application/json")),
        "Content-Type",
    );
    let host = seen.header("host").unwrap_or_default();
    expect(host.starts_with("127.0.0.1:") || host.starts_with("localhost:"), "Host names this server");
    expect(seen.header("origin").is_none(), "no Origin of somebody else");
    expect(seen.header("authorization").is_none(), "no client's token");
    let probing = matches!(seen.method.as_str(), "initialize" | "server/discover");
    let modern = state.options.era == Era::Modern && seen.method != "initialize";
    if modern {
        // Not the arguments: they need not fit into a tree.
        #[derive(Default, Deserialize)]
        struct Told {
            #[serde(default)]
            name: Value,
            #[serde(default, rename = "_meta")]
            meta: Value,
        }
        let params = envelope.params.map_or("{}", |params| params.get());
        let Told { name, meta } = serde_json::from_str(params).expect("params are an object");
        expect(seen.header("mcp-protocol-version") == Some("2026-07-28"), "MCP-Protocol-Version");
        expect(seen.header("mcp-method") == Some(seen.method.as_str()), "Mcp-Method equals the method");
        expect(meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28", "the version in _meta");
        expect(meta["io.modelcontextprotocol/clientCapabilities"].is_object(), "the capabilities in _meta");
        if seen.method == "tools/call" {
            expect(seen.header("mcp-name") == name.as_str(), "Mcp-Name equals the tool");
        }
        expect(seen.header("mcp-session-id").is_none(), "no session");
    } else if !probing {
        expect(seen.header("mcp-protocol-version") == Some("2025-11-25"), "the negotiated version");
    }
    lock(&state.impolite).append(&mut found);
}
