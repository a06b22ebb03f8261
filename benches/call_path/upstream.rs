//! The cheapest MCP server that is one: three instances in one process, without sessions, one tool.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::Write as _;

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

use super::message::REVISION;

pub const INSTANCES: usize = 3;

/// Prints the ports as one line, then serves until standard input ends.
pub fn main() -> anyhow::Result<()> {
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
    let Ok(body) = request.into_body().collect().await else {
        return Ok(status(StatusCode::BAD_REQUEST, Bytes::new()));
    };
    let body = body.to_bytes();
    let Ok(rpc) = serde_json::from_slice::<Rpc<'_>>(&body) else {
        return Ok(status(StatusCode::BAD_REQUEST, Bytes::new()));
    };
    let Some(id) = rpc.id else { return Ok(status(StatusCode::ACCEPTED, Bytes::new())) };
    let id = id.get();
    Ok(match &*rpc.method {
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
                REVISION.as_bytes(),
                br#""],"ttlMs":0,"cacheScope":"private","capabilities":{"tools":{}},"serverInfo":{"name":"call_path","version":"1"}"#,
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
            status(StatusCode::NOT_FOUND, error.into())
        }
    })
}

/// A result of `members`, JSON text without braces.
fn result(id: &str, members: &[&[u8]]) -> Response<Full<Bytes>> {
    let size: usize = members.iter().map(|member| member.len()).sum();
    let mut body = BytesMut::with_capacity(size + id.len() + 80);
    body.put_slice(br#"{"jsonrpc":"2.0","id":"#);
    body.put_slice(id.as_bytes());
    body.put_slice(br#","result":{"resultType":"complete","#);
    for member in members {
        body.put_slice(member);
    }
    body.put_slice(b"}}");
    status(StatusCode::OK, body.freeze())
}

fn status(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
