//! What can go wrong in a plugin, who is to blame, and when it has to rest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use super::{EventSink, clock};
use crate::mesh::crashes::{SKIPPED_FOR, Scope};
use crate::mesh::ids::Name;
use crate::mesh::observe::Event;
use crate::mesh::time::Mono;
use crate::mesh::verdict::CallFacts;
use crate::policy::PolicyFault;

/// Why a call into an instance gave nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    #[error("it trapped: {0}")]
    Trap(String),
    #[error("it took longer than {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("it did not end within {0} instructions")]
    Instructions(u64),
    #[error("it wanted more than {} MiB of memory: {trap}", bytes_max >> 20)]
    Memory { bytes_max: usize, trap: String },
    #[error("it answered nonsense: {0}")]
    Nonsense(&'static str),
    #[error("it refuses the configuration that it accepted before")]
    Configuration,
    #[error("the machine was too busy to run it")]
    Starved,
    #[error("the host failed to run it: {0}")]
    Host(String),
}

impl Fault {
    /// A fault of the host is never held against a plugin.
    pub fn by_guest(&self) -> bool {
        !matches!(self, Self::Starved | Self::Host(_))
    }

    /// Whether the instance cannot be entered again.
    pub fn condemns(&self) -> bool {
        !matches!(self, Self::Nonsense(_))
    }

    /// As it reads, but for what the guest said itself.
    pub fn without_words(&self) -> String {
        match self {
            Self::Trap(_) => "it trapped".to_owned(),
            Self::Memory { bytes_max, .. } => {
                format!("it wanted more than {} MiB of memory", bytes_max >> 20)
            }
            other => other.to_string(),
        }
    }

    pub fn for_policy(&self, name: &Name) -> PolicyFault {
        let name = name.clone();
        match self {
            Self::Trap(_) | Self::Memory { .. } | Self::Configuration => PolicyFault::Trap(name),
            Self::Deadline(_) | Self::Instructions(_) => PolicyFault::Deadline(name),
            Self::Nonsense(what) => PolicyFault::Nonsense(name, what),
            Self::Starved | Self::Host(_) => PolicyFault::Host(name),
        }
    }
}

const STRIKES: usize = 3;
const STRIKE_WINDOW: Duration = Duration::from_secs(60);
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(300);
/// Of a plugin that is too slow: 30 s, doubled each time until it is quick enough.
const REST_FOR_PACE_FIRST: Duration = Duration::from_secs(30);
/// Longer than those who look at all plugins now and then are away.
const LATELY: Duration = Duration::from_secs(10);

/// Three strikes in a minute, and a plugin rests: 1 s, doubled each time, at most 5 min. For a minute after a rest
/// one strike is enough; 5 min without a rest forget all earlier ones.
#[derive(Debug, Default)]
pub struct Strikes {
    recent: VecDeque<Mono>,
    rests: u32,
    rest_ends: Mono,
}

impl Strikes {
    /// How long the plugin rests from `now` on, if this strike was the last.
    pub fn strike(&mut self, now: Mono) -> Option<Duration> {
        if now < self.rest_ends {
            // A call that was already under way when the rest began.
            return None;
        }
        let since_rest = now.since(self.rest_ends);
        if since_rest > REST_MAX {
            self.rests = 0;
        }
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| now.since(*at) > STRIKE_WINDOW) {
            self.recent.pop_front();
        }
        let on_probation = self.rests > 0 && since_rest <= STRIKE_WINDOW;
        if self.recent.len() < if on_probation { 1 } else { STRIKES } {
            return None;
        }
        let rest = REST_FIRST.saturating_mul(1 << self.rests.min(16)).min(REST_MAX);
        self.recent.clear();
        self.rests += 1;
        self.rest_ends = now + rest;
        Some(rest)
    }
}

/// The standing of one generation of a plugin. Asking whether it rests is one load.
pub struct Health {
    name: Name,
    events: EventSink,
    hides_words: bool,
    /// Microseconds of the room's clock; 0 when the plugin does not rest.
    rests_until: AtomicU64,
    fallbacks: AtomicU64,
    skipped: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    strikes: Strikes,
    /// The end of the last rest.
    rested_until: Option<Mono>,
    faults: Faults,
    /// Rests since it was quick enough.
    slow_rests: u32,
    /// Why it rests, or rested last.
    rest_reason: String,
}

/// The faults of one generation so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub count: u64,
    /// Those that are the plugin's own.
    pub by_guest: u64,
    /// `None` exactly while there are none.
    pub last: Option<String>,
}

impl Faults {
    fn add(&mut self, by_guest: bool, what: String) {
        self.count += 1;
        self.by_guest += u64::from(by_guest);
        self.last = Some(what);
    }
}

impl Health {
    /// The last words of a plugin that `reads_arguments` may repeat them, so nobody hears them.
    pub fn new(name: Name, events: EventSink, reads_arguments: bool) -> Self {
        Self {
            name,
            events,
            hides_words: reads_arguments,
            rests_until: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            record: Mutex::default(),
        }
    }

    pub const fn hides_words(&self) -> bool {
        self.hides_words
    }

    /// The fault as anybody may read it.
    pub fn words(&self, fault: &Fault) -> String {
        if self.hides_words { fault.without_words() } else { fault.to_string() }
    }

    pub fn rests(&self) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        if clock::now().as_micros() < until {
            return true;
        }
        if self.rests_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::info!(plugin = %self.name, "plugin is asked again");
        }
        false
    }

    /// Whether it rests, or did a moment ago.
    pub fn rested_lately(&self) -> bool {
        self.record().rested_until.is_some_and(|until| clock::now() < until + LATELY)
    }

    /// Counts a call that went on without the plugin.
    pub fn fell_back(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that the plugin was not asked about, since it crashed on such calls.
    pub fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        self.fell_back();
    }

    /// Says that calls like `call` are skipped from now on, since the plugin crashed on them.
    pub fn skips(&self, call: &CallFacts<'_>, scope: Scope, fault: &Fault) {
        let (tool, service) = (call.tool, call.service);
        let from = match scope {
            Scope::Input => format!("of about {} bytes from `{}`", call.size, call.client),
            Scope::Tool => "whoever calls".to_owned(),
        };
        let (skipped_s, fault) = (SKIPPED_FOR.as_secs(), self.words(fault));
        tracing::warn!(plugin = %self.name, service, tool, client = call.client, skipped_s, reason = %fault,
            "plugin is not asked about such calls");
        (self.events)(Event {
            at: clock::wall(),
            kind: "plugin_input_skipped",
            service: Name::new(service).ok(),
            instance: None,
            detail: format!(
                "plugin `{}` is not asked about calls of `{tool}` of `{service}`, {from}, for {skipped_s} s: {fault}",
                self.name
            ),
        });
    }

    /// Counts a fault. If it is the plugin's own and `strikes`, the plugin rests when it was one too many.
    pub fn fault(&self, fault: &Fault, strikes: bool) {
        let words = self.words(fault);
        tracing::warn!(plugin = %self.name, fault = words, guest = fault.by_guest(), "plugin fault");
        let rest = {
            let mut record = self.record();
            record.faults.add(fault.by_guest(), words.clone());
            let now = clock::now();
            (fault.by_guest() && strikes).then(|| record.strikes.strike(now)).flatten()
        };
        if let Some(rest) = rest {
            self.rest(rest, &words);
        }
    }

    /// Has the plugin rest, since it does not keep its latency budget.
    pub fn too_slow(&self, words: &str) {
        let rests = {
            let mut record = self.record();
            record.slow_rests = record.slow_rests.saturating_add(1);
            record.slow_rests - 1
        };
        self.rest(REST_FOR_PACE_FIRST.saturating_mul(1 << rests.min(8)).min(REST_MAX), words);
    }

    /// It keeps its latency budget again.
    pub fn kept_pace(&self) {
        self.record().slow_rests = 0;
    }

    fn rest(&self, rest: Duration, words: &str) {
        let until = clock::now() + rest;
        {
            let mut record = self.record();
            words.clone_into(&mut record.rest_reason);
            // A longer rest is not cut short.
            record.rested_until = record.rested_until.max(Some(until));
        }
        // Last, so that who sees it rest can say why.
        self.rests_until.fetch_max(until.as_micros(), Ordering::Relaxed);
        let rest_s = rest.as_secs();
        tracing::info!(plugin = %self.name, rest_s, reason = words, "plugin quarantined");
        (self.events)(Event {
            at: clock::wall(),
            kind: "plugin_quarantined",
            service: None,
            instance: None,
            detail: format!("plugin `{}` rests for {rest_s} s: {words}", self.name),
        });
    }

    /// Why it rests, or rested last.
    pub fn rest_reason(&self) -> String {
        self.record().rest_reason.clone()
    }

    /// Counts an answer that could not be used and may not be the plugin's fault.
    pub fn misjudged(&self, what: &str) {
        tracing::debug!(plugin = %self.name, fault = what, "plugin answer not used");
        self.record().faults.add(false, what.to_owned());
    }

    pub fn faults(&self) -> Faults {
        self.record().faults.clone()
    }

    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    pub fn calls_skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mesh::ids::CallId;
    use crate::mesh::time::Wall;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    /// The events and the last fault after three times the same.
    fn told(reads_arguments: bool) -> Vec<String> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (sink, name) = (Arc::clone(&told), Name::new("p").expect("a name"));
        let sink = Arc::new(move |event: Event| sink.lock().expect("no panic").push(event.detail));
        let health = Health::new(name, sink, reads_arguments);
        let call = CallFacts {
            id: CallId(1),
            arrived: Wall::from_millis(0),
            now: at(0),
            random: 0,
            affinity: 0,
            service: "s",
            tool: "t",
            method: "tools/call",
            client: "c",
            size: 1,
            time_left: Duration::ZERO,
            arguments: b"",
        };
        let fault = Fault::Trap("no more of HUNTER2".to_owned());
        health.skips(&call, Scope::Tool, &fault);
        (0..STRIKES).for_each(|_| health.fault(&fault, true));
        let mut told = told.lock().expect("no panic").clone();
        told.extend(health.faults().last);
        told
    }

    #[test]
    fn nobody_is_told_the_last_words_of_a_plugin_that_reads_arguments() {
        let (open, hidden) = (told(false), told(true));
        assert_eq!((open.len(), hidden.len()), (3, 3), "skipped, at rest, the last fault");
        assert!(open.iter().all(|text| text.contains("it trapped: no more of HUNTER2")), "{open:?}");
        assert!(hidden.iter().all(|text| text.ends_with("it trapped")), "{hidden:?}");
    }

    #[test]
    fn three_strikes_in_a_minute_bring_a_rest() {
        let mut strikes = Strikes::default();
        assert_eq!(strikes.strike(at(100)), None);
        assert_eq!(strikes.strike(at(150)), None);
        assert_eq!(strikes.strike(at(161)), None, "the first is more than a minute old");
        assert_eq!(strikes.strike(at(170)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn rests_double_up_to_five_minutes_while_the_plugin_goes_on_failing() {
        let mut strikes = Strikes::default();
        let mut now = 1_000;
        strikes.strike(at(now));
        strikes.strike(at(now));
        let rests: Vec<u64> = (0..11)
            .map(|_| {
                let rest = strikes.strike(at(now)).expect("one strike is enough on probation").as_secs();
                now += rest;
                rest
            })
            .collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn strikes_during_a_rest_do_not_count() {
        let mut strikes = Strikes::default();
        for _ in 0..3 {
            strikes.strike(at(100));
        }
        assert_eq!(strikes.strike(at(100)), None);
    }

    #[test]
    fn a_long_time_without_a_rest_is_a_clean_slate() {
        let mut strikes = Strikes::default();
        for _ in 0..3 {
            strikes.strike(at(100));
        }
        assert_eq!(strikes.strike(at(500)), None);
        assert_eq!(strikes.strike(at(501)), None);
        assert_eq!(strikes.strike(at(502)), Some(Duration::from_secs(1)));
    }
}
