//! What guests answer, checked and turned into the domain's types. Texts for people are cut; whatever the host
//! would act upon is refused when it is out of bounds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Answer;
use super::exports::{alerter, meter, router};
use crate::mesh::ids::Name;
use crate::mesh::observe::{
    Aggregate, Chart, Firing, Labels, MeterDescription, Metric, MetricKind, Panel, Point, Severity, Want,
};
use crate::mesh::verdict::{Decision, Mirror, Refusal, Reuse, Target, Vary, Verdict};
use crate::plugin::host_state::{cut, printable};

/// A decision holds at most this long.
const REUSE_MAX: Duration = Duration::from_mins(1);
const WHY_BYTES_MAX: usize = 1 << 10;
const REASON_BYTES_MAX: usize = 4 << 10;
const TOOL_BYTES_MAX: usize = 256;
const TITLE_BYTES_MAX: usize = 256;
const WANTS_MAX: usize = 100;
const WINDOW_S_MAX: u32 = 600;
const FIRINGS_PER_RULE_MAX: usize = 100;
const FIRINGS_MAX: usize = 1_000;
const LABELS_MAX: usize = 16;
const LABEL_VALUE_BYTES_MAX: usize = 256;
const IDENTIFIER_BYTES_MAX: usize = 128;
const METRICS_MAX: usize = 64;
const PANELS_MAX: usize = 32;
/// Series of one metric; a meter that wants more gets this many.
const SERIES_MAX: u32 = 1_000;
const POINTS_MAX: usize = 20_000;

pub fn decision(said: router::Decision) -> Answer<Decision> {
    let verdict = match said.verdict {
        router::Verdict::Pass => Verdict::Pass,
        router::Verdict::Forward(target) => Verdict::Forward(Target {
            service: name(&target.service).ok_or("the service it forwards to has no valid name")?,
            tag: match target.tag {
                Some(tag) => Some(name(&tag).ok_or("the tag it forwards to has no valid name")?),
                None => None,
            },
            tool: match target.tool {
                Some(tool) if tool.is_empty() || tool.len() > TOOL_BYTES_MAX || has_controls(&tool) => {
                    return Err("the tool it forwards to has no valid name");
                }
                tool => tool,
            },
            timeout: target.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
            mirror: match target.mirror {
                Some(said) => Some(mirror(said)?),
                None => None,
            },
        }),
        router::Verdict::Reject(refusal) => Verdict::Reject(Refusal {
            reason: text(refusal.reason, REASON_BYTES_MAX),
            retry_after: refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        }),
    };
    Ok(Decision { verdict, why: why(said.why), reuse: said.reuse.map(reuse) })
}

/// A phrase for people.
pub fn why(said: String) -> Arc<str> {
    text(said, WHY_BYTES_MAX).into()
}

fn mirror(said: router::Mirror) -> Answer<Mirror> {
    if said.permille > 1000 {
        return Err("it mirrors more than 1000 of 1000 calls");
    }
    let service = name(&said.service).ok_or("the service it mirrors to has no valid name")?;
    Ok(Mirror { service, permille: said.permille, any_tool: said.any_tool })
}

fn reuse(said: router::Reuse) -> Reuse {
    let has = |flag| said.vary.contains(flag);
    Reuse {
        ttl: Duration::from_millis(said.ttl_ms.into()).min(REUSE_MAX),
        vary: Vary {
            tool: has(router::Vary::TOOL),
            client: has(router::Vary::CLIENT),
            affinity: has(router::Vary::AFFINITY),
            size: has(router::Vary::SIZE),
        },
    }
}

pub fn wants(said: Vec<alerter::Want>) -> Answer<Vec<Want>> {
    if said.len() > WANTS_MAX {
        return Err("it wants more than 100 series");
    }
    said.into_iter()
        .map(|want| {
            if !is_identifier(&want.series) {
                return Err("a series it wants has no valid name");
            }
            if !(1..=WINDOW_S_MAX).contains(&want.window_s) {
                return Err("a window it wants is not between 1 and 600 seconds");
            }
            let aggregate = aggregate(want.aggregate);
            Ok(Want { series: want.series, aggregate, window_s: want.window_s })
        })
        .collect()
}

fn aggregate(said: alerter::Aggregate) -> Aggregate {
    match said {
        alerter::Aggregate::Last => Aggregate::Last,
        alerter::Aggregate::Min => Aggregate::Min,
        alerter::Aggregate::Max => Aggregate::Max,
        alerter::Aggregate::Mean => Aggregate::Mean,
        alerter::Aggregate::P50 => Aggregate::P50,
        alerter::Aggregate::P95 => Aggregate::P95,
        alerter::Aggregate::P99 => Aggregate::P99,
        alerter::Aggregate::Rate => Aggregate::Rate,
        alerter::Aggregate::Count => Aggregate::Count,
        alerter::Aggregate::Slope => Aggregate::Slope,
    }
}

pub fn firings(said: Vec<alerter::Firing>) -> Answer<Vec<Firing>> {
    if said.len() > FIRINGS_MAX {
        return Err("more than 1000 alerts at once");
    }
    let mut per_rule: HashMap<String, usize> = HashMap::new();
    said.into_iter()
        .map(|firing| {
            if !is_identifier(&firing.rule) {
                return Err("an alert's rule has no valid name");
            }
            let count = per_rule.entry(firing.rule.clone()).or_default();
            *count += 1;
            if *count > FIRINGS_PER_RULE_MAX {
                return Err("more than 100 alerts of one rule");
            }
            if ![firing.value, firing.threshold, firing.resolve_at].iter().all(|number| number.is_finite()) {
                return Err("an alert's value or threshold is not a number");
            }
            Ok(Firing {
                severity: severity(firing.severity),
                labels: labels(firing.labels)?,
                title: text(firing.title, TITLE_BYTES_MAX),
                detail: text(firing.detail, REASON_BYTES_MAX),
                rule: firing.rule,
                value: firing.value,
                threshold: firing.threshold,
                for_s: firing.for_s,
                resolve_at: firing.resolve_at,
            })
        })
        .collect()
}

fn severity(said: alerter::Severity) -> Severity {
    match said {
        alerter::Severity::Info => Severity::Info,
        alerter::Severity::Warning => Severity::Warning,
        alerter::Severity::Error => Severity::Error,
        alerter::Severity::Critical => Severity::Critical,
    }
}

fn labels(said: Vec<(String, String)>) -> Answer<Labels> {
    if said.len() > LABELS_MAX {
        return Err("more than 16 labels");
    }
    let mut seen = HashSet::new();
    if !said.iter().all(|(name, _)| is_identifier(name) && seen.insert(name.as_str())) {
        return Err("a label's name is not valid, or there twice");
    }
    Ok(said.into_iter().map(|(name, value)| (name, text(value, LABEL_VALUE_BYTES_MAX))).collect())
}

pub fn description(metrics: Vec<meter::Metric>, panels: Vec<meter::Panel>) -> Answer<MeterDescription> {
    if metrics.len() > METRICS_MAX {
        return Err("more than 64 metrics");
    }
    if panels.len() > PANELS_MAX {
        return Err("more than 32 panels");
    }
    let mut names = HashSet::new();
    if !metrics.iter().all(|metric| is_metric_name(&metric.name) && names.insert(metric.name.clone())) {
        return Err("a metric's name is not of lower-case letters, digits and `_`, or there twice");
    }
    let count = metrics.len();
    let metrics = metrics.into_iter().map(metric).collect::<Answer<Vec<_>>>()?;
    let panels = panels
        .into_iter()
        .map(|panel| {
            if panel.metrics.len() > METRICS_MAX || panel.metrics.iter().any(|index| *index as usize >= count)
            {
                return Err("a panel shows a metric that does not exist");
            }
            let chart = match panel.chart {
                meter::Chart::Line => Chart::Line,
                meter::Chart::Bar => Chart::Bar,
                meter::Chart::Stat => Chart::Stat,
                meter::Chart::Table => Chart::Table,
            };
            let (title, unit) = (text(panel.title, TITLE_BYTES_MAX), text(panel.unit, IDENTIFIER_BYTES_MAX));
            Ok(Panel { title, chart, metrics: panel.metrics, unit })
        })
        .collect::<Answer<Vec<_>>>()?;
    Ok(MeterDescription { metrics, panels })
}

fn metric(said: meter::Metric) -> Answer<Metric> {
    let mut seen = HashSet::new();
    if said.labels.len() > LABELS_MAX {
        return Err("a metric has more than 16 labels");
    }
    if !said.labels.iter().all(|label| is_metric_name(label) && seen.insert(label.as_str())) {
        return Err("a metric's label is not of lower-case letters, digits and `_`, or there twice");
    }
    Ok(Metric {
        name: said.name,
        help: text(said.help, WHY_BYTES_MAX),
        unit: text(said.unit, IDENTIFIER_BYTES_MAX),
        kind: match said.kind {
            meter::Kind::Counter => MetricKind::Counter,
            meter::Kind::Gauge => MetricKind::Gauge,
        },
        labels: said.labels,
        series_max: said.series_max.min(SERIES_MAX),
    })
}

pub fn points(said: Vec<meter::Point>, description: &MeterDescription) -> Answer<Vec<Point>> {
    if said.len() > POINTS_MAX {
        return Err("more than 20000 points");
    }
    let mut series: HashMap<u32, HashSet<Vec<String>>> = HashMap::new();
    let mut points = Vec::with_capacity(said.len());
    for point in said {
        let metric = description
            .metrics
            .get(point.metric as usize)
            .ok_or("a point of a metric that does not exist")?;
        if point.labels.len() != metric.labels.len() {
            return Err("a point has other labels than its metric");
        }
        if !point.value.is_finite() || (metric.kind == MetricKind::Counter && point.value < 0.0) {
            return Err("a point's value is not a number, or a counter is negative");
        }
        let labels: Vec<String> =
            point.labels.into_iter().map(|value| text(value, LABEL_VALUE_BYTES_MAX)).collect();
        let known = series.entry(point.metric).or_default();
        // What exceeds the metric's own limit is left out, as the contract says.
        if known.len() < metric.series_max as usize && known.insert(labels.clone()) {
            points.push(Point { metric: point.metric, labels, value: point.value });
        }
    }
    Ok(points)
}

fn name(text: &str) -> Option<Name> {
    Name::new(text).ok()
}

fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Text for people: cut, and without control characters.
fn text(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max && !has_controls(&text) {
        return text;
    }
    printable(cut(&text, bytes_max))
}

/// Names of series, rules and labels.
fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= IDENTIFIER_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/'))
}

/// Names that OpenMetrics takes without escaping.
fn is_metric_name(text: &str) -> bool {
    text.len() <= IDENTIFIER_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
