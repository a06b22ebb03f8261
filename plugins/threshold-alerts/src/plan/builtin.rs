//! The rules that are there without any configuration.

use std::collections::BTreeMap;

use meshwright_sdk::settings::Fields;

use super::{Aggregate, Bound, Firing, Labels, Sample, Severity, Wants, label, number, of};

const SERVICE_UNAVAILABLE: &str = "service-unavailable";
const INSTANCE_DOWN: &str = "instance-down";
const INSTANCE_UNHEALTHY: &str = "instance-unhealthy";
const CALLS_FAILING: &str = "calls-failing";
const INSTANCE_SLOW: &str = "instance-slow";
const PLUGIN_FAULTING: &str = "plugin-faulting";

pub(super) const RULES: &[&str] =
    &[SERVICE_UNAVAILABLE, INSTANCE_DOWN, INSTANCE_UNHEALTHY, CALLS_FAILING, INSTANCE_SLOW, PLUGIN_FAULTING];

/// Over how long levels may lag; the host samples about once a second.
const LEVEL_WINDOW_S: u32 = 15;
const RATE_WINDOW_S: u32 = 60;
const FAULTS_WINDOW_S: u32 = 300;

/// An instance counts as well again five points above the threshold, as in the host's own health states.
const HEALTH_POINTS_UP: f64 = 5.0;

#[derive(Debug, PartialEq)]
pub(super) struct Thresholds {
    /// At most so many available instances are too few.
    available_instances: u32,
    /// Health score from 0 to 100.
    health_score: f64,
    /// Part of calls that fail, 0 to 1.
    failure_ratio: f64,
    /// With fewer calls, failures say nothing.
    calls_per_s_min: f64,
    latency_s: f64,
    /// Faults of a plugin within five minutes.
    plugin_faults: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            available_instances: 0,
            health_score: 50.0,
            failure_ratio: 0.05,
            calls_per_s_min: 0.1,
            latency_s: 2.0,
            plugin_faults: 1,
        }
    }
}

impl Thresholds {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let default = Self::default();
        Self {
            available_instances: fields
                .integer("available_instances", 0..=10_000)
                .unwrap_or(default.available_instances),
            health_score: fields.number("health_score", 0.0..=95.0).unwrap_or(default.health_score),
            failure_ratio: fields.number("failure_ratio", 0.001..=1.0).unwrap_or(default.failure_ratio),
            calls_per_s_min: fields.number("calls_per_s_min", 0.0..=1e6).unwrap_or(default.calls_per_s_min),
            latency_s: fields.number("latency_s", 0.001..=600.0).unwrap_or(default.latency_s),
            plugin_faults: fields.integer("plugin_faults", 1..=1_000_000).unwrap_or(default.plugin_faults),
        }
    }
}

/// Each rule that is switched on, with the indices of its wants.
#[derive(Debug, Default)]
pub(super) struct Builtin {
    thresholds: Thresholds,
    service_unavailable: Option<Availability>,
    instance_down: Option<Down>,
    instance_unhealthy: Option<Unhealthy>,
    calls_failing: Option<Failing>,
    instance_slow: Option<Slow>,
    plugin_faulting: Option<u32>,
}

#[derive(Debug)]
struct Availability {
    available: u32,
    instances: u32,
    draining: u32,
}

#[derive(Debug)]
struct Down {
    up: u32,
    probe_failures: u32,
}

#[derive(Debug)]
struct Unhealthy {
    score: u32,
    up: u32,
}

#[derive(Debug)]
struct Failing {
    calls: u32,
    failures: u32,
}

#[derive(Debug)]
struct Slow {
    latency: u32,
    calls: u32,
}

impl Builtin {
    pub(super) fn new(wants: &mut Wants, thresholds: Thresholds, disabled: &[String]) -> Self {
        let on = |rule: &str| !disabled.iter().any(|name| name == rule);
        let mut level = |series| wants.add(series, Aggregate::Last, LEVEL_WINDOW_S);
        let service_unavailable = on(SERVICE_UNAVAILABLE).then(|| Availability {
            available: level("meshwright_service_instances_available"),
            instances: level("meshwright_service_instances"),
            draining: level("meshwright_service_instances_draining"),
        });
        let instance_down = on(INSTANCE_DOWN).then(|| Down {
            up: level("meshwright_instance_up"),
            probe_failures: level("meshwright_instance_probe_failures"),
        });
        let instance_unhealthy = on(INSTANCE_UNHEALTHY).then(|| Unhealthy {
            score: level("meshwright_instance_health_score"),
            up: level("meshwright_instance_up"),
        });
        let latency = on(INSTANCE_SLOW).then(|| level("meshwright_instance_latency_seconds"));
        let mut rate = |series, window_s| wants.add(series, Aggregate::Rate, window_s);
        Self {
            thresholds,
            service_unavailable,
            instance_down,
            instance_unhealthy,
            calls_failing: on(CALLS_FAILING).then(|| Failing {
                calls: rate("meshwright_calls_total", RATE_WINDOW_S),
                failures: rate("meshwright_call_failures_total", RATE_WINDOW_S),
            }),
            instance_slow: latency
                .map(|latency| Slow { latency, calls: rate("meshwright_calls_total", RATE_WINDOW_S) }),
            plugin_faulting: on(PLUGIN_FAULTING)
                .then(|| wants.add("meshwright_plugin_faults_total", Aggregate::Count, FAULTS_WINDOW_S)),
        }
    }

    pub(super) fn evaluate(&self, samples: &[Sample]) -> Vec<Firing> {
        let mut firing = Vec::new();
        if let Some(wants) = &self.service_unavailable {
            firing.extend(self.service_unavailable(wants, samples));
        }
        if let Some(wants) = &self.instance_down {
            firing.extend(instance_down(wants, samples));
        }
        if let Some(wants) = &self.instance_unhealthy {
            firing.extend(self.instance_unhealthy(wants, samples));
        }
        if let Some(wants) = &self.calls_failing {
            firing.extend(self.calls_failing(wants, samples));
        }
        if let Some(wants) = &self.instance_slow {
            firing.extend(self.instance_slow(wants, samples));
        }
        if let Some(want) = self.plugin_faulting {
            firing.extend(self.plugin_faulting(want, samples));
        }
        firing
    }

    fn service_unavailable(&self, wants: &Availability, samples: &[Sample]) -> Vec<Firing> {
        let few = f64::from(self.thresholds.available_instances);
        let bound = Bound { threshold: few, resolve_at: few + 0.5 };
        let instances = by_labels(samples, wants.instances);
        let draining = by_labels(samples, wants.draining);
        let fire = |sample: &Sample| {
            let draining = draining.get(&sample.labels).copied().unwrap_or(0.0);
            // Those that somebody took out of use are not missed.
            let all = instances.get(&sample.labels).map(|all| all - draining);
            // A service that was meant to be this small is not short of instances while all of them are there.
            let complete = sample.value > 0.0 && all.is_some_and(|all| sample.value >= all);
            (bound.holds(sample.value) && !complete).then(|| {
                let service = label(&sample.labels, "service");
                Firing {
                    title: if sample.value < 1.0 {
                        format!("service `{service}` has no available instance")
                    } else {
                        format!("service `{service}` is short of instances")
                    },
                    detail: availability(sample.value, all, draining),
                    ..alert(SERVICE_UNAVAILABLE, Severity::Critical, 5, bound, sample)
                }
            })
        };
        of(samples, wants.available).filter_map(fire).collect()
    }

    fn instance_unhealthy(&self, wants: &Unhealthy, samples: &[Sample]) -> Vec<Firing> {
        let threshold = self.thresholds.health_score;
        let bound = Bound { threshold, resolve_at: threshold + HEALTH_POINTS_UP };
        let up = by_labels(samples, wants.up);
        // One that is down has an alert of its own.
        let is_down = |sample: &Sample| up.get(&sample.labels).is_some_and(|up| *up < 1.0);
        of(samples, wants.score)
            .filter(|sample| bound.holds(sample.value) && !is_down(sample))
            .map(|sample| Firing {
                title: format!("{} is unhealthy", instance(&sample.labels)),
                detail: format!("health score {} of 100, limit {}", number(sample.value), number(threshold)),
                ..alert(INSTANCE_UNHEALTHY, Severity::Warning, 30, bound, sample)
            })
            .collect()
    }

    /// By service, since that is what callers see; the detail names the instance that fails most.
    fn calls_failing(&self, wants: &Failing, samples: &[Sample]) -> Vec<Firing> {
        let threshold = self.thresholds.failure_ratio;
        let bound = Bound { threshold, resolve_at: threshold / 2.0 };
        let mut services: BTreeMap<&str, (f64, f64, &str, f64)> = BTreeMap::new();
        for sample in of(samples, wants.calls) {
            services.entry(label(&sample.labels, "service")).or_default().0 += sample.value;
        }
        for sample in of(samples, wants.failures) {
            let service = services.entry(label(&sample.labels, "service")).or_default();
            service.1 += sample.value;
            if sample.value > service.3 {
                (service.2, service.3) = (label(&sample.labels, "instance"), sample.value);
            }
        }
        let fire = |(service, (calls, failures, worst, _)): (&str, (f64, f64, &str, f64))| {
            let ratio = (failures / calls).min(1.0);
            let enough = calls > 0.0 && calls >= self.thresholds.calls_per_s_min;
            (enough && bound.holds(ratio)).then(|| {
                let labels = vec![("service".to_owned(), service.to_owned())];
                let sample = Sample { want: wants.failures, labels, value: ratio };
                Firing {
                    title: format!("calls to `{service}` fail"),
                    detail: format!(
                        "{} % of {} calls/s failed over {RATE_WINDOW_S} s, limit {} %, most of them at `{worst}`",
                        number(ratio * 100.0),
                        number(calls),
                        number(threshold * 100.0),
                    ),
                    ..alert(CALLS_FAILING, Severity::Error, 30, bound, &sample)
                }
            })
        };
        services.into_iter().filter_map(fire).collect()
    }

    /// Only of instances with calls: a moving average stands still without them.
    fn instance_slow(&self, wants: &Slow, samples: &[Sample]) -> Vec<Firing> {
        let threshold = self.thresholds.latency_s;
        let bound = Bound { threshold, resolve_at: threshold * 0.75 };
        let calls = by_labels(samples, wants.calls);
        let is_called = |sample: &Sample| calls.get(&sample.labels).is_some_and(|rate| *rate > 0.0);
        of(samples, wants.latency)
            .filter(|sample| bound.holds(sample.value) && is_called(sample))
            .map(|sample| Firing {
                title: format!("{} is slow", instance(&sample.labels)),
                detail: format!("calls take {} s, limit {} s", number(sample.value), number(threshold)),
                ..alert(INSTANCE_SLOW, Severity::Warning, 60, bound, sample)
            })
            .collect()
    }

    fn plugin_faulting(&self, want: u32, samples: &[Sample]) -> Vec<Firing> {
        let threshold = f64::from(self.thresholds.plugin_faults);
        let bound = Bound { threshold, resolve_at: threshold / 2.0 };
        let fire = |sample: &Sample| {
            let faults = sample.value;
            bound.holds(faults).then(|| Firing {
                value: faults,
                title: format!("plugin `{}` faults", label(&sample.labels, "plugin")),
                detail: format!("{faults} faults in {} min, limit {threshold}", FAULTS_WINDOW_S / 60),
                ..alert(PLUGIN_FAULTING, Severity::Warning, 0, bound, sample)
            })
        };
        of(samples, want).filter_map(fire).collect()
    }
}

/// `all` without those that are `draining`.
fn availability(available: f64, all: Option<f64>, draining: f64) -> String {
    if draining > 0.0 && all.is_some_and(|all| all < 1.0) {
        return format!("all of its {} instances are taken out of use", number(draining));
    }
    let of_all = all.map(|all| format!(" of {}", number(all))).unwrap_or_default();
    let others = match draining {
        1.0.. => format!(", {} more taken out of use", number(draining)),
        _ => String::new(),
    };
    format!("{}{of_all} instances available{others}", number(available))
}

fn instance_down(wants: &Down, samples: &[Sample]) -> Vec<Firing> {
    let bound = Bound { threshold: 0.0, resolve_at: 0.5 };
    let probe_failures = by_labels(samples, wants.probe_failures);
    of(samples, wants.up)
        .filter(|sample| bound.holds(sample.value))
        .map(|sample| Firing {
            title: format!("{} is down", instance(&sample.labels)),
            detail: match probe_failures.get(&sample.labels) {
                Some(failures) if *failures >= 1.0 => format!("{} probes in a row failed", number(*failures)),
                _ => "the host does not route calls to it".into(),
            },
            ..alert(INSTANCE_DOWN, Severity::Error, 15, bound, sample)
        })
        .collect()
}

fn alert(rule: &str, severity: Severity, for_s: u32, bound: Bound, sample: &Sample) -> Firing {
    Firing {
        rule: rule.into(),
        severity,
        labels: sample.labels.clone(),
        title: String::new(),
        detail: String::new(),
        value: sample.value,
        threshold: bound.threshold,
        for_s,
        resolve_at: bound.resolve_at,
    }
}

fn instance(labels: &Labels) -> String {
    format!("instance `{}` of `{}`", label(labels, "instance"), label(labels, "service"))
}

fn by_labels(samples: &[Sample], want: u32) -> BTreeMap<&Labels, f64> {
    of(samples, want).map(|sample| (&sample.labels, sample.value)).collect()
}
