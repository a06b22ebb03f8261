//! One measurement: a run of the generator, and what the kernel says of everybody meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::load::{Found, Load};
use super::message::Question;
use super::peer::{Kind, Peer};
use super::process::{self, Process};
use super::report::Sample;

/// For the generator to be there and warm.
const START: Duration = Duration::from_secs(60);
/// For a run to end after its time, calls under way included.
const END: Duration = Duration::from_secs(20);

pub struct Generator<'a> {
    pub me: &'a Path,
    pub log: &'a Path,
    pub core: usize,
    pub secs: f64,
}

impl Generator<'_> {
    /// `last_tool`: what an answer to `tools/list` must hold.
    pub async fn measure(
        &self,
        peer: &mut Peer,
        upstream: &mut Process,
        question: Question,
        last_tool: &str,
        concurrency: usize,
    ) -> anyhow::Result<Sample> {
        let is_direct = peer.kind == Kind::Direct;
        let load = Load {
            target: peer.target.clone(),
            question,
            last_tool: last_tool.to_owned(),
            concurrency,
            secs: self.secs,
        };
        let load = serde_json::to_string(&load)?;
        let mut load = Process::start("the generator", self.core, self.me, self.log, |command| {
            command.arg("load").arg(load);
        })?;
        // Waiting for lines blocks this thread; signals are heard between two runs.
        tokio::task::yield_now().await;
        load.line(START).with_context(|| {
            let log = std::fs::read_to_string(self.log).unwrap_or_default();
            log.lines().last().unwrap_or_default().to_owned()
        })?;
        let upstream_before = upstream.cpu_s()?;
        let (load_before, busy_before) = (load.cpu_s()?, process::core_busy_s(self.core)?);
        let children_before = peer.process(upstream).children_cpu_s()?;
        let before = peer.process(upstream).cpu_s()?;
        load.nudge()?;
        let line = load.line(Duration::from_secs_f64(self.secs) + END)?;
        let after = peer.process(upstream).cpu_s()?;
        let children_s = peer.process(upstream).children_cpu_s()? - children_before;
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
        let ours_s = own_s + children_s + load_s + if is_direct { 0.0 } else { upstream_s };
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
