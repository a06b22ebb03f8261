//! One child, as its supervisor keeps it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::clock;
use crate::config::ChildConfig;
use crate::mesh::child::{Child, ChildState};
use crate::mesh::time::Mono;
use crate::process::Session;
use crate::registry::{ChildSight, Instance, Snapshot};
use crate::supervisor::attempt::{Happening, Report};
use crate::supervisor::{ChildStatus, First};
use crate::upstream::{Exit, Log, Process, Spoken};

pub(super) struct Kept {
    /// As it was at the start: its name and its peer stay.
    pub instance: Arc<Instance>,
    pub config: ChildConfig,
    pub machine: Child,
    /// Reports of earlier lives do not count.
    pub life: u64,
    pub process: Option<Arc<Process>>,
    /// What starts, meets and awaits it.
    pub attempt: Option<AbortHandle>,
    /// Its process ended; what that had started is being ended.
    pub lingers: bool,
    launched: Option<Mono>,
    /// Lines that its log had when it was launched; and of standard error alone, at the last look.
    lines_before: u64,
    errors_seen: u64,
    pub lacks: Option<String>,
    /// What to do about what kept its last life from beginning.
    pub start_fix: Option<String>,
    /// When a probe of it was first seen to fail, of those that failed in a row.
    pub mute_since: Option<Mono>,
    /// Probes that had failed in a row at the last look.
    pub failures_seen: u32,
    /// When it was last seen to have written to its log.
    pub wrote_at: Mono,
    /// Somebody looks out for who wants it while it rests.
    pub is_watched: bool,
    /// Since when nobody used it, and how many calls it had had then.
    unused: (Mono, u64),
    first: Option<First>,
    /// What the registry was told last.
    told: Option<ChildSight>,
}

impl Kept {
    pub(super) fn new(instance: &Arc<Instance>, config: &ChildConfig) -> Self {
        Self {
            instance: Arc::clone(instance),
            config: config.clone(),
            machine: Child::new(config.rules),
            life: 0,
            process: None,
            attempt: None,
            lingers: false,
            launched: None,
            lines_before: 0,
            errors_seen: 0,
            lacks: None,
            start_fix: None,
            mute_since: None,
            failures_seen: 0,
            wrote_at: clock::mono(),
            is_watched: false,
            unused: (clock::mono(), 0),
            first: None,
            told: None,
        }
    }

    pub(super) fn state(&self) -> ChildState {
        if self.lingers { ChildState::Stopping } else { self.machine.state() }
    }

    fn reason(&self) -> &str {
        let silent = self.lingers && self.machine.reason().is_empty();
        if silent { "its process ended, what that had started is being ended" } else { self.machine.reason() }
    }

    fn log(&self) -> Option<&Arc<Log>> {
        self.instance.peer.log()
    }

    fn errors(&self) -> u64 {
        self.log().map_or(0, |log| log.errors())
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.machine.state(), ChildState::Starting | ChildState::Installing)
    }

    pub(super) fn begin_life(&mut self, number: u64) {
        self.life = number;
        self.is_watched = false;
        self.launched = Some(clock::mono());
        self.process = None;
        self.start_fix = None;
        self.lines_before = self.log().map_or(0, |log| log.written());
        self.errors_seen = self.errors();
    }

    /// Whether it wrote something to standard error since the last look.
    pub(super) fn has_written(&mut self) -> bool {
        let errors = self.errors();
        std::mem::replace(&mut self.errors_seen, errors) != errors
    }

    pub(super) fn is_among(&self, sessions: &[Session]) -> bool {
        let own = self.process.as_ref().map(|process| process.session());
        own.is_some_and(|own| sessions.contains(&own))
    }

    pub(super) fn meet(&mut self, spoken: Arc<Spoken>) {
        if let Some(process) = self.process.as_ref().filter(|_| self.is_starting()) {
            self.instance.peer.stand_up(process, &spoken);
        }
        self.unused.0 = clock::mono();
    }

    /// Whether what it offers is known, so that clients need no process to see it.
    pub(super) fn is_known(&self, snapshot: &Snapshot) -> bool {
        let service = snapshot.service(self.instance.spec.service.as_str());
        service.is_some_and(|service| service.offer.about().is_some())
    }

    /// Puts a process that nobody used for long enough to rest; says whether its machine is to be told.
    pub(super) fn may_rest(&mut self, snapshot: &Snapshot) -> bool {
        let Some(limit) = self.config.rules.idle_stop else { return false };
        let (core, peer) = (&self.instance.core, &self.instance.peer);
        let calls = core.counters.messages.load(Ordering::Acquire);
        let now = clock::mono();
        if core.live.in_flight() > 0 || peer.is_held() || calls != self.unused.1 {
            self.unused = (now, calls);
        }
        if self.machine.state() != ChildState::Ready || now.since(self.unused.0) < limit {
            return false;
        }
        // What it offers is asked of it first: without that nobody would call it.
        if !self.is_known(snapshot) {
            return false;
        }
        let (Some(process), Some(spoken)) = (&self.process, peer.spoken()) else { return false };
        peer.rest(process, &spoken, || core.live.in_flight() > 0)
    }

    /// While it rests, has it reported when somebody wants it.
    pub(super) fn watch(&mut self, lives: &mut JoinSet<()>, reports: &mpsc::Sender<Report>) {
        if self.is_watched || !self.machine.is_resting() {
            return;
        }
        self.is_watched = true;
        let (instance, life, reports) = (Arc::clone(&self.instance), self.life, reports.clone());
        lives.spawn(async move {
            instance.peer.wanted().await;
            // Without a supervisor nobody needs to know.
            reports.send((instance.name().clone(), life, Happening::Wanted)).await.ok();
        });
    }

    /// How it ended, after how long, and with which words.
    pub(super) fn obituary(&self, exit: Exit) -> String {
        let lived = self.launched.map(|at| clock::mono().since(at)).unwrap_or_default();
        let words = self.log().map(|log| log.last_words(self.lines_before)).unwrap_or_default();
        let colon = if words.is_empty() { "" } else { ": " };
        format!("{exit} after {}{colon}{words}", span(lived))
    }

    /// Notes how its first start ended, once that is known.
    pub(super) fn settle(&mut self) {
        if self.first.is_none() && self.machine.is_settled() {
            self.first = Some(match self.machine.state() {
                ChildState::Ready => First::Started,
                ChildState::Skipped => First::Skipped,
                ChildState::Idle => First::Idle,
                _ => First::Failed,
            });
        }
    }

    /// Those whose needs go in a circle are never launched.
    pub(super) fn is_in_a_circle(&self) -> bool {
        self.life == 0 && self.machine.state() == ChildState::Skipped
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.first.is_some()
    }

    /// What the registry does not know yet; the peer is told at once.
    pub(super) fn take_news(&mut self) -> Option<ChildSight> {
        let state = self.state();
        let sight = ChildSight {
            state,
            reason: self.reason().to_owned(),
            awaited: self.machine.is_awaited(),
            next_try: self.machine.next_try(),
            lacks: self.lacks.clone(),
        };
        if self.told.as_ref() == Some(&sight) {
            return None;
        }
        if state != ChildState::Ready {
            let colon = if sight.reason.is_empty() { "" } else { ": " };
            let why = format!("{}{colon}{}", state.as_str(), sight.reason);
            let peer = &self.instance.peer;
            if sight.awaited { peer.stand_by(&why) } else { peer.stand_down(&why) }
        }
        self.told = Some(sight.clone());
        Some(sight)
    }

    pub(super) fn status(&self) -> ChildStatus {
        let reason = self.reason();
        let process = self.process.as_ref();
        ChildStatus {
            service: self.instance.spec.service.clone(),
            instance: self.instance.name().clone(),
            command: self.instance.spec.endpoint.to_string().trim_start_matches("stdio: ").to_owned(),
            state: self.state(),
            reason: match &self.lacks {
                Some(lacks) if reason.is_empty() => lacks.clone(),
                _ => reason.to_owned(),
            },
            next_try: self.machine.next_try(),
            parked: self.machine.is_parked(),
            pid: process.and_then(|process| process.pid()),
            running_since: process.and(self.launched),
            restarts: self.machine.restarts(),
            required: self.config.required,
            lacks: self.lacks.is_some(),
            fix: self.fix(),
            first: self.first,
            log: self.log().cloned(),
        }
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_to_what_matters() {
        let shown = [300, 59_900, 600_000, 90_000_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.3 s", "59 s", "10 min", "25 h"]);
    }
}
