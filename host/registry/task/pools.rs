//! What is looked at each second of services as a whole.

use std::sync::atomic::Ordering;

use super::Task;
use crate::mesh::balance;
use crate::mesh::breaker::BreakerState;
use crate::mesh::reliability::Uptime;
use crate::mesh::time::{Mono, Wall};

impl Task {
    /// Says of each pool whether so few of its instances are left that all that are not dead must do.
    pub(super) fn judge_pools(&self, now: Mono) {
        for service in self.snapshot.load().services.values() {
            let after = service.hedge.and_then(|hedge| hedge.after(&service.core.latency.snapshot()));
            service.core.hedging.set_after(after);
            let due = service.instances.iter().any(|instance| instance.is_due(now));
            service.core.trial_due.store(due, Ordering::Relaxed);
            let alive = service.instances.iter().filter(|instance| instance.is_routable());
            let free = alive.filter(|instance| {
                instance.core.live.share_permille() > 0 && instance.core.guard.state() != BreakerState::Open
            });
            // Those that somebody took out of use are not missed.
            let wanted = service.instances.iter().filter(|instance| instance.drain.is_none());
            let panics = balance::panics(free.count(), wanted.count());
            let before = service.core.panics.swap(panics, Ordering::Relaxed);
            if panics != before {
                let state = if panics {
                    "fewer than half are available: calls go to all that are not dead"
                } else {
                    "enough are available again"
                };
                tracing::warn!(service = %service.name, panics, "{state}");
            }
        }
    }

    /// A service that was deregistered is wanted by nobody; one whose leases ran out is missed.
    pub(super) fn look_at_uptimes(&self, now: Mono, wall: Wall) {
        let snapshot = self.snapshot.load();
        for (name, core) in snapshot.totals() {
            match snapshot.service(name.as_str()) {
                Some(service) => core.uptime(|uptime| uptime.look(service.available() > 0, now, wall)),
                None if snapshot.departed(name.as_str()).is_some() => {
                    core.uptime(|uptime| uptime.look(false, now, wall));
                }
                None => core.uptime(Uptime::pause),
            }
        }
        for instance in snapshot.instances() {
            instance.core.reliability(|record| record.uptime.look(instance.is_available(), now, wall));
        }
    }
}
