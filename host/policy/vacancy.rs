//! The place of a router that must agree with each call and is not in force: no call passes it.

use std::sync::Arc;

use super::{PolicyFault, Router, Source};
use crate::mesh::ids::Name;
use crate::mesh::pool::Catalog;
use crate::mesh::verdict::{CallFacts, Decision, Refusal, Verdict};

pub struct Vacancy {
    source: Arc<Source>,
    decision: Arc<Decision>,
}

impl Vacancy {
    /// Of the router `name`, which is not in force for that `reason`: a sentence for people.
    pub fn new(name: Name, reason: &str) -> Self {
        let refusal = Refusal { reason: reason.to_owned(), retry_after: None };
        let decision = Decision { verdict: Verdict::Reject(refusal), why: reason.into(), reuse: None };
        let source = Source { name, version: "not in force".to_owned(), generation: 0, component: [0; 32] };
        Self { source: Arc::new(source), decision: Arc::new(decision) }
    }
}

impl Router for Vacancy {
    fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn route(&self, _: &CallFacts<'_>, _: &Arc<Catalog>) -> Result<Arc<Decision>, PolicyFault> {
        Ok(Arc::clone(&self.decision))
    }

    fn refuses_on_fault(&self) -> bool {
        true
    }

    /// It forwards nothing.
    fn overruled(&self, _: &Name) {}
}
