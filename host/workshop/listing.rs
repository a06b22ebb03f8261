//! `plugin ls`: what a running proxy says of its plugins.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::net::TcpStream;

use super::{Verdict, WorkshopError, print, text};
use crate::config::{Config, Overrides};

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address of the proxy's pages [default: that of the proxy that uses the configured data folder, else
    /// http://127.0.0.1:6001]
    #[arg(long, env = "MESHWRIGHT_URL", value_name = "URL")]
    url: Option<String>,
    /// Prints what the proxy answers
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
pub enum ListingError {
    #[error("`{0}` is no address of a proxy; one looks like `http://127.0.0.1:6001`")]
    Url(String),
    #[error(
        "no proxy answers at {url} ({reason}); start one with `meshwright`, or name the address of a running one \
         with `--url`"
    )]
    Unreachable { url: String, reason: String },
    #[error("what answers at {url} is no Meshwright proxy, or one of another release: {reason}")]
    Foreign { url: String, reason: String },
}

/// The part of `GET /plugins` that the table shows; an older or newer proxy may lack or add some.
#[derive(Deserialize)]
struct Listing {
    plugins: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Row {
    name: String,
    version: String,
    kinds: Vec<String>,
    state: String,
    reason: Option<String>,
    generation: u64,
    calls: u64,
    faults: u64,
    p99_us: f64,
    memory_bytes: usize,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let url = args.url.clone().unwrap_or_else(usual_url);
    let body = fetch(&url)?;
    let foreign =
        |error: serde_json::Error| ListingError::Foreign { url: url.clone(), reason: error.to_string() };
    if args.json {
        let raw: &RawValue = serde_json::from_slice(&body).map_err(foreign)?;
        print(&format!("{}\n", raw.get()));
    } else {
        let listing: Listing = serde_json::from_slice(&body).map_err(foreign)?;
        print(&table(&listing));
    }
    Ok(Verdict::Good)
}

fn table(listing: &Listing) -> String {
    let head = ["PLUGIN", "VERSION", "KINDS", "STATE", "GEN", "CALLS", "FAULTS", "P99", "MEMORY", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for plugin in &listing.plugins {
        let in_force = plugin.generation > 0;
        let figure = |text: String| if in_force { text } else { "-".to_owned() };
        let p99 = Duration::try_from_secs_f64(plugin.p99_us / 1e6).unwrap_or_default();
        rows.push(vec![
            plugin.name.clone(),
            plugin.version.clone(),
            plugin.kinds.join(","),
            plugin.state.clone(),
            figure(plugin.generation.to_string()),
            figure(text::thousands(plugin.calls)),
            figure(text::thousands(plugin.faults)),
            figure(if plugin.calls == 0 { "-".into() } else { text::duration(p99) }),
            figure(text::bytes(plugin.memory_bytes)),
            plugin.reason.clone().unwrap_or_default(),
        ]);
    }
    text::table(&rows)
}

/// That of the proxy that wrote `endpoints.json` last, else the usual port.
fn usual_url() -> String {
    #[derive(Deserialize)]
    struct Endpoints {
        http: String,
    }
    let read = |folder: &Path| -> Option<Endpoints> {
        serde_json::from_slice(&std::fs::read(folder.join("endpoints.json")).ok()?).ok()
    };
    let config = Config::load(Overrides::default()).ok();
    let endpoints = config.as_ref().and_then(|config| read(&config.data_dir));
    endpoints.map(|endpoints| endpoints.http).unwrap_or_else(|| {
        config.map_or_else(|| "http://127.0.0.1:6001".into(), |config| format!("http://{}", config.http_addr))
    })
}

fn fetch(url: &str) -> Result<Bytes, ListingError> {
    let uri: Uri = url.parse().map_err(|_| ListingError::Url(url.to_owned()))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| ListingError::Url(url.to_owned()))?;
    let unreachable = |reason: String| ListingError::Unreachable { url: url.to_owned(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, ask(authority.host(), authority.port_u16().unwrap_or(80))).await
    });
    let (status, body) = asked
        .map_err(|_| unreachable(format!("nothing within {} s", PATIENCE.as_secs())))?
        .map_err(|error| unreachable(innermost(&*error)))?;
    if status != StatusCode::OK {
        return Err(ListingError::Foreign {
            url: url.to_owned(),
            reason: format!("it answered with status {}", status.as_u16()),
        });
    }
    Ok(body)
}

type Unanswered = Box<dyn std::error::Error + Send + Sync>;

async fn ask(host: &str, port: u16) -> Result<(StatusCode, Bytes), Unanswered> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/plugins")
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
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
