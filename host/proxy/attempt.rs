//! Attempts at a call until one is answered or no other may be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use super::failure::CallFailure;
use super::pick::{Excluded, Question};
use crate::clock;
use crate::mesh::balance::failure_charge;
use crate::mesh::ids::Name;
use crate::mesh::offer::Kind;
use crate::mesh::retry::{self, Failure};
use crate::mesh::stats::CallCounters;
use crate::policy::chain::{Permitted, ToolCall};
use crate::registry::{Found, Instance, Snapshot};
use crate::upstream::{Answer, Blame, SendError, Times};

/// A permitted call and where it goes.
pub(super) struct Run<'a> {
    pub snapshot: &'a Snapshot,
    pub target: Found<'a>,
    pub permitted: &'a Permitted<ToolCall<'a>>,
    pub times: Times,
    /// The caller gave less time than is usual: running out of it says nothing about the instance.
    pub impatient: bool,
}

/// An answer, and who gave it.
pub(super) struct Answered {
    pub instance: Name,
    pub answer: Answer,
}

/// What one attempt taught, beside its answer.
struct Failed {
    error: SendError,
    instance: Name,
}

impl Run<'_> {
    pub(super) async fn to_the_end(&self, account: &mut Account<'_>) -> Result<Answered, CallFailure> {
        let service = self.target.service();
        let question = Question {
            policies: &self.snapshot.policies,
            target: self.target,
            tag: self.permitted.tag(),
            affinity: self.permitted.facts().affinity,
        };
        let tool = service.offer.get(Kind::Tool, self.permitted.tool());
        let repeatable = tool.is_some_and(|tool| tool.repeatable);
        service.core.budget.deposit();
        let mut tried = Excluded::default();
        let mut last: Option<Failed> = None;
        let mut attempt = 0;
        let mut unsure = false;
        loop {
            let Some(picked) = question.pick(&tried, clock::mono()) else {
                return Err(self.give_up(last, attempt, unsure));
            };
            attempt += 1;
            account.instance = Some(picked.instance.name().clone());
            let started = clock::mono();
            let ended = self.send(picked.instance, picked.trial).await;
            let took = clock::mono().since(started);
            account.attempt_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            let error = match ended {
                Ok(answer) => return Ok(Answered { instance: picked.instance.name().clone(), answer }),
                Err(error) => error,
            };
            tried.add(picked.instance.slot);
            let failure = error.failure();
            unsure |= failure == Failure::Unanswered;
            tracing::debug!(call = %self.permitted.facts().id, instance = %picked.instance.name(), attempt, error = %crate::upstream::chain(&error), "attempt failed");
            last = Some(Failed { error, instance: picked.instance.name().clone() });
            let now = tokio::time::Instant::now();
            if !retry::may_retry(failure, repeatable, attempt)
                || now >= self.times.deadline
                || !service.core.budget.withdraw(clock::mono())
            {
                return Err(self.give_up(last, attempt, unsure));
            }
            service.core.counters.retries.fetch_add(1, Ordering::Relaxed);
            // Nothing reached the instance that failed, so another one can be asked at once.
            if failure != Failure::NotSent {
                let pause = retry::pause(attempt, fastrand::u64(..));
                tokio::time::sleep_until((now + pause).min(self.times.deadline)).await;
            }
        }
    }

    async fn send(&self, instance: &Arc<Instance>, trial: bool) -> Result<Answer, SendError> {
        let core = &instance.core;
        let attempt = Attempt { instance, trial, ended: false };
        let _in_flight = core.live.enter();
        let started = clock::mono();
        let result = instance.peer.call_tool(self.permitted, &self.times).await;
        let ended = clock::mono();
        let latency = ended.since(started);
        attempt.ended();
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match &result {
            Ok(_) => {
                core.live.observe(ended, latency);
                core.latency.record(micros);
                core.guard.on_success(ended);
                if core.refused.load(Ordering::Relaxed) {
                    core.refused.store(false, Ordering::Relaxed);
                }
            }
            Err(error) => {
                let random = fastrand::u64(..);
                let transition = match self.blame(error) {
                    Blame::Instance => {
                        core.live.observe(ended, failure_charge(latency));
                        core.guard.on_failure(ended, random)
                    }
                    Blame::Load => core.guard.on_ratio_failure(ended, random),
                    Blame::Caller => core.guard.on_success(ended),
                    Blame::Nobody => {
                        core.guard.on_abandoned();
                        None
                    }
                };
                if error.is_refused() {
                    core.refused.store(true, Ordering::Relaxed);
                }
                if let Some(transition) = transition {
                    tracing::info!(instance = %instance.name(), ?transition, "breaker changed");
                }
            }
        }
        let counters = &core.counters;
        let counter = match &result {
            Ok(Answer::Result(_)) => &counters.ok,
            Ok(Answer::Error(_)) => &counters.tool_errors,
            Err(error) => match self.blame(error) {
                Blame::Instance | Blame::Load => &counters.failed,
                Blame::Caller | Blame::Nobody => &counters.refused,
            },
        };
        count(counters, counter);
        result
    }

    fn blame(&self, error: &SendError) -> Blame {
        if self.impatient && error.is_deadline() { Blame::Nobody } else { error.blame() }
    }

    fn give_up(&self, last: Option<Failed>, attempts: u32, unsure: bool) -> CallFailure {
        let service = self.target.service().name.to_string();
        match last {
            Some(Failed { error, instance }) => {
                CallFailure::Upstream { service, instance: instance.to_string(), attempts, error, unsure }
            }
            None => CallFailure::NoInstance { why: self.why_none(), service },
        }
    }

    /// Why no instance could be asked, instance by instance.
    fn why_none(&self) -> String {
        let instances: Vec<&Arc<Instance>> = match self.target {
            Found::Service(service) => service.instances.iter().collect(),
            Found::Instance(_, instance) => vec![instance],
        };
        let reasons = instances.iter().take(5).map(|instance| {
            let tagged = self.permitted.tag().is_none_or(|tag| instance.spec.tags.contains(tag));
            let reason = if tagged { instance.reason.as_str() } else { "has another tag" };
            let reason = if reason.is_empty() { instance.phase.as_str() } else { reason };
            format!("`{}` {} ({reason})", instance.name(), instance.health.as_str())
        });
        reasons.collect::<Vec<_>>().join(", ")
    }
}

/// At an instance, `refused` are attempts that ended for the caller's reasons.
fn count(counters: &CallCounters, ending: &AtomicU64) {
    ending.fetch_add(1, Ordering::Relaxed);
    counters.messages.fetch_add(1, Ordering::Release);
}

/// An attempt under way. When its caller goes away before it ended, a half-open breaker gets its trial back.
struct Attempt<'a> {
    instance: &'a Instance,
    trial: bool,
    ended: bool,
}

impl Attempt<'_> {
    fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.trial {
            self.instance.core.guard.on_abandoned();
        }
        let counters = &self.instance.core.counters;
        count(counters, &counters.refused);
    }
}
