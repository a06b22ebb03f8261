//! A child: a process that the proxy starts, watches and starts again.
//!
//! `Stopped → Starting → Ready → Stopping → Stopped`, beside them `Installing`, `Backoff`, `Fatal`, `Skipped` and
//! `Idle`. Ready means that it answered in the protocol, not that it lives.

mod event;
mod rules;

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Mono;
pub use event::{Effect, Event};
pub use rules::{ChildState, RestartPolicy, Rules, Start};

/// Pause after the first failure, before jitter; doubles with each failure in a row.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest pause, before jitter.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a child must have been ready for its failures to be forgotten.
pub const STEADY: Duration = Duration::from_secs(60);
/// Distance of the tries while it is parked, and of the looks for a command that is not there.
pub const PARKED_TRY: Duration = Duration::from_secs(300);
/// How long the start-up clock may rest while something is installed.
pub const INSTALLING_MAX: Duration = Duration::from_secs(600);
/// Most that one tick adds to the start-up clock: a proxy that was suspended has not waited.
const TICK_MAX: Duration = Duration::from_secs(5);
/// What is said of one that rests.
const RESTS: &str = "the next call starts it";
/// What is said of one that was started by hand before it had ended.
const STARTS_AGAIN: &str = "it starts again as soon as it has ended";
/// How long a sign of an installation keeps the start-up clock at rest.
const SIGN_LASTS: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Stop,
    Idle,
    Start,
    Fail(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Stopped { wanted: bool },
    Starting { since: Mono, ticked: Mono, counted: Duration, busy_until: Option<Mono> },
    Ready { since: Mono },
    Stopping { then: Next },
    Backoff { until: Mono },
    Fatal { until: Mono },
    Skipped { until: Option<Mono> },
    Idle,
}

#[derive(Clone, Debug)]
pub struct Child {
    rules: Rules,
    phase: Phase,
    reason: String,
    /// Within the window, the oldest first.
    failures: VecDeque<Mono>,
    /// Failures in a row: the n of 0.5 s · 2ⁿ.
    row: u32,
    /// It was parked, and has not been steady since.
    parked: bool,
    launches: u64,
    /// Calls to it wait for it: it rests, or is on its way up from there.
    awaited: bool,
}

impl Child {
    /// One that is to be started.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            phase: Phase::Stopped { wanted: true },
            reason: String::new(),
            failures: VecDeque::new(),
            row: 0,
            parked: false,
            launches: 0,
            awaited: false,
        }
    }

    /// Other rules, which hold at once. Failures so far count, and a pause that has begun lasts, unless there is to be no
    /// other try; one that was given up for good stays so until it is started by hand.
    pub fn rule_by(&mut self, rules: Rules) {
        self.rules = rules;
        let waits = matches!(self.phase, Phase::Backoff { .. } | Phase::Fatal { .. });
        if waits && rules.policy == RestartPolicy::Never {
            self.rest_for_good();
        }
        if let Phase::Skipped { until } = &mut self.phase {
            *until = until.filter(|_| rules.policy != RestartPolicy::Never);
        }
        if !rules.rests() {
            self.wake();
        }
    }

    pub fn state(&self) -> ChildState {
        match &self.phase {
            Phase::Stopped { .. } => ChildState::Stopped,
            Phase::Starting { ticked, busy_until: Some(until), .. } if ticked < until => {
                ChildState::Installing
            }
            Phase::Starting { .. } => ChildState::Starting,
            Phase::Ready { .. } => ChildState::Ready,
            Phase::Stopping { .. } => ChildState::Stopping,
            Phase::Backoff { .. } => ChildState::Backoff,
            Phase::Fatal { .. } => ChildState::Fatal,
            Phase::Skipped { .. } => ChildState::Skipped,
            Phase::Idle => ChildState::Idle,
        }
    }

    /// Why it is not ready; empty when there is nothing to say.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether who calls it now waits until it is ready, or has failed.
    pub const fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Whether it is at rest, or about to be, and nobody has woken it.
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Stopping { then: Next::Idle })
    }

    pub fn next_try(&self) -> Option<Mono> {
        match self.phase {
            Phase::Backoff { until } | Phase::Fatal { until } => Some(until),
            Phase::Skipped { until } => until,
            _ => None,
        }
    }

    /// Whether it failed too often and has not been ready since.
    pub fn is_parked(&self) -> bool {
        self.parked && !matches!(self.phase, Phase::Ready { .. })
    }

    /// Since when it is starting, or ready.
    pub fn since(&self) -> Option<Mono> {
        match self.phase {
            Phase::Starting { since, .. } | Phase::Ready { since } => Some(since),
            _ => None,
        }
    }

    /// How often it was started after the first time.
    pub fn restarts(&self) -> u64 {
        self.launches.saturating_sub(1)
    }

    /// Whether [`Event::Launch`] may come.
    pub fn wants_launch(&self, now: Mono) -> bool {
        match self.phase {
            Phase::Stopped { wanted } => wanted,
            Phase::Backoff { until } | Phase::Fatal { until } => until <= now,
            Phase::Skipped { until } => until.is_some_and(|until| until <= now),
            _ => false,
        }
    }

    /// Whether nothing more will come of the first start: it is ready, or has failed, or will not be started.
    pub fn is_settled(&self) -> bool {
        match self.phase {
            Phase::Stopped { wanted } => !wanted,
            Phase::Starting { .. } | Phase::Stopping { .. } => self.launches > 1,
            _ => true,
        }
    }

    /// `random` is 64 uniform bits, for the jitter.
    pub fn step(&mut self, event: Event, now: Mono, random: u64) -> Option<Effect> {
        match event {
            Event::Start => self.start(),
            Event::Stop => return self.stop(Next::Stop, "stopped by hand"),
            Event::Restart => return self.stop(Next::Start, "restarted by hand"),
            Event::Rest => return self.rest(),
            Event::Wake => self.wake(),
            Event::Launch if self.wants_launch(now) => {
                self.launches += 1;
                self.phase =
                    Phase::Starting { since: now, ticked: now, counted: Duration::ZERO, busy_until: None };
                self.reason.clear();
            }
            Event::Missing(why) if self.is_starting() => {
                let looks_again = self.rules.policy != RestartPolicy::Never;
                self.skip(looks_again.then(|| now + PARKED_TRY), why);
                // Nothing was started.
                self.launches -= 1;
            }
            Event::Barred(why) if matches!(self.phase, Phase::Stopped { .. }) => self.skip(None, why),
            Event::Missing(why) | Event::NotStarted(why) => return self.ended(why, false, now, random),
            Event::Unfit(why) => return self.unfit(why, now),
            Event::Answered if self.is_starting() => {
                self.phase = Phase::Ready { since: now };
                self.reason.clear();
                self.awaited = false;
            }
            Event::Ended { why, clean } => return self.ended(why, clean, now, random),
            Event::Tick { busy } => return self.tick(busy, now),
            Event::Launch | Event::Answered | Event::Barred(_) => {}
        }
        None
    }

    /// Says what keeps it from its turn.
    pub fn waits(&mut self, why: &str) {
        if self.phase == (Phase::Stopped { wanted: true }) {
            why.clone_into(&mut self.reason);
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    fn skip(&mut self, until: Option<Mono>, why: String) {
        self.phase = Phase::Skipped { until };
        self.reason = why;
        self.awaited = false;
    }

    /// Whoever starts it by hand gives it all its tries again.
    fn start(&mut self) {
        match &mut self.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => return,
            Phase::Stopping { then } => {
                *then = Next::Start;
                self.forgive();
                STARTS_AGAIN.clone_into(&mut self.reason);
                return;
            }
            Phase::Idle => return self.wake(),
            _ => self.phase = Phase::Stopped { wanted: true },
        }
        self.reason.clear();
        self.forgive();
    }

    fn rest(&mut self) -> Option<Effect> {
        match self.phase {
            Phase::Ready { .. } => {
                self.awaited = true;
                RESTS.clone_into(&mut self.reason);
                self.phase = Phase::Stopping { then: Next::Idle };
                Some(Effect::End)
            }
            Phase::Stopped { wanted: true } => {
                self.fall_idle();
                None
            }
            _ => None,
        }
    }

    fn fall_idle(&mut self) {
        self.awaited = true;
        RESTS.clone_into(&mut self.reason);
        self.phase = Phase::Idle;
    }

    fn wake(&mut self) {
        match &mut self.phase {
            Phase::Idle => self.phase = Phase::Stopped { wanted: true },
            Phase::Stopping { then } if *then == Next::Idle => *then = Next::Start,
            _ => return,
        }
        self.reason.clear();
    }

    fn stop(&mut self, then: Next, reason: &str) -> Option<Effect> {
        self.forgive();
        self.awaited = false;
        reason.clone_into(&mut self.reason);
        match &mut self.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => {
                self.phase = Phase::Stopping { then };
                Some(Effect::End)
            }
            Phase::Stopping { then: before } => {
                *before = then;
                None
            }
            _ => {
                self.phase = Phase::Stopped { wanted: then == Next::Start };
                None
            }
        }
    }

    fn unfit(&mut self, why: String, now: Mono) -> Option<Effect> {
        match self.phase {
            Phase::Starting { .. } => self.give_up(why),
            Phase::Ready { since } => {
                self.grow_steady(since, now);
                self.give_up(why)
            }
            _ => None,
        }
    }

    fn give_up(&mut self, why: String) -> Option<Effect> {
        self.awaited = false;
        self.reason.clone_from(&why);
        self.phase = Phase::Stopping { then: Next::Fail(why) };
        Some(Effect::End)
    }

    fn ended(&mut self, why: String, clean: bool, now: Mono, random: u64) -> Option<Effect> {
        match std::mem::replace(&mut self.phase, Phase::Stopped { wanted: false }) {
            Phase::Stopping { then: Next::Stop } => None,
            Phase::Stopping { then: Next::Idle } => {
                self.fall_idle();
                None
            }
            Phase::Stopping { then: Next::Start } => {
                self.phase = Phase::Stopped { wanted: true };
                None
            }
            Phase::Stopping { then: Next::Fail(first) } => self.fail(first, now, random),
            Phase::Starting { .. } => self.fail(why, now, random),
            Phase::Ready { since } => {
                self.grow_steady(since, now);
                if clean && self.rules.rests() && self.rules.policy != RestartPolicy::Always {
                    self.fall_idle();
                    return None;
                }
                if clean && self.rules.policy == RestartPolicy::OnFailure {
                    self.reason = format!("{why}, which needs no restart");
                    return None;
                }
                self.fail(why, now, random)
            }
            unchanged => {
                self.phase = unchanged;
                None
            }
        }
    }

    fn fail(&mut self, why: String, now: Mono, random: u64) -> Option<Effect> {
        self.reason = why;
        self.awaited = false;
        if self.rules.policy == RestartPolicy::Never {
            self.rest_for_good();
            return None;
        }
        self.failures.push_back(now);
        self.failures.retain(|at| now.since(*at) < self.rules.window);
        if self.parked || self.failures.len() >= self.rules.failures_max {
            let first = !self.parked;
            self.parked = true;
            self.failures.clear();
            self.phase = Phase::Fatal { until: now + PARKED_TRY };
            return first.then_some(Effect::Park);
        }
        let base = BACKOFF_FIRST.saturating_mul(1 << self.row.min(16)).min(BACKOFF_MAX);
        let pause = base.mul_f64(0.8 + 0.4 * (random as f64 / u64::MAX as f64));
        self.row = self.row.saturating_add(1);
        self.phase = Phase::Backoff { until: now + pause };
        None
    }

    fn rest_for_good(&mut self) {
        self.reason.push_str("; `restart.policy` is \"never\"");
        self.phase = Phase::Stopped { wanted: false };
    }

    fn tick(&mut self, busy: bool, now: Mono) -> Option<Effect> {
        match &mut self.phase {
            Phase::Ready { since } => {
                let since = *since;
                self.grow_steady(since, now);
                None
            }
            Phase::Starting { since, ticked, counted, busy_until } => {
                if busy {
                    *busy_until = Some(now + SIGN_LASTS);
                } else if busy_until.is_none_or(|until| until <= now) {
                    *counted += now.since(*ticked).min(TICK_MAX);
                }
                *ticked = now;
                if *counted >= self.rules.startup {
                    let limit = self.rules.startup;
                    return self.give_up(format!("no answer within {limit:?} of its start"));
                }
                if now.since(*since) >= INSTALLING_MAX {
                    let minutes = INSTALLING_MAX.as_secs() / 60;
                    return self.give_up(format!("no answer, and still at work after {minutes} minutes"));
                }
                None
            }
            _ => None,
        }
    }

    fn grow_steady(&mut self, since: Mono, now: Mono) {
        if now.since(since) >= STEADY {
            self.forgive();
        }
    }

    fn forgive(&mut self) {
        self.failures.clear();
        self.row = 0;
        self.parked = false;
    }
}

#[cfg(test)]
mod tests;
