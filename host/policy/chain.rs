//! The one way from a call to a permitted call.

use std::sync::Arc;
use std::time::Duration;

use super::{PolicyFault, Router, Source};
use crate::mesh::ids::Name;
use crate::mesh::pool::Catalog;
use crate::mesh::verdict::{CallFacts, Decision, Refusal, Target, Verdict};

/// A tool call before it was looked at: what routers see, and what they do not.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub facts: CallFacts<'a>,
    /// JSON text of the arguments, as it came.
    pub arguments: &'a [u8],
}

/// Which policy decided, and why; `None` of it when all routers passed.
#[derive(Clone, Debug)]
pub struct Ruling {
    pub by: Arc<Source>,
    pub why: Arc<str>,
}

/// A call that the routers let through. Only [`review`] makes one, and only for one an instance can be asked.
#[derive(Debug)]
pub struct Permitted<T> {
    call: T,
    /// One that forwards; `None` when all routers passed.
    decision: Option<Arc<Decision>>,
    ruling: Option<Ruling>,
}

/// A call that a router did not let through.
#[derive(Debug)]
pub struct Refused {
    pub refusal: Refusal,
    pub ruling: Ruling,
}

/// Asks the routers in order; the first verdict other than `Pass` holds. A router that faults is passed over, or
/// refuses the call when it is set to. A target that does not exist is no verdict.
///
/// # Errors
/// The refusal, with who refused.
pub fn review<'a>(
    routers: &[Arc<dyn Router>],
    catalog: &Arc<Catalog>,
    call: Call<'a>,
    exists: impl Fn(&Name) -> bool,
) -> Result<Permitted<Call<'a>>, Refused> {
    for router in routers {
        let decision = match router.route(&call.facts, catalog) {
            Ok(decision) => decision,
            Err(fault) if router.refuses_on_fault() => return Err(refuse_for_fault(router.source(), &fault)),
            Err(_) => continue,
        };
        let ruling = || Ruling { by: Arc::clone(router.source()), why: Arc::clone(&decision.why) };
        match &decision.verdict {
            Verdict::Pass => {}
            Verdict::Forward(target) if exists(&target.service) => {
                let ruling = Some(ruling());
                return Ok(Permitted { call, decision: Some(decision), ruling });
            }
            Verdict::Forward(target) => router.overruled(&target.service),
            Verdict::Reject(refusal) => return Err(Refused { refusal: refusal.clone(), ruling: ruling() }),
        }
    }
    Ok(Permitted { call, decision: None, ruling: None })
}

fn refuse_for_fault(by: &Arc<Source>, fault: &PolicyFault) -> Refused {
    Refused {
        refusal: Refusal {
            reason: "a policy that must agree could not be asked".to_owned(),
            retry_after: None,
        },
        ruling: Ruling { by: Arc::clone(by), why: fault.to_string().into() },
    }
}

impl<T> Permitted<T> {
    pub fn ruling(&self) -> Option<&Ruling> {
        self.ruling.as_ref()
    }

    fn target(&self) -> Option<&Target> {
        match &self.decision.as_ref()?.verdict {
            Verdict::Forward(target) => Some(target),
            Verdict::Pass | Verdict::Reject(_) => None,
        }
    }

    pub fn tag(&self) -> Option<&Name> {
        self.target().and_then(|target| target.tag.as_ref())
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.target().and_then(|target| target.timeout)
    }
}

impl Permitted<Call<'_>> {
    /// The service or instance that takes the call.
    pub fn service(&self) -> &str {
        self.target().map_or(self.call.facts.service, |target| target.service.as_str())
    }

    /// The tool's name there.
    pub fn tool(&self) -> &str {
        self.target().and_then(|target| target.tool.as_deref()).unwrap_or(self.call.facts.tool)
    }

    pub fn arguments(&self) -> &[u8] {
        self.call.arguments
    }

    pub fn facts(&self) -> &CallFacts<'_> {
        &self.call.facts
    }
}

#[cfg(test)]
mod tests;
