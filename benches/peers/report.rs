//! What the rounds found, as Markdown.

use std::fmt::{self, Write as _};

use super::message::Body;
use super::peer::Kind;

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
    peers: Vec<(Kind, Option<Vec<Sample>>)>,
}

impl Samples {
    pub fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self { peers: kinds.map(|kind| (kind, Some(Vec::new()))).collect() }
    }

    pub fn add(&mut self, place: usize, sample: Sample) {
        self.peers[place].1.get_or_insert_default().push(sample);
    }

    /// What was measured of it so far is not worth a line either.
    pub fn leave_out(&mut self, place: usize) {
        self.peers[place].1 = None;
    }

    pub fn is_left_out(&self, place: usize) -> bool {
        self.peers[place].1.is_none()
    }

    fn measured(&self) -> impl Iterator<Item = (Kind, &[Sample])> {
        self.peers.iter().filter_map(|(kind, samples)| Some((*kind, samples.as_deref()?)))
    }

    fn of(&self, wanted: Kind) -> Option<&[Sample]> {
        self.measured().find(|(kind, _)| *kind == wanted).map(|(_, samples)| samples)
    }
}

pub fn calls(samples: &Samples, body: Body, concurrency: usize) -> String {
    let mut out = format!(
        "### Body {}, concurrency {concurrency}\n\n\
         | peer | CPU µs per call | ÷ haproxy | ÷ nginx | calls/s ÷ direct | p50 µs | added p50 µs | ÷ haproxy | \
         p99 µs | added p99 µs | ÷ haproxy | RSS MiB | failures | others % |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        body.name()
    );
    let direct = samples.of(Kind::Direct);
    for (kind, own) in samples.measured() {
        // Nobody is compared with itself, and the upstream with nobody.
        let beside = |other: Kind| {
            samples.of(other).filter(|_| kind != other && kind != Kind::Direct).map(|other| (own, other))
        };
        let added =
            |of: fn(&Sample) -> f64| each(beside(Kind::Direct), |own, direct| of(own) - of(direct), 0);
        let added_ratio = |of: fn(&Sample) -> f64| match (beside(Kind::Haproxy), direct) {
            (Some((own, haproxy)), Some(direct)) => {
                let rounds = own.iter().zip(haproxy).zip(direct);
                spread(rounds.map(|((a, b), zero)| (of(a) - of(zero)) / (of(b) - of(zero))), 2)
            }
            _ => NONE.to_owned(),
        };
        let cells = [
            kind.name().to_owned(),
            spread(own.iter().map(|s| s.cpu_us), 1),
            each(beside(Kind::Haproxy), |a, b| a.cpu_us / b.cpu_us, 2),
            each(beside(Kind::Nginx), |a, b| a.cpu_us / b.cpu_us, 2),
            each(beside(Kind::Direct), |a, b| a.calls_per_s / b.calls_per_s, 3),
            spread(own.iter().map(|s| s.p50_us), 0),
            added(|s| s.p50_us),
            added_ratio(|s| s.p50_us),
            spread(own.iter().map(|s| s.p99_us), 0),
            added(|s| s.p99_us),
            added_ratio(|s| s.p99_us),
            spread(own.iter().map(|s| s.rss_mib), 0),
            own.iter().map(|s| s.failures).sum::<u64>().to_string(),
            spread(own.iter().map(|s| s.others_percent), 0),
        ];
        line(&mut out, &cells);
    }
    if let (Some(now), Some(base)) = (samples.of(Kind::Native), samples.of(Kind::Base)) {
        let ratio = each(Some((now, base)), |now, base| now.cpu_us / base.cpu_us, 3);
        writeln!(out, "\nCPU of native ÷ base: {ratio}.").expect("a string takes all");
    }
    out
}

pub fn listing(samples: &Samples, tools: usize, bytes: usize) -> String {
    let mut out = format!(
        "### `tools/list` of {tools} tools, {bytes} bytes, concurrency 1\n\n\
         | p50 ms | p99 ms | CPU ms per list | RSS MiB | failures | others % |\n|---|---|---|---|---|---|\n"
    );
    for (_, own) in samples.measured() {
        let cells = [
            spread(own.iter().map(|s| s.p50_us / 1e3), 2),
            spread(own.iter().map(|s| s.p99_us / 1e3), 2),
            spread(own.iter().map(|s| s.cpu_us / 1e3), 3),
            spread(own.iter().map(|s| s.rss_mib), 0),
            own.iter().map(|s| s.failures).sum::<u64>().to_string(),
            spread(own.iter().map(|s| s.others_percent), 0),
        ];
        line(&mut out, &cells);
    }
    out
}

/// What it costs that plugins decide, of all bodies and concurrencies.
#[derive(Default)]
pub struct Decisions(Vec<[String; 7]>);

impl Decisions {
    pub fn add(&mut self, samples: &Samples, body: Body, concurrency: usize) {
        let [native, deciders, wasm] =
            [Kind::Native, Kind::Deciders, Kind::Wasm].map(|kind| samples.of(kind));
        let cpu =
            |of: Option<&[Sample]>| of.map_or(NONE.to_owned(), |s| spread(s.iter().map(|s| s.cpu_us), 1));
        let more = |with: Option<&[Sample]>, without: Option<&[Sample]>| {
            each(with.zip(without), |with, without| with.cpu_us - without.cpu_us, 1)
        };
        if native.is_some() && (deciders.is_some() || wasm.is_some()) {
            self.0.push([
                format!("{}, {concurrency}", body.name()),
                cpu(native),
                cpu(deciders),
                cpu(wasm),
                more(deciders, native),
                more(wasm, deciders),
                more(wasm, native),
            ]);
        }
    }
}

impl fmt::Display for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut out = "### Decisions by plugins, CPU µs per call\n\n\
             | body, concurrency | native | deciders | wasm | route and pick: deciders − native | \
             alerts and meters: wasm − deciders | all: wasm − native |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
        for cells in &self.0 {
            line(&mut out, cells);
        }
        f.write_str(&out)
    }
}

const NONE: &str = "–";

fn line(out: &mut String, cells: &[String]) {
    writeln!(out, "| {} |", cells.join(" | ")).expect("a string takes all");
}

/// Round by round, so that what disturbed a whole round disturbs both sides.
fn each(pair: Option<(&[Sample], &[Sample])>, of: impl Fn(&Sample, &Sample) -> f64, digits: usize) -> String {
    pair.map_or_else(|| NONE.to_owned(), |(a, b)| spread(a.iter().zip(b).map(|(a, b)| of(a, b)), digits))
}

/// `median [minimum..maximum]`.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first(), values.last()) else { return NONE.to_owned() };
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    format!("{median:.digits$} [{min:.digits$}..{max:.digits$}]")
}
