//! A closed loop: each connection sends its next call when the answer to the last one has come and was checked.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::message::{self, Question, Target};

/// How long calls that are under way at the end may take.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a failure, so that a peer that is down is not flooded.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Load {
    pub target: Target,
    pub question: Question,
    /// What an answer to `tools/list` must hold, last of all.
    pub last_tool: String,
    pub concurrency: usize,
    pub secs: f64,
}

impl Load {
    /// Calls of each connection before anything is measured: fewer of what is dear.
    fn warm_up_calls(&self) -> usize {
        match self.question {
            Question::Call { text_bytes } => ((256 << 10) / text_bytes).clamp(1, 16),
            Question::List => 8,
        }
    }
}

/// What a run found.
#[derive(Debug, Deserialize, Serialize)]
pub struct Found {
    /// Calls that were answered as they should be.
    pub calls: u64,
    pub failures: u64,
    /// One failure, for people.
    pub failure: Option<String>,
    pub elapsed_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Prints `ready` when all connections are open and warm, starts at the next line of standard input, and prints
/// [`Found`] as a line of JSON at the end.
pub fn main(load: &Load) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(run(load))?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

async fn run(load: &Load) -> anyhow::Result<Found> {
    let (go, started) = watch::channel(None);
    let mut connections = JoinSet::new();
    let warm = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    for index in 0..load.concurrency {
        let port = load.target.ports[index % load.target.ports.len()];
        let text = match load.question {
            Question::Call { text_bytes } => message::text(index, text_bytes),
            Question::List => load.last_tool.clone(),
        };
        let caller = Caller {
            port,
            uri: Uri::try_from(&load.target.path)?,
            headers: load.target.headers(port, load.question),
            body: load.target.body(load.question, index, &text),
            text,
            question: load.question,
            warm_up_calls: load.warm_up_calls(),
            tally: Tally::default(),
        };
        connections.spawn(caller.run(started.clone(), std::sync::Arc::clone(&warm)));
    }
    let all = u32::try_from(load.concurrency)?;
    let all_warm = tokio::time::timeout(GRACE, warm.acquire_many(all)).await;
    drop(all_warm.with_context(|| format!("its first calls take more than {GRACE:?}"))??);
    println!("ready");
    std::io::stdout().flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;

    let start = Instant::now();
    let end = start + Duration::from_secs_f64(load.secs);
    go.send(Some(end))?;
    let mut sum = Tally::default();
    let finish = async {
        while let Some(tally) = connections.join_next().await {
            sum.add(&tally?);
        }
        anyhow::Ok(())
    };
    let in_time = tokio::time::timeout_at((end + GRACE).into(), finish).await;
    let elapsed_s = start.elapsed().as_secs_f64();
    match in_time {
        Ok(done) => done?,
        Err(_) => {
            sum.fail(format!("{} connections got no answer", connections.len()));
            sum.failures += connections.len() as u64 - 1;
        }
    }
    Ok(Found {
        calls: sum.calls,
        failures: sum.failures,
        failure: sum.failure.clone(),
        elapsed_s,
        p50_us: sum.latencies.quantile(0.5) / 1e3,
        p99_us: sum.latencies.quantile(0.99) / 1e3,
    })
}

/// One connection.
struct Caller {
    port: u16,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    text: String,
    question: Question,
    warm_up_calls: usize,
    tally: Tally,
}

type Started = watch::Receiver<Option<Instant>>;

impl Caller {
    async fn run(mut self, mut started: Started, warm: std::sync::Arc<tokio::sync::Semaphore>) -> Tally {
        let mut calls_left = self.warm_up_calls;
        let mut end = None;
        let mut is_warm = false;
        loop {
            let before = self.tally.failures;
            self.on_one_connection(&mut started, &warm, &mut calls_left, &mut end, &mut is_warm).await;
            if end.is_some_and(|end| Instant::now() >= end) {
                return self.tally;
            }
            if self.tally.failures > before {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Calls until the end or the first failure.
    async fn on_one_connection(
        &mut self,
        started: &mut Started,
        warm: &tokio::sync::Semaphore,
        calls_left: &mut usize,
        end: &mut Option<Instant>,
        is_warm: &mut bool,
    ) {
        let stream = match TcpStream::connect(("127.0.0.1", self.port)).await {
            Ok(stream) => stream,
            Err(error) => return self.tally.fail(format!("cannot connect: {error}")),
        };
        if let Err(error) = stream.set_nodelay(true) {
            return self.tally.fail(error.to_string());
        }
        let (mut sender, connection) = match http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await {
            Ok(both) => both,
            Err(error) => return self.tally.fail(error.to_string()),
        };
        let work = async {
            while *calls_left > 0 {
                if let Err(failure) = self.call(&mut sender).await {
                    return self.tally.fail(failure);
                }
                *calls_left -= 1;
            }
            if !std::mem::replace(is_warm, true) {
                // What went before is not measured.
                self.tally = Tally::default();
                warm.add_permits(1);
                let Ok(at) = started.wait_for(Option::is_some).await else { return };
                *end = *at;
            }
            let Some(end) = *end else { return };
            let mut last = Instant::now();
            while last < end {
                match self.call(&mut sender).await {
                    Ok(()) => {
                        let now = Instant::now();
                        self.tally.calls += 1;
                        self.tally.latencies.record(now - last);
                        last = now;
                    }
                    Err(failure) => return self.tally.fail(failure),
                }
            }
        };
        // Driven by the same task; an error of the connection reaches `work` through its call.
        let mut connection = std::pin::pin!(connection);
        let mut work = std::pin::pin!(work);
        let mut closed = false;
        std::future::poll_fn(|cx| {
            if work.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
            if !closed {
                closed = connection.as_mut().poll(cx).is_ready();
            }
            work.as_mut().poll(cx)
        })
        .await;
    }

    async fn call(&self, sender: &mut http1::SendRequest<Full<Bytes>>) -> Result<(), String> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        if status != StatusCode::OK {
            let body: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            return Err(format!("{status}: {body}"));
        }
        // The first bytes, the number of the connection, find the place; the whole text must stand there. What a list
        // must hold stands at its end.
        let text = self.text.as_bytes();
        let at = match self.question {
            Question::Call { .. } => memmem::find(&body, &text[..6]),
            Question::List => memmem::rfind(&body, text),
        };
        let at = at.ok_or_else(|| {
            let body: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            format!("not the answer to this request: {body}")
        })?;
        if body[at..].starts_with(text) { Ok(()) } else { Err("the text changed".to_owned()) }
    }
}

#[derive(Default)]
struct Tally {
    calls: u64,
    failures: u64,
    failure: Option<String>,
    latencies: Latencies,
}

impl Tally {
    fn fail(&mut self, failure: String) {
        self.failures += 1;
        self.failure.get_or_insert(failure);
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
        for (sum, count) in self.latencies.0.iter_mut().zip(&other.latencies.0) {
            *sum += count;
        }
    }
}

/// 32 buckets an octave of nanoseconds: quantiles are at most 3 % off.
struct Latencies(Box<[u64]>);

const SUB_BITS: u32 = 5;
/// Up to 2³⁷ ns, two minutes.
const BUCKETS: usize = (38 - SUB_BITS as usize) << SUB_BITS;

impl Default for Latencies {
    fn default() -> Self {
        Self(vec![0; BUCKETS].into())
    }
}

impl Latencies {
    fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1 << SUB_BITS);
        let shift = nanos.ilog2() - SUB_BITS;
        let bucket = ((u64::from(shift) << SUB_BITS) + (nanos >> shift)) as usize - (1 << SUB_BITS);
        self.0[bucket.min(BUCKETS - 1)] += 1;
    }

    /// In nanoseconds, the middle of the bucket.
    fn quantile(&self, q: f64) -> f64 {
        let count: u64 = self.0.iter().sum();
        let rank = ((count as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.0.iter().position(|in_bucket| {
            below += in_bucket;
            below >= rank
        });
        bucket.map_or(0.0, |bucket| {
            let (octave, sub) = (bucket >> SUB_BITS, bucket & ((1 << SUB_BITS) - 1));
            (((1 << SUB_BITS) + sub) as f64 + 0.5) * f64::from(1_u32 << octave.min(31))
        })
    }
}
