//! `plugin replay`: a router on this machine, asked about the calls that a running proxy has recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::running::{Running, Where};
use super::{Verdict, WorkshopError, explain, print, print_json, text};
use crate::clock;
use crate::mesh::ids::{CallId, Name, NameError};
use crate::mesh::pool::{Catalog, CatalogService};
use crate::mesh::story::RecordedCall;
use crate::mesh::time::Wall;
use crate::plugin::{LoadError, Subject, Workbench, read_component, read_config};

/// All that a proxy remembers.
const CALLS: &str = "/api/v1/calls?detail=replay&limit=10000";
const EXAMPLES_MAX: usize = 5;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Component (`.wasm`), a router
    file: PathBuf,
    /// Configuration (TOML) [default: `NAME.toml` beside `NAME.wasm`, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only calls of the last so long, such as `1h` [default: all that the proxy remembers]
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::SignedDuration>,
    /// Exit code 1 when more than so many percent of the calls would be decided otherwise [default: never]
    #[arg(long, value_name = "PERCENT")]
    fail_over: Option<f64>,
    #[command(flatten)]
    place: Where,
    /// Prints an object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("`{0}` is no router: only routers are asked about recorded calls here")]
    NoRouter(Name),
}

#[derive(Deserialize)]
struct Recording {
    items: Vec<Recorded>,
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Recorded {
    call_id: String,
    at_ms: i64,
    service: String,
    tool: String,
    method: String,
    client: String,
    random: String,
    affinity: String,
    size: u32,
    deadline_ms: u64,
    verdicts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
    tags: Vec<String>,
    tools: Vec<String>,
    instances: u32,
    healthy: u32,
}

#[derive(Serialize)]
struct Report {
    name: String,
    version: String,
    compared: usize,
    changed: usize,
    /// It read arguments, which are not recorded.
    unrepeatable: usize,
    examples: Vec<Example>,
    p99_us: f64,
    /// The call that the component faulted on, and how.
    fault: Option<String>,
}

#[derive(Serialize)]
struct Example {
    call_id: String,
    service: String,
    tool: String,
    before: String,
    after: String,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let recording: Recording =
        serde_json::from_slice(&proxy.get(CALLS)?).map_err(|error| proxy.foreign(error))?;
    let catalog = recording.catalog().map_err(|error| proxy.foreign(error))?;
    let bench = Workbench::new()?;
    let loaded = read_component(&args.file).and_then(|bytes| {
        let component = bench.load("replayed", &bytes)?;
        let config = read_config(&args.file, args.config.as_deref())?;
        Ok((component.instance(&config.json)?, component, config))
    });
    let (subject, component, config) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(refused(args, &error)),
    };
    if !component.kinds.contains(&"router") {
        return Err(ReplayError::NoRouter(component.name().clone()).into());
    }
    let since = args.since.and_then(|since| Duration::try_from(since).ok());
    let oldest_ms = since.map_or(i64::MIN, |since| {
        clock::wall().as_millis().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    });
    let report = Report {
        name: component.name().to_string(),
        version: component.version().to_owned(),
        compared: 0,
        changed: 0,
        unrepeatable: 0,
        examples: Vec::new(),
        p99_us: 0.0,
        fault: None,
    };
    let fresh = || component.instance(&config.json);
    let report =
        recording.ask(subject, fresh, &catalog, report, oldest_ms).map_err(|error| proxy.foreign(error))?;
    if args.json {
        print_json(&report)
    } else {
        print(&report.text())
    }
    let percent = 100.0 * report.changed as f64 / report.compared.max(1) as f64;
    let fits = args.fail_over.is_none_or(|most| percent <= most);
    Ok(Verdict::good_if(fits && report.fault.is_none()))
}

fn refused(args: &Args, error: &LoadError) -> Verdict {
    let (step, advice) = (explain::step(error), explain::advice(error));
    let file = args.file.display();
    print(&format!("✖ {file}\n  where     {step}\n  why       {error}\n  do        {advice}\n"));
    Verdict::Bad
}

impl Recording {
    fn catalog(&self) -> Result<Catalog, NameError> {
        let services = self.services.iter().map(|service| {
            Ok(CatalogService {
                name: Name::new(&service.name)?,
                tags: service.tags.iter().map(|tag| Name::new(tag)).collect::<Result<_, _>>()?,
                tools: service.tools.clone(),
                instances: service.instances,
                healthy: service.healthy,
            })
        });
        Ok(Catalog { version: 1, services: services.collect::<Result<_, _>>()? })
    }

    /// Calls that another router decided before this one was asked say nothing about it. Nobody was asked about any
    /// call when no plugin of the name is in force: then it is compared with passing. `fresh` takes the place of one
    /// that was stopped.
    fn ask(
        &self,
        mut subject: Subject,
        fresh: impl Fn() -> Result<Subject, LoadError>,
        catalog: &Catalog,
        mut report: Report,
        oldest_ms: i64,
    ) -> Result<Report, Malformed> {
        let is_new = !self.items.iter().any(|recorded| recorded.verdicts.contains_key(&report.name));
        let mut times_us = Vec::new();
        for recorded in self.items.iter().filter(|recorded| recorded.at_ms >= oldest_ms) {
            let before = match recorded.verdicts.get(&report.name) {
                Some(before) => before.as_str(),
                None if is_new => "pass",
                None => continue,
            };
            let call = recorded.call()?;
            let started = Instant::now();
            let answer = subject.route(&call.facts(clock::mono()), catalog);
            times_us.push(started.elapsed().as_secs_f64() * 1e6);
            if subject.has_read_arguments() {
                report.unrepeatable += 1;
                if answer.is_err() {
                    subject = match fresh() {
                        Ok(fresh) => fresh,
                        Err(error) => {
                            report.fault = Some(format!("after call {}: {error}", recorded.call_id));
                            break;
                        }
                    };
                }
                continue;
            }
            let after = match answer {
                Ok((decision, _)) => decision.verdict.to_string(),
                Err(fault) => {
                    report.fault = Some(format!("call {}: {fault}", recorded.call_id));
                    break;
                }
            };
            report.compared += 1;
            if before == after {
                continue;
            }
            report.changed += 1;
            if report.examples.len() < EXAMPLES_MAX {
                report.examples.push(Example {
                    call_id: recorded.call_id.clone(),
                    service: recorded.service.clone(),
                    tool: recorded.tool.clone(),
                    before: before.to_owned(),
                    after,
                });
            }
        }
        times_us.sort_by(f64::total_cmp);
        let rank = times_us.len() - times_us.len() / 100;
        report.p99_us = rank.checked_sub(1).map_or(0.0, |at| times_us[at]);
        Ok(report)
    }
}

#[derive(Debug, Error)]
enum Malformed {
    #[error("a call's number is not written in hexadecimal digits")]
    Number(#[from] std::num::ParseIntError),
    #[error("a call asks for a service that cannot be: {0}")]
    Name(#[from] NameError),
}

impl Recorded {
    fn call(&self) -> Result<RecordedCall, Malformed> {
        let number = |text: &str| u64::from_str_radix(text, 16);
        Ok(RecordedCall {
            id: CallId(number(&self.call_id)?),
            at: Wall::from_millis(self.at_ms),
            service: Name::new(&self.service)?,
            tool: self.tool.as_str().into(),
            method: self.method.clone().into(),
            client: self.client.as_str().into(),
            random: number(&self.random)?,
            affinity: number(&self.affinity)?,
            size: self.size,
            time_left: Duration::from_millis(self.deadline_ms),
        })
    }
}

impl Report {
    fn text(&self) -> String {
        let count = |number: usize| text::thousands(number as u64);
        let mut out = format!(
            "{} {}: {} of {} calls would be decided otherwise\n",
            self.name,
            self.version,
            count(self.changed),
            count(self.compared)
        );
        for example in &self.examples {
            // Writing to a string cannot fail.
            writeln!(
                out,
                "  {}  `{}` of `{}`: {} → {}",
                example.call_id, example.tool, example.service, example.before, example.after
            )
            .ok();
        }
        if self.unrepeatable > 0 {
            let left_out = count(self.unrepeatable);
            writeln!(out, "  {left_out} more were left out: it read their arguments, which are not recorded")
                .ok();
        }
        let p99 = Duration::try_from_secs_f64(self.p99_us / 1e6).unwrap_or_default();
        writeln!(out, "  99 of 100 answers took at most {}", text::duration(p99)).ok();
        if let Some(fault) = &self.fault {
            writeln!(out, "✖ it faulted, and no further call was asked about: {fault}").ok();
        }
        out
    }
}
