//! One HTTP/1.1 connection to an instance, driven by the call that uses it: no second task, no channel hop.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::quiet::Pair;
use super::{ANSWER_BYTES_MAX, SendError, Times};
use crate::mesh::instance::HttpEndpoint;

/// An idle connection older than this is not used again: common servers close theirs after 5 s, and a request
/// that meets the closing has an unknown outcome.
const IDLE_REUSE_MAX: Duration = Duration::from_secs(4);

/// Where connections go, with what every request repeats.
#[derive(Debug)]
pub struct Target {
    pub host_header: HeaderValue,
    pub path: PathAndQuery,
    address: Option<SocketAddr>,
    endpoint: HttpEndpoint,
}

impl Target {
    pub fn new(endpoint: &HttpEndpoint) -> Self {
        let address =
            endpoint.bare_host().parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, endpoint.port()));
        Self {
            host_header: HeaderValue::try_from(endpoint.authority())
                .expect("an endpoint's authority is visible ASCII"),
            path: PathAndQuery::try_from(endpoint.path()).expect("an endpoint's path is a path"),
            address,
            endpoint: endpoint.clone(),
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((self.endpoint.bare_host(), self.endpoint.port())).await,
        }
    }
}

pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    io: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
    wakers: Pair,
    idle_since: Instant,
}

impl Connection {
    pub(super) async fn open(target: &Target, times: &Times) -> Result<Self, SendError> {
        let limit = times.connect.min(times.deadline.saturating_duration_since(tokio::time::Instant::now()));
        let stream = tokio::time::timeout(limit, target.connect())
            .await
            .map_err(|_| SendError::ConnectTimeout(limit))?
            .map_err(SendError::Connect)?;
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        let (sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::NotSent)?;
        Ok(Self { sender, io, wakers: Pair::new(), idle_since: Instant::now() })
    }

    /// Whether the connection may carry another request. Called by the task that is about to use it: an answer
    /// that nobody asked for, or the other side's closing, shows here.
    pub(super) fn is_usable(&mut self) -> bool {
        if !self.is_fresh() {
            return false;
        }
        let closed = self.wakers.poll_io(&mut self.io).is_ready();
        !closed && self.sender.is_ready()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.idle_since.elapsed() <= IDLE_REUSE_MAX
    }

    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Sends `request` and hands the answer's head and body to `read`, while the connection is driven.
    pub(super) async fn exchange<T, R>(
        &mut self,
        request: Request<Full<Bytes>>,
        times: &Times,
        read: impl FnOnce(Response<Incoming>) -> R,
    ) -> Result<T, SendError>
    where
        R: Future<Output = Result<T, SendError>>,
    {
        let Self { sender, io, wakers, .. } = self;
        let work = async {
            let now = tokio::time::Instant::now();
            let first_byte = times.deadline.min(now + times.first_byte);
            let head = tokio::time::timeout_at(first_byte, sender.try_send_request(request)).await;
            let response = match head {
                Ok(Ok(response)) => response,
                Ok(Err(mut error)) => {
                    let unsent = error.take_message().is_some();
                    let error = error.into_error();
                    return Err(if unsent { SendError::NotSent(error) } else { SendError::Broken(error) });
                }
                Err(_) if first_byte == times.deadline => return Err(SendError::DeadlinePassed),
                Err(_) => return Err(SendError::FirstByteTimeout(times.first_byte)),
            };
            match read(response).await {
                Err(SendError::Broken(_)) if tokio::time::Instant::now() >= times.deadline => {
                    Err(SendError::DeadlinePassed)
                }
                other => other,
            }
        };
        let mut work = pin!(work);
        let mut closed = false;
        wakers.start();
        // An error of the connection reaches `work` through the answer it waits for.
        poll_fn(|cx| wakers.poll(cx, work.as_mut(), Pin::new(&mut *io), &mut closed)).await
    }
}

/// Reads a body to its end.
pub(super) async fn collect(body: Incoming, times: &Times) -> Result<Bytes, SendError> {
    let mut body = body;
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    loop {
        let frame = tokio::time::timeout_at(times.deadline, body.frame())
            .await
            .map_err(|_| SendError::DeadlinePassed)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(SendError::Broken)?.into_data() else { continue };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > ANSWER_BYTES_MAX {
            return Err(SendError::TooLarge(ANSWER_BYTES_MAX));
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut both = BytesMut::with_capacity((first.len() + data.len()) * 2);
                both.extend_from_slice(&first);
                both.extend_from_slice(&data);
                rest = Some(both);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Whether the answer is said to be larger than what is collected.
pub(super) fn announces_too_much(response: &Response<Incoming>) -> bool {
    let length = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    length.is_some_and(|length| length > ANSWER_BYTES_MAX as u64)
}

/// The answer's media type without parameters, in lower case when it was.
pub(super) fn media_type(headers: &http::HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii()
}
