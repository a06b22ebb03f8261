//! Rules from the configuration: an aggregate of a series against a threshold.

use meshwright_sdk::settings::Fields;

use super::{Aggregate, Bound, Firing, Sample, Severity, Want, Wants, number, of};

/// How far back the host keeps what it samples.
const WINDOW_S_MAX: u32 = 600;
const FOR_S_MAX: u32 = 24 * 3600;

const SEVERITIES: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("error", Severity::Error),
    ("critical", Severity::Critical),
];

const AGGREGATES: &[(&str, Aggregate)] = &[
    ("last", Aggregate::Last),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("mean", Aggregate::Mean),
    ("p50", Aggregate::P50),
    ("p95", Aggregate::P95),
    ("p99", Aggregate::P99),
    ("rate", Aggregate::Rate),
    ("count", Aggregate::Count),
    ("slope", Aggregate::Slope),
];

#[derive(Debug)]
pub(super) struct Custom {
    name: String,
    want: u32,
    bound: Bound,
    for_s: u32,
    severity: Severity,
}

impl Custom {
    /// `names` are those that are taken.
    pub(super) fn read(fields: &mut Fields<'_>, wants: &mut Wants, names: &mut Vec<String>) -> Option<Self> {
        let name = fields.required("name", Fields::name);
        if let Some(name) = &name {
            if names.contains(name) {
                fields.fault("name", format!("Another rule is called `{name}` too."));
            }
            names.push(name.clone());
        }
        let series = fields.required("series", series);
        let aggregate = fields.choice("aggregate", AGGREGATES).unwrap_or(Aggregate::Last);
        let window_s = fields.integer("window_s", 1..=WINDOW_S_MAX).unwrap_or(60);
        let bound = bound(fields);
        let for_s = fields.integer("for_s", 0..=FOR_S_MAX).unwrap_or(0);
        let severity = fields.choice("severity", SEVERITIES).unwrap_or(Severity::Warning);
        let want = wants.add(&series?, aggregate, window_s);
        Some(Self { name: name?, want, bound: bound?, for_s, severity })
    }

    pub(super) fn evaluate(&self, samples: &[Sample], wants: &[Want]) -> Vec<Firing> {
        let Want { series, aggregate, window_s } = &wants[self.want as usize];
        let aggregate = AGGREGATES.iter().find(|(_, known)| known == aggregate).map_or("", |(word, _)| word);
        of(samples, self.want)
            .filter(|sample| self.bound.holds(sample.value))
            .map(|sample| Firing {
                rule: self.name.clone(),
                severity: self.severity,
                labels: sample.labels.clone(),
                title: format!("{}: {} is {}", self.name, series, number(sample.value)),
                detail: format!(
                    "{aggregate} over {window_s} s, limit {}, resolves at {}",
                    number(self.bound.threshold),
                    number(self.bound.resolve_at),
                ),
                value: sample.value,
                threshold: self.bound.threshold,
                for_s: self.for_s,
                resolve_at: self.bound.resolve_at,
            })
            .collect()
    }
}

fn series(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    let series = fields.text(key)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if series.chars().all(allowed) && !series.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(series);
    }
    fields.fault(
        key,
        "The name of a series consists of letters, digits, `_` and `:`, and starts with no digit.",
    );
    None
}

fn bound(fields: &mut Fields<'_>) -> Option<Bound> {
    let (has_above, has_below) = (fields.has("above"), fields.has("below"));
    let above = fields.number("above", f64::MIN..=f64::MAX);
    let below = fields.number("below", f64::MIN..=f64::MAX);
    let resolve_at = fields.number("resolve_at", f64::MIN..=f64::MAX);
    if has_above == has_below {
        fields.fault_here(if has_above {
            "A rule has either `above` or `below`, not both."
        } else {
            "A rule needs `above` or `below`."
        });
        return None;
    }
    if let Some(threshold) = above {
        let resolve_at = resolve_at.unwrap_or(threshold);
        if resolve_at > threshold {
            fields.fault(
                "resolve_at",
                "This must not be above `above`, or the alert would resolve while it fires.",
            );
        }
        return Some(Bound { threshold, resolve_at });
    }
    let threshold = below?;
    // The least that the contract takes for a lower bound.
    let resolve_at = resolve_at.unwrap_or(threshold.next_up());
    if resolve_at <= threshold {
        fields.fault("resolve_at", "This must be above `below`, or the alert would resolve while it fires.");
    }
    Some(Bound { threshold, resolve_at })
}
