//! What is looked at each second of services as a whole.

use std::sync::atomic::Ordering;

use super::Task;
use crate::mesh::balance;
use crate::mesh::reliability::Uptime;
use crate::mesh::time::{Mono, Wall};
use crate::registry::Service;

impl Task {
    /// Looks at what breakers and pools became: which wait for a trial, and which pools have so few instances left
    /// that all that are not dead must do.
    pub(super) fn judge_pools(&self, now: Mono, wall: Wall) {
        for service in self.snapshot.load().services.values() {
            let after = service.hedge.and_then(|hedge| hedge.after(|| service.core.lately(now)));
            service.core.hedging.set_after(after);
            let due = service.instances.iter().any(|instance| instance.is_due(now));
            service.core.trial_due.store(due, Ordering::Relaxed);
            self.look_at_panic(service, wall);
        }
    }

    fn look_at_panic(&self, service: &Service, wall: Wall) {
        let (free, wanted) = (service.unhampered(), service.expected());
        let alive = service.instances.iter().filter(|instance| instance.is_routable()).count();
        // With nobody there, nobody gets calls.
        let panics = alive > 0 && balance::panics(free, wanted);
        if service.core.panics.swap(panics, Ordering::Relaxed) == panics {
            return;
        }
        let detail = if panics {
            let detail = format!(
                "{free} of {wanted} instances are available: calls may go to all {alive} that are not dead"
            );
            tracing::warn!(service = %service.name, "{detail}");
            detail
        } else {
            let detail = if alive > 0 {
                format!("over: {free} of {wanted} instances are available")
            } else {
                format!("over: none of {wanted} instances is there any more")
            };
            tracing::info!(service = %service.name, "{detail}");
            detail
        };
        self.say("service_panic", wall, &service.name, None, detail);
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
