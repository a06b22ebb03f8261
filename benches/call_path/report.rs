//! What the rounds found, as Markdown.

use std::fmt::Write as _;

use super::message::Body;
use super::peer::{Kind, Peer};

/// One measurement of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub cpu_us: f64,
    pub calls_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub failures: u64,
    pub rss_mib: f64,
    /// What processes of other people took of the core.
    pub others_percent: f64,
}

/// The measurements of all peers at one body and concurrency; the same round has the same place in each list.
pub struct Samples {
    peers: Vec<(Kind, Vec<Sample>)>,
}

impl Samples {
    pub fn new(peers: &[Peer]) -> Self {
        Self { peers: peers.iter().map(|peer| (peer.kind, Vec::new())).collect() }
    }

    pub fn add(&mut self, peer: usize, sample: Sample) {
        self.peers[peer].1.push(sample);
    }

    fn of(&self, wanted: Kind) -> Option<&[Sample]> {
        self.peers.iter().find(|(kind, _)| *kind == wanted).map(|(_, samples)| samples.as_slice())
    }

    pub fn table(&self, body: Body, concurrency: usize) -> String {
        let mut out = format!(
            "### Body {}, concurrency {concurrency}\n\n\
             | peer | CPU µs per call | CPU ÷ haproxy | calls/s | calls/s ÷ direct | p50 µs | p50 ÷ haproxy | p99 µs | \
             p99 ÷ haproxy | failures | RSS MiB | others % |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
            body.name()
        );
        let haproxy = self.of(Kind::Haproxy);
        let direct = self.of(Kind::Direct);
        for (kind, samples) in &self.peers {
            let is_direct = *kind == Kind::Direct;
            let to_haproxy = haproxy.filter(|_| *kind != Kind::Haproxy && !is_direct);
            let to_direct = direct.filter(|_| !is_direct);
            let failures: u64 = samples.iter().map(|sample| sample.failures).sum();
            // Writing to a string cannot fail.
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {failures} | {} | {} |",
                kind.name(),
                spread(samples.iter().map(|s| s.cpu_us), 1),
                ratio(samples, to_haproxy, |s| s.cpu_us),
                spread(samples.iter().map(|s| s.calls_per_s), 0),
                ratio(samples, to_direct, |s| s.calls_per_s),
                spread(samples.iter().map(|s| s.p50_us), 0),
                ratio(samples, to_haproxy, |s| s.p50_us),
                spread(samples.iter().map(|s| s.p99_us), 0),
                ratio(samples, to_haproxy, |s| s.p99_us),
                spread(samples.iter().map(|s| s.rss_mib), 0),
                spread(samples.iter().map(|s| s.others_percent), 0),
            )
            .ok();
        }
        for (with, what) in [(Kind::Wasm, "Wasm"), (Kind::Deciders, "Router and balancer")] {
            if let (Some(with), Some(native)) = (self.of(with), self.of(Kind::Native)) {
                let extra = with.iter().zip(native).map(|(with, native)| with.cpu_us - native.cpu_us);
                writeln!(out, "\n{what} − native: {} µs CPU per call.", spread(extra, 1)).ok();
            }
        }
        out
    }
}

/// Round by round, so that what disturbed a whole round disturbs both sides.
fn ratio(samples: &[Sample], to: Option<&[Sample]>, of: impl Fn(&Sample) -> f64) -> String {
    to.map_or_else(|| "–".to_owned(), |to| spread(samples.iter().zip(to).map(|(a, b)| of(a) / of(b)), 2))
}

/// `median [min..max]`.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first(), values.last()) else { return "–".to_owned() };
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    format!("{median:.digits$} [{min:.digits$}..{max:.digits$}]")
}
