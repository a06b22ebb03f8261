//! Children that live and answer nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Task;
use super::kept::Kept;
use crate::clock;
use crate::mesh::child::{ChildState, Event, RestartPolicy};
use crate::mesh::health::FAILED_PROBES;
use crate::mesh::time::Mono;

/// One that has just come up is not judged by what is known of the one before.
const SETTLES: Duration = Duration::from_secs(5);
/// Whatever one writes, to standard error too, shows for so long that it is at work.
const SIGN_LASTS: Duration = Duration::from_secs(10);
/// One that writes and answers nothing is hung all the same after this.
const SIGNS_MAX: Duration = Duration::from_secs(600);

impl Task {
    /// Gives those up that are hung, so that others take their place.
    pub(super) fn end_what_is_hung(&mut self) {
        for at in 0..self.children.len() {
            if self.children[at].is_hung(clock::mono()) {
                let why = format!("hung: it lives, and left {FAILED_PROBES} probes in a row unanswered");
                tracing::warn!(instance = %self.children[at].instance.name(), reason = why, "child is ended");
                self.step(at, Event::Unfit(why));
            }
        }
    }
}

impl Kept {
    /// A server that does one thing at a time answers no probe while it is at a call, which may take as long as its caller
    /// waits. So one is spared while a call from before the first bad probe is under way; calls that came later, and
    /// may be waiting for nothing, do not spare it. One is spared, too, while it writes: who logs may be at work on
    /// something of its own.
    fn is_hung(&mut self, now: Mono) -> bool {
        let failures = self.instance.core.probe_failures.load(Ordering::Relaxed);
        let failures_before = std::mem::replace(&mut self.failures_seen, failures);
        if self.machine.state() != ChildState::Ready || failures == 0 {
            self.mute_since = None;
            return false;
        }
        if self.has_written() {
            self.wrote_at = now;
        }
        // What is left of the process before says nothing of this one.
        if failures > failures_before {
            self.mute_since.get_or_insert(now);
        }
        let (Some(since), Some(process)) = (self.mute_since, &self.process) else { return false };
        let sign = self.wrote_at.max(process.wrote_at());
        self.machine.since().is_some_and(|ready| now.since(ready) >= SETTLES)
            && failures >= FAILED_PROBES
            && self.config.rules.policy != RestartPolicy::Never
            && !process.is_at_work(since)
            && (now.since(sign) >= SIGN_LASTS || now.since(since) >= SIGNS_MAX)
    }
}
