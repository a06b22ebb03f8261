//! What is asked of policies, and what they may answer.

use std::time::Duration;

use super::ids::{CallId, Name};
use super::time::Wall;

/// A call as routers see it. Borrowed from the request's bytes where it can be.
#[derive(Clone, Debug)]
pub struct CallFacts<'a> {
    pub id: CallId,
    pub arrived: Wall,
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
    pub why: String,
}
