//! How an instance's latency compares with its pool's, tool by tool, so that a slow tool does not condemn the
//! instance that happens to serve it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mesh::ids::Name;
use crate::mesh::observe::Finished;
use crate::registry::Snapshot;

/// Weight of a new sample in a tool's average.
const ALPHA: f64 = 0.1;
/// Averages that are kept; further tools are not compared.
const AVERAGES_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct ToolLatencies {
    /// Average microseconds and calls since the last comparison, by service, tool and instance.
    averages: HashMap<(Name, Arc<str>), HashMap<Name, Average>>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Average {
    micros: f64,
    fresh: u32,
}

impl ToolLatencies {
    /// Only calls that an instance answered say how fast it is.
    pub(super) fn note(&mut self, call: &Finished) {
        let (Some(instance), true) = (&call.instance, call.status == 200) else { return };
        let full = self.count >= AVERAGES_MAX;
        let by_instance = self.averages.entry((call.service.clone(), Arc::clone(&call.tool))).or_default();
        let sample = f64::from(call.attempt_us);
        match by_instance.get_mut(instance) {
            Some(average) => {
                average.micros += ALPHA * (sample - average.micros);
                average.fresh += 1;
            }
            None if full => {}
            None => {
                by_instance.insert(instance.clone(), Average { micros: sample, fresh: 1 });
                self.count += 1;
            }
        }
    }

    /// Tells every instance how it compares: the mean over the tools it was called for of 3 · median / own, in
    /// thousandths, at most 1000. Averages of what is no longer registered are dropped.
    pub(super) fn compare(&mut self, snapshot: &Snapshot) {
        let mut ratios: HashMap<Name, (f64, u32)> = HashMap::new();
        self.averages.retain(|(service, _), by_instance| {
            let Some(service) = snapshot.service(service.as_str()) else { return false };
            by_instance.retain(|name, _| service.instances.iter().any(|instance| instance.name() == name));
            let mut all: Vec<f64> = by_instance.values().map(|average| average.micros).collect();
            all.sort_by(f64::total_cmp);
            let Some(&median) = all.get(all.len() / 2) else { return false };
            for (name, average) in by_instance.iter_mut().filter(|(_, average)| average.fresh > 0) {
                let ratio = (3.0 * median / average.micros.max(1.0)).min(1.0);
                let entry = ratios.entry(name.clone()).or_default();
                entry.0 += ratio * f64::from(average.fresh);
                entry.1 += average.fresh;
                average.fresh = 0;
            }
            true
        });
        self.count = self.averages.values().map(HashMap::len).sum();
        for instance in snapshot.instances() {
            let (sum, calls) = ratios.get(instance.name()).copied().unwrap_or((1.0, 1));
            let permille = (sum / f64::from(calls) * 1000.0) as u32;
            instance.core.latency_permille.store(permille, Ordering::Relaxed);
        }
    }
}
