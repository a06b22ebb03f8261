//! Serving one connection: HTTP/1.1, limits, and the fork between data path and pages.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::patience::{IDLE_TIME_MAX, patient};
use crate::body::Body;
use crate::endpoint::{Endpoint, Scope};
use crate::problem::Problem;
use crate::proxy::Proxy;

/// Header bytes and fields.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most that is read of a body at once. The parser takes heads up to here; see [`check_head`].
const READ_BYTES_MAX: usize = 128 << 10;
const HEADER_FIELDS_MAX: usize = 100;
const URI_BYTES_MAX: usize = 8 << 10;

/// Which of the two ports a connection came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Mcp,
    Http,
}

/// What answers requests that are not on the data path.
pub type Surface = Arc<
    dyn Fn(Request<Incoming>, Port) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync,
>;

/// What every connection shares.
pub struct Edge {
    pub guard: Guard,
    pub proxy: Arc<Proxy>,
    pub endpoint: Arc<Endpoint>,
    pub surface: Surface,
}

impl Edge {
    /// Serves a connection until it ends, or until `stop` and the end of the request that is under way.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, port: Port, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "connection ended before it began");
            return;
        }
        let service = service_fn(move |request| {
            let edge = Arc::clone(&self);
            async move { Ok::<_, Infallible>(edge.answer(request, port).await) }
        });
        let (stream, patience) = patient(stream);
        let connection = http1::Builder::new()
            .timer(patience)
            .header_read_timeout(IDLE_TIME_MAX)
            .max_headers(HEADER_FIELDS_MAX)
            .max_buf_size(READ_BYTES_MAX)
            .serve_connection(stream, service);
        tokio::pin!(connection);
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut waits = false;
        // The connection is woken far more often than it is stopped: the waker is left with the token once.
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            if (!std::mem::replace(&mut waits, true) || stop.is_cancelled())
                && stopped.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        let ended = match ended.await {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "connection broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>, port: Port) -> Response<Body> {
        if let Err(problem) = self.guard.check(&request) {
            return respond(&problem);
        }
        if let Err(problem) = check_head(request.headers()) {
            return respond(&problem);
        }
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > URI_BYTES_MAX) {
            let detail = "the request's target is longer than 8192 bytes";
            return respond(&Problem::new(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                detail,
                "send a shorter one",
            ));
        }
        match request.uri().path() {
            "/call" if port == Port::Http && request.method() == Method::POST => {
                self.proxy.call(request).await.map(Body::Ready)
            }
            path => match Scope::of(path) {
                Some(scope) => self.endpoint.serve(request, scope).await,
                None => (self.surface)(request, port).await,
            },
        }
    }
}

/// The parser looks at the size of a head between reads only.
fn check_head(headers: &HeaderMap) -> Result<(), Problem<'static>> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEAD_BYTES_MAX {
        let detail = "the headers are larger than 32 KiB";
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Problem::new(status, "head_too_large", detail, "send fewer or shorter headers"));
    }
    Ok(())
}

fn respond(problem: &Problem<'_>) -> Response<Body> {
    let mut response = Response::new(Body::Ready(problem.body().into()));
    *response.status_mut() = problem.status();
    *response.headers_mut() = problem.headers();
    response
}
