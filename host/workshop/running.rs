//! A running proxy, asked over HTTP.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::config::{Overrides, Whereabouts};

/// Longer than a plugin takes that is compiled anew.
const PATIENCE: Duration = Duration::from_secs(150);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Where {
    /// Address of the proxy's pages [default: that of the proxy that uses the configured data folder, else
    /// `server.http_addr`]
    #[arg(long, env = "MESHWRIGHT_URL", value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Error)]
pub enum RunningError {
    #[error("`{0}` is no address of a proxy; one looks like `http://127.0.0.1:6001`")]
    Url(String),
    #[error(
        "no proxy answers at {url} ({reason}); start one with `meshwright`, or name the address of a running one \
         with `--url`"
    )]
    Unreachable { url: String, reason: String },
    #[error("what answers at {url} is no Meshwright proxy, or one of another release: {reason}")]
    Foreign { url: String, reason: String },
    #[error("{detail}; {hint}")]
    NotFound { detail: String, hint: String },
    #[error("the proxy refused: {detail}; {hint}")]
    Refused { detail: String, hint: String },
}

/// A proxy at its address.
pub struct Running {
    url: String,
    /// Why it may be elsewhere.
    doubt: Option<String>,
}

impl Running {
    pub fn at(place: &Where) -> Self {
        place.url.clone().map_or_else(Self::usual, |url| Self { url, doubt: None })
    }

    /// That of the proxy that wrote `endpoints.json` last, else where the configuration says.
    fn usual() -> Self {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        // No proxy starts with one that is no address, so none is there.
        let http_addr =
            named("MESHWRIGHT_HTTP_ADDR").and_then(|address| address.to_str()?.parse::<SocketAddr>().ok());
        let overrides = Overrides {
            file: named("MESHWRIGHT_CONFIG").map(PathBuf::from),
            data_dir: named("MESHWRIGHT_DATA_DIR").map(PathBuf::from),
            http_addr,
            ..Overrides::default()
        };
        match Whereabouts::of(overrides) {
            Ok(Whereabouts { data_dir, http_addr, flaw }) => Self {
                url: written(&data_dir).unwrap_or_else(|| format!("http://{http_addr}")),
                doubt: flaw.map(|flaw| flaw.in_a_line()),
            },
            Err(error) => Self { url: "http://127.0.0.1:6001".to_owned(), doubt: Some(error.in_a_line()) },
        }
    }

    /// # Errors
    /// There is no such proxy.
    pub fn get(&self, path: &str) -> Result<Bytes, RunningError> {
        self.fetch(Method::GET, path, Bytes::new())
    }

    /// # Errors
    /// There is no such proxy, or it refuses.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, RunningError> {
        let body = serde_json::to_vec(body).expect("bodies have string keys");
        self.fetch(Method::POST, path, body.into())
    }

    pub fn foreign(&self, reason: impl ToString) -> RunningError {
        RunningError::Foreign { url: self.url.clone(), reason: reason.to_string() }
    }

    fn fetch(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, RunningError> {
        let url = &self.url;
        let uri: Uri = url.parse().map_err(|_| RunningError::Url(url.clone()))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(|| RunningError::Url(url.clone()))?;
        let unreachable = |reason: String| {
            let reason = match &self.doubt {
                Some(why) => format!("{reason}; perhaps it is elsewhere, as {why}"),
                None => reason,
            };
            RunningError::Unreachable { url: url.clone(), reason }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| RunningError::Url(url.clone()))?;
        let asked =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(host, port, request)).await });
        let (status, body) = asked
            .map_err(|_| unreachable(format!("nothing within {} s", PATIENCE.as_secs())))?
            .map_err(|error| unreachable(innermost(&*error)))?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice(&body) {
            Ok(Problem { detail, hint }) if status == StatusCode::NOT_FOUND => {
                Err(RunningError::NotFound { detail, hint })
            }
            Ok(Problem { detail, hint }) => Err(RunningError::Refused { detail, hint }),
            Err(_) => Err(self.foreign(format!("it answered with status {}", status.as_u16()))),
        }
    }
}

/// The part of a problem that people read.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    hint: String,
}

/// The address that a running proxy left in its data folder; `None` where none did.
fn written(data_dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Endpoints {
        http: String,
    }
    let text = std::fs::read(data_dir.join("endpoints.json")).ok()?;
    serde_json::from_slice(&text).ok().map(|Endpoints { http }| http)
}

type Unanswered = Box<dyn std::error::Error + Send + Sync>;

async fn ask(
    host: &str,
    port: u16,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Unanswered> {
    let connected = TcpStream::connect((host.trim_matches(['[', ']']), port));
    let stream = tokio::time::timeout(CONNECT_PATIENCE, connected).await??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here, beside the exchange, and ends with it.
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}
