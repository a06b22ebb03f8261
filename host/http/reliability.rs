//! How reliable a service or an instance was, as pages show it.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::clock;
use crate::mesh::reliability::Record;
use crate::registry::{Instance, Service};

/// See `mesh::reliability` for what is counted. `null` of what was never watched or never probed.
#[derive(Serialize)]
pub(super) struct Reliability {
    /// Of the last 24 hours.
    availability_day_percent: Option<f64>,
    /// Since it was first seen.
    availability_percent: Option<f64>,
    watched_s: u64,
    probes: u64,
    probe_success_percent: Option<f64>,
    /// Calls that failed in a row; of a service, those of its worst instance.
    consecutive_errors: u32,
    /// Moving average of latency; of a service, the mean of its instances that have one.
    ewma_us: u32,
    breaker_trips: u64,
}

impl Reliability {
    pub(super) fn of_service(service: &Service) -> Self {
        let uptime = service.core.uptime(|uptime| uptime.clone());
        let mut all = Record { uptime, ..Record::default() };
        let (mut errors, mut ewmas) = (0, Vec::new());
        for instance in &service.instances {
            let core = &instance.core;
            let (probes, good) = core.reliability(|record| (record.probes, record.probes_good));
            all.probes += probes;
            all.probes_good += good;
            all.trips_before += core.trips();
            errors = errors.max(core.errors_in_a_row.load(Ordering::Relaxed));
            ewmas.extend(Some(u64::from(core.average.us())).filter(|us| *us > 0));
        }
        let ewma = ewmas.iter().sum::<u64>() / (ewmas.len() as u64).max(1);
        Self::of(&all, errors, u32::try_from(ewma).unwrap_or(u32::MAX))
    }

    pub(super) fn of_instance(instance: &Instance) -> Self {
        let core = &instance.core;
        let record = core.reliability(|record| record.clone());
        let record = Record { trips_before: core.trips(), ..record };
        Self::of(&record, core.errors_in_a_row.load(Ordering::Relaxed), core.average.us())
    }

    fn of(record: &Record, consecutive_errors: u32, ewma_us: u32) -> Self {
        let good = (record.probes > 0).then(|| record.probes_good as f64 / record.probes as f64);
        Self {
            availability_day_percent: percent(record.uptime.day(clock::wall()).ratio()),
            availability_percent: percent(record.uptime.ever().ratio()),
            watched_s: record.uptime.ever().watched_us / 1_000_000,
            probes: record.probes,
            probe_success_percent: percent(good),
            consecutive_errors,
            ewma_us,
            breaker_trips: record.trips_before,
        }
    }
}

/// To a thousandth: five nines are told from four.
fn percent(ratio: Option<f64>) -> Option<f64> {
    ratio.map(|ratio| (ratio * 100_000.0).floor() / 1000.0)
}
