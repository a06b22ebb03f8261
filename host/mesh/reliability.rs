//! How reliable a service or an instance was, since it was first seen and across restarts.
//!
//! Availability is the share of the time it was watched in which it could be called: an instance while calls are
//! routed there and it gets a share of them, a service while that holds for one of its instances at least. Time is
//! measured on the monotonic clock between two looks; while nobody looks, nothing is counted either way.

use std::collections::VecDeque;
use std::time::Duration;

use super::ids::Name;
use super::time::{Mono, Wall};

/// Two looks that lie further apart say nothing about the time between them: the machine slept.
pub const LOOK_MAX: Duration = Duration::from_secs(5);
/// What the last day is kept in: the oldest part goes as a whole.
pub const PART: Duration = Duration::from_secs(15 * 60);
const PARTS: i64 = 96;

/// Time that something was watched, and could be called, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub watched_us: u64,
    pub up_us: u64,
}

impl Share {
    /// `None` of what was never watched.
    pub fn ratio(&self) -> Option<f64> {
        (self.watched_us > 0).then(|| self.up_us as f64 / self.watched_us as f64)
    }

    fn add(&mut self, us: u64, up: bool) {
        self.watched_us = self.watched_us.saturating_add(us);
        self.up_us = self.up_us.saturating_add(if up { us } else { 0 });
    }
}

/// A quarter of an hour since the epoch, and what was seen in it.
pub type Part = (i64, Share);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uptime {
    ever: Share,
    /// Oldest first.
    parts: VecDeque<Part>,
    /// The last look, and whether it could be called then.
    last: Option<(Mono, bool)>,
}

impl Uptime {
    /// Goes on from what was kept.
    pub fn resumed(ever: Share, parts: impl IntoIterator<Item = Part>) -> Self {
        Self { ever, parts: parts.into_iter().take(PARTS as usize).collect(), last: None }
    }

    /// Somebody looks. What was seen last held until now.
    pub fn look(&mut self, up: bool, now: Mono, wall: Wall) {
        if let Some((at, was_up)) = self.last {
            let passed = now.since(at);
            if passed <= LOOK_MAX {
                self.count(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX), was_up, wall);
            }
        }
        self.last = Some((now, up));
    }

    /// Nobody wants it there now.
    pub fn pause(&mut self) {
        self.last = None;
    }

    pub const fn ever(&self) -> Share {
        self.ever
    }

    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// Of the last 24 hours, to a quarter of an hour.
    pub fn day(&self, wall: Wall) -> Share {
        let number = part_number(wall);
        // Those of later are of a clock that was set back.
        let recent = self.parts.iter().filter(|(part, _)| (number - PARTS + 1..=number).contains(part));
        recent.fold(Share::default(), |day, (_, part)| Share {
            watched_us: day.watched_us + part.watched_us,
            up_us: day.up_us + part.up_us,
        })
    }

    fn count(&mut self, us: u64, up: bool, wall: Wall) {
        self.ever.add(us, up);
        let number = part_number(wall);
        match self.parts.back_mut() {
            Some((part, share)) if *part == number => share.add(us, up),
            _ => {
                self.parts.retain(|(part, _)| (number - PARTS + 1..number).contains(part));
                let mut share = Share::default();
                share.add(us, up);
                self.parts.push_back((number, share));
            }
        }
    }
}

fn part_number(wall: Wall) -> i64 {
    wall.as_millis().div_euclid(PART.as_millis() as i64)
}

/// What is known of one instance beside its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub uptime: Uptime,
    pub probes: u64,
    pub probes_good: u64,
    /// Of earlier processes of the proxy, and of instances that had its name before.
    pub trips_before: u64,
}

/// Whose figures they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Service(Name),
    Instance(Name),
}

/// Figures as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub of: Subject,
    pub record: Record,
    pub errors_in_a_row: u32,
    pub ewma_us: u32,
}

#[cfg(test)]
mod tests;
