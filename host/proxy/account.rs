//! What is written down of a call when it is over, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::failure::CallFailure;
use super::mirror::Original;
use super::{Books, shared};
use crate::clock;
use crate::mcp::envelope;
use crate::mesh::ids::{CallId, Name};
use crate::mesh::limit::Waited;
use crate::mesh::observe::Finished;
use crate::mesh::offer::Kind;
use crate::mesh::stats::CallCounters;
use crate::mesh::story::{Opinions, Story, Tried, TriedEnd};
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::CallFacts;
use crate::policy::chain::{Call, Permitted, Refused, Ruling};
use crate::registry::{Found, Service};
use crate::upstream::{Answer, SendError};

/// Status in the records of a call whose caller went away.
const CLIENT_CLOSED: u16 = 499;
/// Of what a caller was told, so much is kept.
const ERROR_BYTES_MAX: usize = 512;

/// A call that a tool answered.
pub(super) struct Done {
    pub service: Name,
    pub instance: Name,
    pub ruling: Option<Ruling>,
    /// The result, as it came.
    pub result: Bytes,
}

/// How a call ended, for its service's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Ok,
    ToolError,
    Failed,
    Refused,
}

/// An open account of one call. It is closed once: by its end, or when the caller goes away and it is dropped.
pub struct Account {
    books: Arc<Books>,
    id: CallId,
    at: Wall,
    arrived: Mono,
    service: Arc<Service>,
    tool: Arc<str>,
    client: Arc<str>,
    instance: Option<Name>,
    /// Who waits to compare a copy's answer with this call's.
    pub(super) original: Option<oneshot::Sender<Original>>,
    answer: Option<Bytes>,
    /// Microseconds of the last attempt.
    attempt_us: u32,
    request_bytes: u32,
    response_bytes: u32,
    status: u16,
    ending: Ending,
    story: Story,
}

impl Account {
    pub(super) fn open(books: &Arc<Books>, facts: &CallFacts<'_>, arrived: Mono, found: Found<'_>) -> Self {
        let (service, target) = match found {
            Found::Service(service) => (service, &service.name),
            Found::Instance(service, instance) => (service, instance.name()),
        };
        let mut account = Self {
            books: Arc::clone(books),
            id: facts.id,
            at: facts.arrived,
            arrived,
            service: Arc::clone(service),
            tool: shared(""),
            client: shared(facts.client),
            instance: None,
            original: None,
            answer: None,
            attempt_us: 0,
            request_bytes: facts.size,
            response_bytes: 0,
            status: CLIENT_CLOSED,
            ending: Ending::Failed,
            story: Story::default(),
        };
        account.route_to(service, facts.tool);
        account.story = Story::begin(facts, target.clone(), Arc::clone(&account.tool));
        account
    }

    /// Where what the routers say is written down.
    pub(super) fn opinions(&mut self) -> &mut Opinions {
        &mut self.story.opinions
    }

    pub(super) fn begin_attempt(&mut self, tried: Tried) {
        self.instance = Some(tried.instance.clone());
        self.story.try_again(tried);
    }

    /// The call has waited for room.
    pub(super) fn waited(&mut self, waited: Waited) {
        self.story.waited = self.story.waited.then(waited);
    }

    /// The attempt at `instance` is over: the call is with it, unless another attempt goes on.
    pub(super) fn end_attempt(&mut self, instance: &Name, us: u32, error: Option<&SendError>) {
        self.attempt_us = us;
        if self.instance.as_ref() != Some(instance) {
            self.instance = Some(instance.clone());
        }
        self.end_at(
            instance,
            us,
            error.map_or(TriedEnd::Answered, |error| TriedEnd::Failed(error.failure())),
        );
    }

    /// Of two attempts at once, this one does not decide how the call ends.
    pub(super) fn end_at(&mut self, instance: &Name, us: u32, end: TriedEnd) {
        if let Some(tried) = self.story.at(instance) {
            tried.us = us;
            tried.end = end;
        }
    }

    pub(super) fn route_to(&mut self, service: &Arc<Service>, tool: &str) {
        self.service = Arc::clone(service);
        self.tool =
            service.offer.get(Kind::Tool, tool).map_or_else(|| shared(tool), |known| Arc::clone(&known.key));
    }

    pub(super) fn refuse(&mut self, refused: Refused) -> CallFailure {
        let failure = CallFailure::Refused(refused);
        self.note(&failure);
        failure
    }

    /// Closes the account with the call's end. A tool's own error is a failure that carries its result.
    pub(super) fn close(
        mut self,
        permitted: &Permitted<Call<'_>>,
        ended: Result<(Name, Answer), CallFailure>,
    ) -> Result<Done, CallFailure> {
        let service = self.service.name.clone();
        let result = match ended {
            Ok((instance, Answer::Result(result))) => {
                self.response_bytes = u32::try_from(result.len()).unwrap_or(u32::MAX);
                self.answered(&result);
                if envelope::is_tool_error(&result) {
                    Err(CallFailure::tool_error(
                        service.as_str(),
                        instance.as_str(),
                        permitted.tool(),
                        result,
                    ))
                } else {
                    self.ending = Ending::Ok;
                    Ok(Done { service, instance, ruling: permitted.ruling().cloned(), result })
                }
            }
            Ok((instance, Answer::Error(error))) => {
                Err(CallFailure::rpc_error(service.as_str(), instance.as_str(), permitted.tool(), error))
            }
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) => self.status = StatusCode::OK.as_u16(),
            Err(failure) => self.note(failure),
        }
        result
    }
}

impl Account {
    /// The answer, or its result, when it is there in one piece.
    pub fn answered(&mut self, answer: &Bytes) {
        if self.original.is_some() {
            self.answer = Some(answer.clone());
        }
    }

    /// Closes the account of a call whose answer was passed on as it came.
    pub fn settle(mut self, ending: Ending, status: StatusCode, response_bytes: usize) {
        self.ending = ending;
        self.status = status.as_u16();
        self.response_bytes = u32::try_from(response_bytes).unwrap_or(u32::MAX);
    }

    /// Closes the account of a call that was not answered.
    pub fn fail(mut self, failure: &CallFailure) {
        self.note(failure);
    }

    fn note(&mut self, failure: &CallFailure) {
        self.ending = failure.ending();
        self.status = failure.status().as_u16();
        // What a tool says is its caller's.
        if self.ending != Ending::ToolError {
            let mut error = failure.to_string();
            error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
            self.story.error = error.into();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let latency = clock::mono().since(self.arrived);
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let core = &self.service.core;
        count(&core.counters, self.ending, self.request_bytes, self.response_bytes);
        core.latency.record(micros);
        if let Some(original) = self.original.take() {
            // Whoever compares may have gone with the end of the proxy.
            original.send(Original { ending: self.ending, answer: self.answer.take() }).ok();
        }
        let mut story = std::mem::take(&mut self.story);
        story.pool = Some(Arc::clone(&self.service.pool));
        self.books.report(Finished {
            id: self.id,
            at: self.at,
            service: self.service.name.clone(),
            instance: self.instance.take(),
            tool: Arc::clone(&self.tool),
            client: Arc::clone(&self.client),
            latency_us: micros,
            attempt_us: self.attempt_us,
            status: self.status,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            story,
        });
    }
}

fn count(counters: &CallCounters, ending: Ending, request_bytes: u32, response_bytes: u32) {
    let counter = match ending {
        Ending::Ok => &counters.ok,
        Ending::ToolError => &counters.tool_errors,
        Ending::Failed => &counters.failed,
        Ending::Refused => &counters.refused,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    counters.request_bytes.fetch_add(u64::from(request_bytes), Ordering::Relaxed);
    counters.response_bytes.fetch_add(u64::from(response_bytes), Ordering::Relaxed);
    // Last, so that a reader who sees the message sees how it ended.
    counters.messages.fetch_add(1, Ordering::Release);
}
