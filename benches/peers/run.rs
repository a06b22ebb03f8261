//! The order of a run: who is started, asked in which order, and ended.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

use super::generator::Generator;
use super::message::{Body, Question};
use super::peer::{Kind, Peer, Setting};
use super::process::{self, Process};
use super::report::{self, Decisions, Samples};
use super::{listing, load, typed_proxy, upstream};

/// For the upstream to say that it is there.
const START: Duration = Duration::from_secs(30);

/// Measures what a call costs, side by side on one core.
#[derive(Debug, Parser)]
#[command(name = "peers")]
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
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tiny,1k,64k,1m")]
    body: Vec<Body>,
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,haproxy,nginx,native,wasm,deciders,stdio,rmcp,mcp-proxy,mcp-proxy-stdio"
    )]
    peers: Vec<Kind>,
    /// Another build of the proxy, for the peer `base`.
    #[arg(long, value_name = "PROGRAM")]
    base: Option<PathBuf>,
    /// The program of the crate `mcp-proxy`, for the peers of that name.
    #[arg(long, value_name = "PROGRAM")]
    mcp_proxy: Option<PathBuf>,
    /// Measure `tools/list` only.
    #[arg(long)]
    only_listing: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the program starts itself as.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Upstream {
        #[arg(long)]
        stdio: bool,
    },
    #[command(hide = true)]
    Load { plan: String },
    #[command(hide = true)]
    TypedProxy { upstreams: Vec<u16> },
}

pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.role {
        Some(Role::Upstream { stdio: false }) => upstream::over_http(),
        Some(Role::Upstream { stdio: true }) => upstream::over_stdio(),
        Some(Role::Load { plan }) => load::main(&serde_json::from_str(plan)?),
        Some(Role::TypedProxy { upstreams }) => typed_proxy::main(upstreams),
        None => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(async {
                let mut terminate =
                    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                // Children end when what owns them is dropped; a signal must not leave them behind.
                tokio::select! {
                    done = run(&cli) => done,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                    _ = terminate.recv() => anyhow::bail!("terminated"),
                }
            })
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    ensure!(cli.rounds > 0 && cli.secs > 0.0, "there must be something to measure");
    ensure!(cli.concurrency.iter().all(|c| (1..=1000).contains(c)), "--concurrency: from 1 to 1000");
    if cfg!(debug_assertions) {
        eprintln!("not an optimised build: the figures mean nothing; use `cargo bench`");
    }
    let cores = std::thread::available_parallelism()?.get();
    let core = last_core()?;
    let folder = tempfile::Builder::new().prefix("peers-").tempdir()?;
    let me = std::env::current_exe()?;
    let log = folder.path().join("bench.log");
    let mut upstream = Process::start("the upstream", core, &me, &log, |command| {
        command.arg("upstream");
    })?;
    let ports = upstream.line(START)?;
    let ports = ports.split(' ').map(str::parse).collect::<Result<Vec<u16>, _>>().context("the ports")?;
    println!(
        "{} rounds of {} s; all processes on core {core} of {cores}; load average before {}\n",
        cli.rounds,
        cli.secs,
        process::load_average()
    );
    let setting = Setting {
        core,
        upstreams: &ports,
        folder: folder.path(),
        me: &me,
        base: cli.base.as_deref(),
        mcp_proxy: cli.mcp_proxy.as_deref(),
    };
    let generator = Generator { me: &me, log: &log, core, secs: cli.secs };
    if !cli.only_listing {
        calls(cli, &setting, &generator, &mut upstream).await?;
    }
    if cli.only_listing || cli.peers.contains(&Kind::Native) {
        println!("{}", listing::measure(&setting, &generator, &mut upstream, cli.rounds).await?);
    }
    println!("Load average after: {}.", process::load_average());
    Ok(())
}

async fn calls(
    cli: &Cli,
    setting: &Setting<'_>,
    generator: &Generator<'_>,
    upstream: &mut Process,
) -> anyhow::Result<()> {
    let mut peers = start(cli, setting).await?;
    let mut decisions = Decisions::default();
    for body in &cli.body {
        let question = Question::Call { text_bytes: body.text_bytes() };
        let able = able(&mut peers, upstream, generator, *body).await?;
        ensure!(!able.is_empty(), "nobody is left to measure");
        for concurrency in &cli.concurrency {
            let mut samples = Samples::new(able.iter().map(|index| peers[*index].kind));
            // A B C D, then D C B A: what drifts meets all alike.
            let turns = (0..cli.rounds).flat_map(|round| {
                let last = able.len() - 1;
                (0..=last).map(move |place| if round % 2 == 1 { last - place } else { place })
            });
            for place in turns {
                if samples.is_left_out(place) {
                    continue;
                }
                let peer = &mut peers[able[place]];
                match generator.measure(peer, upstream, question, "", *concurrency).await {
                    Ok(sample) => samples.add(place, sample),
                    Err(error) => {
                        let what =
                            format!("{}, body {}, concurrency {concurrency}", peer.kind.name(), body.name());
                        ensure!(!peer.kind.must_work(), "{what}: {error:#}");
                        println!("Left out: {what}: {error:#}.\n");
                        samples.leave_out(place);
                    }
                }
            }
            println!("{}", report::calls(&samples, *body, *concurrency));
            decisions.add(&samples, *body, *concurrency);
        }
    }
    println!("{decisions}");
    for peer in &peers {
        for fault in peer.plugin_faults().await? {
            println!("Plugins of {}: {fault}.", peer.kind.name());
        }
    }
    Ok(())
}

/// All that can be had; who cannot is left out with a line that says so.
async fn start(cli: &Cli, setting: &Setting<'_>) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in &cli.peers {
        match Peer::start(*kind, setting).await {
            Ok(peer) => peers.push(peer),
            Err(error) if !kind.must_work() => println!("Left out: {}: {error:#}.\n", kind.name()),
            Err(error) => return Err(error),
        }
    }
    Ok(peers)
}

/// The places of those that answer a call of this size.
async fn able(
    peers: &mut [Peer],
    upstream: &mut Process,
    generator: &Generator<'_>,
    body: Body,
) -> anyhow::Result<Vec<usize>> {
    let trial = Generator { secs: 0.1, ..*generator };
    let mut able = Vec::new();
    for (index, peer) in peers.iter_mut().enumerate() {
        let question = Question::Call { text_bytes: body.text_bytes() };
        let tried = trial.measure(peer, upstream, question, "", 1).await;
        let why = match tried {
            Ok(sample) if sample.failures == 0 => {
                able.push(index);
                continue;
            }
            Ok(_) => "it fails calls".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        ensure!(!peer.kind.must_work(), "{}, {}: {why}", peer.kind.name(), body.name());
        println!("Left out with body {}: {}: {why}.\n", body.name(), peer.kind.name());
    }
    Ok(able)
}

/// The last core of the machine, as `/proc/stat` numbers them.
fn last_core() -> anyhow::Result<usize> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let numbers = stat.lines().filter_map(|line| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok());
    numbers.max().context("no core in /proc/stat")
}
