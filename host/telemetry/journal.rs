//! The newest calls and how they were decided, so that anyone can ask later. Fed beside the data path.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mesh::ids::{CallId, Name};
use crate::mesh::limit::Waited;
use crate::mesh::observe::Finished;
use crate::mesh::pool::Pool;
use crate::mesh::story::{Figures, Opinion, Picker, RecordedCall, Tried, TriedEnd};
use crate::mesh::verdict::Verdict;

/// A call that is over is known after this time.
pub const RECORDED_WITHIN: Duration = Duration::from_millis(200);

const CALLS_MAX: usize = 10_000;
const BYTES_MAX: usize = 32 << 20;

/// One call that is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// As it came.
    pub call: RecordedCall,
    /// Where it went.
    pub service: Name,
    pub instance: Option<Name>,
    pub tool: Arc<str>,
    pub opinions: Vec<Opinion>,
    pub attempts: Vec<Attempt>,
    /// For an instance to have room, in all.
    pub waited: Duration,
    pub latency_us: u32,
    /// What the caller was told instead of an answer; empty for what a tool said itself.
    pub error: Box<str>,
    /// HTTP status that the caller got.
    pub status: u16,
    pub response_bytes: u32,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub instance: Name,
    pub by: Picker,
    pub figures: Figures,
    pub candidates: u32,
    /// Some of those that could have been picked as well.
    pub rivals: Vec<(Name, Figures)>,
    pub hedges: bool,
    pub waited: Waited,
    pub us: u32,
    pub end: TriedEnd,
}

impl Record {
    /// `None` of a call that is over and was never asked of anybody.
    fn of(finished: &Finished) -> Option<Self> {
        let story = &finished.story;
        let call = RecordedCall {
            id: finished.id,
            at: finished.at,
            service: story.target.clone()?,
            tool: Arc::clone(&story.tool),
            method: story.method.clone(),
            client: Arc::clone(&finished.client),
            random: story.random,
            affinity: story.affinity,
            size: finished.request_bytes,
            time_left: story.time_left,
        };
        Some(Self {
            call,
            service: finished.service.clone(),
            instance: finished.instance.clone(),
            tool: Arc::clone(&finished.tool),
            opinions: story.opinions.iter().cloned().collect(),
            attempts: story.attempts().map(|tried| Attempt::of(tried, story.pool.as_deref())).collect(),
            error: story.error.clone(),
            waited: story.attempts().map(|tried| tried.waited.time).sum::<Duration>() + story.waited.time,
            latency_us: finished.latency_us,
            status: finished.status,
            response_bytes: finished.response_bytes,
        })
    }

    /// What it holds, about. What it shares with others is counted for each.
    fn bytes(&self) -> usize {
        let opinion = |opinion: &Opinion| {
            let target = opinion.decision.as_ref().map_or(0, |decision| match &decision.verdict {
                Verdict::Pass => decision.why.len(),
                Verdict::Forward(target) => decision.why.len() + target.tool.as_ref().map_or(0, String::len),
                Verdict::Reject(refusal) => decision.why.len() + refusal.reason.len(),
            });
            size_of::<Opinion>() + 256 + target
        };
        let attempt = |attempt: &Attempt| {
            size_of::<Attempt>() + attempt.rivals.capacity() * size_of::<(Name, Figures)>()
        };
        size_of::<Self>()
            + self.error.len()
            + self.call.client.len()
            + self.call.tool.len()
            + self.call.method.len()
            + self.opinions.iter().map(opinion).sum::<usize>()
            + self.attempts.iter().map(attempt).sum::<usize>()
    }
}

impl Attempt {
    fn of(tried: &Tried, pool: Option<&Pool>) -> Self {
        let rivals = tried.rivals.iter().flatten().filter_map(|rival| {
            let member = pool?.member(rival.slot)?;
            Some((member.instance.clone(), rival.figures))
        });
        Self {
            instance: tried.instance.clone(),
            by: tried.by.clone(),
            figures: tried.figures,
            candidates: tried.candidates,
            rivals: rivals.collect(),
            hedges: tried.hedges,
            waited: tried.waited,
            us: tried.us,
            end: tried.end,
        }
    }
}

/// Why a call cannot be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It ended before the oldest call that is still known.
    TooOld,
    Never,
}

/// Written by the metering task alone; calls never wait for it.
pub struct Journal {
    calls_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    /// The largest id that was let go.
    gone: Option<CallId>,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new(CALLS_MAX, BYTES_MAX)
    }
}

impl Journal {
    fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self { calls_max, bytes_max, kept: Mutex::default() }
    }

    pub(super) fn note(&self, finished: &Finished) {
        let Some(record) = Record::of(finished) else { return };
        let mut kept = self.kept();
        kept.bytes += record.bytes();
        kept.records.push_back(Arc::new(record));
        while kept.records.len() > self.calls_max || kept.bytes > self.bytes_max {
            let Some(oldest) = kept.records.pop_front() else { return };
            kept.bytes -= oldest.bytes();
            kept.gone = kept.gone.filter(|gone| gone.0 > oldest.call.id.0).or(Some(oldest.call.id));
        }
    }

    /// # Errors
    /// It is not known, or not any more.
    pub fn find(&self, id: CallId) -> Result<Arc<Record>, Unknown> {
        let kept = self.kept();
        let found = kept.records.iter().rev().find(|record| record.call.id == id);
        found.cloned().ok_or(match kept.gone {
            Some(gone) if id.0 <= gone.0 => Unknown::TooOld,
            _ => Unknown::Never,
        })
    }

    /// Newest first; of one service, or of all.
    pub fn newest(&self, limit: usize, service: Option<&str>) -> Vec<Arc<Record>> {
        let kept = self.kept();
        let of_service = |record: &&Arc<Record>| {
            service
                .is_none_or(|name| [&record.service, &record.call.service].iter().any(|n| n.as_str() == name))
        };
        kept.records.iter().rev().filter(of_service).take(limit).cloned().collect()
    }

    /// The newest calls, to be decided again.
    pub fn recorded(&self, limit: usize) -> Vec<(RecordedCall, Name)> {
        let newest = self.newest(limit, None);
        newest.iter().map(|record| (record.call.clone(), record.service.clone())).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is counted may be off by one record after a panic; the limits still hold.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::story::Story;
    use crate::mesh::time::{Mono, Wall};
    use crate::mesh::verdict::CallFacts;

    fn finished(id: u64, client: &str) -> Finished {
        let service = Name::new(if id.is_multiple_of(2) { "even" } else { "odd" }).expect("a name");
        let facts = CallFacts {
            id: CallId(id),
            arrived: Wall::from_millis(0),
            now: Mono::from_secs(0),
            random: 1,
            affinity: 2,
            service: service.as_str(),
            tool: "t",
            method: "tools/call",
            client,
            size: 3,
            time_left: Duration::from_secs(4),
            arguments: b"",
        };
        Finished {
            id: facts.id,
            at: facts.arrived,
            service: service.clone(),
            instance: None,
            tool: "t".into(),
            client: client.into(),
            latency_us: 5,
            attempt_us: 0,
            status: 200,
            request_bytes: facts.size,
            response_bytes: 6,
            story: Story::begin(&facts, service.clone(), "t".into()),
        }
    }

    fn ids(records: &[Arc<Record>]) -> Vec<u64> {
        records.iter().map(|record| record.call.id.0).collect()
    }

    #[test]
    fn the_newest_calls_are_kept_and_the_oldest_go() {
        let journal = Journal::new(3, usize::MAX);
        (1..=5).for_each(|id| journal.note(&finished(id, "")));
        assert_eq!(ids(&journal.newest(10, None)), [5, 4, 3]);
        assert_eq!(ids(&journal.newest(1, Some("even"))), [4]);
        assert_eq!(journal.find(CallId(4)).expect("kept").call.affinity, 2);
        assert_eq!(journal.find(CallId(2)).err(), Some(Unknown::TooOld));
        assert_eq!(journal.find(CallId(6)).err(), Some(Unknown::Never));
    }

    #[test]
    fn large_calls_leave_room_for_fewer() {
        let journal = Journal::new(1_000, 64 << 10);
        (1..=100).for_each(|id| journal.note(&finished(id, &"c".repeat(8 << 10))));
        let kept = ids(&journal.newest(1_000, None));
        assert!((4..8).contains(&kept.len()), "{kept:?}");
        assert_eq!(kept[0], 100);
    }
}
