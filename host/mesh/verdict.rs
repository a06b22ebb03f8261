//! What is asked of policies, and what they may answer.

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
