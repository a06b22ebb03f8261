//! Who is measured, and what it takes for each to be there and ready.

mod meshwright;
mod others;
mod session;

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;

use super::message::Target;
use super::process::Process;

pub use meshwright::Api;

/// For a peer to be there and ready.
const START: Duration = Duration::from_secs(30);
/// What makes this program an upstream on standard input and output.
const UPSTREAM_ARGS: [&str; 2] = ["upstream", "--stdio"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The upstream, without anything between.
    Direct,
    Haproxy,
    Nginx,
    /// The proxy with all plugins disabled.
    Native,
    /// The proxy with its default plugins and two rules.
    Wasm,
    /// Like `wasm`, with nothing but the router and the balancer.
    Deciders,
    /// Like `native`, with the upstream as a process that it starts and speaks to on standard input and output.
    Stdio,
    /// Another build of the proxy, like `native`.
    Base,
    /// A proxy of typed messages, on the official SDK.
    Rmcp,
    /// The crate of that name.
    McpProxy,
    /// The same, with the upstream as `stdio` has it.
    McpProxyStdio,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Native => "native",
            Self::Wasm => "wasm",
            Self::Deciders => "deciders",
            Self::Stdio => "stdio",
            Self::Base => "base",
            Self::Rmcp => "rmcp",
            Self::McpProxy => "mcp-proxy",
            Self::McpProxyStdio => "mcp-proxy-stdio",
        }
    }

    /// Without these there is nothing to report; the others are company.
    pub const fn must_work(self) -> bool {
        !matches!(self, Self::Haproxy | Self::Nginx | Self::Rmcp | Self::McpProxy | Self::McpProxyStdio)
    }
}

/// What peers are started with.
#[derive(Debug)]
pub struct Setting<'a> {
    pub core: usize,
    pub upstreams: &'a [u16],
    pub folder: &'a Path,
    /// This program, which is some of the peers.
    pub me: &'a Path,
    pub base: Option<&'a Path>,
    pub mcp_proxy: Option<&'a Path>,
}

pub struct Peer {
    pub kind: Kind,
    pub target: Target,
    /// `None` for the upstream, which is everybody's.
    process: Option<Process>,
}

impl Peer {
    pub async fn start(kind: Kind, setting: &Setting<'_>) -> anyhow::Result<Self> {
        match kind {
            Kind::Direct => Ok(Self { kind, target: Target::upstream(setting.upstreams), process: None }),
            Kind::Haproxy => others::haproxy(setting).await,
            Kind::Nginx => others::nginx(setting).await,
            Kind::Rmcp => others::rmcp(setting),
            Kind::McpProxy | Kind::McpProxyStdio => others::mcp_proxy(kind, setting).await,
            Kind::Native | Kind::Wasm | Kind::Deciders | Kind::Stdio | Kind::Base => {
                meshwright::start(kind, setting).await
            }
        }
    }

    /// The proxy without plugins and without services.
    pub async fn empty(setting: &Setting<'_>) -> anyhow::Result<(Self, Api)> {
        meshwright::empty(setting).await
    }

    pub fn process<'a>(&'a mut self, upstream: &'a mut Process) -> &'a mut Process {
        self.process.as_mut().unwrap_or(upstream)
    }

    /// Complaints about plugins that did not decide what they were asked; empty when all is well.
    pub async fn plugin_faults(&self) -> anyhow::Result<Vec<String>> {
        match self.kind {
            Kind::Wasm | Kind::Deciders => meshwright::plugin_faults(self.target.ports[0]).await,
            _ => Ok(Vec::new()),
        }
    }
}

/// Asks until there is an answer.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> anyhow::Result<T> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not within {START:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where a program is on `PATH`, or where daemons are that are not on everybody's.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow::anyhow!("there is no `{program}` on PATH"))
}
