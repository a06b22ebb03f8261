//! `plugin test --capsule`: asks a component again what a plugin failed on in a proxy, within the limits of a proxy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::ask;
use super::expect::{Picked, decision_text};
use super::file::{RawCall, RawFinished, RawPick, RawPool, RawService, Round, catalog, test_pool};
use crate::clock;
use crate::mesh::ids::CallId;
use crate::mesh::ruling::Grant;
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::CallFacts;
use crate::plugin::{CAPSULE_FORMAT, Component, Fault, LoadError, Subject, Workbench};
use crate::policy::Ask;
use crate::workshop::{Verdict, WorkshopError, print};

/// Digits of a component's hash that tell builds apart.
const SHA_DIGITS: usize = 12;

#[derive(Debug, Error)]
pub enum CapsuleError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is no capsule, or not a whole one: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("`{}` is a capsule of format {found}, and this release reads format {CAPSULE_FORMAT}", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("`{}` is a capsule of the plugin `{theirs}`, and the component is `{ours}`", path.display())]
    Foreign { path: PathBuf, theirs: String, ours: String },
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Capsule {
    plugin: Plugin,
    host: String,
    at_ms: i64,
    hook: String,
    fault: String,
    config: Box<RawValue>,
    call: Option<RawCall>,
    #[serde(default)]
    services: Vec<RawService>,
    pool: Option<RawPool>,
    pick: Option<RawPick>,
    #[serde(default)]
    now_ms: i64,
    round: Option<Round>,
    calls: Option<Vec<RawFinished>>,
    #[serde(default)]
    dropped: u32,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
    version: String,
    sha256: String,
    generation: u64,
}

/// Why there is no answer.
enum Silence {
    Fault(Fault),
    /// What was asked does not fit the component, in words.
    Unfit(String),
}

impl From<Fault> for Silence {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<String> for Silence {
    fn from(words: String) -> Self {
        Self::Unfit(words)
    }
}

pub fn run(file: &Path, paths: &[PathBuf]) -> Result<Verdict, WorkshopError> {
    let capsules = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let bench = Workbench::new()?;
    let Some(component) = super::load(&bench, file) else { return Ok(Verdict::Bad) };
    for (path, capsule) in paths.iter().zip(&capsules) {
        let (theirs, ours) = (capsule.plugin.name.clone(), component.name().to_string());
        if theirs != ours {
            return Err(CapsuleError::Foreign { path: path.clone(), theirs, ours }.into());
        }
    }
    let mut failed = 0;
    for (path, capsule) in paths.iter().zip(&capsules) {
        let answer = capsule.ask(&component);
        failed += usize::from(answer.is_err());
        print(&format!("{}\n{}", path.display(), capsule.text(&component, answer)));
    }
    let answered = capsules.len() - failed;
    print(&format!("{answered} answered, {failed} failed\n"));
    Ok(Verdict::good_if(failed == 0))
}

fn read(path: &Path) -> Result<Capsule, CapsuleError> {
    let read = |source| CapsuleError::Read { path: path.to_owned(), source };
    let damaged =
        |error: serde_json::Error| CapsuleError::Damaged { path: path.to_owned(), reason: error.to_string() };
    let text = std::fs::read(path).map_err(read)?;
    let Format { format } = serde_json::from_slice(&text).map_err(damaged)?;
    if format != CAPSULE_FORMAT {
        return Err(CapsuleError::Format { path: path.to_owned(), found: format });
    }
    serde_json::from_slice(&text).map_err(damaged)
}

impl Capsule {
    /// What the component answers now, for people.
    fn ask(&self, component: &Component) -> Result<String, Silence> {
        let mut subject = component.instance(self.config.get()).map_err(|error| match error {
            LoadError::Fault { fault, .. } => Silence::Fault(fault),
            error => Silence::Unfit(error.to_string()),
        })?;
        if let Some(call) = &self.call {
            ask::needs(component, "router")?;
            return self.route(&mut subject, call);
        }
        if let Some(pool) = &self.pool {
            ask::needs(component, if self.pick.is_some() { "balancer" } else { "planner" })?;
            return self.balance(&mut subject, pool);
        }
        if let Some(round) = &self.round {
            ask::needs(component, "alerter")?;
            return self.evaluate(&mut subject, round);
        }
        let Some(calls) = &self.calls else {
            return Err(format!("nothing is known of what `{}` was asked", self.hook).into());
        };
        ask::needs(component, "meter")?;
        subject.describe()?;
        let calls = calls.iter().map(ask::finished).collect::<Result<Vec<_>, _>>()?;
        subject.on_calls(&calls, self.dropped)?;
        Ok("it takes the calls".to_owned())
    }

    fn route(&self, subject: &mut Subject, call: &RawCall) -> Result<String, Silence> {
        let facts = CallFacts {
            id: CallId(0),
            arrived: Wall::from_millis(call.now_ms),
            now: Mono::from_secs(0),
            random: call.random.map_or(0, i64::cast_unsigned),
            affinity: call.affinity.map_or(0, i64::cast_unsigned),
            service: &call.service,
            tool: &call.tool,
            method: &call.method,
            client: &call.client,
            size: call.size,
            time_left: Duration::from_millis(call.deadline_ms.into()),
            // Capsules have none.
            arguments: b"",
        };
        let (decision, _) = subject.route(&facts, &catalog(&self.services)?)?;
        Ok(decision_text(&decision))
    }

    fn balance(&self, subject: &mut Subject, pool: &RawPool) -> Result<String, Silence> {
        let test = test_pool(pool)?;
        let Some(pick) = &self.pick else {
            let (plan, _) = subject.compile(&test.pool)?;
            return Ok(plan.map_or_else(|| "no plan".to_owned(), |plan| format!("a plan ({})", plan.why)));
        };
        let asked = Ask {
            affinity: pick.affinity.map_or(0, i64::cast_unsigned),
            random: pick.random.map_or(0, i64::cast_unsigned),
            excluded: pick.tried.iter().filter(|slot| **slot < 64).fold(0, |bits, slot| bits | 1u64 << slot),
            now: Mono::from_secs(0),
        };
        let slot = subject.pick_anew(&test.pool, asked)?;
        Ok(Picked::of(slot, &test.pool).text())
    }

    fn evaluate(&self, subject: &mut Subject, round: &Round) -> Result<String, Silence> {
        let wants = subject.wants()?.unwrap_or_default();
        let now = Wall::from_millis(self.now_ms);
        let samples = round.samples.iter().map(|sample| ask::samples(sample, &wants));
        let samples: Vec<_> = samples.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let events =
            round.events.iter().map(|event| ask::event(event, now)).collect::<Result<Vec<_>, _>>()?;
        let (firings, _) = subject.evaluate(now, &samples, &events)?;
        let alerts = if firings.len() == 1 { "alert holds" } else { "alerts hold" };
        Ok(format!("{} {alerts}", firings.len()))
    }

    fn text(&self, component: &Component, answer: Result<String, Silence>) -> String {
        let (plugin, sha256) = (&self.plugin, component.sha256());
        let is_same = sha256 == plugin.sha256;
        let build = if is_same {
            "the same build".to_owned()
        } else {
            format!("{} {} ({})", component.name(), component.version(), short(&sha256))
        };
        let now = match answer {
            Ok(answer) => format!("✔ {build} answers: {answer}"),
            Err(Silence::Fault(fault)) => format!("✖ {build} still fails: {fault}"),
            Err(Silence::Unfit(words)) => format!("✖ {build} cannot be asked: {words}"),
        };
        let note = if component.grants().contains(&Grant::Arguments) {
            "  note      it reads arguments, and a capsule has none\n"
        } else if is_same && now.starts_with('✔') {
            "  note      what it remembered then, in `kv` and in its own memory, is not in a capsule\n"
        } else {
            ""
        };
        format!(
            "  recorded  {}, by {} {} #{} ({}) in release {}\n  asked     {}\n  failed    {}\n  now       {now}\n{note}",
            clock::iso(Wall::from_millis(self.at_ms)),
            plugin.name,
            plugin.version,
            plugin.generation,
            short(&plugin.sha256),
            self.host,
            self.asked(),
            self.fault,
        )
    }

    fn asked(&self) -> String {
        match &self.call {
            Some(call) => {
                let client = if call.client.is_empty() { "somebody" } else { &call.client };
                format!("`route`: {} `{}` of `{}`, by {client}", call.method, call.tool, call.service)
            }
            None => format!("`{}`", self.hook),
        }
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..SHA_DIGITS).unwrap_or(sha256)
}
