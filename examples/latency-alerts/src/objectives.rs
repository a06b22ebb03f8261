//! Objectives of services, and which of them are missed.

use std::collections::BTreeMap;

use meshwright_sdk::settings::{self, Fields, Issue};

/// An alert stays until the latency is this much of the objective, so that it does not flap around it.
const RESOLVE_RATIO: f64 = 0.9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    Mean,
    P99,
}

/// The latency of one instance.
pub struct Sample {
    pub figure: Figure,
    pub labels: Vec<(String, String)>,
    pub seconds: f64,
}

/// A service whose slowest instance misses the objective, or has not yet recovered from missing it.
#[derive(Debug, PartialEq)]
pub struct Alert {
    pub figure: Figure,
    pub service: String,
    /// Its slowest instance, and how slow that is.
    pub slowest: String,
    pub seconds: f64,
    pub objective_s: f64,
    pub resolve_at_s: f64,
}

#[derive(Clone, Copy)]
struct Objective {
    mean_s: f64,
    p99_s: f64,
}

pub struct Objectives {
    pub window_s: u32,
    default: Objective,
    services: BTreeMap<String, Objective>,
}

impl Default for Objectives {
    fn default() -> Self {
        let default = Objective { mean_s: 1.0, p99_s: 3.0 };
        Self { window_s: 300, default, services: BTreeMap::new() }
    }
}

impl Objectives {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        settings::read(config_json, |fields| {
            let base = Self::default();
            let window_s = fields.integer("window_s", 10..=600).unwrap_or(base.window_s);
            let default = objective(fields, base.default);
            let services = fields.objects("services", |fields| {
                let service = fields.required("service", Fields::name);
                let objective = objective(fields, default);
                Some((service?, objective))
            });
            Self { window_s, default, services: services.into_iter().flatten().collect() }
        })
    }

    /// All alerts that hold.
    pub fn alerts(&self, samples: &[Sample]) -> Vec<Alert> {
        let mut slowest: BTreeMap<(&str, Figure), (f64, &str)> = BTreeMap::new();
        for Sample { figure, labels, seconds } in samples {
            let label =
                |name| labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
            let known = slowest.entry((label("service"), *figure)).or_default();
            if *seconds > known.0 {
                *known = (*seconds, label("instance"));
            }
        }
        let alert = |((service, figure), (seconds, instance)): ((&str, Figure), (f64, &str))| {
            let objective = self.services.get(service).unwrap_or(&self.default);
            let objective_s = match figure {
                Figure::Mean => objective.mean_s,
                Figure::P99 => objective.p99_s,
            };
            let resolve_at_s = objective_s * RESOLVE_RATIO;
            let (service, slowest) = (service.to_owned(), instance.to_owned());
            (seconds >= resolve_at_s).then_some(Alert {
                figure,
                service,
                slowest,
                seconds,
                objective_s,
                resolve_at_s,
            })
        };
        slowest.into_iter().filter_map(alert).collect()
    }
}

fn objective(fields: &mut Fields<'_>, default: Objective) -> Objective {
    let mut seconds = |key| fields.integer(key, 1..=600_000).map(|ms| f64::from(ms) / 1000.0);
    Objective {
        mean_s: seconds("mean_ms").unwrap_or(default.mean_s),
        p99_s: seconds("p99_ms").unwrap_or(default.p99_s),
    }
}

/// # Errors
/// What is wrong with the alerts of two samples.
pub fn self_test() -> Result<(), String> {
    let objectives = Objectives::read(r#"{"services": [{"service": "search", "mean_ms": 200}]}"#)
        .map_err(|issues| format!("a valid configuration is refused: {}", issues[0].message))?;
    let sample = |service: &str| Sample {
        figure: Figure::Mean,
        labels: vec![("service".into(), service.into())],
        seconds: 0.5,
    };
    match objectives.alerts(&[sample("search"), sample("other")]).as_slice() {
        [alert] if alert.service == "search" => Ok(()),
        other => Err(format!("one alert of `search` was due, and there are {other:?}")),
    }
}

#[cfg(test)]
mod tests;
