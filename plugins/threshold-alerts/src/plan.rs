//! What is asked of the host and what is made of the answers: built-in rules ([`builtin`]) and rules from the
//! configuration ([`custom`]).

mod builtin;
mod custom;

use builtin::{Builtin, Thresholds};
use custom::Custom;
use meshwright_sdk::settings::{self, Fields, Issue};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Last,
    Min,
    Max,
    Mean,
    P50,
    P95,
    P99,
    Rate,
    Count,
    Slope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub series: String,
    pub aggregate: Aggregate,
    pub window_s: u32,
}

pub type Labels = Vec<(String, String)>;

pub struct Sample {
    /// Index into the plan's wants.
    pub want: u32,
    pub labels: Labels,
    pub value: f64,
}

/// A condition that holds, with the meaning of the contract's record of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    pub rule: String,
    pub severity: Severity,
    pub labels: Labels,
    pub title: String,
    pub detail: String,
    pub value: f64,
    pub threshold: f64,
    pub for_s: u32,
    pub resolve_at: f64,
}

/// The side of a threshold on which a value is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    threshold: f64,
    /// Above `threshold`: a lower bound; otherwise an upper bound.
    resolve_at: f64,
}

impl Bound {
    /// Whether `value` keeps an alert alive, if not yet starts one.
    fn holds(self, value: f64) -> bool {
        if self.resolve_at > self.threshold { value <= self.resolve_at } else { value >= self.resolve_at }
    }
}

/// The wants of all rules, each once.
#[derive(Debug, Default)]
struct Wants(Vec<Want>);

impl Wants {
    fn add(&mut self, series: &str, aggregate: Aggregate, window_s: u32) -> u32 {
        let want = Want { series: series.to_owned(), aggregate, window_s };
        let index = self.0.iter().position(|known| *known == want).unwrap_or_else(|| {
            self.0.push(want);
            self.0.len() - 1
        });
        index as u32
    }
}

#[derive(Debug)]
pub struct Plan {
    wants: Wants,
    builtin: Builtin,
    custom: Vec<Custom>,
}

impl Default for Plan {
    fn default() -> Self {
        let mut wants = Wants::default();
        let builtin = Builtin::new(&mut wants, Thresholds::default(), &[]);
        Self { wants, builtin, custom: Vec::new() }
    }
}

impl Plan {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        settings::read(config_json, |fields| {
            let disabled = disabled(fields);
            let thresholds = fields.object("thresholds", Thresholds::read).unwrap_or_default();
            let mut wants = Wants::default();
            let builtin = Builtin::new(&mut wants, thresholds, &disabled);
            let mut names: Vec<String> = builtin::RULES.iter().map(ToString::to_string).collect();
            let custom = fields.objects("rules", |fields| Custom::read(fields, &mut wants, &mut names));
            Self { wants, builtin, custom: custom.unwrap_or_default() }
        })
    }

    pub fn wants(&self) -> &[Want] {
        &self.wants.0
    }

    /// All that holds in `samples`.
    pub fn evaluate(&self, samples: &[Sample]) -> Vec<Firing> {
        let mut firing = self.builtin.evaluate(samples);
        firing.extend(self.custom.iter().flat_map(|rule| rule.evaluate(samples, &self.wants.0)));
        firing
    }
}

fn disabled(fields: &mut Fields<'_>) -> Vec<String> {
    let names = fields.texts("disable").unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        if !builtin::RULES.contains(&name.as_str()) {
            let rules = builtin::RULES.join("`, `");
            let message = format!("There is no built-in rule `{name}`; there are `{rules}`.");
            fields.fault_at("disable", index, message);
        }
    }
    names
}

/// The usable samples of a want. A value that is not finite says nothing.
fn of(samples: &[Sample], want: u32) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |sample| sample.want == want && sample.value.is_finite())
}

fn label<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// A number as people write it: at most three digits after the point.
fn number(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    format!("{rounded}")
}

/// Evaluates samples whose alerts are known.
///
/// # Errors
/// What came out instead.
pub fn self_test() -> Result<(), String> {
    const CONFIG: &str = r#"{"disable": ["instance-down"], "thresholds": {"latency_s": 1.5},
        "rules": [{"name": "deep", "series": "queue", "above": 5, "resolve_at": 3}]}"#;
    let plan = Plan::read(CONFIG)
        .map_err(|issues| format!("a valid configuration is refused: {}", issues[0].message))?;
    let want = |series: &str| plan.wants().iter().position(|want| want.series == series);
    let sample = |series: &str, value| -> Result<Sample, String> {
        let want = want(series).ok_or_else(|| format!("`{series}` is not asked for"))?;
        Ok(Sample { want: want as u32, labels: vec![("service".into(), "s".into())], value })
    };
    let bad = [sample("meshwright_service_instances_available", 0.0)?, sample("queue", 4.0)?];
    let rules: Vec<_> = plan.evaluate(&bad).into_iter().map(|firing| firing.rule).collect();
    if rules != ["service-unavailable", "deep"] {
        return Err(format!("two alerts were due, and there are {rules:?}"));
    }
    let good = [sample("meshwright_service_instances_available", 1.0)?, sample("queue", 2.0)?];
    match plan.evaluate(&good).first() {
        None => Ok(()),
        Some(firing) => Err(format!("`{}` holds without a reason", firing.rule)),
    }
}

#[cfg(test)]
mod tests;
