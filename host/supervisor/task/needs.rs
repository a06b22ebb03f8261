//! What services need of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Kept;
use crate::mesh::child::ChildState;
use crate::mesh::ids::Name;
use crate::registry::{Registry, Snapshot};

/// How the children of one service are, all in all.
struct Sum {
    is_ready: bool,
    is_settled: bool,
    /// It is on its way up from its rest.
    is_waking: bool,
    rests: bool,
    state: ChildState,
    reason: String,
}

/// How everything is that may be needed.
pub(super) struct Needs {
    children: BTreeMap<Name, Sum>,
    snapshot: Arc<Snapshot>,
}

impl Needs {
    pub(super) fn of(children: &[Kept], registry: &Registry) -> Self {
        let mut sums: BTreeMap<Name, Sum> = BTreeMap::new();
        for kept in children {
            let state = kept.state();
            let is_ready = state == ChildState::Ready;
            let rests = state == ChildState::Idle;
            let is_waking = !rests && kept.machine.is_awaited();
            sums.entry(kept.instance.spec.service.clone())
                .and_modify(|sum| {
                    sum.is_ready |= is_ready;
                    sum.is_settled &= kept.is_settled();
                    sum.is_waking |= is_waking;
                    sum.rests |= rests;
                })
                .or_insert_with(|| Sum {
                    is_ready,
                    is_waking,
                    rests,
                    is_settled: kept.is_settled(),
                    state,
                    reason: kept.machine.reason().to_owned(),
                });
        }
        Self { children: sums, snapshot: registry.snapshot() }
    }

    /// Whether somebody who needs it has to wake it.
    pub(super) fn rests(&self, need: &Name) -> bool {
        self.children.get(need).is_some_and(|sum| sum.rests && !sum.is_ready && !sum.is_waking)
    }

    /// Why whoever needs it has to wait: it starts for the first time, or from its rest.
    pub(super) fn unsettled(&self, need: &Name) -> Option<String> {
        let sum =
            self.children.get(need).filter(|sum| (!sum.is_settled || sum.is_waking) && !sum.is_ready)?;
        Some(format!("it waits for `{need}`, which is {}", sum.state.as_str()))
    }

    /// Why it cannot be used by whoever needs it.
    pub(super) fn lack(&self, need: &Name) -> Option<String> {
        match (self.children.get(need), self.snapshot.service(need.as_str())) {
            (Some(sum), _) if sum.is_ready || sum.rests || sum.is_waking => None,
            (Some(Sum { state, reason, .. }), _) if reason.is_empty() => {
                Some(format!("it needs `{need}`, which is {}", state.as_str()))
            }
            (Some(Sum { state, reason, .. }), _) => {
                Some(format!("it needs `{need}`, which is {} ({reason})", state.as_str()))
            }
            (None, None) => Some(format!("it needs `{need}`, which is not there")),
            (None, Some(service)) if service.available() == 0 => {
                Some(format!("it needs `{need}`, of which no instance is available"))
            }
            (None, Some(_)) => None,
        }
    }
}
