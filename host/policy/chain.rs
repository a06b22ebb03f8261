//! The one way from a call to a permitted call.

use std::sync::Arc;
use std::time::Duration;

use super::{PolicyFault, Router, Source};
use crate::mesh::ids::{CallId, Name};
use crate::mesh::pool::Catalog;
use crate::mesh::story::{Fate, Opinion, Opinions};
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::{CallFacts, Decision, Mirror, Refusal, Target, Verdict};

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

/// Asks the routers in order; the first verdict other than `Pass` holds. A router that gives no answer is passed over,
/// or refuses the call when it is set to. A target that does not exist is no verdict. What each one said goes into `opinions`.
///
/// # Errors
/// The refusal, with who refused.
pub fn review<'a>(
    routers: &[Arc<dyn Router>],
    catalog: &Arc<Catalog>,
    call: Call<'a>,
    opinions: &mut Opinions,
    exists: impl Fn(&Name) -> bool,
) -> Result<Permitted<Call<'a>>, Refused> {
    for router in routers {
        let decision = match router.route(&call.facts, catalog) {
            Ok(decision) => decision,
            Err(fault) => {
                let refuses = router.refuses_on_fault();
                let fate = match fault {
                    _ if refuses => Fate::Holds,
                    PolicyFault::Skipped(_) => Fate::Skipped,
                    _ => Fate::Faulted,
                };
                opinions.add(Opinion { by: Arc::clone(router.source()), decision: None, fate });
                if refuses {
                    return Err(refuse_for_fault(router.source(), &fault));
                }
                continue;
            }
        };
        let fate = match &decision.verdict {
            Verdict::Pass => Fate::Passed,
            Verdict::Forward(target) if !exists(&target.service) => Fate::Overruled,
            Verdict::Forward(_) | Verdict::Reject(_) => Fate::Holds,
        };
        let by = Arc::clone(router.source());
        opinions.add(Opinion { by, decision: Some(Arc::clone(&decision)), fate });
        let ruling = || Ruling { by: Arc::clone(router.source()), why: Arc::clone(&decision.why) };
        match &decision.verdict {
            Verdict::Pass => {}
            Verdict::Forward(target) if fate == Fate::Overruled => router.overruled(&target.service),
            Verdict::Forward(_) => {
                let ruling = Some(ruling());
                return Ok(Permitted { call, decision: Some(decision), ruling });
            }
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

/// A copy of a call for another service. Only a permitted call whose router asked for one makes it, and no router is
/// asked about it.
#[derive(Debug)]
pub struct CallCopy {
    service: Name,
    tool: String,
    method: String,
    client: String,
    arguments: Vec<u8>,
    id: CallId,
    arrived: Wall,
    now: Mono,
    random: u64,
    affinity: u64,
    size: u32,
    time_left: Duration,
}

impl CallCopy {
    pub fn service(&self) -> &Name {
        &self.service
    }

    pub fn permitted(&self) -> Permitted<Call<'_>> {
        let facts = CallFacts {
            id: self.id,
            arrived: self.arrived,
            now: self.now,
            random: self.random,
            affinity: self.affinity,
            service: self.service.as_str(),
            tool: &self.tool,
            method: &self.method,
            client: &self.client,
            size: self.size,
            time_left: self.time_left,
            arguments: &self.arguments,
        };
        let call = Call { facts, arguments: &self.arguments };
        Permitted { call, decision: None, ruling: None }
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

    /// Where else the call goes, as far as the router is concerned.
    pub fn mirror(&self) -> Option<&Mirror> {
        self.target().and_then(|target| target.mirror.as_ref())
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

    /// The copy that the router asked for; `None` when it did not.
    pub fn copy(&self) -> Option<CallCopy> {
        let facts = &self.call.facts;
        Some(CallCopy {
            service: self.mirror()?.service.clone(),
            tool: self.tool().to_owned(),
            method: facts.method.to_owned(),
            client: facts.client.to_owned(),
            arguments: self.call.arguments.to_vec(),
            id: facts.id,
            arrived: facts.arrived,
            now: facts.now,
            random: facts.random,
            affinity: facts.affinity,
            size: facts.size,
            time_left: facts.time_left,
        })
    }

    pub fn facts(&self) -> &CallFacts<'_> {
        &self.call.facts
    }
}

#[cfg(test)]
mod tests;
