//! `/mcp`: every service behind one address, for clients of both eras. Stateless: no session is given out, and every
//! answer is JSON.

use std::borrow::Cow;

use bytes::{BufMut, Bytes};
use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming as Body;
use serde_json::value::RawValue;

use super::account::Done;
use super::decode::{self, CallBody};
use super::failure::CallFailure;
use super::reply::{self, ReplyBody};
use super::{CallId, Proxy};
use crate::clock;
use crate::mcp::envelope::{CLIENT_INFO, put_string};
use crate::mcp::era::{Era, MODERN_VERSION, PROTOCOL_VERSION_HEADER};
use crate::mcp::incoming::{self, CallParams, Incoming};
use crate::mcp::own::{OwnCall, OwnTools};
use crate::mesh::offer::Kind;
use crate::problem::Problem;
use crate::registry::Snapshot;

/// The code of an unsupported revision (2026-07-28, errors).
const UNSUPPORTED_VERSION: i32 = -32022;
/// The code of headers that contradict the body.
const HEADER_MISMATCH: i32 = -32020;

impl Proxy {
    /// One message of an MCP client.
    pub async fn mcp(&self, request: Request<Body>, own_tools: &OwnTools) -> Response<ReplyBody> {
        if request.method() != Method::POST {
            let detail = "messages are sent with POST; this endpoint keeps no sessions and no streams";
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail, "send a POST");
            let mut response = reply::problem(&problem);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let id = self.next_id();
        let era = match era_of(request.headers()) {
            Ok(era) => era,
            Err(version) => return unsupported(&version),
        };
        let head = request.headers().clone();
        let body = match decode::read_body(request, self.body_bytes_max).await {
            Ok(body) => body,
            Err(failure) => return failure.respond(id),
        };
        match self.enter() {
            Ok(_entered) => self.message(id, era, &head, &body, own_tools).await,
            Err(failure) => failure.respond(id),
        }
    }

    async fn message(
        &self,
        id: CallId,
        era: Era,
        head: &HeaderMap,
        body: &Bytes,
        own_tools: &OwnTools,
    ) -> Response<ReplyBody> {
        let message = match Incoming::read(body) {
            Ok(message) => message,
            Err(error) => return refuse(era, None, incoming::PARSE_ERROR, &error.to_string()),
        };
        if era == Era::Modern && !message.agrees_with(head) {
            let why = "the headers `Mcp-Method` and `Mcp-Name` do not say what the body says";
            let body = incoming::error(message.id, HEADER_MISMATCH, why, None);
            return reply::json(StatusCode::BAD_REQUEST, body);
        }
        match (message.method.as_deref(), message.id) {
            (Some(method), Some(rpc)) => match own_call(&self.registry.snapshot(), method, message.params) {
                Some(call) => answer(era, rpc, &own_tools(call).await),
                None => self.request(id, era, method, rpc, message.params, body.len()).await,
            },
            // Notifications, and answers to requests that were never sent from here.
            (Some(_), None) | (None, Some(_)) => {
                let mut response = Response::new(ReplyBody::default());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }
            (None, None) => {
                refuse(era, None, incoming::INVALID_REQUEST, "the message has neither method nor id")
            }
        }
    }

    async fn request(
        &self,
        id: CallId,
        era: Era,
        method: &str,
        rpc: &RawValue,
        params: Option<&RawValue>,
        size: usize,
    ) -> Response<ReplyBody> {
        match (method, era) {
            ("initialize", _) => {
                let version = incoming::negotiate(params);
                let result = format!(
                    r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{CLIENT_INFO}}}"#
                );
                reply::json(StatusCode::OK, incoming::result(rpc, result.as_bytes()))
            }
            ("server/discover", Era::Modern) => {
                reply::json(StatusCode::OK, incoming::result(rpc, discovery().as_bytes()))
            }
            ("ping", Era::Legacy) => reply::json(StatusCode::OK, incoming::result(rpc, b"{}")),
            ("tools/list", _) => self.list(era, rpc, params),
            ("tools/call", _) => self.call_tool(id, era, rpc, params, size).await,
            _ => {
                refuse(era, Some(rpc), incoming::METHOD_NOT_FOUND, &format!("there is no method `{method}`"))
            }
        }
    }

    fn list(&self, era: Era, rpc: &RawValue, params: Option<&RawValue>) -> Response<ReplyBody> {
        let cursor = incoming::cursor(params);
        let snapshot = self.registry.snapshot();
        let view = snapshot.catalogue.view(None).expect("there is always a merged view");
        let page = match view.page(Kind::Tool, cursor.as_deref()) {
            Ok(page) => page,
            Err(error) => return refuse(era, Some(rpc), incoming::INVALID_PARAMS, &error.to_string()),
        };
        let (mut head, _) = incoming::result_frame(rpc);
        if era == Era::Modern {
            head.put_slice(br#"{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":["#);
        } else {
            head.put_slice(br#"{"tools":["#);
        }
        let Some(next) = page.next_cursor else { return reply::framed(head, &page.members, b"]}}") };
        head.put_slice(&page.members);
        head.put_slice(br#"],"nextCursor":"#);
        put_string(&mut head, &next);
        reply::framed(head, &Bytes::new(), b"}}")
    }

    async fn call_tool(
        &self,
        id: CallId,
        era: Era,
        rpc: &RawValue,
        params: Option<&RawValue>,
        size: usize,
    ) -> Response<ReplyBody> {
        let arrived = clock::mono();
        let params = params.and_then(|params| serde_json::from_str::<CallParams<'_>>(params.get()).ok());
        let Some(params) = params else {
            return refuse(era, Some(rpc), incoming::INVALID_PARAMS, "`params` must have `name`, a tool's");
        };
        let snapshot = self.registry.snapshot();
        let view = snapshot.catalogue.view(None).expect("there is always a merged view");
        let Some(origin) = view.find(Kind::Tool, &params.name) else {
            let message = format!("there is no tool `{}`; `tools/list` has them all", params.name);
            return refuse(era, Some(rpc), incoming::INVALID_PARAMS, &message);
        };
        let call = CallBody {
            target: Cow::Borrowed(origin.service.as_str()),
            tool: Cow::Borrowed(&origin.key),
            client: Cow::Borrowed(""),
            arguments: params.arguments.map_or(&b"{}"[..], |arguments| arguments.get().as_bytes()),
            timeout: None,
        };
        let ended = match snapshot.departed(origin.service.as_str()) {
            Some(departed) => Err(CallFailure::NoInstance {
                service: origin.service.to_string(),
                why: departed.to_string(),
            }),
            None => self.run(id, arrived, &snapshot, &call, size).await,
        };
        match ended {
            Ok(Done { result, .. }) => answer(era, rpc, &result),
            Err(CallFailure::ToolError { result, .. }) => answer(era, rpc, &result),
            Err(CallFailure::RpcError { error, .. }) => {
                reply::json(StatusCode::OK, incoming::raw_error(rpc, &error))
            }
            Err(failure) => {
                let mut problem = failure.problem();
                problem.call_id = Some(id.to_string());
                let data = problem.body();
                let error =
                    incoming::error(Some(rpc), incoming::NOT_ANSWERED, &failure.to_string(), Some(&data));
                reply::json(StatusCode::OK, error)
            }
        }
    }
}

/// A call of one of the proxy's own tools.
fn own_call(snapshot: &Snapshot, method: &str, params: Option<&RawValue>) -> Option<OwnCall> {
    if method != "tools/call" {
        return None;
    }
    let params: CallParams<'_> = serde_json::from_str(params?.get()).ok()?;
    let tool = snapshot.catalogue.view(None)?.find(Kind::Tool, &params.name)?.own?;
    let arguments =
        params.arguments.map_or_else(Bytes::new, |raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    Some(OwnCall { tool, arguments, profile: None, client: String::new() })
}

/// A tool's result. Modern clients want to be told that it is complete; legacy instances do not say so.
fn answer(era: Era, rpc: &RawValue, result: &Bytes) -> Response<ReplyBody> {
    let (mut head, end) = incoming::result_frame(rpc);
    let says = memchr::memmem::find(result, b"\"resultType\"").is_some();
    if era == Era::Legacy || says || !result.starts_with(b"{") {
        return reply::framed(head, result, end);
    }
    let rest = result.slice(1..);
    head.put_slice(br#"{"resultType":"complete""#);
    if rest.trim_ascii() != b"}" {
        head.put_u8(b',');
    }
    reply::framed(head, &rest, end)
}

/// The era that the version header names; without one the client is a legacy one, or has not agreed on any yet.
fn era_of(headers: &HeaderMap) -> Result<Era, String> {
    let Some(version) = headers.get(&PROTOCOL_VERSION_HEADER) else { return Ok(Era::Legacy) };
    match version.to_str() {
        Ok(MODERN_VERSION) => Ok(Era::Modern),
        Ok(version) if incoming::VERSIONS.contains(&version) => Ok(Era::Legacy),
        Ok(version) => Err(version.to_owned()),
        Err(_) => Err(String::new()),
    }
}

fn unsupported(version: &str) -> Response<ReplyBody> {
    let versions = incoming::VERSIONS.join("\",\"");
    let data = format!(r#"{{"supported":["{versions}"]}}"#);
    let message = format!("the protocol version `{version}` is not supported");
    let body = incoming::error(None, UNSUPPORTED_VERSION, &message, Some(data.as_bytes()));
    reply::json(StatusCode::BAD_REQUEST, body)
}

fn discovery() -> String {
    let versions = incoming::VERSIONS.join("\",\"");
    format!(
        r#"{{"resultType":"complete","supportedVersions":["{versions}"],"capabilities":{{"tools":{{}}}},"ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{CLIENT_INFO}}}}}"#
    )
}

/// An error of the proxy's own. The modern era has statuses for them, the legacy era answers 200.
fn refuse(era: Era, rpc: Option<&RawValue>, code: i32, message: &str) -> Response<ReplyBody> {
    let status = match (era, code) {
        (_, incoming::PARSE_ERROR | incoming::INVALID_REQUEST) => StatusCode::BAD_REQUEST,
        (Era::Legacy, _) => StatusCode::OK,
        (Era::Modern, incoming::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        (Era::Modern, _) => StatusCode::BAD_REQUEST,
    };
    reply::json(status, incoming::error(rpc, code, message, None))
}
