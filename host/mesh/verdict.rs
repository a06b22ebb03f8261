//! What is asked of policies, and what they may answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ids::{CallId, Name};
use super::time::{Mono, Wall};

/// A call as routers see it. Borrowed from the request's bytes where it can be.
#[derive(Clone, Debug)]
pub struct CallFacts<'a> {
    pub id: CallId,
    pub arrived: Wall,
    /// The same on the clock that counts: what is remembered of decisions ends by it.
    pub now: Mono,
    pub random: u64,
    /// Hash of what should stay together: the session, or else the client.
    pub affinity: u64,
    /// The service or instance that was asked for.
    pub service: &'a str,
    pub tool: &'a str,
    /// JSON-RPC method.
    pub method: &'a str,
    pub client: &'a str,
    /// Bytes of the request's body.
    pub size: u32,
    /// Time left to the caller's deadline.
    pub time_left: Duration,
    /// JSON text of a tool call's arguments; empty for other methods.
    pub arguments: &'a [u8],
}

/// Which build of which policy decided: what answers, logs and listings show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: Name,
    pub version: String,
    /// Grows each time the plugin is replaced; 0 for native policies.
    pub generation: u64,
    /// SHA-256 of the component.
    pub component: [u8; 32],
}

/// A router's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Forward(Target),
    Reject(Refusal),
}

/// Where a router sends a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub service: Name,
    pub tag: Option<Name>,
    pub tool: Option<String>,
    pub timeout: Option<Duration>,
    pub mirror: Option<Mirror>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Forward(target) => write!(f, "forward to {target}"),
            Self::Reject(refusal) => write!(f, "reject: {}", refusal.reason),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service.as_str())?;
        if let Some(tag) = &self.tag {
            write!(f, ", tag {tag}")?;
        }
        if let Some(tool) = &self.tool {
            write!(f, ", tool {tool}")?;
        }
        if let Some(timeout) = &self.timeout {
            write!(f, ", within {} ms", timeout.as_millis())?;
        }
        if let Some(mirror) = &self.mirror {
            write!(f, ", {} of 1000 also to {}", mirror.permille, mirror.service)?;
        }
        Ok(())
    }
}

/// Where a copy of a call goes, and of how many of 1,000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub service: Name,
    pub permille: u16,
    /// Copies calls of tools that are not declared read-only, too.
    pub any_tool: bool,
}

/// For how long, and for which calls besides those of the same service and method, a decision holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    pub ttl: Duration,
    pub vary: Vary,
}

/// What calls must have in common, besides service and method, to share a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vary {
    pub tool: bool,
    pub client: bool,
    pub affinity: bool,
    pub size: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// One short phrase for people.
    pub why: Arc<str>,
    pub reuse: Option<Reuse>,
}
