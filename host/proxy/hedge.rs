//! A second attempt beside one that is slow: the first answer holds, the other attempt is given up.

use std::pin::pin;
use std::time::Duration;

use super::account::Account;
use super::attempt::{Attempt, Carry, Run};
use super::pick::{Excluded, Question};
use crate::clock;
use crate::mesh::retry::Failure;
use crate::mesh::story::{Tried, TriedEnd};
use crate::registry::Found;
use crate::upstream::SendError;

impl Run<'_> {
    /// How long the first instance has before another one is asked, too: `None` unless the operator wants that, and
    /// never for what may change something.
    pub(super) fn hedged_after(&self) -> Option<Duration> {
        let service = self.target.service();
        let hedge = service.hedge.as_ref()?;
        service.core.hedging.deposit(hedge.budget_permille);
        let wanted = matches!(self.target, Found::Service(_)) && self.is_repeatable();
        service.core.hedging.after().filter(|_| wanted)
    }
}

pub(super) struct Race<'r, 'a, C> {
    pub run: &'r Run<'a>,
    pub question: &'r Question<'r>,
    pub carry: &'r C,
    pub after: Duration,
}

/// How a race ended.
pub(super) struct Over<A> {
    /// The one that decides how.
    pub attempt: Attempt,
    pub ended: Result<A, SendError>,
    /// How many there were.
    pub attempts: u32,
    /// An attempt was sent and not answered, beside the one that decides.
    pub unsure: bool,
}

impl<C: Carry> Race<'_, '_, C> {
    pub(super) async fn run(
        &self,
        first: Attempt,
        tried: &mut Excluded,
        account: &mut Account,
    ) -> Over<C::Answer> {
        let one = first.instance.clone();
        let mut answer = pin!(self.carry.carry(&one));
        let ended = tokio::select! {
            biased;
            ended = &mut answer => ended,
            () = tokio::time::sleep(self.after) => match self.second(&first, tried, account) {
                Some(second) => {
                    let other = second.instance.clone();
                    let mut beside = pin!(self.carry.carry(&other));
                    return tokio::select! {
                        biased;
                        ended = &mut answer => {
                            self.decide((first, ended), (second, beside), tried, account).await
                        }
                        ended = &mut beside => {
                            self.note_won(&ended);
                            self.decide((second, ended), (first, answer), tried, account).await
                        }
                    };
                }
                None => answer.await,
            },
        };
        Over { attempt: first, ended, attempts: 1, unsure: false }
    }

    /// One of two attempts has ended. An answer ends the other one, too; a failure leaves the call to it.
    async fn decide(
        &self,
        (done, ended): (Attempt, Result<C::Answer, SendError>),
        (left, answer): (Attempt, impl Future<Output = Result<C::Answer, SendError>>),
        tried: &mut Excluded,
        account: &mut Account,
    ) -> Over<C::Answer> {
        let error = match ended {
            Ok(answer) => {
                account.end_at(left.instance.name(), left.micros(), TriedEnd::Outrun);
                left.outrun();
                return Over { attempt: done, ended: Ok(answer), attempts: 2, unsure: false };
            }
            Err(error) => error,
        };
        let failure = error.failure();
        account.end_at(done.instance.name(), done.micros(), TriedEnd::Failed(failure));
        tried.add(done.instance.slot);
        done.fail(&error, self.run.impatient);
        let ended = answer.await;
        Over { attempt: left, ended, attempts: 2, unsure: failure == Failure::Unanswered }
    }

    /// Begins an attempt at another instance, if there is one that has room and the service can afford it.
    fn second(&self, first: &Attempt, tried: &Excluded, account: &mut Account) -> Option<Attempt> {
        let core = &self.run.target.service().core;
        let mut excluded = tried.clone();
        excluded.add(first.instance.slot);
        // Who stands in line is before what is only meant to be faster.
        if core.line.waiting() > 0 || self.question.takers(&excluded).next().is_none() {
            return None;
        }
        if !core.hedging.withdraw() {
            return None;
        }
        let picked = self.question.pick(&excluded, clock::mono());
        let begun = picked.and_then(|picked| {
            let told = picked.told();
            Some((Attempt::try_begin(picked.instance, picked.trial)?, told))
        });
        let Some((attempt, told)) = begun else {
            core.hedging.give_back();
            return None;
        };
        account.begin_attempt(Tried { hedges: true, ..told });
        Some(attempt)
    }

    fn note_won(&self, ended: &Result<C::Answer, SendError>) {
        if ended.is_ok() {
            self.run.target.service().core.hedging.note_won();
        }
    }
}
