//! What probes, supervision and time say of one instance.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ChildSight;
use super::book::Record;
use crate::mesh::child::ChildState;
use crate::mesh::health::{Health, HealthState, Inputs, Probed};
use crate::mesh::lease::{LeasePhase, LeaseTimes};
use crate::mesh::time::{Mono, Wall};
use crate::upstream::Probe;

/// An instance that has calls and answers none for so long is asked how it is.
const SILENCE: Duration = Duration::from_secs(3);

/// Takes over how a supervised instance is seen. One that has just answered is as good as new: the past of another
/// process says nothing about it.
pub(super) fn see_child(
    record: &mut Record,
    sight: ChildSight,
    (now, wall): (Mono, Wall),
    times: &LeaseTimes,
) {
    let was_ready = record.child.as_ref().is_some_and(|child| child.state == ChildState::Ready);
    let is_ready = sight.state == ChildState::Ready;
    let took_calls = record.child.as_ref().is_some_and(ChildSight::takes_calls);
    if is_ready != was_ready {
        record.since = wall;
    }
    let takes_calls = sight.takes_calls();
    record.child = Some(sight);
    // One that rests is as good as it was when it was last seen: what it may fail at is its start.
    if is_ready && !was_ready || takes_calls && !took_calls {
        record.health = Health::new(now);
        record.core.refused.store(false, Ordering::Relaxed);
        record.core.guard.on_recovery(now);
        record.health.probe(now, Probed::Good);
        // Its first answer proves it.
        record.lease.proved(now);
    }
    judge(record, now, times);
    record.touch();
}

/// Feeds a probe to an instance's health; says whether the snapshot must change.
pub(super) fn note_probe(record: &mut Record, probe: &Probe, now: Mono, times: &LeaseTimes) -> bool {
    let is_up = record.child.as_ref().is_some_and(|child| child.state == ChildState::Ready);
    if record.peer.is_supervised() && !is_up {
        // Nobody was there to be asked.
        return false;
    }
    let good = *probe == Probe::Good;
    let unseen = record.lease.phase() == LeasePhase::Restored && record.child.is_none();
    let reason = not_seen(probe).filter(|_| unseen);
    let changed = reason.as_ref().is_some_and(|reason| *reason != record.reason);
    if changed {
        record.reason = reason.unwrap_or_default();
        record.touch();
    }
    let probed = match probe {
        Probe::Unauthorized => {
            record.health.unprobed();
            record.core.answered_at.store(u64::MAX, Ordering::Relaxed);
            return changed;
        }
        Probe::Good => {
            record.core.answered_at.store(now.as_micros(), Ordering::Relaxed);
            record.core.exited.store(0, Ordering::Relaxed);
            record.core.refused.store(false, Ordering::Relaxed);
            if record.core.probe_failures.load(Ordering::Relaxed) > 0 {
                record.core.guard.on_recovery(now);
            }
            Probed::Good
        }
        Probe::Refused => Probed::Refused,
        Probe::Bad(why) => Probed::Bad(why),
    };
    if !good {
        record.core.answered_at.store(0, Ordering::Relaxed);
    }
    record.core.reliability(|record| {
        record.probes += 1;
        record.probes_good += u64::from(good);
    });
    record.health.probe(now, probed);
    if !good || record.lease.proved(now).is_none() {
        return changed;
    }
    judge(record, now, times);
    record.touch();
    true
}

/// What is to be told of a probe, when that made an instance another than it was.
pub(super) fn said_of_probe(record: &Record, phase: LeasePhase, health: HealthState) -> Option<String> {
    let state = record.health.state();
    let why = if phase == record.lease.phase() {
        if state == health {
            return None;
        }
        record.reason.as_str()
    } else {
        "it answered its first probe"
    };
    Some(format!("{}: {why}", state.as_str()))
}

/// What is to be told when a supervised instance is seen otherwise than before: another state, or the same one while
/// what it needs went away or came back.
pub(super) fn said_of_child(before: Option<&ChildSight>, sight: &ChildSight) -> Option<String> {
    let state = sight.state.as_str();
    if before.map(|before| before.state) != Some(sight.state) {
        let why = if sight.reason.is_empty() { sight.lacks.as_deref() } else { Some(&*sight.reason) };
        return Some(format!("{state}: {}", why.unwrap_or_default()));
    }
    match (before.and_then(|before| before.lacks.as_ref()), &sight.lacks) {
        (Some(_), None) => Some(format!("{state}: what it needs is back")),
        (None, Some(lacks)) if sight.state == ChildState::Ready => Some(format!("degraded: {lacks}")),
        (None, Some(lacks)) => Some(format!("{state}: {lacks}")),
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// Why an instance that has yet to be seen was not seen this time.
fn not_seen(probe: &Probe) -> Option<String> {
    match probe {
        Probe::Good => None,
        Probe::Unauthorized => Some("it asks for credentials".to_owned()),
        Probe::Refused => Some("not seen yet: the connection was refused".to_owned()),
        Probe::Bad(why) => Some(format!("not seen yet: {why}")),
    }
}

/// Judges an instance's health and tells balancers; says whether the state is another one.
pub(super) fn judge(record: &mut Record, now: Mono, times: &LeaseTimes) -> bool {
    let counts = record.core.counters.snapshot();
    let age = now.since(record.lease.renewed_at());
    let default = LeaseTimes::default();
    let down = record.child.as_ref().filter(|child| !child.takes_calls());
    let exited = Some(record.core.exited.load(Ordering::Relaxed)).filter(|pid| *pid != 0);
    let down = down.map(|child| child.reason.clone());
    let down = down.or_else(|| exited.map(|pid| format!("its process {pid} ended")));
    let inputs = Inputs {
        ok_total: counts.ok + counts.tool_errors,
        failed_total: counts.failed,
        latency_ratio: f64::from(record.core.latency_permille.load(Ordering::Relaxed)) / 1000.0,
        heartbeat_age: (!record.configured)
            .then(|| age.mul_f64(default.ttl.as_secs_f64() / times.ttl.as_secs_f64())),
        gone: down.is_some(),
        refused: record.core.refused.load(Ordering::Relaxed),
        proven: record.core.proven.swap(false, Ordering::Relaxed),
    };
    record.core.live.fade(now);
    if record.core.live.is_silent(now, SILENCE) {
        record.core.doubt.notify_one();
    }
    let assessment = record.health.tick(now, &inputs);
    record.core.probe_failures.store(assessment.probe_failures, Ordering::Relaxed);
    if record.lease.phase() == LeasePhase::Restored {
        record.core.live.set_health(record.core.live.score(), 0, assessment.recent_permille);
        record.reason = down.unwrap_or_else(|| std::mem::take(&mut record.reason));
        return false;
    }
    // A trial that was answered since says more than what was before it.
    if assessment.is_for_calls() && !record.core.proven.load(Ordering::Relaxed) {
        record.core.guard.on_unhealthy(now, fastrand::u64(..));
    }
    let share_permille = if record.drain.is_some() { 0 } else { assessment.share_permille };
    record.core.live.set_health(assessment.routed_score(), share_permille, assessment.recent_permille);
    record.reason = down.unwrap_or(assessment.reason);
    assessment.changed
}
