//! What a case expects, and how an answer differs from it. What is not said is not compared; an empty text stands
//! for "none".

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::mesh::alert::Alert;
use crate::mesh::observe::{MeterDescription, Point};
use crate::mesh::pool::Pool;
use crate::mesh::verdict::{Decision, Verdict};

/// Kinds of answers that are shown when a count is not as expected.
const TALLY_SHOWN: usize = 5;

/// Something that answers are compared with.
pub trait Expected<A> {
    /// How many of all answers are to be like this; all, when it is not said.
    fn between(&self) -> Option<[usize; 2]>;
    /// A line for each thing that is otherwise.
    fn differences(&self, answer: &A) -> Vec<String>;
}

/// Compares all answers with each expectation. One answer is compared line by line, many are counted.
pub fn judge<A, E: Expected<A>>(answers: &[A], expected: &[E], shown: impl Fn(&A) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, wanted) in expected.iter().enumerate() {
        let differences: Vec<_> = answers.iter().map(|answer| wanted.differences(answer)).collect();
        if let ([only], None) = (differences.as_slice(), wanted.between()) {
            lines.extend(only.iter().cloned());
            continue;
        }
        let alike = differences.iter().filter(|differences| differences.is_empty()).count();
        let [least, most] = wanted.between().unwrap_or([answers.len(); 2]);
        if (least..=most).contains(&alike) {
            continue;
        }
        let range = if least == most { most.to_string() } else { format!("{least} to {most}") };
        let number = if expected.len() > 1 { format!(" {}", index + 1) } else { String::new() };
        lines
            .push(format!("expectation{number} fits {alike} of {} answers, expected {range}", answers.len()));
        if let Some(first) = differences.iter().find(|differences| !differences.is_empty()) {
            lines.extend(first.iter().map(|line| format!("  such as {line}")));
        }
    }
    if answers.len() > 1 && !lines.is_empty() {
        let mut tally: BTreeMap<String, usize> = BTreeMap::new();
        for answer in answers {
            *tally.entry(shown(answer)).or_default() += 1;
        }
        let mut tally: Vec<_> = tally.into_iter().collect();
        tally.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        lines.extend(tally.iter().take(TALLY_SHOWN).map(|(shown, count)| format!("{count:>6} × {shown}")));
    }
    lines
}

/// Notes what differs, in columns.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn is(&mut self, what: &str, wanted: Option<&str>, got: &str) {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != got) {
            self.note(what, &quoted(wanted), &quoted(got));
        }
    }

    fn contains(&mut self, what: &str, wanted: Option<&str>, got: &str) {
        if let Some(wanted) = wanted.filter(|wanted| !got.contains(*wanted)) {
            self.note(what, &format!("{} in it", quoted(wanted)), &quoted(got));
        }
    }

    fn number(&mut self, what: &str, wanted: Option<f64>, got: Option<f64>) {
        let alike = |wanted: f64| got.is_some_and(|got| (wanted - got).abs() <= 1e-9 * wanted.abs().max(1.0));
        if let Some(wanted) = wanted.filter(|wanted| !alike(*wanted)) {
            let got = got.map_or_else(|| "nothing".to_owned(), |got| got.to_string());
            self.note(what, &wanted.to_string(), &got);
        }
    }

    fn labels(&mut self, wanted: &BTreeMap<String, String>, got: &[(String, String)]) {
        for (name, value) in wanted {
            let found = got.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
            self.is(&format!("label {name}"), Some(value), found);
        }
    }

    fn note(&mut self, what: &str, wanted: &str, got: &str) {
        self.0.push(format!("{what:<10} expected {wanted}, got {got}"));
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { "nothing".into() } else { format!("`{text}`") }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictExpected {
    Pass,
    Forward,
    Reject,
}

impl VerdictExpected {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Forward => "forward",
            Self::Reject => "reject",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionExpected {
    verdict: Option<VerdictExpected>,
    service: Option<String>,
    tag: Option<String>,
    tool: Option<String>,
    timeout_ms: Option<u32>,
    mirror: Option<String>,
    mirror_permille: Option<u16>,
    reuse_ms: Option<u32>,
    /// Part of it.
    why: Option<String>,
    /// Part of it.
    reason: Option<String>,
    retry_after_ms: Option<u32>,
    between: Option<[usize; 2]>,
}

impl Expected<Decision> for DecisionExpected {
    fn between(&self) -> Option<[usize; 2]> {
        self.between
    }

    fn differences(&self, answer: &Decision) -> Vec<String> {
        let mut differences = Differences::default();
        let (target, refusal) = match &answer.verdict {
            Verdict::Pass => (None, None),
            Verdict::Forward(target) => (Some(target), None),
            Verdict::Reject(refusal) => (None, Some(refusal)),
        };
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let millis = |time: Option<std::time::Duration>| time.map(|time| time.as_millis() as f64);
        let mirror = target.and_then(|target| target.mirror.as_ref());
        differences.is("verdict", self.verdict.map(VerdictExpected::word), verdict(answer));
        let service = text(target.map(|target| target.service.as_str()));
        differences.is("service", self.service.as_deref(), &service);
        let tag = text(target.and_then(|target| target.tag.as_ref()).map(|tag| tag.as_str()));
        differences.is("tag", self.tag.as_deref(), &tag);
        let tool = text(target.and_then(|target| target.tool.as_deref()));
        differences.is("tool", self.tool.as_deref(), &tool);
        let timeout = millis(target.and_then(|target| target.timeout));
        differences.number("timeout_ms", self.timeout_ms.map(f64::from), timeout);
        differences.is("mirror", self.mirror.as_deref(), mirror.map_or("", |mirror| mirror.service.as_str()));
        let permille = mirror.map(|mirror| f64::from(mirror.permille));
        differences.number("mirror_permille", self.mirror_permille.map(f64::from), permille);
        let reuse = millis(answer.reuse.map(|reuse| reuse.ttl));
        differences.number("reuse_ms", self.reuse_ms.map(f64::from), reuse);
        differences.contains("why", self.why.as_deref(), &answer.why);
        let reason = text(refusal.map(|refusal| refusal.reason.as_str()));
        differences.contains("reason", self.reason.as_deref(), &reason);
        let retry_after = millis(refusal.and_then(|refusal| refusal.retry_after));
        differences.number("retry_after_ms", self.retry_after_ms.map(f64::from), retry_after);
        differences.0
    }
}

fn verdict(decision: &Decision) -> &'static str {
    match decision.verdict {
        Verdict::Pass => "pass",
        Verdict::Forward(_) => "forward",
        Verdict::Reject(_) => "reject",
    }
}

pub fn decision_text(decision: &Decision) -> String {
    let mut text = verdict(decision).to_owned();
    // Writing to a string cannot fail.
    match &decision.verdict {
        Verdict::Pass => {}
        Verdict::Forward(target) => {
            write!(text, " to {}", target.service).ok();
            if let Some(tag) = &target.tag {
                write!(text, " with tag {tag}").ok();
            }
        }
        Verdict::Reject(refusal) => {
            write!(text, ": {}", refusal.reason).ok();
        }
    }
    if !decision.why.is_empty() {
        write!(text, " ({})", decision.why).ok();
    }
    text
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PickExpected {
    slot: Option<u32>,
    instance: Option<String>,
    zone: Option<String>,
    /// It is left to the next balancer.
    #[serde(default)]
    nobody: bool,
    between: Option<[usize; 2]>,
}

/// What was picked, as people know it.
#[derive(Clone)]
pub struct Picked {
    pub slot: Option<u32>,
    pub instance: String,
    pub zone: String,
}

impl Picked {
    pub fn of(slot: Option<u32>, pool: &Pool) -> Self {
        let member = slot.and_then(|slot| pool.members.iter().find(|member| member.slot.0 == slot));
        let zone = member.and_then(|member| member.zone.as_ref());
        Self {
            slot,
            instance: member.map_or_else(String::new, |member| member.instance.to_string()),
            zone: zone.map_or_else(String::new, ToString::to_string),
        }
    }

    pub fn text(&self) -> String {
        match self.slot {
            None => "nobody".into(),
            Some(slot) if self.instance.is_empty() => format!("slot {slot}, which does not exist"),
            Some(slot) => format!("{} (slot {slot})", self.instance),
        }
    }
}

impl Expected<Picked> for PickExpected {
    fn between(&self) -> Option<[usize; 2]> {
        self.between
    }

    fn differences(&self, answer: &Picked) -> Vec<String> {
        let mut differences = Differences::default();
        if self.nobody && answer.slot.is_some() {
            differences.note("pick", "nobody", &answer.text());
        }
        differences.number("slot", self.slot.map(f64::from), answer.slot.map(f64::from));
        differences.is("instance", self.instance.as_deref(), &answer.instance);
        differences.is("zone", self.zone.as_deref(), &answer.zone);
        differences.0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertExpected {
    pub rule: String,
    /// `pending`, `firing` or `resolving`.
    state: Option<String>,
    severity: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Part of it.
    title: Option<String>,
    /// Part of it.
    detail: Option<String>,
    value: Option<f64>,
    threshold: Option<f64>,
}

impl AlertExpected {
    /// Whether it speaks of this alert.
    pub fn means(&self, alert: &Alert) -> bool {
        let labels = &alert.fingerprint.labels;
        let same = |(name, value): (&String, &String)| {
            labels.iter().any(|(known, other)| known == name && other == value)
        };
        self.rule == alert.fingerprint.rule && self.labels.iter().all(same)
    }

    pub fn differences(&self, alert: &Alert) -> Vec<String> {
        let mut differences = Differences::default();
        differences.is("state", self.state.as_deref(), alert.state.as_str());
        differences.is("severity", self.severity.as_deref(), alert.severity.as_str());
        differences.contains("title", self.title.as_deref(), &alert.title);
        differences.contains("detail", self.detail.as_deref(), &alert.detail);
        differences.number("value", self.value, Some(alert.value));
        differences.number("threshold", self.threshold, Some(alert.threshold));
        differences.0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointExpected {
    metric: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    value: f64,
}

impl PointExpected {
    /// A line when there is no such point, or one of another value.
    pub fn difference(&self, points: &[Point], description: &MeterDescription) -> Option<String> {
        let name = |point: &Point| description.metrics.get(point.metric as usize);
        let labels = |point: &Point| -> Vec<(String, String)> {
            let names = name(point).map(|metric| metric.labels.clone()).unwrap_or_default();
            names.into_iter().zip(point.labels.iter().cloned()).collect()
        };
        let mut values = Vec::new();
        for point in
            points.iter().filter(|point| name(point).is_some_and(|metric| metric.name == self.metric))
        {
            let mut apart = Differences::default();
            apart.labels(&self.labels, &labels(point));
            if !apart.0.is_empty() {
                continue;
            }
            apart.number("value", Some(self.value), Some(point.value));
            if apart.0.is_empty() {
                return None;
            }
            values.push(point.value.to_string());
        }
        let got = if values.is_empty() { "no such point".to_owned() } else { values.join(", ") };
        let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Some(format!("{} {{{}}} expected {}, got {got}", self.metric, labels.join(","), self.value))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueExpected {
    pub path: String,
    /// Part of it.
    pub message: Option<String>,
}

impl IssueExpected {
    pub fn means(&self, (path, message): &(String, String)) -> bool {
        *path == self.path && self.message.as_ref().is_none_or(|part| message.contains(part))
    }
}
