//! How a call ends: with its answer in the client's words, with what kept it from coming, or with its client's
//! going away.

use bytes::Bytes;
use http::StatusCode;

use super::Relay;
use crate::endpoint::courier::Recall;
use crate::endpoint::failed;
use crate::mcp::era::Era;
use crate::mcp::hints::Hints;
use crate::mcp::turn;
use crate::proxy::{CallFailure, Ending};
use crate::upstream::SendError;

impl Relay {
    /// The instance's answer in the client's words.
    pub(super) fn answer(&self, data: &Bytes) -> Bytes {
        let mut answer = match &self.names.id {
            Some(_) => turn::with_id(data, &self.side.id),
            None => data.clone(),
        };
        match (self.side.era, self.spoken.era) {
            (Era::Modern, Era::Legacy) => answer = turn::to_modern(&answer, &self.side.method),
            (Era::Legacy, Era::Modern) => answer = turn::to_legacy(&answer),
            (Era::Modern, Era::Modern) | (Era::Legacy, Era::Legacy) => {}
        }
        // A legacy session stays with its instance; everybody else is led back by a mark.
        if self.spoken.era == Era::Modern && Hints::of(&answer).continued {
            turn::bound_to(&answer, self.instance.name().as_str()).unwrap_or(answer)
        } else {
            answer
        }
    }

    /// Closes the call with its answer.
    pub(super) fn close(&mut self, answer: &[u8], status: StatusCode) {
        let failure = Hints::of(answer).failure && turn::is_failure(answer);
        if let Some(attempt) = self.attempt.take() {
            attempt.succeed(failure);
        }
        if let Some(account) = self.account.take() {
            account.settle(if failure { Ending::ToolError } else { Ending::Ok }, status, answer.len());
        }
    }

    pub(super) fn settle(&mut self, answer: Bytes, status: StatusCode) -> Bytes {
        self.close(&answer, status);
        answer
    }

    /// Closes the call with what kept its answer from coming, and says so to the client.
    pub(super) fn fail(&mut self, error: SendError) -> Bytes {
        if error.is_deadline() && self.attempt.is_some() && self.spoken.era == Era::Legacy {
            self.give_up();
        }
        if let Some(attempt) = self.attempt.take() {
            attempt.fail(&error, self.impatient);
        }
        let failure = CallFailure::of(&self.instance, error);
        if let Some(account) = self.account.take() {
            account.fail(&failure);
        }
        failed(self.side.call, &self.side.id, &failure)
    }
}

impl Relay {
    /// Nobody waits for the instance's answer any more. A modern one sees its stream end.
    fn give_up(&self) {
        let id = self.names.id.as_ref().unwrap_or(&self.side.id).clone();
        drop(Recall::new(&self.endpoint, &self.instance.peer, &self.spoken, Some(id)));
    }
}

impl Drop for Relay {
    /// A modern client that goes away cancels its request; a legacy instance has to be told.
    fn drop(&mut self) {
        if self.attempt.take().is_none() {
            return;
        }
        if let (Some(id), true) = (self.names.id.take(), self.side.era == Era::Modern) {
            drop(Recall::new(&self.endpoint, &self.instance.peer, &self.spoken, Some(id)));
        }
    }
}
