//! The order of a run: who is started, asked in which order, and ended.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

use super::load::{self, Found, Load};
use super::message::Body;
use super::peer::{self, Kind, Peer};
use super::process::{self, Process};
use super::report::{Sample, Samples};
use super::upstream;

/// For a child to say that it is there.
const START: Duration = Duration::from_secs(30);
/// For a run to end after its time, calls under way included.
const END: Duration = Duration::from_secs(20);

/// Measures what a call costs, side by side on one core.
#[derive(Debug, Parser)]
#[command(name = "call_path")]
struct Cli {
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Each round measures every peer once, in alternating order.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one measurement.
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Connections that call at once.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128")]
    concurrency: Vec<usize>,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tiny,1k,64k")]
    body: Vec<Body>,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "direct,haproxy,native,wasm")]
    peers: Vec<Kind>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the program starts itself as.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Upstream,
    #[command(hide = true)]
    Load(Load),
}

pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.role {
        Some(Role::Upstream) => upstream::main(),
        Some(Role::Load(load)) => load::main(load),
        None => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(async {
                let mut terminate =
                    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                // Children end when what owns them is dropped; a signal must not leave them behind.
                tokio::select! {
                    done = compare(&cli) => done,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                    _ = terminate.recv() => anyhow::bail!("terminated"),
                }
            })
        }
    }
}

async fn compare(cli: &Cli) -> anyhow::Result<()> {
    ensure!(cli.rounds > 0 && cli.secs > 0.0, "there must be something to measure");
    ensure!(cli.concurrency.iter().all(|c| (1..=1000).contains(c)), "--concurrency: from 1 to 1000");
    if cfg!(debug_assertions) {
        eprintln!("not an optimised build: the figures mean nothing; use `cargo bench`");
    }
    let cores = std::thread::available_parallelism()?.get();
    let core = last_core()?;
    let folder = tempfile::Builder::new().prefix("call-path-").tempdir()?;
    let me = std::env::current_exe()?;
    let log = folder.path().join("bench.log");

    let mut upstream = Process::start("the upstream", core, &me, &log, |command| {
        command.arg("upstream");
    })?;
    let ports = upstream.line(START)?;
    let ports = ports.split(' ').map(str::parse).collect::<Result<Vec<u16>, _>>().context("the ports")?;
    let mut peers = Vec::new();
    for kind in &cli.peers {
        peers.push(match kind {
            Kind::Direct => Peer::direct(&ports),
            Kind::Haproxy => match peer::find("haproxy") {
                Some(program) => Peer::haproxy(&program, core, &ports, folder.path())?,
                None => {
                    println!("haproxy is not on PATH and is left out.\n");
                    continue;
                }
            },
            _ => Peer::meshwright(*kind, core, &ports, folder.path()).await?,
        });
    }
    println!(
        "{} rounds of {} s; all processes on core {core} of {cores}; load average before {}\n",
        cli.rounds,
        cli.secs,
        process::load_average()
    );

    let generator = Generator { program: &me, log: &log, core, secs: cli.secs };
    for body in &cli.body {
        for concurrency in &cli.concurrency {
            let mut samples = Samples::new(&peers);
            for round in 0..cli.rounds {
                // A B C D, then D C B A: what drifts meets all alike.
                let mut order: Vec<usize> = (0..peers.len()).collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for index in order {
                    let measured =
                        generator.measure(&mut peers[index], &mut upstream, *body, *concurrency).await;
                    let kind = peers[index].kind.name();
                    let sample =
                        measured.with_context(|| format!("{kind}, {}, {concurrency}", body.name()))?;
                    samples.add(index, sample);
                }
            }
            println!("{}", samples.table(*body, *concurrency));
        }
    }
    println!("Load average after: {}.", process::load_average());
    for peer in &peers {
        for fault in peer.plugin_faults().await? {
            println!("Plugins of {}: {fault}.", peer.kind.name());
        }
    }
    Ok(())
}

struct Generator<'a> {
    program: &'a Path,
    log: &'a Path,
    core: usize,
    secs: f64,
}

impl Generator<'_> {
    async fn measure(
        &self,
        peer: &mut Peer,
        upstream: &mut Process,
        body: Body,
        concurrency: usize,
    ) -> anyhow::Result<Sample> {
        let ports: Vec<String> = peer.ports.iter().map(u16::to_string).collect();
        let (form, is_direct) = (peer.form, peer.kind == Kind::Direct);
        let mut load = Process::start("the generator", self.core, self.program, self.log, |command| {
            command
                .args(["load", "--ports", &ports.join(","), "--form", form.name()])
                .args(["--text-bytes", &body.text_bytes().to_string()])
                .args(["--concurrency", &concurrency.to_string()])
                .args(["--secs", &self.secs.to_string()]);
        })?;
        // Waiting for lines blocks this thread; signals are heard between two runs.
        tokio::task::yield_now().await;
        load.line(START).with_context(|| std::fs::read_to_string(self.log).unwrap_or_default())?;
        let upstream_before = upstream.cpu_s()?;
        let (load_before, busy_before) = (load.cpu_s()?, process::core_busy_s(self.core)?);
        let before = peer.process(upstream).cpu_s()?;
        load.nudge()?;
        let line = load.line(Duration::from_secs_f64(self.secs) + END)?;
        let after = peer.process(upstream).cpu_s()?;
        let busy_s = process::core_busy_s(self.core)? - busy_before;
        let upstream_s = upstream.cpu_s()? - upstream_before;
        // Gone already when it was quick to end; its own share is then missing from the difference.
        let load_s = load.cpu_s().map_or(0.0, |now| now - load_before);
        let found: Found = serde_json::from_str(&line).context("what the generator found")?;
        let process = peer.process(upstream);
        process.ensure_alive()?;
        if let Some(failure) = &found.failure {
            eprintln!("{} failures, such as: {failure}", found.failures);
        }
        let own_s = after - before;
        let ours_s = own_s + load_s + if is_direct { 0.0 } else { upstream_s };
        Ok(Sample {
            cpu_us: own_s * 1e6 / (found.calls + found.failures).max(1) as f64,
            calls_per_s: found.calls as f64 / found.elapsed_s,
            p50_us: found.p50_us,
            p99_us: found.p99_us,
            failures: found.failures,
            rss_mib: process.rss_mib()?,
            others_percent: ((busy_s - ours_s) / found.elapsed_s * 100.0).clamp(0.0, 100.0),
        })
    }
}

/// The last core of the machine, as `/proc/stat` numbers them.
fn last_core() -> anyhow::Result<usize> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let numbers = stat.lines().filter_map(|line| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok());
    numbers.max().context("no core in /proc/stat")
}
