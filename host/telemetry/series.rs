//! Windows of the series that alerters want, and only of those.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;

use crate::mesh::observe::{Aggregate, Labels, Sample, Want};
use crate::mesh::time::Mono;
use crate::policy::status::PluginStatus;
use crate::registry::{Instance, Service, Snapshot};

/// Longest window.
pub const WINDOW_S_MAX: u32 = 600;
/// Series that are kept; further label sets are left out.
const SERIES_MAX: usize = 50_000;

type Value = (Mono, f64);

/// The last values of each wanted series, one a second.
#[derive(Default)]
pub struct Windows {
    values: HashMap<&'static str, HashMap<Labels, VecDeque<Value>>>,
    /// Longest window wanted of each series.
    wanted: HashMap<&'static str, u32>,
}

/// What the host measures: a series' name, and how its value is read.
type Row<T> = (&'static str, fn(&T) -> f64);

const INSTANCE_SERIES: [Row<Instance>; 4] = [
    ("meshwright_calls_total", |i| i.core.counters.messages.load(Ordering::Relaxed) as f64),
    ("meshwright_call_failures_total", |i| i.core.counters.failed.load(Ordering::Relaxed) as f64),
    // The balancers' figure, which fades while nobody calls: so does an alert about it.
    ("meshwright_instance_latency_seconds", |i| f64::from(i.core.live.ewma_us()) / 1e6),
    ("meshwright_instance_probe_failures", |i| f64::from(i.core.probe_failures.load(Ordering::Relaxed))),
];
/// Of an instance that somebody took out of use these say nothing: it gets no calls because that was wanted.
const IN_USE_SERIES: [Row<Instance>; 2] = [
    ("meshwright_instance_health_score", |i| f64::from(i.core.live.score())),
    ("meshwright_instance_up", |i| f64::from(u8::from(i.is_available()))),
];
const SERVICE_SERIES: [Row<Service>; 3] = [
    ("meshwright_service_instances", |s| s.instances.len() as f64),
    ("meshwright_service_instances_available", |s| s.available() as f64),
    ("meshwright_service_instances_draining", |s| (s.instances.len() - s.wanted()) as f64),
];
const PLUGIN_SERIES: [Row<PluginStatus>; 1] = [("meshwright_plugin_faults_total", |p| p.faults as f64)];

/// Names of all series of the host.
pub fn names() -> impl Iterator<Item = &'static str> {
    let instances = INSTANCE_SERIES.iter().chain(&IN_USE_SERIES).map(|(name, _)| *name);
    let services = SERVICE_SERIES.iter().map(|(name, _)| *name);
    instances.chain(services).chain(PLUGIN_SERIES.iter().map(|(name, _)| *name))
}

impl Windows {
    /// Keeps what `wants` asks for and forgets what nobody asks for any more. Unknown series get no samples.
    pub fn want<'a>(&mut self, wants: impl Iterator<Item = &'a Want>) {
        self.wanted.clear();
        for want in wants {
            if let Some(name) = names().find(|name| *name == want.series) {
                let window = self.wanted.entry(name).or_default();
                *window = (*window).max(want.window_s.clamp(1, WINDOW_S_MAX));
            }
        }
        self.values.retain(|name, _| self.wanted.contains_key(name));
    }

    /// Takes one value of each wanted series.
    pub fn record(&mut self, now: Mono, snapshot: &Snapshot, plugins: &[PluginStatus]) {
        let mut seen: HashSet<(&'static str, Labels)> = HashSet::new();
        let mut put = |name: &'static str, labels: Labels, value: f64| {
            let Some(&window_s) = self.wanted.get(name) else { return };
            let count: usize = self.values.values().map(HashMap::len).sum();
            let of_name = self.values.entry(name).or_default();
            if count >= SERIES_MAX && !of_name.contains_key(&labels) {
                return;
            }
            let values = of_name.entry(labels.clone()).or_default();
            values.push_back((now, value));
            while values.front().is_some_and(|(at, _)| now.since(*at).as_secs() > u64::from(window_s)) {
                values.pop_front();
            }
            seen.insert((name, labels));
        };
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        for service in snapshot.services() {
            for (name, read) in SERVICE_SERIES {
                put(name, vec![label("service", service.name.as_str())], read(service));
            }
            for instance in &service.instances {
                let in_use = IN_USE_SERIES.iter().filter(|_| instance.drain.is_none());
                for (name, read) in INSTANCE_SERIES.iter().chain(in_use) {
                    let labels = vec![
                        label("service", service.name.as_str()),
                        label("instance", instance.name().as_str()),
                    ];
                    put(name, labels, read(instance));
                }
            }
        }
        for plugin in plugins.iter().filter(|plugin| plugin.generation > 0) {
            for (name, read) in PLUGIN_SERIES {
                put(name, vec![label("plugin", &plugin.name)], read(plugin));
            }
        }
        for (name, of_name) in &mut self.values {
            of_name.retain(|labels, _| seen.contains(&(*name, labels.clone())));
        }
    }

    /// The samples for one alerter's wants.
    pub fn samples(&self, now: Mono, wants: &[Want]) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (index, want) in wants.iter().enumerate() {
            let Some(of_name) = self.values.get(want.series.as_str()) else { continue };
            for (labels, values) in of_name {
                let window = values.iter().filter(|(at, _)| {
                    now.since(*at).as_secs() <= u64::from(want.window_s.clamp(1, WINDOW_S_MAX))
                });
                let window: Vec<Value> = window.copied().collect();
                if let Some(value) = aggregate(want.aggregate, &window) {
                    let want = u32::try_from(index).unwrap_or(u32::MAX);
                    samples.push(Sample { want, labels: labels.clone(), value });
                }
            }
        }
        samples
    }
}

/// `None` when the window is too short for the aggregate.
fn aggregate(aggregate: Aggregate, window: &[Value]) -> Option<f64> {
    let (first, last) = (window.first()?, window.last()?);
    let values = || window.iter().map(|(_, value)| *value);
    let seconds = last.0.since(first.0).as_secs_f64();
    match aggregate {
        Aggregate::Last => Some(last.1),
        Aggregate::Min => values().reduce(f64::min),
        Aggregate::Max => values().reduce(f64::max),
        Aggregate::Mean => Some(values().sum::<f64>() / window.len() as f64),
        Aggregate::P50 => Some(quantile(values().collect(), 0.50)),
        Aggregate::P95 => Some(quantile(values().collect(), 0.95)),
        Aggregate::P99 => Some(quantile(values().collect(), 0.99)),
        Aggregate::Count => Some((last.1 - first.1).max(0.0)),
        Aggregate::Rate => (seconds > 0.0).then(|| (last.1 - first.1).max(0.0) / seconds),
        Aggregate::Slope => (seconds > 0.0).then(|| slope(window)),
    }
}

/// Nearest rank.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (q * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// Per second, by least squares.
fn slope(window: &[Value]) -> f64 {
    let start = window[0].0;
    let points: Vec<(f64, f64)> =
        window.iter().map(|(at, value)| (at.since(start).as_secs_f64(), *value)).collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(values: &[f64]) -> Vec<Value> {
        values.iter().enumerate().map(|(second, value)| (Mono::from_secs(second as u64), *value)).collect()
    }

    #[test]
    fn aggregates_are_what_they_are_called() {
        let values = window(&[1.0, 3.0, 5.0, 7.0]);
        let of = |kind| aggregate(kind, &values);
        assert_eq!(of(Aggregate::Last), Some(7.0));
        assert_eq!(of(Aggregate::Min), Some(1.0));
        assert_eq!(of(Aggregate::Max), Some(7.0));
        assert_eq!(of(Aggregate::Mean), Some(4.0));
        assert_eq!(of(Aggregate::P50), Some(3.0));
        assert_eq!(of(Aggregate::P99), Some(7.0));
        assert_eq!(of(Aggregate::Rate), Some(2.0));
        assert_eq!(of(Aggregate::Count), Some(6.0));
        assert_eq!(of(Aggregate::Slope), Some(2.0));
    }

    #[test]
    fn a_single_value_has_no_rate() {
        assert_eq!(aggregate(Aggregate::Rate, &window(&[5.0])), None);
        assert_eq!(aggregate(Aggregate::Last, &[]), None);
    }

    #[test]
    fn a_counter_that_began_anew_has_no_negative_rate() {
        assert_eq!(aggregate(Aggregate::Rate, &window(&[100.0, 2.0])), Some(0.0));
    }
}
