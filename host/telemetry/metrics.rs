//! Everything that is counted, as OpenMetrics text.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry as Scraped;

use super::meters::Reading;
use crate::clock;
use crate::mesh::breaker::BreakerState;
use crate::mesh::hedge::Hedging;
use crate::mesh::ids::Name;
use crate::mesh::observe::{Labels, MetricKind};
use crate::mesh::reliability::Share;
use crate::mesh::stats::CallCounts;
use crate::policy::metrics::{family, is_own};
use crate::policy::status::{PluginState, PluginStatus};
use crate::proxy::MirrorCounts;
use crate::registry::{Line, Snapshot};

/// The media type of [`text()`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one scrape sees.
pub struct Scrape {
    pub snapshot: Arc<Snapshot>,
    pub plugins: Vec<PluginStatus>,
    pub readings: Arc<Vec<Reading>>,
    pub in_flight: usize,
    pub mirrors: Vec<(Name, Name, MirrorCounts)>,
    pub mirrors_dropped: u64,
    pub persistence_degraded: bool,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Scrape {
    /// # Errors
    /// Never in practice: the text is written to memory.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Scraped::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// One metric: its name without `_total`, its help, and its series.
struct Family {
    name: String,
    help: String,
    kind: MetricType,
    series: Vec<(Labels, f64)>,
}

fn label(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

type Count = (&'static str, &'static str, fn(&CallCounts) -> u64);

const COUNTS: [Count; 8] = [
    ("messages", "Calls that ended, whatever their end", |c| c.messages),
    ("ok", "Calls that a tool answered", |c| c.ok),
    ("tool_errors", "Calls that a tool answered with an error", |c| c.tool_errors),
    ("failed", "Calls without an answer", |c| c.failed),
    ("refused", "Calls that no instance was asked for", |c| c.refused),
    ("retries", "Attempts after the first", |c| c.retries),
    ("request_bytes", "Bytes of calls", |c| c.request_bytes),
    ("response_bytes", "Bytes of results", |c| c.response_bytes),
];

impl Scrape {
    fn families(&self) -> Vec<Family> {
        let mut families = self.service_families();
        families.extend(self.instance_families());
        families.extend(self.availability_families());
        families.extend(self.plugin_families());
        families.push(Family {
            name: "meshwright_calls_in_flight".to_owned(),
            help: "Calls under way".to_owned(),
            kind: MetricType::Gauge,
            series: vec![(Vec::new(), self.in_flight as f64)],
        });
        families.push(Family {
            name: "meshwright_persistence_degraded".to_owned(),
            help: "1 while nothing can be written down".to_owned(),
            kind: MetricType::Gauge,
            series: vec![(Vec::new(), f64::from(u8::from(self.persistence_degraded)))],
        });
        families.extend(self.mirror_families());
        debug_assert!(families.iter().all(|family| is_own(&family.name)), "a meter could take its name");
        families.extend(self.meter_families(&families));
        families
    }

    fn mirror_families(&self) -> [Family; 2] {
        let series = self.mirrors.iter().flat_map(|(service, mirror, counts)| {
            let outcomes =
                [("same", counts.same), ("different", counts.different), ("failed", counts.failed)];
            outcomes.map(|(outcome, count)| {
                let labels =
                    vec![label("service", service), label("mirror", mirror), label("outcome", outcome)];
                (labels, count as f64)
            })
        });
        [
            Family {
                name: "meshwright_mirrored_calls".to_owned(),
                help: "Copies of calls, by how their answers compare with the originals'".to_owned(),
                kind: MetricType::Counter,
                series: series.collect(),
            },
            Family {
                name: "meshwright_mirrored_calls_dropped".to_owned(),
                help: "Copies of calls that were not sent, because too many waited".to_owned(),
                kind: MetricType::Counter,
                series: vec![(Vec::new(), self.mirrors_dropped as f64)],
            },
        ]
    }

    fn service_families(&self) -> Vec<Family> {
        let totals = self.snapshot.totals();
        let counts = COUNTS.iter().map(|(name, help, read)| Family {
            name: format!("meshwright_service_{name}"),
            help: (*help).to_owned(),
            kind: MetricType::Counter,
            series: totals
                .iter()
                .map(|(service, core)| {
                    (vec![label("service", service)], read(&core.counters.snapshot()) as f64)
                })
                .collect(),
        });
        let services = self.snapshot.services();
        let latency = services.iter().flat_map(|service| {
            let histogram = service.core.latency.snapshot();
            [0.5, 0.95, 0.99].map(|q| {
                let labels = vec![label("service", &service.name), label("quantile", q)];
                (labels, f64::from(histogram.quantile(q)) / 1e6)
            })
        });
        let latency = Family {
            name: "meshwright_service_latency_seconds".to_owned(),
            help: "Latency of calls since the start, by quantile".to_owned(),
            kind: MetricType::Gauge,
            series: latency.collect(),
        };
        let lines = |name: &str, help: &str, kind, read: fn(&Line) -> f64| Family {
            name: format!("meshwright_service_{name}"),
            help: help.to_owned(),
            kind,
            series: totals
                .iter()
                .map(|(name, core)| (vec![label("service", name)], read(&core.line)))
                .collect(),
        };
        let waiting =
            lines("waiting", "Calls that wait for an instance to have room", MetricType::Gauge, |line| {
                f64::from(line.waiting())
            });
        let shed = lines(
            "shed",
            "Calls refused because no instance had room in time",
            MetricType::Counter,
            |line| line.shed() as f64,
        );
        let hedges = |name: &str, help: &str, read: fn(&Hedging) -> u64| Family {
            name: format!("meshwright_service_{name}"),
            help: help.to_owned(),
            kind: MetricType::Counter,
            series: totals
                .iter()
                .map(|(name, core)| (vec![label("service", name)], read(&core.hedging) as f64))
                .collect(),
        };
        let hedged = hedges("hedges", "Second attempts beside slow ones", Hedging::sent);
        let won = hedges("hedges_won", "Second attempts that were answered first", Hedging::won);
        let panics = services.iter().map(|service| {
            let panics = service.core.panics.load(Ordering::Relaxed);
            (vec![label("service", &service.name)], f64::from(u8::from(panics)))
        });
        let panics = Family {
            name: "meshwright_service_panic".to_owned(),
            help: "1 while so few instances are well that calls may go to all that are not dead".to_owned(),
            kind: MetricType::Gauge,
            series: panics.collect(),
        };
        counts.chain([latency, waiting, shed, hedged, won, panics]).collect()
    }

    fn instance_families(&self) -> Vec<Family> {
        type Read = fn(&crate::registry::Instance) -> f64;
        let gauges: [(&str, &str, Read); 8] = [
            ("up", "1 when calls are routed there", |i| {
                f64::from(u8::from(i.is_routable() && i.core.live.share_permille() > 0))
            }),
            ("health_score", "0-100", |i| f64::from(i.core.live.score())),
            ("in_flight", "Calls under way", |i| f64::from(i.core.live.in_flight())),
            ("sessions", "Sessions of clients that are with it", |i| f64::from(i.sessions())),
            ("draining", "1 while it is taken out of use", |i| f64::from(u8::from(i.drain.is_some()))),
            ("latency_seconds", "Moving average of latency", |i| f64::from(i.core.average.us()) / 1e6),
            ("consecutive_errors", "Calls in a row that it failed", |i| {
                f64::from(i.core.errors_in_a_row.load(Ordering::Relaxed))
            }),
            ("breaker_open", "1 while the breaker is not closed", |i| {
                f64::from(u8::from(i.core.guard.state() != BreakerState::Closed))
            }),
        ];
        let counters: [(&str, &str, Read); 5] = [
            ("probes", "Probes that ended", |i| i.core.reliability(|record| record.probes) as f64),
            ("probes_good", "Probes that were answered well", |i| {
                i.core.reliability(|record| record.probes_good) as f64
            }),
            ("attempts", "Attempts that ended", |i| i.core.counters.messages.load(Ordering::Relaxed) as f64),
            ("failures", "Attempts without an answer", |i| {
                i.core.counters.failed.load(Ordering::Relaxed) as f64
            }),
            ("breaker_trips", "Times the breaker opened", |i| i.core.trips() as f64),
        ];
        let family = |(name, help, read): (&str, &str, Read), kind| Family {
            name: format!("meshwright_instance_{name}"),
            help: help.to_owned(),
            kind,
            series: self
                .snapshot
                .instances()
                .map(|i| (vec![label("service", &i.spec.service), label("instance", i.name())], read(i)))
                .collect(),
        };
        let gauges = gauges.into_iter().map(|row| family(row, MetricType::Gauge));
        let counters = counters.into_iter().map(|row| family(row, MetricType::Counter));
        gauges.chain(counters).collect()
    }

    /// What was never watched is left out.
    fn availability_families(&self) -> [Family; 2] {
        let wall = clock::wall();
        let services = self.snapshot.totals().iter().map(|(service, core)| {
            (vec![label("service", service)], core.uptime(|uptime| (uptime.day(wall), uptime.ever())))
        });
        let instances = self.snapshot.instances().map(|i| {
            let labels = vec![label("service", &i.spec.service), label("instance", i.name())];
            (labels, i.core.reliability(|record| (record.uptime.day(wall), record.uptime.ever())))
        });
        [
            family_of_shares("meshwright_service_availability_ratio", services.collect()),
            family_of_shares("meshwright_instance_availability_ratio", instances.collect()),
        ]
    }

    fn plugin_families(&self) -> Vec<Family> {
        type Read = fn(&PluginStatus) -> f64;
        let rows: [(&str, &str, MetricType, Read); 11] = [
            ("calls", "Times a plugin was asked", MetricType::Counter, |p| p.calls as f64),
            ("reused", "Calls that followed an earlier decision or a plan", MetricType::Counter, |p| {
                p.reused as f64
            }),
            ("faults", "Traps, deadlines and nonsense", MetricType::Counter, |p| p.faults as f64),
            ("fallbacks", "Calls that went on without the plugin", MetricType::Counter, |p| {
                p.fallbacks as f64
            }),
            (
                "skipped",
                "Calls that it was not asked about, since it crashed on such",
                MetricType::Counter,
                |p| p.skipped as f64,
            ),
            ("duration_p99_seconds", "99th percentile of an answer's time", MetricType::Gauge, |p| {
                p.p99_us / 1e6
            }),
            ("timed", "Answers that were timed: one call in eight", MetricType::Counter, |p| p.timed as f64),
            ("timed_seconds", "What the timed answers took", MetricType::Counter, |p| p.took.as_secs_f64()),
            ("memory_bytes", "Linear memory of all instances", MetricType::Gauge, |p| p.memory_bytes as f64),
            ("generation", "Grows with each replacement", MetricType::Gauge, |p| p.generation as f64),
            ("quarantined", "1 while it rests after faults", MetricType::Gauge, |p| {
                f64::from(u8::from(p.state == PluginState::Quarantined))
            }),
        ];
        let in_force = || self.plugins.iter().filter(|plugin| plugin.generation > 0);
        let family = |(name, help, kind, read): (&str, &str, MetricType, Read)| Family {
            name: format!("meshwright_plugin_{name}"),
            help: help.to_owned(),
            kind,
            series: in_force().map(|plugin| (vec![label("plugin", &plugin.name)], read(plugin))).collect(),
        };
        rows.into_iter().map(family).chain([self.plugin_states()]).collect()
    }

    /// Of plugins that are not in force, too. A file may be refused under the name of one that is.
    fn plugin_states(&self) -> Family {
        let names: BTreeSet<&str> = self.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let series = names.into_iter().flat_map(|name| {
            PluginState::ALL.map(|state| {
                let holds = self.plugins.iter().any(|plugin| plugin.name == name && plugin.state == state);
                let labels = vec![label("plugin", name), label("state", state.as_str())];
                (labels, f64::from(u8::from(holds)))
            })
        });
        Family {
            name: "meshwright_plugin_state".to_owned(),
            help: "1 for the state that holds".to_owned(),
            kind: MetricType::Gauge,
            series: series.collect(),
        }
    }

    /// What meters show. Plugins are refused for names that others have; only a build that was rolled back to may find
    /// one of its names taken meanwhile, which is left out.
    fn meter_families(&self, host: &[Family]) -> Vec<Family> {
        let mut taken: HashSet<String> = host.iter().map(|family| family.name.clone()).collect();
        let mut families = Vec::new();
        for reading in self.readings.iter() {
            for (index, metric) in reading.metrics.iter().enumerate() {
                let name = family(&metric.name).to_owned();
                if !is_metric_name(&name) || !taken.insert(name.clone()) {
                    continue;
                }
                let points = reading.points.iter().filter(|point| point.metric as usize == index);
                let fits = points.filter(|point| point.labels.len() == metric.labels.len());
                let series = fits.map(|point| {
                    let labels = metric.labels.iter().cloned().zip(point.labels.iter().cloned());
                    (labels.collect::<Labels>(), point.value)
                });
                let kind = match metric.kind {
                    MetricKind::Counter => MetricType::Counter,
                    MetricKind::Gauge => MetricType::Gauge,
                };
                families.push(Family { name, help: metric.help.clone(), kind, series: series.collect() });
            }
        }
        families
    }
}

fn family_of_shares(name: &str, shares: Vec<(Labels, (Share, Share))>) -> Family {
    let series = shares.into_iter().flat_map(|(labels, (day, ever))| {
        [("24h", day), ("ever", ever)].into_iter().filter_map(move |(window, share)| {
            let labels = labels.iter().cloned().chain([label("window", window)]);
            Some((labels.collect::<Labels>(), share.ratio()?))
        })
    });
    Family {
        name: name.to_owned(),
        help:
            "Share of the time in which it could be called, of the last 24 hours and since it was first seen"
                .to_owned(),
        kind: MetricType::Gauge,
        series: series.collect(),
    }
}

fn is_metric_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.families().into_iter().filter(|family| !family.series.is_empty()) {
            let mut metric = encoder.encode_descriptor(&family.name, &family.help, None, family.kind)?;
            for (labels, value) in &family.series {
                let mut series = metric.encode_family(labels)?;
                match family.kind {
                    MetricType::Counter => series.encode_counter::<NoLabelSet, f64, f64>(value, None)?,
                    _ => series.encode_gauge(value)?,
                }
            }
        }
        Ok(())
    }
}
