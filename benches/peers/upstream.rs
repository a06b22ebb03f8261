//! The cheapest MCP server that is one: both eras, no sessions, one tool. Three instances in one process, or one on
//! standard input and output.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::{BufRead as _, Write as _};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use super::message::{LEGACY, MODERN};

pub const INSTANCES: usize = 3;

/// Prints the ports as one line, then serves until standard input ends.
pub fn over_http() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ports = Vec::new();
        for _ in 0..INSTANCES {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            ports.push(listener.local_addr()?.port().to_string());
            tokio::spawn(accept(listener));
        }
        println!("{}", ports.join(" "));
        std::io::stdout().flush()?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        Ok(())
    })
}

/// One message a line, until standard input ends.
pub fn over_stdio() -> anyhow::Result<()> {
    let mut input = std::io::BufReader::with_capacity(64 << 10, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let (mut line, mut answered) = (Vec::new(), Vec::new());
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Some((_, message)) = answer(&line) {
            // One write, and so one wake-up of the reader.
            answered.extend_from_slice(&message);
            answered.push(b'\n');
            output.write_all(&answered)?;
            output.flush()?;
            answered.clear();
        }
        line.clear();
    }
    Ok(())
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        tokio::spawn(async move {
            // A connection that breaks is the client's to report.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(serve)).await.ok();
        });
    }
}

#[derive(Deserialize)]
struct Rpc<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
}

#[derive(Default, Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED, Bytes::new()));
    }
    let is_modern = request.headers().get("mcp-protocol-version").is_some_and(|version| version == MODERN);
    let Ok(body) = request.into_body().collect().await else {
        return Ok(status(StatusCode::BAD_REQUEST, Bytes::new()));
    };
    let (code, body) = answer(&body.to_bytes()).unwrap_or((StatusCode::ACCEPTED, Bytes::new()));
    // To the legacy era, an unknown method is no business of HTTP's: some clients give up at any other status.
    let code = if code == StatusCode::NOT_FOUND && !is_modern { StatusCode::OK } else { code };
    Ok(status(code, body))
}

/// `None` for what wants no answer.
fn answer(message: &[u8]) -> Option<(StatusCode, Bytes)> {
    let Ok(rpc) = serde_json::from_slice::<Rpc<'_>>(message) else {
        let error = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#;
        return Some((StatusCode::BAD_REQUEST, Bytes::from_static(error)));
    };
    let id = rpc.id?.get();
    Some(match &*rpc.method {
        "tools/call" => {
            let text = rpc.params.arguments.text.map_or("\"\"", RawValue::get);
            result(
                id,
                &[br#""content":[{"type":"text","text":"#, text.as_bytes(), br#"}],"isError":false"#],
            )
        }
        "server/discover" => result(
            id,
            &[
                br#""supportedVersions":[""#,
                MODERN.as_bytes(),
                br#""],"ttlMs":0,"cacheScope":"private","capabilities":{"tools":{}},"serverInfo":{"name":"peers","version":"1"}"#,
            ],
        ),
        "initialize" => result(
            id,
            &[
                br#""protocolVersion":""#,
                LEGACY.as_bytes(),
                br#"","capabilities":{"tools":{}},"serverInfo":{"name":"peers","version":"1"}"#,
            ],
        ),
        "tools/list" => result(
            id,
            &[br#""ttlMs":0,"cacheScope":"private","tools":[{"name":"echo","description":"says it again","annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}}]"#],
        ),
        "ping" => result(id, &[br#""_meta":{}"#]),
        _ => {
            let error =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#);
            (StatusCode::NOT_FOUND, error.into())
        }
    })
}

/// A result of `members`, JSON text without braces.
fn result(id: &str, members: &[&[u8]]) -> (StatusCode, Bytes) {
    let size: usize = members.iter().map(|member| member.len()).sum();
    let mut body = BytesMut::with_capacity(size + id.len() + 80);
    body.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    body.put_slice(id.as_bytes());
    body.put_slice(br#","result":{"resultType":"complete","#);
    for member in members {
        body.put_slice(member);
    }
    body.put_slice(b"}}");
    (StatusCode::OK, body.freeze())
}

fn status(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
