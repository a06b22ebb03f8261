//! Builds the house and runs it: alone knows every room, owns the tasks and the shutdown.

mod banner;
mod conditions;
mod configuration;
mod doors;
mod tasks;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::clock;
use crate::config::{Config, Overrides};
use crate::edge::{self, BindError, Bound, Edge, Ends, Guard, Port, Workers};
use crate::endpoint::Endpoint;
use crate::http::{own_tools, surface};
use crate::plugin;
use crate::prober::Prober;
use crate::process::LaunchLoop;
use crate::proxy::{self, Mirroring, Proxy};
use crate::registry::{Registry, Settings};
use crate::store::Store;
use crate::supervisor;
use crate::telemetry::account::{Accountant, StatsFile};
use crate::telemetry::alerts::Alerting;
use crate::telemetry::events::EventLog;
use crate::telemetry::journal::Journal;
use crate::telemetry::meters::Metering;
use crate::worker;
use configuration::{Reload, Standing};
use doors::{open_plugins, pages, recorder, unsaved};

/// Events that may wait to be logged.
const EVENTS: usize = 4096;
/// Records of finished calls that may wait for meters.
const FINISHED: usize = 32 << 10;
/// How long new connections are still taken after `/readyz` said that the proxy stops, when calls are under way.
const GRACE: Duration = Duration::from_secs(2);
/// How long the banner waits for children; the proxy serves meanwhile.
const BANNER_WAITS: Duration = Duration::from_secs(1);
/// How long children have to end: 15 s until the last one and what it started were killed, and 5 s more. Only the system
/// keeps a process longer, such as one that waits for a disk that is gone.
const CHILDREN_END: Duration = Duration::from_secs(20);
/// How long the last answers have to be written.
const LAST_WRITES: Duration = Duration::from_millis(100);

/// Sends the log to standard error: `MESHWRIGHT_LOG` says how much, `usual` unless set.
pub fn log_to_stderr(usual: &str) {
    let filter = EnvFilter::try_from_env("MESHWRIGHT_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

/// Whether an error of [`serve`] is the configuration's fault.
pub fn is_bad_configuration(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<BindError>(), Some(BindError::Exposed { .. }))
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What keeps it from starting, for people.
pub fn serve(overrides: Overrides, config: Config) -> anyhow::Result<()> {
    clock::mono();
    // Control tasks share the pool behind the workers' own.
    let control = config.workers;
    worker::set(control);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .on_thread_start(move || worker::set(control))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run(overrides, config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

#[derive(Serialize)]
struct Endpoints {
    http: String,
    mcp: String,
}

async fn run(overrides: Overrides, config: Config) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let mcp = edge::bind(config.mcp_addr, "--mcp-addr", "MESHWRIGHT_MCP_ADDR")?;
    let http = edge::bind(config.http_addr, "--http-addr", "MESHWRIGHT_HTTP_ADDR")?;
    let (store, mut kept) = Store::open(&config.data_dir)?;
    // Not before the folder is ours: it may be another's.
    remove_endpoints(&config.data_dir);
    if let Some(repaired) = &kept.repaired {
        tracing::error!("{repaired}; heartbeats rebuild the registry");
    }
    let kept_instances = kept.instances.len();
    let (memories, rulings) = (std::mem::take(&mut kept.memories), std::mem::take(&mut kept.rulings));
    let restored = std::mem::take(&mut kept.alerts);

    let (events, events_queue) = mpsc::channel(EVENTS);
    let launcher = tasks::launch_programs(&config.data_dir)?;
    let settings = Settings {
        lease: config.lease,
        workers: config.workers,
        events: events.clone(),
        exposures: Arc::new(config.exposures()),
        instances: config.instances.clone(),
        launcher,
        limits: doors::instance_limits(&config),
    };
    let (registry, registry_task) = Registry::restore(settings, store.clone(), kept);
    let (children, supervisor) = supervisor::Task::new(supervisor::Settings {
        registry: registry.clone(),
        events: events.clone(),
        services: doors::children(&config),
    });
    let (finished, finished_queue) = mpsc::channel(FINISHED);
    let (copies, copies_queue) = mpsc::channel(proxy::COPIES_WAITING_MAX);
    let tracker = TaskTracker::new();
    let proxy = Proxy::new(
        registry.clone(),
        config.calls,
        config.limits,
        config.body_bytes_max,
        finished,
        copies,
        tracker.clone(),
    );
    let proxy = Arc::new(proxy);
    let journal: Arc<Journal> = Arc::default();
    let recorder = recorder(&journal, &registry);
    let built = Arc::new(Notify::new());
    let wake = Arc::clone(&built);
    let built_some: plugin::Wake = Arc::new(move || wake.notify_one());
    let plugins = open_plugins(&config, memories, rulings, events.clone(), recorder, built_some)?;
    let plugins = Arc::new(plugins);

    let stop = CancellationToken::new();
    tracker.spawn(registry_task.run(stop.clone()));
    tracker.spawn(supervisor.run(stop.clone()));
    let (watcher, look) = tasks::reload_plugins(&config, &plugins, built, &registry, &tracker, &stop).await?;
    tasks::keep_plans(&registry, &tracker, &stop);

    let event_log = EventLog::default();
    tracker.spawn(event_log.clone().run(events_queue, stop.clone()));
    let standing = Standing::new(config.clone());
    let (ask_to_read, asked) = mpsc::channel(tasks::ASKED);
    let plugins_shown = (&plugins, look.clone());
    let configure = doors::configure(&overrides, &standing, ask_to_read);
    let pages =
        pages(&config, &standing, configure, &registry, &proxy, plugins_shown, &journal, &store, &children);
    let reload = Reload {
        overrides,
        standing: Arc::clone(&standing),
        registry: registry.clone(),
        plugins: Arc::clone(&plugins),
        look,
        asked,
        children: children.clone(),
        events,
        tracker: tracker.clone(),
    };
    tracker.spawn(reload.run(stop.clone()));
    let metering = Metering {
        registry: registry.clone(),
        proxy: Arc::clone(&proxy),
        calls: finished_queue,
        readings: Arc::clone(&pages.readings),
        journal,
    };
    let alerting = Alerting {
        registry: registry.clone(),
        plugins: Arc::clone(&pages.plugins),
        conditions: conditions::conditions(&children, &registry, &pages.plugins),
        events: event_log,
        alerts: Arc::clone(&pages.alerts),
        store: store.clone(),
        restored,
    };
    tracker.spawn(metering.run(stop.clone()));
    let mirroring = Mirroring { proxy: Arc::clone(&proxy), queue: copies_queue, book: pages.mirrors.clone() };
    tracker.spawn(mirroring.run(stop.clone()));
    let alert = stop.child_token();
    tracker.spawn(alerting.run(alert.clone()));
    tracker.spawn(Prober::new(registry.clone(), config.probes, config.calls).run(stop.clone()));
    let accounting = CancellationToken::new();
    let books = TaskTracker::new();
    books.spawn(Accountant::new(registry.clone(), store.clone(), unsaved(&plugins)).run(accounting.clone()));
    if let Some(path) = &config.stats_file {
        books.spawn(StatsFile::new(registry.clone(), path.clone()).run(accounting.clone()));
    }
    books.close();

    let endpoints =
        Endpoints { http: format!("http://{}", http.address), mcp: format!("http://{}/mcp", mcp.address) };
    let guard = Guard::new(&[mcp.address, http.address], &config.allowed_hosts, &config.allowed_origins);
    let draining = Arc::clone(&pages.draining);
    let ends = Ends::default();
    let endpoint = Arc::new(Endpoint::new(
        Arc::clone(&proxy),
        registry.clone(),
        own_tools(pages.clone()),
        config.sessions,
        tracker.clone(),
        ends.last_request.clone(),
    ));
    tracker.spawn(Arc::clone(&endpoint).sweep(stop.clone()));
    let edge = Arc::new(Edge {
        guard,
        proxy: Arc::clone(&proxy),
        endpoint: Arc::clone(&endpoint),
        surface: surface(pages),
    });
    let workers = Workers::start(config.workers, &edge, &ends, plugin::set_worker)
        .context("cannot start the workers")?;
    let workers = Arc::new(workers);
    let accepting = CancellationToken::new();
    accept(mcp, Port::Mcp, &workers, &accepting, &tracker)?;
    accept(http, Port::Http, &workers, &accepting, &tracker)?;
    write_endpoints(&config.data_dir, &endpoints)?;
    // Nobody waits for slow ones; what comes up at once is shown as it is.
    tokio::time::timeout(BANNER_WAITS, children.settled()).await.ok();
    banner::print(
        &config,
        &registry.snapshot(),
        &children.all(),
        kept_instances,
        &plugins.status(),
        &endpoints.http,
        &endpoints.mcp,
    );

    signals.wait(&config.data_dir).await;
    alert.cancel();
    drain(&proxy, &draining, &accepting, &ends, config.calls.drain).await;
    drop(edge);
    if let Some(workers) = Arc::into_inner(workers) {
        let joined = tokio::task::spawn_blocking(move || workers.join());
        if tokio::time::timeout(Duration::from_secs(2), joined).await.is_err() {
            tracing::warn!("some workers did not end in time");
        }
    }
    endpoint.close_all();
    tokio::join!(children.stop_all(CHILDREN_END), stop_processes(&registry));
    stop.cancel();
    drop(watcher);
    tracker.close();
    if tokio::time::timeout(Duration::from_secs(5), tracker.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    // Last, when no call can end any more: what was answered is counted.
    accounting.cancel();
    books.wait().await;
    store.stop().await;
    LaunchLoop::reap_all(&config.data_dir);
    tracing::info!("stopped");
    Ok(())
}

/// Ends the processes that the supervisor does not know, all at once.
async fn stop_processes(registry: &Registry) {
    let snapshot = registry.snapshot();
    let peers = snapshot.instances().map(|instance| Arc::clone(&instance.peer));
    futures_util::future::join_all(peers.map(|peer| async move { peer.stop().await })).await;
}

fn accept(
    bound: Bound,
    port: Port,
    workers: &Arc<Workers>,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(bound.listener).context("cannot listen")?;
    let (workers, stop) = (Arc::clone(workers), stop.clone());
    tracker.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
            };
            match accepted {
                Ok(stream) => workers.take(stream, port).await,
                Err(error) => {
                    // Out of files or memory: what is open goes on, and the next try comes when some may be free.
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

/// Written whole, so that whoever waits for the file never reads half of it.
fn write_endpoints(folder: &Path, endpoints: &Endpoints) -> anyhow::Result<()> {
    let fresh = folder.join("endpoints.json.tmp");
    std::fs::write(&fresh, serde_json::to_vec(endpoints)?).context("cannot write `endpoints.json`")?;
    std::fs::rename(&fresh, folder.join("endpoints.json")).context("cannot write `endpoints.json`")
}

/// What the last run wrote must not lead anybody to where nobody listens.
fn remove_endpoints(folder: &Path) {
    match std::fs::remove_file(folder.join("endpoints.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = %error, "cannot remove the old `endpoints.json`");
        }
        _ => {}
    }
}

/// SIGTERM, SIGINT, and SIGHUP, which the end of a terminal sends: heard from the start on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Waits for the first; a second one ends the process at once, and all that it has started.
    async fn wait(mut self, folder: &Path) {
        self.next().await;
        let folder = folder.to_owned();
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second signal, stopping at once");
            // Children die with this process, but not what they have started.
            LaunchLoop::kill_all(&folder);
            std::process::exit(130);
        });
    }
}

/// Says that the proxy stops; a moment later takes no more connections, and no more requests on those there are;
/// then waits for the calls that are under way.
async fn drain(
    proxy: &Proxy,
    draining: &AtomicBool,
    accepting: &CancellationToken,
    ends: &Ends,
    at_most: Duration,
) {
    draining.store(true, Ordering::Relaxed);
    tracing::info!(calls = proxy.in_flight(), "stopping");
    let started = tokio::time::Instant::now();
    idle(proxy, GRACE.min(at_most)).await;
    accepting.cancel();
    ends.last_request.cancel();
    if !idle(proxy, at_most.saturating_sub(started.elapsed())).await {
        tracing::warn!(calls = proxy.in_flight(), "calls did not end in time and are cut");
    }
    // Answers that are being written have a moment more.
    tokio::time::sleep(LAST_WRITES).await;
    ends.cut.cancel();
}

/// Whether no call is under way, within `limit`.
async fn idle(proxy: &Proxy, limit: Duration) -> bool {
    let idle = async {
        while proxy.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, idle).await.is_ok()
}
