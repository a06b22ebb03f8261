//! One case: a fresh instance is asked, and what it answers is compared.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Outcome;
use super::expect::{AlertExpected, DecisionExpected, IssueExpected, PickExpected, Picked, PointExpected};
use super::expect::{decision_text, judge};
use super::file::{Case, Draws, NOW_MS, Question, RawCall, RawEvent, RawFinished, RawPick, RawSample, Round};
use super::file::{TestPool, name};
use crate::mesh::alert::{Alert, AlertBook};
use crate::mesh::ids::{CallId, Name};
use crate::mesh::observe::{EVENT_KINDS, Event, Finished, Sample, Want};
use crate::mesh::pool::Catalog;
use crate::mesh::story::Story;
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::CallFacts;
use crate::plugin::{Component, Fault, LoadError, Subject, Workbench, config_json};
use crate::policy::Ask;

/// Long after the start of the clock, so that durations before the first round can be told.
const ROUNDS_BEGIN: Mono = Mono::from_secs(100_000);

/// # Errors
/// Why the question could not be asked, or got no answer: a line for the author.
pub fn case(bench: &Workbench, component: &Component, case: &Case) -> Result<Outcome, String> {
    let fits = bench.fits(component, &case.config_json);
    let instance = fits.and_then(|()| component.instance(&case.config_json));
    if let Question::Configure { expected } = &case.question {
        return configure(instance, expected);
    }
    let mut subject = instance.map_err(|error| error.to_string())?;
    match &case.question {
        Question::Route { catalog, call, draws, expected } => {
            needs(component, "router")?;
            route(&mut subject, catalog, call, *draws, expected)
        }
        Question::Pick { pool, pick, draws, expected } => {
            if !component.kinds.contains(&"planner") {
                needs(component, "balancer")?;
            }
            self::pick(&mut subject, pool, pick, *draws, expected)
        }
        Question::Evaluate { rounds } => evaluate(component, &mut subject, rounds),
        Question::Measure { calls, dropped, expected } => measure(&mut subject, calls, *dropped, expected),
        Question::Configure { .. } => Ok(Outcome::default()),
    }
}

/// # Errors
/// It is of another kind: a line for the author.
pub fn needs(component: &Component, kind: &str) -> Result<(), String> {
    if component.kinds.contains(&kind) {
        return Ok(());
    }
    Err(format!("the component is no {kind} (it is: {})", component.kinds.join(", ")))
}

fn fault(fault: Fault) -> String {
    format!("it gave no answer: {fault}")
}

fn configure(instance: Result<Subject, LoadError>, expected: &[IssueExpected]) -> Result<Outcome, String> {
    let issues = match instance {
        Ok(_) => return Ok(Outcome::failed("the configuration is accepted, and was to be refused")),
        Err(LoadError::Unfit(issues) | LoadError::Configuration(issues)) => issues,
        Err(error) => return Err(error.to_string()),
    };
    let missing = expected.iter().filter(|wanted| !issues.issues.iter().any(|issue| wanted.means(issue)));
    let mut differences: Vec<String> = missing
        .map(|wanted| {
            let message = wanted.message.as_ref().map_or_else(String::new, |part| format!(" with `{part}`"));
            format!("no issue at `{}`{message}", wanted.path)
        })
        .collect();
    let unexpected = issues.issues.iter().filter(|issue| !expected.iter().any(|wanted| wanted.means(issue)));
    differences.extend(unexpected.map(|(path, message)| format!("unexpected issue at `{path}`: {message}")));
    Ok(Outcome { differences, fuel: None })
}

fn route(
    subject: &mut Subject,
    catalog: &Catalog,
    call: &RawCall,
    draws: Draws,
    expected: &[DecisionExpected],
) -> Result<Outcome, String> {
    let mut random = fastrand::Rng::with_seed(draws.seed);
    let arguments = config_json(call.arguments.clone())?;
    let is_tool_call = call.method == "tools/call";
    let (mut answers, mut most) = (Vec::new(), 0);
    for id in 0..draws.times as u64 {
        let (drawn, affinity) = (random.u64(..), random.u64(..));
        let facts = CallFacts {
            id: CallId(id),
            arrived: Wall::from_millis(call.now_ms),
            now: Mono::from_secs(0),
            random: call.random.map_or(drawn, i64::cast_unsigned),
            affinity: call.affinity.map_or(affinity, i64::cast_unsigned),
            service: &call.service,
            tool: &call.tool,
            method: &call.method,
            client: &call.client,
            size: call.size,
            time_left: Duration::from_millis(call.deadline_ms.into()),
            arguments: if is_tool_call { arguments.as_bytes() } else { b"" },
        };
        let (answer, fuel) = subject.route(&facts, catalog).map_err(fault)?;
        most = most.max(fuel);
        answers.push(answer);
    }
    Ok(Outcome { differences: judge(&answers, expected, decision_text), fuel: Some(most) })
}

fn pick(
    subject: &mut Subject,
    test: &TestPool,
    pick: &RawPick,
    draws: Draws,
    expected: &[PickExpected],
) -> Result<Outcome, String> {
    let mut random = fastrand::Rng::with_seed(draws.seed);
    let excluded = pick.tried.iter().filter(|slot| **slot < 64).fold(0, |bits, slot| bits | 1u64 << slot);
    let (mut answers, mut most) = (Vec::new(), 0);
    for _ in 0..draws.times {
        let (drawn, affinity) = (random.u64(..), random.u64(..));
        let ask = Ask {
            affinity: pick.affinity.map_or(affinity, i64::cast_unsigned),
            random: pick.random.map_or(drawn, i64::cast_unsigned),
            excluded,
            now: Mono::from_secs(0),
        };
        let (slot, fuel) = subject.pick(&test.pool, ask).map_err(fault)?;
        most = most.max(fuel);
        answers.push(Picked::of(slot, &test.pool));
    }
    Ok(Outcome { differences: judge(&answers, expected, Picked::text), fuel: Some(most) })
}

/// Goes through the rounds with the host's own book of alerts, so that what is compared is what people see.
fn evaluate(component: &Component, subject: &mut Subject, rounds: &[Round]) -> Result<Outcome, String> {
    let wants = subject.wants().map_err(fault)?;
    let Some(wants) = wants else { return needs(component, "alerter").map(|()| Outcome::default()) };
    let mut book = AlertBook::new();
    let mut outcome = Outcome { differences: Vec::new(), fuel: Some(0) };
    for round in rounds {
        let at = Duration::from_secs(round.at_s.into());
        let wall = Wall::from_millis(NOW_MS + i64::from(round.at_s) * 1000);
        let samples = round.samples.iter().map(|sample| self::samples(sample, &wants));
        let samples: Vec<Sample> = samples.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let events = round.events.iter().map(|event| self::event(event, wall));
        let events: Vec<Event> = events.collect::<Result<_, _>>()?;
        let (firings, fuel) = subject.evaluate(wall, &samples, &events).map_err(fault)?;
        outcome.fuel = outcome.fuel.max(Some(fuel));
        book.evaluate(component.name(), firings, ROUNDS_BEGIN + at, wall);
        if let Some(expected) = &round.expect {
            let standing: Vec<&Alert> = book.active().collect();
            let differences = alerts(expected, &standing).into_iter();
            outcome.differences.extend(differences.map(|line| format!("at {} s: {line}", round.at_s)));
        }
    }
    Ok(outcome)
}

/// One for each want that the sample fits.
///
/// # Errors
/// There is none: a line for the author.
pub fn samples(raw: &RawSample, wants: &[Want]) -> Result<Vec<Sample>, String> {
    let fits = |want: &Want| {
        want.series == raw.series
            && raw.aggregate.is_none_or(|aggregate| want.aggregate == aggregate.into())
            && raw.window_s.is_none_or(|window_s| want.window_s == window_s)
    };
    let labels: Vec<_> = raw.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let found: Vec<Sample> = (0..)
        .zip(wants)
        .filter(|(_, want)| fits(want))
        .map(|(want, _)| Sample { want, labels: labels.clone(), value: raw.value })
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut text = format!("it does not want a sample of `{}` like this; it wants", raw.series);
    for want in wants {
        // Writing to a string cannot fail.
        write!(text, " {} ({:?}, {} s);", want.series, want.aggregate, want.window_s).ok();
    }
    Err(text.trim_end_matches(';').to_owned())
}

/// # Errors
/// There are no such events: a line for the author.
pub fn event(raw: &RawEvent, at: Wall) -> Result<Event, String> {
    let kind = EVENT_KINDS.iter().find(|kind| **kind == raw.kind).ok_or_else(|| {
        format!("there are no events of the kind `{}`; there are {}", raw.kind, EVENT_KINDS.join(", "))
    })?;
    let named =
        |text: &Option<String>| -> Result<Option<Name>, String> { text.as_deref().map(name).transpose() };
    let (service, instance) = (named(&raw.service)?, named(&raw.instance)?);
    Ok(Event { at, kind, service, instance, detail: raw.detail.clone() })
}

fn alerts(expected: &[AlertExpected], standing: &[&Alert]) -> Vec<String> {
    let mut lines = Vec::new();
    for wanted in expected {
        match standing.iter().find(|alert| wanted.means(alert)) {
            None => {
                let labels: Vec<_> =
                    wanted.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                lines.push(format!("`{}` {{{}}} does not hold", wanted.rule, labels.join(",")));
            }
            Some(alert) => {
                let differences = wanted.differences(alert).into_iter();
                lines.extend(differences.map(|line| format!("`{}`: {line}", wanted.rule)));
            }
        }
    }
    let unexpected = standing.iter().filter(|alert| !expected.iter().any(|wanted| wanted.means(alert)));
    lines.extend(unexpected.map(|alert| {
        let (rule, labels) = (&alert.fingerprint.rule, &alert.fingerprint.labels);
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("unexpected: `{rule}` {{{}}} is {} ({})", labels.join(","), alert.state.as_str(), alert.title)
    }));
    lines
}

fn measure(
    subject: &mut Subject,
    calls: &[RawFinished],
    dropped: u32,
    expected: &[PointExpected],
) -> Result<Outcome, String> {
    let described = subject.describe().map_err(fault)?;
    let description = described.ok_or("the component is no meter")?;
    let calls = calls.iter().map(finished).collect::<Result<Vec<_>, _>>()?;
    let ((), fuel) = subject.on_calls(&calls, dropped).map_err(fault)?;
    let points = subject.collect(Wall::from_millis(NOW_MS), &description).map_err(fault)?;
    let differences = expected.iter().filter_map(|wanted| wanted.difference(&points, &description));
    Ok(Outcome { differences: differences.collect(), fuel: Some(fuel) })
}

/// # Errors
/// A name that is none.
pub fn finished(raw: &RawFinished) -> Result<Finished, String> {
    Ok(Finished {
        id: CallId(0),
        at: Wall::from_millis(NOW_MS),
        service: name(&raw.service)?,
        instance: raw.instance.as_deref().map(name).transpose()?,
        tool: Arc::from(raw.tool.as_str()),
        client: Arc::from(raw.client.as_str()),
        latency_us: raw.us,
        attempt_us: raw.us,
        status: raw.status.unwrap_or(200),
        request_bytes: raw.request_bytes,
        response_bytes: raw.response_bytes,
        story: Story::default(),
    })
}
