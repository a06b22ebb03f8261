//! Copies of calls that a router wants sent to another service as well. Nobody waits for them: what they answer is
//! compared with what the original was answered, counted and dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Proxy;
use super::account::Ending;
use super::attempt::Carry;
use crate::mcp::{declared, envelope};
use crate::mesh::ids::Name;
use crate::mesh::offer::Kind;
use crate::policy::chain::{Call, CallCopy, Permitted};
use crate::registry::{Instance, Service, Snapshot};
use crate::upstream::{Answer, SendError, Times};

/// Copies that may wait, and that may be under way at once. More are not sent, and counted.
pub const WAITING_MAX: usize = 256;
const UNDER_WAY_MAX: usize = 32;
/// Pairs of services that are told apart in counts.
const PAIRS_MAX: usize = 256;

/// A copy, and where the end of its original will be told.
pub struct Copied {
    call: CallCopy,
    /// The service that took the original.
    service: Name,
    time: Duration,
    original: oneshot::Receiver<Original>,
}

/// How a call ended that was copied.
pub(super) struct Original {
    pub ending: Ending,
    /// The answer or its result, where it was there in one piece.
    pub answer: Option<Bytes>,
}

/// What became of the copies of one service's calls to another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// The copy was answered as the original was, to the byte where both can be compared so.
    pub same: u64,
    pub different: u64,
    /// One of the two got no answer.
    pub failed: u64,
}

/// Counts by the service that took the original and the one that took the copy.
#[derive(Clone, Debug, Default)]
pub struct MirrorBook(Arc<Mutex<BTreeMap<(Name, Name), MirrorCounts>>>);

impl MirrorBook {
    pub fn counts(&self) -> Vec<(Name, Name, MirrorCounts)> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.iter().map(|((service, mirror), counts)| (service.clone(), mirror.clone(), *counts)).collect()
    }

    fn note(&self, service: Name, mirror: Name, verdict: Verdict) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (service, mirror);
        if book.len() >= PAIRS_MAX && !book.contains_key(&pair) {
            return;
        }
        let counts = book.entry(pair).or_default();
        match verdict {
            Verdict::Same => counts.same += 1,
            Verdict::Different => counts.different += 1,
            Verdict::Failed => counts.failed += 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Different,
    Failed,
}

impl Proxy {
    /// Sends a copy of the call on its way if the router wants one, the call may be copied, and chance says so. What
    /// comes back is to be told of the original's end.
    pub(super) fn mirror(
        &self,
        permitted: &Permitted<Call<'_>>,
        snapshot: &Snapshot,
        service: &Service,
        time: Duration,
    ) -> Option<oneshot::Sender<Original>> {
        let mirror = permitted.mirror()?;
        if permitted.facts().method != "tools/call" || fastrand::u16(0..1000) >= mirror.permille {
            return None;
        }
        // Gone since the router was asked: then the copy finds nobody.
        let copied_to = snapshot.find(mirror.service.as_str()).map(|found| found.service());
        let tool = permitted.tool();
        let shows = |service: &Name| snapshot.catalogue.passes(service.as_str(), Kind::Tool, tool);
        if copied_to.is_some_and(|service| !shows(&service.name)) {
            return None;
        }
        let reads_only = service.offer.get(Kind::Tool, tool).is_some_and(declared::reads_only);
        // One that does not list the tool may not have been asked yet.
        let may_write = copied_to
            .and_then(|service| service.offer.get(Kind::Tool, tool))
            .is_some_and(|tool| !declared::reads_only(tool));
        if !mirror.any_tool && (!reads_only || may_write) {
            return None;
        }
        let (told, original) = oneshot::channel();
        let call = permitted.copy()?;
        self.books.copy(Copied { call, service: service.name.clone(), time, original }).then_some(told)
    }
}

/// Sends copies. Runs until `stop`; run by `app`.
pub struct Mirroring {
    pub proxy: Arc<Proxy>,
    pub queue: mpsc::Receiver<Copied>,
    pub book: MirrorBook,
}

impl Mirroring {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(copied) = self.queue.recv(), if under_way.len() < UNDER_WAY_MAX => {
                    under_way.push(compare(&self.proxy, &self.book, copied));
                }
                Some(()) = under_way.next() => {}
            }
        }
    }
}

async fn compare(proxy: &Proxy, book: &MirrorBook, copied: Copied) {
    let Copied { call, service, time, original } = copied;
    let copy = send(proxy, &call, time).await;
    // Its sender tells or is dropped with its call, whose time is bounded.
    let Ok(original) = original.await else { return };
    let verdict = verdict(&original, copy.as_ref());
    book.note(service, call.service().clone(), verdict);
}

async fn send(proxy: &Proxy, call: &CallCopy, time: Duration) -> Option<Answer> {
    let snapshot = proxy.registry.snapshot();
    let permitted = call.permitted();
    let deadline = tokio::time::Instant::now() + time;
    let (connect, first_byte) = (proxy.times.connect, proxy.times.first_byte);
    let times = Times { connect, first_byte, deadline, wakes: true, stated: false };
    let service = snapshot.find(call.service().as_str());
    let tool = service.and_then(|found| found.service().offer.get(Kind::Tool, permitted.tool()).cloned());
    let declaration = tool.as_ref().map(|tool| &*tool.json);
    let carry = Copy { permitted: &permitted, declaration, times, tasks: &proxy.tasks };
    let brought = proxy.bring(&snapshot, call.service().as_str(), None, permitted.facts().affinity, &carry);
    match tokio::time::timeout_at(deadline, brought).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(failure)) => {
            tracing::debug!(mirror = %call.service(), error = %failure, "copy of a call not answered");
            None
        }
        Err(_) => None,
    }
}

struct Copy<'a> {
    permitted: &'a Permitted<Call<'a>>,
    declaration: Option<&'a str>,
    times: Times,
    tasks: &'a TaskTracker,
}

impl Carry for Copy<'_> {
    type Answer = Answer;

    async fn carry(&self, instance: &Arc<Instance>) -> Result<Answer, SendError> {
        instance.peer.call_tool(self.permitted, self.declaration, &self.times, self.tasks).await
    }
}

fn verdict(original: &Original, copy: Option<&Answer>) -> Verdict {
    let Some(copy) = copy else { return Verdict::Failed };
    let failed = match copy {
        Answer::Result(result) => envelope::is_tool_error(result),
        Answer::Error(_) => true,
    };
    let alike = match original.ending {
        Ending::Ok => !failed,
        Ending::ToolError => failed,
        Ending::Failed | Ending::Refused => return Verdict::Failed,
    };
    let Answer::Result(copy) = copy else {
        return if alike { Verdict::Same } else { Verdict::Different };
    };
    let same = alike && original.answer.as_ref().is_none_or(|answer| result_in(answer) == copy.as_ref());
    if same { Verdict::Same } else { Verdict::Different }
}

/// The result of an answer, or the bytes themselves when they are one already.
fn result_in(answer: &Bytes) -> &[u8] {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        jsonrpc: Option<&'a RawValue>,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    match serde_json::from_slice::<Whole<'_>>(answer) {
        Ok(Whole { jsonrpc: Some(_), result: Some(result) }) => result.get().as_bytes(),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(ending: Ending, answer: Option<&'static str>) -> Original {
        Original { ending, answer: answer.map(|text| Bytes::from_static(text.as_bytes())) }
    }

    fn result(text: &'static str) -> Answer {
        Answer::Result(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn answers_are_compared_to_the_byte_where_both_are_there() {
        let same = original(Ending::Ok, Some(r#"{"jsonrpc":"2.0","id":7,"result":{"a": 1}}"#));
        assert_eq!(verdict(&same, Some(&result(r#"{"a": 1}"#))), Verdict::Same);
        assert_eq!(verdict(&same, Some(&result(r#"{"a":1}"#))), Verdict::Different);
        let bare = original(Ending::Ok, Some(r#"{"a":1}"#));
        assert_eq!(verdict(&bare, Some(&result(r#"{"a":1}"#))), Verdict::Same);
        let streamed = original(Ending::Ok, None);
        assert_eq!(verdict(&streamed, Some(&result("{}"))), Verdict::Same);
        assert_eq!(verdict(&streamed, Some(&result(r#"{"isError":true}"#))), Verdict::Different);
        assert_eq!(verdict(&streamed, Some(&Answer::Error(Bytes::new()))), Verdict::Different);
        assert_eq!(
            verdict(&original(Ending::ToolError, None), Some(&Answer::Error(Bytes::new()))),
            Verdict::Same
        );
    }

    #[test]
    fn without_two_answers_nothing_is_compared() {
        assert_eq!(verdict(&original(Ending::Ok, None), None), Verdict::Failed);
        assert_eq!(verdict(&original(Ending::Failed, None), Some(&result("{}"))), Verdict::Failed);
    }
}
