//! How a call was decided: written down while it runs, told when it is over.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::ids::{CallId, Name, Slot};
use super::limit::Waited;
use super::pool::{Catalog, Live, Pool};
use super::retry::Failure;
use super::time::{Mono, Wall};
use super::verdict::{CallFacts, Decision, Source};

/// Routers whose answers are written down. Of a longer chain, the one whose verdict holds takes the last place.
pub const OPINIONS_MAX: usize = 4;
/// Instances that are written down beside the one that was picked.
pub const RIVALS_MAX: usize = 4;

/// What one call was about, and what policies made of it. Made for every call, so nothing in it is allocated unless
/// the call is unusual.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The service or instance that was asked for.
    pub target: Option<Name>,
    /// The tool that was asked for.
    pub tool: Arc<str>,
    pub method: Cow<'static, str>,
    pub random: u64,
    pub affinity: u64,
    pub time_left: Duration,
    pub opinions: Opinions,
    /// A wait that no attempt came after.
    pub waited: Waited,
    pub first: Option<Tried>,
    pub again: Vec<Tried>,
    /// What the caller was told instead of an answer, cut short; empty for what a tool says itself.
    pub error: Box<str>,
    /// That of the service that took the call; slots are of it.
    pub pool: Option<Arc<Pool>>,
}

impl Story {
    pub fn begin(facts: &CallFacts<'_>, target: Name, tool: Arc<str>) -> Self {
        Self {
            target: Some(target),
            tool,
            method: method(facts.method),
            random: facts.random,
            affinity: facts.affinity,
            time_left: facts.time_left,
            ..Self::default()
        }
    }

    pub fn try_again(&mut self, mut tried: Tried) {
        tried.waited = std::mem::take(&mut self.waited);
        if self.first.is_none() {
            self.first = Some(tried);
        } else {
            self.again.push(tried);
        }
    }

    /// The last attempt at that instance.
    pub fn at(&mut self, instance: &Name) -> Option<&mut Tried> {
        let again = self.again.iter_mut().rev();
        again.chain(self.first.as_mut()).find(|tried| tried.instance == *instance)
    }

    pub fn attempts(&self) -> impl Iterator<Item = &Tried> {
        self.first.iter().chain(&self.again)
    }
}

/// The methods of nearly all calls need no memory of their own.
fn method(text: &str) -> Cow<'static, str> {
    const USUAL: [&str; 6] = [
        "tools/call",
        "prompts/get",
        "resources/read",
        "completion/complete",
        "tasks/get",
        "resources/subscribe",
    ];
    match USUAL.iter().find(|usual| **usual == text) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(text.to_owned()),
    }
}

/// What the routers said, in the order in which they were asked.
#[derive(Clone, Debug, Default)]
pub struct Opinions([Option<Opinion>; OPINIONS_MAX]);

impl Opinions {
    pub fn add(&mut self, opinion: Opinion) {
        let holds = opinion.fate == Fate::Holds;
        match self.0.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(opinion),
            None if holds => self.0[OPINIONS_MAX - 1] = Some(opinion),
            None => {}
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Opinion> {
        self.0.iter().flatten()
    }
}

/// What one router said of a call.
#[derive(Clone, Debug)]
pub struct Opinion {
    pub by: Arc<Source>,
    /// `None` when it gave none.
    pub decision: Option<Arc<Decision>>,
    pub fate: Fate,
}

/// What became of a router's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    /// It decided the call.
    Holds,
    /// It forwarded to what does not exist.
    Overruled,
    /// It gave no answer, and the next one was asked.
    Faulted,
    /// It was not asked, since it crashed on such calls; the next one was.
    Skipped,
}

impl Fate {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Holds => "holds",
            Self::Overruled => "overruled",
            Self::Faulted => "faulted",
            Self::Skipped => "skipped",
        }
    }
}

/// One attempt, and who picked its instance.
#[derive(Clone, Debug)]
pub struct Tried {
    pub instance: Name,
    pub by: Picker,
    /// The instance's, before this attempt.
    pub figures: Figures,
    /// How many could be picked, this one among them.
    pub candidates: u32,
    pub rivals: [Option<Rival>; RIVALS_MAX],
    /// It was begun because the one before was slow, beside it.
    pub hedges: bool,
    /// Before it, for an instance to have room.
    pub waited: Waited,
    pub us: u32,
    pub end: TriedEnd,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picker {
    /// The caller named the instance.
    Caller,
    /// The client's session is with it.
    Session,
    Native,
    /// The native balancer, while too few instances are available to choose by their health.
    Panic,
    /// Its breaker waited for a call that shows how it is.
    Trial,
    /// A balancer, by a plan that says `why`, or asked.
    Plugin {
        by: Arc<Source>,
        why: Option<Arc<str>>,
    },
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriedEnd {
    /// The caller went away first.
    Left,
    Answered,
    Failed(Failure),
    /// Another attempt, beside it, was answered first.
    Outrun,
}

/// What balancers know of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub in_flight: u32,
    pub ewma_us: u32,
    /// Of its weight, in thousandths.
    pub share_permille: u32,
}

impl Figures {
    pub fn of(live: &Live) -> Self {
        Self { in_flight: live.in_flight(), ewma_us: live.ewma_us(), share_permille: live.share_permille() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    pub slot: Slot,
    pub figures: Figures,
}

/// A call as routers saw it, kept so that it can be decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    pub id: CallId,
    pub at: Wall,
    pub service: Name,
    pub tool: Arc<str>,
    pub method: Cow<'static, str>,
    pub client: Arc<str>,
    pub random: u64,
    pub affinity: u64,
    pub size: u32,
    pub time_left: Duration,
}

impl RecordedCall {
    pub fn facts(&self, now: Mono) -> CallFacts<'_> {
        CallFacts {
            id: self.id,
            arrived: self.at,
            now,
            random: self.random,
            affinity: self.affinity,
            service: self.service.as_str(),
            tool: &self.tool,
            method: &self.method,
            client: &self.client,
            size: self.size,
            time_left: self.time_left,
            // They are not recorded.
            arguments: b"",
        }
    }
}

/// Calls that can be decided again, and the mesh that they would meet now.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// With the service that took the call; newest first.
    pub calls: Vec<(RecordedCall, Name)>,
    pub catalog: Arc<Catalog>,
    pub pools: Vec<Arc<Pool>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::verdict::Verdict;

    fn opinion(generation: u64, fate: Fate) -> Opinion {
        let name = Name::new("r").expect("a name");
        let by = Arc::new(Source { name, version: "1".to_owned(), generation, component: [0; 32] });
        let decision = Decision { verdict: Verdict::Pass, why: "".into(), reuse: None };
        Opinion { by, decision: Some(Arc::new(decision)), fate }
    }

    #[test]
    fn the_verdict_that_holds_is_kept_however_many_passed_before() {
        let mut opinions = Opinions::default();
        (1..10).for_each(|generation| opinions.add(opinion(generation, Fate::Passed)));
        opinions.add(opinion(10, Fate::Holds));
        let kept: Vec<_> = opinions.iter().map(|opinion| opinion.by.generation).collect();
        assert_eq!(kept, [1, 2, 3, 10]);
    }

    #[test]
    fn usual_methods_are_not_copied() {
        assert!(matches!(method("tools/call"), Cow::Borrowed(_)));
        assert_eq!(method("x/y"), "x/y");
    }
}
