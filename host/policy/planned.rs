//! A balancer that follows the plans of a planner. Plans are made beside the calls; following them costs no more than
//! the native balancer does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::{Ask, Balancer, Planner, PolicyFault, Source};
use crate::mesh::ids::{PoolId, Slot};
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Member, Pool};
use crate::mesh::time::Mono;

pub struct Planned {
    planner: Arc<dyn Planner>,
    plans: ArcSwap<HashMap<PoolId, Standing>>,
    followed: AtomicU64,
}

/// What a planner said of a pool, and what it was asked about.
#[derive(Clone)]
struct Standing {
    pool_version: u64,
    loads_version: u64,
    made_at: Mono,
    plan: Option<Arc<Plan>>,
}

impl Standing {
    fn holds(&self, pool: &Pool, now: Mono) -> Option<&Arc<Plan>> {
        let plan = self.plan.as_ref().filter(|_| self.pool_version == pool.version)?;
        (now.since(self.made_at) < plan.ttl).then_some(plan)
    }

    /// Whether nothing has changed since, and the plan has more than half of its time before it.
    fn is_fresh(&self, pool: &Pool, now: Mono) -> bool {
        let ages = self.plan.as_ref().is_some_and(|plan| now.since(self.made_at) >= plan.ttl / 2);
        !ages
            && self.pool_version == pool.version
            && self.loads_version == pool.loads_version.load(Ordering::Relaxed)
    }
}

impl Planned {
    pub fn new(planner: Arc<dyn Planner>) -> Arc<Self> {
        Arc::new(Self { planner, plans: ArcSwap::default(), followed: AtomicU64::new(0) })
    }

    /// Has plans made for the pools that have changed, or whose plans end soon, and forgets all other pools. A planner
    /// that faults leaves a plan in force until its time is over.
    pub fn refresh<'a>(&self, pools: impl Iterator<Item = &'a Arc<Pool>>, now: Mono) {
        let before = self.plans.load();
        let next: HashMap<PoolId, Standing> = pools
            .map(|pool| {
                let standing = before.get(&pool.id);
                let fresh = standing.filter(|standing| standing.is_fresh(pool, now)).cloned();
                (pool.id, fresh.unwrap_or_else(|| self.asked(pool, standing, now)))
            })
            .collect();
        self.plans.store(Arc::new(next));
    }

    fn asked(&self, pool: &Pool, before: Option<&Standing>, now: Mono) -> Standing {
        // Read before the figures are: what changes meanwhile is planned for again.
        let loads_version = pool.loads_version.load(Ordering::Relaxed);
        match self.planner.plan(pool) {
            Ok(plan) => {
                Standing { pool_version: pool.version, loads_version, made_at: now, plan: plan.map(Arc::new) }
            }
            Err(_) => before.cloned().unwrap_or(Standing {
                pool_version: pool.version,
                loads_version,
                made_at: now,
                plan: None,
            }),
        }
    }

    pub fn planner(&self) -> &Arc<dyn Planner> {
        &self.planner
    }

    /// Calls that followed a plan.
    pub fn followed(&self) -> u64 {
        self.followed.load(Ordering::Relaxed)
    }
}

impl Balancer for Planned {
    fn source(&self) -> &Arc<Source> {
        self.planner.source()
    }

    fn pick(&self, pool: &Arc<Pool>, ask: Ask) -> Result<Option<Slot>, PolicyFault> {
        let plans = self.plans.load();
        let Some(plan) = plans.get(&pool.id).and_then(|standing| standing.holds(pool, ask.now)) else {
            return Ok(None);
        };
        let excluded = |member: &Member| member.slot.0 < 64 && ask.excluded >> member.slot.0 & 1 == 1;
        let slot = plan.pick(pool, excluded, ask.affinity, ask.random);
        if slot.is_some() {
            self.followed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(slot)
    }

    fn why(&self, pool: &Pool, now: Mono) -> Option<Arc<str>> {
        let plans = self.plans.load();
        plans.get(&pool.id)?.holds(pool, now).map(|plan| Arc::clone(&plan.why))
    }

    /// The instance became unavailable just now: the next balancer is asked, and the next plan knows.
    fn overruled(&self, _: &Pool, _: Ask, _: bool) {}
}

#[cfg(test)]
mod tests;
