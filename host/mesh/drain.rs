//! Taking an instance out of use without a failed call: nothing new goes there, what is under way ends, and sessions
//! that are with it go on for a while.

use std::time::Duration;

use super::time::{Mono, Wall};

/// How long sessions go on unless told otherwise, and at most.
pub const SESSIONS_KEPT: Duration = Duration::from_secs(300);
pub const SESSIONS_KEPT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Why, for people; empty when nothing was said.
    pub reason: String,
    pub sessions_kept: Duration,
    pub since: Wall,
}

/// An instance that is being taken out of use, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    pub order: Order,
    /// From then on sessions that were with it have to begin anew elsewhere.
    pub sessions_until: Mono,
    /// Nothing was left there once.
    is_empty: bool,
}

/// What somebody wants of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A call, or a session, that any instance could have.
    New,
    /// The rest of what was begun there.
    Rest,
    /// A call in a session that is with it.
    InSession,
}

/// What happens to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Ordered(Order),
    Revoked,
    /// Somebody looked how much is left.
    Seen {
        calls: u32,
        sessions: u32,
    },
}

/// What is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Began,
    /// Nothing is left there: it can be stopped.
    Empty,
    Revoked,
}

/// `state` is `None` while the instance is in use.
pub fn step(state: Option<Drain>, event: Event, now: Mono) -> (Option<Drain>, Option<Told>) {
    match (state, event) {
        (_, Event::Ordered(order)) => (Some(Drain::begin(order, now)), Some(Told::Began)),
        (Some(_), Event::Revoked) => (None, Some(Told::Revoked)),
        (Some(drain), Event::Seen { calls, sessions }) => {
            let is_empty = calls == 0 && (sessions == 0 || now >= drain.sessions_until);
            let told = (is_empty && !drain.is_empty).then_some(Told::Empty);
            (Some(Drain { is_empty: is_empty || drain.is_empty, ..drain }), told)
        }
        (None, Event::Revoked | Event::Seen { .. }) => (None, None),
    }
}

/// Whether an instance in that state is there for what is wanted.
pub fn admits(state: Option<&Drain>, wants: Wants, now: Mono) -> bool {
    match (state, wants) {
        (None, _) | (Some(_), Wants::Rest) => true,
        (Some(_), Wants::New) => false,
        (Some(drain), Wants::InSession) => now < drain.sessions_until,
    }
}

impl Drain {
    fn begin(mut order: Order, now: Mono) -> Self {
        order.sessions_kept = order.sessions_kept.min(SESSIONS_KEPT_MAX);
        Self { sessions_until: now + order.sessions_kept, order, is_empty: false }
    }
}

#[cfg(test)]
mod tests;
