//! Attempts at a call until one is answered or no other may be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use super::failure::CallFailure;
use super::hedge::Race;
use super::pick::{Excluded, Question};
use super::turn::is_taken;
use crate::clock;
use crate::mesh::balance::failure_charge;
use crate::mesh::breaker::Trial;
use crate::mesh::ids::Name;
use crate::mesh::limit::{Limits, Waited};
use crate::mesh::offer::Kind;
use crate::mesh::pool::InFlight;
use crate::mesh::retry::{self, Failure};
use crate::mesh::stats::CallCounters;
use crate::mesh::story::{Figures, Picker, RIVALS_MAX, Tried, TriedEnd};
use crate::mesh::time::Mono;
use crate::policy::chain::{Call, Permitted};
use crate::registry::{Found, Instance, Snapshot};
use crate::upstream::{Blame, SendError, Times};

/// How often a call looks again because a place has just become free.
const LATE_MAX: u32 = 8;

/// A permitted call and where it goes.
pub struct Run<'a> {
    pub snapshot: &'a Snapshot,
    pub target: Found<'a>,
    pub permitted: Permitted<Call<'a>>,
    pub times: Times,
    pub limits: Limits,
    /// It is the rest of what was begun at its target, an instance.
    pub continues: bool,
    /// The caller gave less time than is usual: running out of it says nothing about the instance.
    pub impatient: bool,
}

/// How a call is brought to an instance. What is returned is the beginning of the answer at least: a call is not
/// tried again once it is there.
pub trait Carry: Sync {
    type Answer: Send;

    /// # Errors
    /// No answer began.
    fn carry(&self, instance: &Arc<Instance>)
    -> impl Future<Output = Result<Self::Answer, SendError>> + Send;
}

/// What one attempt taught, beside its answer.
struct Failed {
    error: SendError,
    instance: Name,
}

impl Run<'_> {
    /// Whether the call may be sent again when it may have been done.
    pub(super) fn is_repeatable(&self) -> bool {
        match self.permitted.facts().method {
            "tools/call" => {
                let tool = self.target.service().offer.get(Kind::Tool, self.permitted.tool());
                tool.is_some_and(|tool| tool.repeatable)
            }
            "prompts/get" | "resources/read" | "completion/complete" | "tasks/get" => true,
            _ => false,
        }
    }

    /// Tries instance after instance until one answers or no other may be tried.
    pub async fn to_the_end<C: Carry>(
        &self,
        account: &mut Account,
        carry: &C,
    ) -> Result<(Attempt, C::Answer), CallFailure> {
        let service = self.target.service();
        let repeatable = || self.is_repeatable();
        let question = Question {
            counts: true,
            continues: self.continues,
            repeatable: &repeatable,
            policies: &self.snapshot.policies,
            target: self.target,
            tag: self.permitted.tag(),
            affinity: self.permitted.facts().affinity,
        };
        service.core.budget.deposit();
        let mut tried = Excluded::default();
        let mut last: Option<Failed> = None;
        let mut attempts = 0;
        let mut unsure = false;
        let (mut place, mut late) = (None, 0);
        loop {
            if place.is_none() && is_taken(&service.core.line, || question.room(&tried)) {
                self.wait(&question, &tried, &mut place, account).await?;
            }
            let Some(picked) = question.pick(&tried, clock::mono()) else {
                if question.is_crowded(&tried) {
                    self.wait(&question, &tried, &mut place, account).await?;
                    continue;
                }
                // All were full a moment ago, and one is not any more.
                if question.room(&tried) > 0 && late < LATE_MAX {
                    late += 1;
                    continue;
                }
                return Err(self.give_up(last, attempts, unsure));
            };
            let told = picked.told();
            // Another call may have taken the last place meanwhile.
            let Some(mut attempt) = Attempt::try_begin(picked.instance, picked.trial) else { continue };
            if let Some(place) = place.take() {
                place.enter(|| question.openings(&tried));
            }
            attempts += 1;
            account.begin_attempt(told);
            let ended = match self.hedged_after().filter(|_| attempts == 1) {
                None => carry.carry(picked.instance).await,
                Some(after) => {
                    let race = Race { run: self, question: &question, carry, after };
                    let over = Box::pin(race.run(attempt, &mut tried, account)).await;
                    attempts = over.attempts;
                    unsure |= over.unsure;
                    attempt = over.attempt;
                    over.ended
                }
            };
            account.end_attempt(attempt.instance.name(), attempt.micros(), ended.as_ref().err());
            let error = match ended {
                Ok(answer) => return Ok((attempt, answer)),
                Err(error) => error,
            };
            let failure = error.failure();
            unsure |= failure == Failure::Unanswered;
            let instance = attempt.instance.name().clone();
            tracing::debug!(call = %self.permitted.facts().id, instance = %instance, attempts, error = %crate::upstream::chain(&error), "attempt failed");
            tried.add(attempt.instance.slot);
            attempt.fail(&error, self.impatient);
            last = Some(Failed { error, instance });
            let now = tokio::time::Instant::now();
            let left = self.times.deadline.saturating_duration_since(now);
            let pause = retry::next(failure, self.is_repeatable(), attempts, left, fastrand::u64(..));
            let Some(pause) = pause.filter(|_| service.core.budget.withdraw(clock::mono())) else {
                return Err(self.give_up(last, attempts, unsure));
            };
            service.core.counters.retries.fetch_add(1, Ordering::Relaxed);
            if !pause.is_zero() {
                tokio::time::sleep_until(now + pause).await;
            }
        }
    }

    /// Brings the call to one instance and no other: the one that a client's session is with.
    pub async fn to_instance<C: Carry>(
        &self,
        instance: &Arc<Instance>,
        account: &mut Account,
        carry: &C,
    ) -> Result<(Attempt, C::Answer), CallFailure> {
        let attempt = self.enter_at(instance, account).await?;
        account.begin_attempt(Tried {
            instance: instance.name().clone(),
            by: Picker::Session,
            figures: Figures::of(&instance.core.live),
            candidates: 1,
            rivals: [None; RIVALS_MAX],
            hedges: false,
            waited: Waited::default(),
            us: 0,
            end: TriedEnd::Left,
        });
        let ended = carry.carry(instance).await;
        account.end_attempt(instance.name(), attempt.micros(), ended.as_ref().err());
        match ended {
            Ok(answer) => Ok((attempt, answer)),
            Err(error) => {
                attempt.fail(&error, self.impatient);
                let unsure = error.failure() == Failure::Unanswered;
                Err(self.give_up(Some(Failed { error, instance: instance.name().clone() }), 1, unsure))
            }
        }
    }

    fn give_up(&self, last: Option<Failed>, attempts: u32, unsure: bool) -> CallFailure {
        let service = self.target.service().name.to_string();
        match last {
            Some(Failed { error, instance }) => {
                CallFailure::Upstream { service, instance: instance.to_string(), attempts, error, unsure }
            }
            None => CallFailure::NoInstance { why: why_none(self.target, self.permitted.tag()), service },
        }
    }
}

/// Why no instance could be asked, instance by instance.
fn why_none(target: Found<'_>, tag: Option<&Name>) -> String {
    let instances: Vec<&Arc<Instance>> = match target {
        Found::Service(service) => service.instances.iter().collect(),
        Found::Instance(_, instance) => vec![instance],
    };
    let reasons = instances.iter().take(5).map(|instance| {
        let tagged = tag.is_none_or(|tag| instance.spec.tags.contains(tag));
        let reason = if tagged { instance.why() } else { "has another tag".to_owned() };
        let reason = if reason.is_empty() { instance.phase.as_str() } else { &reason };
        format!("`{}` {} ({reason})", instance.name(), instance.state())
    });
    reasons.collect::<Vec<_>>().join(", ")
}

/// Brings what is no call to an instance; to another one only when nothing was sent.
pub(super) async fn bring<C: Carry>(
    snapshot: &Snapshot,
    target: Found<'_>,
    tag: Option<&Name>,
    affinity: u64,
    carry: &C,
) -> Result<C::Answer, CallFailure> {
    let question = Question {
        counts: false,
        continues: false,
        // It does nothing that a second one would do twice.
        repeatable: &|| true,
        policies: &snapshot.policies,
        target,
        tag,
        affinity,
    };
    let mut tried = Excluded::default();
    let mut last = None;
    for _ in 0..retry::ATTEMPTS_MAX {
        let Some(picked) = question.pick(&tried, clock::mono()) else { break };
        let attempt = Attempt::begin(picked.instance, picked.trial);
        match carry.carry(picked.instance).await {
            Ok(answer) => {
                attempt.pass();
                return Ok(answer);
            }
            Err(error) => {
                let unsent = error.failure() == Failure::NotSent;
                attempt.miss(&error);
                tried.add(picked.instance.slot);
                last = Some(CallFailure::of(picked.instance, error));
                if !unsent {
                    break;
                }
            }
        }
    }
    let none =
        || CallFailure::NoInstance { service: target.service().name.to_string(), why: why_none(target, tag) };
    Err(last.unwrap_or_else(none))
}

/// An attempt under way. It ends once: with an answer, with an error, or by being dropped when its caller goes away
/// first; a half-open breaker then gets its trial back.
pub struct Attempt {
    pub instance: Arc<Instance>,
    /// The one of a half-open breaker that it is.
    trial: Option<Trial>,
    started: Mono,
    ended: bool,
    /// Until it ends.
    in_flight: Option<InFlight>,
}

impl Attempt {
    pub fn begin(instance: &Arc<Instance>, trial: Option<Trial>) -> Self {
        Self::entered(instance, trial, instance.core.live.enter())
    }

    /// `None` when the instance is full.
    pub(super) fn try_begin(instance: &Arc<Instance>, trial: Option<Trial>) -> Option<Self> {
        let Some(in_flight) = instance.core.live.try_enter() else {
            if let Some(trial) = trial {
                instance.core.guard.on_abandoned(trial);
            }
            return None;
        };
        Some(Self::entered(instance, trial, in_flight))
    }

    fn entered(instance: &Arc<Instance>, trial: Option<Trial>, in_flight: InFlight) -> Self {
        let instance = Arc::clone(instance);
        Self { instance, trial, started: clock::mono(), ended: false, in_flight: Some(in_flight) }
    }

    /// It goes to its instance whatever the breaker says: when a trial is due there, it is the trial.
    pub(super) fn may_be_trial(&mut self) {
        self.trial = self.instance.core.guard.trial(self.started);
    }

    /// It says nothing about its instance: were it the trial, the next call may be.
    fn abandon(&self) {
        if let Some(trial) = self.trial {
            self.instance.core.guard.on_abandoned(trial);
        }
    }

    /// Microseconds since it began.
    pub(super) fn micros(&self) -> u32 {
        u32::try_from(clock::mono().since(self.started).as_micros()).unwrap_or(u32::MAX)
    }

    /// The instance has answered, be it with an error of its own.
    pub fn succeed(mut self, is_error: bool) {
        self.ended = true;
        let ended = clock::mono();
        let latency = ended.since(self.started);
        let core = &self.instance.core;
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        core.latency.record(micros);
        core.average.observe(micros);
        if self.prove(ended) {
            core.live.start_anew(ended, latency);
        } else {
            core.live.observe(ended, latency);
        }
        if core.refused.load(Ordering::Relaxed) {
            core.refused.store(false, Ordering::Relaxed);
        }
        if core.errors_in_a_row.load(Ordering::Relaxed) > 0 {
            core.errors_in_a_row.store(0, Ordering::Relaxed);
        }
        count(&core.counters, if is_error { &core.counters.tool_errors } else { &core.counters.ok });
    }

    /// It answers; whether that closed its breaker, so that what was before says nothing more.
    fn prove(&self, now: Mono) -> bool {
        let core = &self.instance.core;
        let closed = core.guard.on_success(now, self.trial);
        if closed {
            core.proven.store(true, Ordering::Relaxed);
            core.doubt.notify_one();
        }
        closed
    }

    /// Another instance answered first: that it takes so long at least is all that is known.
    pub(super) fn outrun(mut self) {
        self.ended = true;
        let ended = clock::mono();
        let core = &self.instance.core;
        core.live.observe(ended, ended.since(self.started));
        self.abandon();
        count(&core.counters, &core.counters.refused);
    }

    /// What is no call was answered: it teaches the breaker, and is not counted.
    fn pass(mut self) {
        self.ended = true;
        self.prove(clock::mono());
    }

    /// What is no call was not answered.
    fn miss(mut self, error: &SendError) {
        self.ended = true;
        let core = &self.instance.core;
        match error.blame() {
            Blame::Instance => core.guard.on_failure(clock::mono(), fastrand::u64(..), self.trial),
            _ => self.abandon(),
        }
        if error.is_refused() {
            core.refused.store(true, Ordering::Relaxed);
        }
    }

    /// No whole answer came. `impatient` as in [`Run`].
    pub fn fail(mut self, error: &SendError, impatient: bool) {
        self.ended = true;
        let blame = if impatient && error.is_deadline() { Blame::Nobody } else { error.blame() };
        let ended = clock::mono();
        let core = &self.instance.core;
        let random = fastrand::u64(..);
        match blame {
            Blame::Instance => {
                core.doubt.notify_one();
                core.live.observe(ended, failure_charge(ended.since(self.started)));
                core.guard.on_failure(ended, random, self.trial);
            }
            Blame::Often => core.guard.on_ratio_failure(ended, random, self.trial),
            Blame::Caller => {
                self.prove(ended);
            }
            Blame::Nobody => self.abandon(),
        }
        if error.is_refused() {
            core.refused.store(true, Ordering::Relaxed);
        }
        // Whoever watches it tells so soon; calls must not crowd where they fail fastest until then.
        if matches!(error, SendError::Down(_)) {
            core.live.pass_over();
        }
        if matches!(blame, Blame::Instance | Blame::Often) {
            core.errors_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        let counters = &core.counters;
        count(
            counters,
            match blame {
                Blame::Instance | Blame::Often => &counters.failed,
                Blame::Caller | Blame::Nobody => &counters.refused,
            },
        );
    }
}

/// At an instance, `refused` are attempts that ended for the caller's reasons.
fn count(counters: &CallCounters, ending: &AtomicU64) {
    ending.fetch_add(1, Ordering::Relaxed);
    counters.messages.fetch_add(1, Ordering::Release);
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Who is woken must find the place free.
        drop(self.in_flight.take());
        self.instance.core.line.leave(self.instance.slot);
        if self.ended {
            return;
        }
        self.abandon();
        let counters = &self.instance.core.counters;
        count(counters, &counters.refused);
    }
}
