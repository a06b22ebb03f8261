//! The circuit breaker of an instance: keeps calls away from an instance that fails them, and lets single calls
//! find out whether it recovered.
//!
//! What counts as a failure is the caller's knowledge: connect errors, resets, 5xx, timeouts and malformed JSON-RPC
//! do; a tool's own error, other 4xx and the client's cancel do not.

use std::fmt;
use std::time::Duration;

use super::time::Mono;

/// Failures in a row that open the breaker.
pub const FAILURES_IN_A_ROW: u32 = 5;
/// Fewest calls in [`RATIO_SECONDS`] over which the ratio is judged.
pub const RATIO_SAMPLES_MIN: u32 = 10;
/// Seconds over which the ratio is taken.
pub const RATIO_SECONDS: u64 = 10;
/// How long the breaker stays open after its first trip, before jitter. Doubles with each failed trial.
pub const OPEN_FIRST: Duration = Duration::from_secs(1);
/// Longest time open, before jitter: an instance that fails calls and no probes is back within 30 s of its recovery.
pub const OPEN_MAX: Duration = Duration::from_secs(16);
/// A trial that is due is awaited for so long before nobody seems to call.
const UNTRIED: Duration = Duration::from_secs(5);
/// A trial without an outcome for this long no longer blocks the next one.
pub const TRIAL_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Yes,
    /// This call decides whether the breaker closes; its outcome must be told, or [`Breaker::on_abandoned`].
    Trial(Trial),
    No,
}

/// One call's right to decide whether a breaker closes. Outcomes are told with it, so that those of calls from before
/// the breaker opened, and of trials that are not waited for any more, are known for what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial(u64);

/// What brought a breaker into its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has never opened.
    Unused,
    /// [`FAILURES_IN_A_ROW`].
    InARow,
    /// Of the calls of the last [`RATIO_SECONDS`].
    Ratio {
        ok: u32,
        failed: u32,
    },
    /// Its health fell for calls that failed, if not so fast that they opened it.
    Health,
    TrialFailed,
    /// The time open is over, and a trial was sent.
    TrialSent,
    /// What was down answers probes again.
    Recovered,
    TrialSucceeded,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("it has never opened"),
            Self::InARow => write!(f, "{FAILURES_IN_A_ROW} calls in a row failed"),
            Self::Ratio { ok, failed } => {
                write!(f, "{failed} of {} calls in {RATIO_SECONDS} s failed", ok + failed)
            }
            Self::Health => f.write_str("most of its calls failed, and its health fell"),
            Self::TrialFailed => f.write_str("the trial call failed"),
            Self::TrialSent => f.write_str("a trial call was sent"),
            Self::Recovered => f.write_str("it answers probes again, and the next call is a trial"),
            Self::TrialSucceeded => f.write_str("the trial call was answered"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Opened, or opened again after a failed trial; the next trial is at `until`.
    Opened {
        until: Mono,
    },
    Closed,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Mono },
    HalfOpen { trial: Option<(Trial, Mono)> },
}

/// Calls of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    ok: u32,
    failed: u32,
}

#[derive(Clone, Debug)]
pub struct Breaker {
    phase: Phase,
    cause: Cause,
    failures_in_a_row: u32,
    seconds: [Second; RATIO_SECONDS as usize],
    /// Trips since it was last closed: the n of 1 s · 2ⁿ, plus one.
    trips_in_a_row: u32,
    trips: u64,
    /// Trials ever admitted.
    trials: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    pub fn new() -> Self {
        Self {
            phase: Phase::Closed,
            cause: Cause::Unused,
            failures_in_a_row: 0,
            seconds: [Second::default(); RATIO_SECONDS as usize],
            trips_in_a_row: 0,
            trips: 0,
            trials: 0,
        }
    }

    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// What brought it into its state.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Until when it is open.
    pub fn open_until(&self) -> Option<Mono> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// Whether calls are kept away now. One whose trial is due keeps nobody away, once nobody came for a while.
    pub fn keeps_away(&self, now: Mono) -> bool {
        match self.phase {
            Phase::Closed | Phase::HalfOpen { trial: None } => false,
            Phase::Open { until } => now < until + UNTRIED,
            Phase::HalfOpen { trial: Some((_, since)) } => now.since(since) < TRIAL_MAX,
        }
    }

    /// Long after the last failure: a row that was begun then is none any more.
    pub fn settle(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// How often it opened, failed trials included.
    pub fn trips(&self) -> u64 {
        self.trips
    }

    /// Asked right before a call is sent: the answer [`Admission::Trial`] takes the only trial there is.
    pub fn admits(&mut self, now: Mono) -> Admission {
        match self.phase {
            Phase::Closed => return Admission::Yes,
            Phase::Open { until } if now < until => return Admission::No,
            Phase::HalfOpen { trial: Some((_, since)) } if now.since(since) < TRIAL_MAX => {
                return Admission::No;
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => self.cause = Cause::TrialSent,
        }
        self.trials += 1;
        let trial = Trial(self.trials);
        self.phase = Phase::HalfOpen { trial: Some((trial, now)) };
        Admission::Trial(trial)
    }

    /// Whether the next call would be the trial.
    pub fn is_due(&self, now: Mono) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Open { until } => now >= until,
            Phase::HalfOpen { trial } => trial.is_none_or(|(_, since)| now.since(since) >= TRIAL_MAX),
        }
    }

    /// Answers [`Transition::Closed`] when this was what the breaker waited for: while it is half open, only its trial
    /// is. While it is open, outcomes are those of calls sent before it opened and say nothing new. `trial` is what the
    /// call was admitted with, here and below.
    pub fn on_success(&mut self, now: Mono, trial: Option<Trial>) -> Option<Transition> {
        match self.phase {
            Phase::Closed => {
                self.failures_in_a_row = 0;
                self.second(now).ok += 1;
                None
            }
            Phase::HalfOpen { .. } if self.awaits(trial) => {
                self.phase = Phase::Closed;
                self.cause = Cause::TrialSucceeded;
                self.trips_in_a_row = 0;
                Some(Transition::Closed)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// `random` is 64 uniform bits, for the jitter.
    pub fn on_failure(&mut self, now: Mono, random: u64, trial: Option<Trial>) -> Option<Transition> {
        if matches!(self.phase, Phase::Closed) {
            self.failures_in_a_row += 1;
        }
        self.on_ratio_failure(now, random, trial)
    }

    /// A 429, or an answer beyond the limits: an instance that says so lives, so it counts in the ratio only. As the
    /// outcome of a trial it keeps the breaker open, for it is no success.
    pub fn on_ratio_failure(&mut self, now: Mono, random: u64, trial: Option<Trial>) -> Option<Transition> {
        match self.phase {
            Phase::Closed => {
                self.second(now).failed += 1;
                let cause = self.cause_to_open(now)?;
                Some(self.open(now, random, cause))
            }
            Phase::HalfOpen { .. } if self.awaits(trial) => Some(self.open(now, random, Cause::TrialFailed)),
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    /// Health keeps calls away for those that failed, which were not enough to open it: now a trial finds out when
    /// it is over, as if they had been.
    pub fn on_unhealthy(&mut self, now: Mono, random: u64) -> Option<Transition> {
        matches!(self.phase, Phase::Closed).then(|| self.open(now, random, Cause::Health))
    }

    /// The trial ended without an outcome, as when its client went away: the next call may be the trial.
    pub fn on_abandoned(&mut self, trial: Trial) {
        if self.awaits(Some(trial)) {
            self.phase = Phase::HalfOpen { trial: None };
        }
    }

    /// Whether that is the trial under way.
    fn awaits(&self, trial: Option<Trial>) -> bool {
        matches!(self.phase, Phase::HalfOpen { trial: Some((awaited, _)) } if trial == Some(awaited))
    }

    /// What was down answers again, as a probe has seen: the trial need not be waited for, nor the end of one that
    /// was sent before.
    pub fn on_recovery(&mut self) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::HalfOpen { trial: None };
            self.cause = Cause::Recovered;
            self.trips_in_a_row = 0;
        }
    }

    fn open(&mut self, now: Mono, random: u64, cause: Cause) -> Transition {
        let base = OPEN_FIRST.saturating_mul(1 << self.trips_in_a_row.min(16)).min(OPEN_MAX);
        let until = now + base.mul_f64(0.5 + random as f64 / u64::MAX as f64);
        self.cause = cause;
        self.trips_in_a_row = self.trips_in_a_row.saturating_add(1);
        self.trips += 1;
        self.failures_in_a_row = 0;
        // What tripped it must not trip it again once it closed.
        self.seconds = [Second::default(); RATIO_SECONDS as usize];
        self.phase = Phase::Open { until };
        Transition::Opened { until }
    }

    fn second(&mut self, now: Mono) -> &mut Second {
        let number = second_number(now);
        let second = &mut self.seconds[(number % RATIO_SECONDS) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }

    fn cause_to_open(&self, now: Mono) -> Option<Cause> {
        if self.failures_in_a_row >= FAILURES_IN_A_ROW {
            return Some(Cause::InARow);
        }
        let number = second_number(now);
        let recent = self.seconds.iter().filter(|second| second.number + RATIO_SECONDS > number);
        let (ok, failed) = recent.fold((0, 0), |(ok, failed), s| (ok + s.ok, failed + s.failed));
        (ok + failed >= RATIO_SAMPLES_MIN && ok < failed).then_some(Cause::Ratio { ok, failed })
    }
}

fn second_number(now: Mono) -> u64 {
    now.as_micros() / 1_000_000
}

#[cfg(test)]
mod tests;
