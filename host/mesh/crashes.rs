//! Inputs on which a router crashed, so that calls like them go on without it, and all others do not have to.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use super::time::Mono;
use super::verdict::CallFacts;

/// How long calls are skipped; then one of them tries again.
pub const SKIPPED_FOR: Duration = Duration::from_secs(300);
/// So many crashes on an input, and it is skipped.
const OF_INPUT_MAX: u8 = 2;
/// So many on inputs of one tool, and all of the tool are: it is not the client or the size that it crashes on.
const OF_TOOL_MAX: u8 = 4;
/// So many on inputs of one tool speak against the router; those that follow say nothing new.
const STRIKES_OF_TOOL_MAX: u8 = 2;
/// Inputs, and tools, that are remembered; of more, those whose last crash is longest ago are forgotten.
const ROWS_MAX: usize = 256;

/// What a call has in common with others that a router would crash on just as well: all that routers see but chance,
/// time, affinity and arguments, the size as its power of two.
#[derive(Hash)]
struct Input<'a> {
    tool: Tool<'a>,
    client: &'a str,
    size: u32,
}

#[derive(Clone, Copy, Hash)]
struct Tool<'a> {
    service: &'a str,
    method: &'a str,
    tool: &'a str,
}

/// Of what all calls are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A tool, from one client, of about one size.
    Input,
    Tool,
}

/// Whether a router is asked about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Ask,
    /// The time of a skip is over: whoever [`Crashes::claims`] it asks.
    Retry,
    Skip,
}

/// What one crash means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// It counts against the router, not only against the input.
    pub strikes: bool,
    /// What is skipped from now on, if this crash brought that about.
    pub skips: Option<Scope>,
}

/// The crashes of one generation of a router.
#[derive(Debug, Default)]
pub struct Crashes {
    hasher: RandomState,
    inputs: Table,
    tools: Table,
}

#[derive(Debug, Default)]
struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    key: u64,
    crashes: u8,
    last: Mono,
    skipped_until: Option<Mono>,
}

impl Crashes {
    /// The same for calls that share an input, and within these crashes only.
    pub fn fingerprint(&self, call: &CallFacts<'_>) -> u64 {
        let size = call.size.checked_ilog2().unwrap_or(0);
        self.hasher.hash_one(Input { tool: tool(call), client: call.client, size })
    }

    fn of_tool(&self, call: &CallFacts<'_>) -> u64 {
        self.hasher.hash_one(tool(call))
    }

    /// Whether any call is skipped.
    pub fn skips_any(&self) -> bool {
        self.inputs.skips_any() || self.tools.skips_any()
    }

    pub fn course(&self, call: &CallFacts<'_>) -> Course {
        let input = self.inputs.course(self.fingerprint(call), call.now);
        let tool = self.tools.course(self.of_tool(call), call.now);
        match (input, tool) {
            (Course::Skip, _) | (_, Course::Skip) => Course::Skip,
            (Course::Retry, _) | (_, Course::Retry) => Course::Retry,
            (Course::Ask, Course::Ask) => Course::Ask,
        }
    }

    /// Whether `call` is the one that tries again; others are skipped on.
    pub fn claims(&mut self, call: &CallFacts<'_>) -> bool {
        if self.course(call) != Course::Retry {
            return false;
        }
        let (input, tool) = (self.fingerprint(call), self.of_tool(call));
        self.inputs.skip_until(input, call.now + SKIPPED_FOR);
        self.tools.skip_until(tool, call.now + SKIPPED_FOR);
        true
    }

    /// The router could not be asked about the call that was to try again: the next one does.
    pub fn give_back(&mut self, call: &CallFacts<'_>) {
        let (input, tool) = (self.fingerprint(call), self.of_tool(call));
        self.inputs.skip_until(input, call.now);
        self.tools.skip_until(tool, call.now);
    }

    /// The router crashed on `call`.
    pub fn crash(&mut self, call: &CallFacts<'_>) -> Crash {
        let (input, tool) = (self.fingerprint(call), self.of_tool(call));
        let of_input = self.inputs.count(input, call.now, OF_INPUT_MAX);
        if of_input > OF_INPUT_MAX {
            // It was under way on another worker, or tried again.
            return Crash { strikes: false, skips: None };
        }
        let of_tool = self.tools.count(tool, call.now, OF_TOOL_MAX);
        let skips = if of_tool == OF_TOOL_MAX {
            Some(Scope::Tool)
        } else {
            (of_input == OF_INPUT_MAX).then_some(Scope::Input)
        };
        Crash { strikes: of_tool <= STRIKES_OF_TOOL_MAX, skips }
    }

    /// The router answered a call that tried again.
    pub fn answered(&mut self, call: &CallFacts<'_>) {
        let (input, tool) = (self.fingerprint(call), self.of_tool(call));
        self.inputs.forget(input);
        self.tools.forget(tool);
    }
}

fn tool<'a>(call: &CallFacts<'a>) -> Tool<'a> {
    Tool { service: call.service, method: call.method, tool: call.tool }
}

impl Table {
    fn find(&mut self, key: u64) -> Option<&mut Row> {
        self.0.iter_mut().find(|row| row.key == key)
    }

    fn skips_any(&self) -> bool {
        self.0.iter().any(|row| row.skipped_until.is_some())
    }

    fn course(&self, key: u64, now: Mono) -> Course {
        let skipped = self.0.iter().find(|row| row.key == key).and_then(|row| row.skipped_until);
        match skipped {
            None => Course::Ask,
            Some(until) if now < until => Course::Skip,
            Some(_) => Course::Retry,
        }
    }

    /// Of what is skipped already.
    fn skip_until(&mut self, key: u64, then: Mono) {
        if let Some(until) = self.find(key).and_then(|row| row.skipped_until.as_mut()) {
            *until = then;
        }
    }

    /// Answers how often it crashed; from `most` times on it is skipped.
    fn count(&mut self, key: u64, now: Mono, most: u8) -> u8 {
        if self.find(key).is_none() {
            self.make_room();
            self.0.push(Row { key, crashes: 0, last: now, skipped_until: None });
        }
        let row = self.find(key).expect("it is there, or was pushed");
        row.crashes = row.crashes.saturating_add(1);
        row.last = row.last.max(now);
        if row.crashes >= most {
            row.skipped_until = Some(now + SKIPPED_FOR);
        }
        row.crashes
    }

    fn make_room(&mut self) {
        while self.0.len() >= ROWS_MAX {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, row)| row.last);
            let Some((at, _)) = oldest else { return };
            self.0.swap_remove(at);
        }
    }

    fn forget(&mut self, key: u64) {
        self.0.retain(|row| row.key != key);
    }
}

#[cfg(test)]
mod tests;
