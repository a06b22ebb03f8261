//! The life of alerts. Alerters say what holds now, each time; the book compares with what held before and says what
//! changed. Grouping, silences and delivery are others' work.

use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use super::ids::Name;
use super::observe::{Firing, Labels, Severity};
use super::time::{Mono, Wall};

/// Alerts of one rule that are followed at once; further ones are counted and dropped.
pub const ALERTS_PER_RULE_MAX: usize = 100;
/// How long a condition must have been absent before its alert is resolved.
pub const RESOLVE_HOLD: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertState {
    Inactive,
    /// The threshold is reached, but not yet for the rule's `for`.
    Pending,
    Firing,
    /// The condition is gone, but not yet for [`RESOLVE_HOLD`].
    Resolving,
}

impl AlertState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolving => "resolving",
        }
    }

    /// What [`Self::as_str`] calls so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Inactive, Self::Pending, Self::Firing, Self::Resolving]
            .into_iter()
            .find(|state| state.as_str() == name)
    }

    fn next(self, level: Level, elapsed: Duration, fires_after: Duration) -> Self {
        match (self, level) {
            (Self::Inactive | Self::Pending, Level::Reached) if elapsed >= fires_after => Self::Firing,
            (Self::Inactive | Self::Pending, Level::Reached) => Self::Pending,
            (Self::Inactive | Self::Pending, Level::Between | Level::Absent) => Self::Inactive,
            (Self::Firing | Self::Resolving, Level::Reached | Level::Between) => Self::Firing,
            (Self::Resolving, Level::Absent) if elapsed >= RESOLVE_HOLD => Self::Inactive,
            (Self::Firing | Self::Resolving, Level::Absent) => Self::Resolving,
        }
    }
}

/// What makes two firings the same alert. Labels are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// The alerter.
    pub source: Name,
    pub rule: String,
    pub labels: Labels,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub fingerprint: Fingerprint,
    pub state: AlertState,
    /// When it entered its state.
    pub since: Wall,
    pub severity: Severity,
    pub title: String,
    pub detail: String,
    pub value: f64,
    pub threshold: f64,
    /// The alerter cannot say now whether this still holds.
    pub stale: bool,
}

/// An alert went from one state to another; `alert` is as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertChange {
    pub alert: Alert,
    pub from: AlertState,
    pub to: AlertState,
}

#[derive(Clone, Debug)]
struct Followed {
    alert: Alert,
    entered: Mono,
    /// Time in its state before `entered`, in an earlier run of the proxy.
    carried: Duration,
}

/// All alerts that are not inactive.
#[derive(Clone, Debug, Default)]
pub struct AlertBook {
    followed: BTreeMap<Fingerprint, Followed>,
    dropped: u64,
}

impl AlertBook {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all that `source` says holds now. Of several firings with one fingerprint the first counts.
    pub fn evaluate(
        &mut self,
        source: &Name,
        firings: Vec<Firing>,
        now: Mono,
        wall: Wall,
    ) -> Vec<AlertChange> {
        let mut said = BTreeMap::new();
        for mut firing in firings {
            let level = Level::of(&firing);
            if level == Level::Absent {
                continue;
            }
            firing.labels.sort();
            let labels = std::mem::take(&mut firing.labels);
            let rule = std::mem::take(&mut firing.rule);
            said.entry(Fingerprint { source: source.clone(), rule, labels }).or_insert((level, firing));
        }
        let mut changes = Vec::new();
        self.followed.retain(|fingerprint, followed| {
            if fingerprint.source != *source {
                return true;
            }
            changes.extend(followed.hear(said.remove(fingerprint), now, wall));
            followed.alert.state != AlertState::Inactive
        });
        for (fingerprint, (level, firing)) in said {
            changes.extend(self.open(fingerprint, level, firing, now, wall));
        }
        changes
    }

    /// `source` gave no answer: what it said last is kept, and marked.
    pub fn stale(&mut self, source: &Name) {
        for followed in self.followed.values_mut() {
            followed.alert.stale |= followed.alert.fingerprint.source == *source;
        }
    }

    /// `source` is gone for good, and its alerts with it. `since` of what is returned stays that of the state left.
    pub fn forget(&mut self, source: &Name) -> Vec<AlertChange> {
        let gone = self.followed.extract_if(.., |fingerprint, _| fingerprint.source == *source);
        let inactive = |(_, followed): (_, Followed)| {
            let from = followed.alert.state;
            let alert = Alert { state: AlertState::Inactive, ..followed.alert };
            AlertChange { alert, from, to: AlertState::Inactive }
        };
        gone.map(inactive).collect()
    }

    /// An alert of an earlier run: it goes on in its state, stale until its alerter is heard, and is not reported
    /// again. The time since `alert.since` counts, as far as the wall clock can be trusted with it.
    pub fn restore(&mut self, mut alert: Alert, now: Mono, wall: Wall) {
        if alert.state == AlertState::Inactive {
            return;
        }
        let carried = wall.as_millis().saturating_sub(alert.since.as_millis());
        let carried = Duration::from_millis(u64::try_from(carried).unwrap_or(0));
        alert.stale = true;
        self.followed.insert(alert.fingerprint.clone(), Followed { alert, entered: now, carried });
    }

    /// All alerts that are pending, firing or resolving, by alerter, rule and labels.
    pub fn active(&self) -> impl Iterator<Item = &Alert> {
        self.followed.values().map(|followed| &followed.alert)
    }

    /// Firings dropped because their rule had [`ALERTS_PER_RULE_MAX`] alerts already, counted at each evaluation.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn open(
        &mut self,
        fingerprint: Fingerprint,
        level: Level,
        firing: Firing,
        now: Mono,
        wall: Wall,
    ) -> Option<AlertChange> {
        let from = AlertState::Inactive;
        let to = from.next(level, Duration::ZERO, fires_after(&firing));
        if to == from {
            return None;
        }
        let same_rule =
            |other: &&Fingerprint| other.source == fingerprint.source && other.rule == fingerprint.rule;
        let rule_start = Fingerprint { labels: Labels::new(), ..fingerprint.clone() };
        let of_rule = self.followed.range(rule_start..).map(|(other, _)| other).take_while(same_rule).count();
        let Entry::Vacant(vacant) = self.followed.entry(fingerprint.clone()) else {
            return None;
        };
        if of_rule >= ALERTS_PER_RULE_MAX {
            self.dropped += 1;
            return None;
        }
        let Firing { severity, title, detail, value, threshold, .. } = firing;
        let alert = Alert {
            fingerprint,
            state: to,
            since: wall,
            severity,
            title,
            detail,
            value,
            threshold,
            stale: false,
        };
        vacant.insert(Followed { alert: alert.clone(), entered: now, carried: Duration::ZERO });
        Some(AlertChange { alert, from, to })
    }
}

impl Followed {
    fn hear(&mut self, said: Option<(Level, Firing)>, now: Mono, wall: Wall) -> Option<AlertChange> {
        let elapsed = now.since(self.entered).saturating_add(self.carried);
        let level = said.as_ref().map_or(Level::Absent, |(level, _)| *level);
        let fires_after = said.as_ref().map_or(Duration::ZERO, |(_, firing)| fires_after(firing));
        let alert = &mut self.alert;
        alert.stale = false;
        if let Some((_, firing)) = said {
            alert.severity = firing.severity;
            alert.title = firing.title;
            alert.detail = firing.detail;
            alert.value = firing.value;
            alert.threshold = firing.threshold;
        }
        let from = alert.state;
        let to = from.next(level, elapsed, fires_after);
        if to == from {
            return None;
        }
        alert.state = to;
        alert.since = wall;
        self.entered = now;
        self.carried = Duration::ZERO;
        Some(AlertChange { alert: self.alert.clone(), from, to })
    }
}

fn fires_after(firing: &Firing) -> Duration {
    Duration::from_secs(u64::from(firing.for_s))
}

/// Where a value lies between a rule's two thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Not returned, or returned with a value that its rule calls resolved; NaN is that for every rule.
    Absent,
    /// Past `resolve_at`, not at `threshold`: keeps what fires firing, and starts nothing.
    Between,
    Reached,
}

impl Level {
    /// An upper bound when `resolve_at` is at most `threshold`, otherwise a lower bound.
    fn of(firing: &Firing) -> Self {
        let Firing { value, threshold, resolve_at, .. } = *firing;
        let past = |bound: f64| if resolve_at <= threshold { value >= bound } else { value <= bound };
        if past(threshold) {
            Self::Reached
        } else if past(resolve_at) {
            Self::Between
        } else {
            Self::Absent
        }
    }
}

#[cfg(test)]
mod tests;
