//! From an answer to a response: the result's bytes with a head before them.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::account::Done;
use crate::body::ReplyBody;
use crate::mcp::envelope::put_string;
use crate::mesh::ids::CallId;
use crate::policy::Source;
use crate::problem::Problem;

const CALL_ID: HeaderName = HeaderName::from_static("meshwright-call-id");

/// Results up to this size are copied behind their head, so that both leave in one write.
const COPY_BYTES_MAX: usize = 16 << 10;

/// `name version #generation`.
pub(super) fn source(source: &Source) -> String {
    format!("{} {} #{}", source.name, source.version, source.generation)
}

/// 200 with `{"call_id", "service", "instance", "routed_by"?, "why"?, "result"}`.
pub(super) fn success(id: CallId, done: &Done) -> Response<ReplyBody> {
    let mut head = BytesMut::with_capacity(done.result.len().min(COPY_BYTES_MAX) + 256);
    head.put_slice(b"{\"call_id\":\"");
    put_hex(&mut head, id.0);
    head.put_slice(b"\",\"service\":\"");
    head.put_slice(done.service.as_str().as_bytes());
    head.put_slice(b"\",\"instance\":\"");
    head.put_slice(done.instance.as_str().as_bytes());
    head.put_u8(b'"');
    if let Some(ruling) = &done.ruling {
        head.put_slice(b",\"routed_by\":");
        put_string(&mut head, &source(&ruling.by));
        head.put_slice(b",\"why\":");
        put_string(&mut head, &ruling.why);
    }
    head.put_slice(b",\"result\":");
    framed(head, &done.result, b"}")
}

/// 200 with JSON of three parts, the middle one copied only when it is small.
pub fn framed(mut head: BytesMut, middle: &Bytes, end: &'static [u8]) -> Response<ReplyBody> {
    let chunks = if middle.len() <= COPY_BYTES_MAX {
        head.put_slice(middle);
        head.put_slice(end);
        [head.freeze(), Bytes::new(), Bytes::new()]
    } else {
        [head.freeze(), middle.clone(), Bytes::from_static(end)]
    };
    json(StatusCode::OK, ReplyBody::from(chunks))
}

/// With the call's id in a header, for callers that see no more of the answer than what the tool said.
pub fn named<B>(mut response: Response<B>, id: CallId) -> Response<B> {
    let mut digits = BytesMut::with_capacity(16);
    put_hex(&mut digits, id.0);
    let value = HeaderValue::from_maybe_shared(digits.freeze()).expect("hexadecimal digits");
    response.headers_mut().insert(CALL_ID, value);
    response
}

pub fn json(status: StatusCode, body: impl Into<ReplyBody>) -> Response<ReplyBody> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub fn problem(problem: &Problem<'_>) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(problem.body()));
    *response.status_mut() = problem.status();
    *response.headers_mut() = problem.headers();
    // Answers that say how a call ended must not be kept by anyone between.
    if problem.status() != StatusCode::OK {
        response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn put_hex(out: &mut BytesMut, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits: [u8; 16] = std::array::from_fn(|at| DIGITS[(number >> ((15 - at) * 4)) as usize & 15]);
    out.put_slice(&digits);
}

#[cfg(test)]
mod tests {
    use http_body::Body;
    use http_body_util::BodyExt;

    use super::*;
    use crate::mesh::ids::Name;

    #[tokio::test]
    async fn results_of_any_size_leave_unchanged() {
        for size in [1, COPY_BYTES_MAX - 2, COPY_BYTES_MAX, 1 << 20] {
            let result = Bytes::from(format!("\"{}\"", "x".repeat(size)));
            let name = |text| Name::new(text).expect("a name");
            let done = Done { service: name("s"), instance: name("i"), ruling: None, result: result.clone() };
            let response = success(CallId(0xab), &done);
            let hint = response.body().size_hint().exact();
            let body = response.into_body().collect().await.expect("it cannot fail").to_bytes();
            assert_eq!(hint, Some(body.len() as u64));
            let head = br#"{"call_id":"00000000000000ab","service":"s","instance":"i","result":"#;
            assert_eq!(&body[..], [&head[..], &result, b"}"].concat());
        }
    }
}
