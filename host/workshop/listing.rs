//! `plugin ls`: what a running proxy says of its plugins.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::running::{Running, Where};
use super::{Verdict, WorkshopError, print, text};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Where,
    /// Prints what the proxy answers
    #[arg(long)]
    json: bool,
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
    stops_calls: bool,
    pending: Option<Pending>,
    building: Option<String>,
    refused: Option<Refused>,
    replay: Option<Replay>,
    capsule: Option<String>,
    generation: u64,
    calls: u64,
    faults: u64,
    skipped: u64,
    p99_us: f64,
    budget_us: Budgets,
    memory_bytes: usize,
}

/// What 99 of 100 answers may take.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Budgets {
    route: Option<f64>,
    pick: Option<f64>,
}

impl Budgets {
    /// One of both that are the same.
    fn text(&self) -> String {
        let mut all: Vec<String> = [self.route, self.pick].into_iter().flatten().map(text::micros).collect();
        all.dedup();
        if all.is_empty() { "-".to_owned() } else { all.join(", ") }
    }
}

/// A build or a configuration that did not come into force while another is.
#[derive(Deserialize)]
struct Refused {
    reason: String,
}

/// What it did when it was asked about recorded calls before it came into force.
#[derive(Deserialize)]
struct Replay {
    fault: Option<String>,
}

#[derive(Deserialize)]
struct Pending {
    reason: String,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let body = proxy.get("/plugins")?;
    if args.json {
        let raw: &RawValue = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
        print(&format!("{}\n", raw.get()));
    } else {
        let listing: Listing = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
        print(&table(&listing));
    }
    Ok(Verdict::Good)
}

fn table(listing: &Listing) -> String {
    let head = [
        "PLUGIN", "VERSION", "KINDS", "STATE", "GEN", "CALLS", "FAULTS", "SKIPPED", "P99", "BUDGET",
        "MEMORY", "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for plugin in &listing.plugins {
        let in_force = plugin.generation > 0;
        let figure = |text: String| if in_force { text } else { "-".to_owned() };
        rows.push(vec![
            plugin.name.clone(),
            plugin.version.clone(),
            plugin.kinds.join(","),
            plugin.state.clone(),
            figure(plugin.generation.to_string()),
            figure(text::thousands(plugin.calls)),
            figure(text::thousands(plugin.faults)),
            figure(text::thousands(plugin.skipped)),
            figure(if plugin.calls == 0 { "-".into() } else { text::micros(plugin.p99_us) }),
            figure(plugin.budget_us.text()),
            figure(text::bytes(plugin.memory_bytes)),
            remark(plugin),
        ]);
    }
    text::table(&rows)
}

/// Why it is as it is, or else what waits beside it; and what it failed on.
fn remark(plugin: &Row) -> String {
    let reason = plugin.reason.clone().filter(|reason| !reason.is_empty());
    let pending = plugin.pending.as_ref().map(|pending| format!("a new build waits: {}", pending.reason));
    let building = plugin.building.as_ref().map(|_| "a new build is being compiled".to_owned());
    let refused = plugin.refused.as_ref().map(|build| format!("what is new is refused: {}", build.reason));
    let fault = plugin.replay.as_ref().and_then(|replay| replay.fault.clone());
    let capsule = plugin.capsule.as_ref().map(|file| format!("what it failed on: capsules/{file}"));
    let stops = plugin.stops_calls.then(|| "no call passes without it".to_owned());
    let reason = reason.or(pending).into_iter();
    let remarks: Vec<String> =
        reason.chain(stops).chain(building).chain(refused).chain(fault).chain(capsule).collect();
    remarks.join("; ")
}
