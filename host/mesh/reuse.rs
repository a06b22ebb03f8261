//! Decisions that hold for more than one call, on the terms that came with them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use super::time::Mono;
use super::verdict::{CallFacts, Decision, Vary};

/// Decisions in one table; when there are more, those that have ended go, and if none has, all of them.
const DECISIONS_MAX: usize = 1_024;

/// What one asker remembers of one router's decisions, while one catalogue holds.
#[derive(Debug, Default)]
pub struct Reused {
    catalog: u64,
    /// All that calls were told apart by so far: at most 16.
    varied: Vec<Vary>,
    decisions: HashMap<u64, Kept>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Kept {
    key: Key<String>,
    until: Mono,
    decision: Arc<Decision>,
}

/// What calls have in common that share a decision; what they need not have in common is empty.
#[derive(Debug, Hash)]
struct Key<T> {
    vary: Vary,
    service: T,
    method: T,
    tool: T,
    client: T,
    affinity: u64,
    size: u32,
}

impl<'a> Key<&'a str> {
    fn of(call: &CallFacts<'a>, vary: Vary) -> Self {
        Self {
            vary,
            service: call.service,
            method: call.method,
            tool: if vary.tool { call.tool } else { "" },
            client: if vary.client { call.client } else { "" },
            affinity: if vary.affinity { call.affinity } else { 0 },
            size: if vary.size { call.size } else { 0 },
        }
    }

    fn to_owned(&self) -> Key<String> {
        Key {
            vary: self.vary,
            service: self.service.to_owned(),
            method: self.method.to_owned(),
            tool: self.tool.to_owned(),
            client: self.client.to_owned(),
            affinity: self.affinity,
            size: self.size,
        }
    }
}

impl Key<String> {
    fn is(&self, other: &Key<&str>) -> bool {
        self.vary == other.vary
            && self.service == other.service
            && self.method == other.method
            && self.tool == other.tool
            && self.client == other.client
            && self.affinity == other.affinity
            && self.size == other.size
    }
}

impl Reused {
    /// The decision that holds for `call` while `catalog` is the version of the catalogue.
    pub fn get(&self, call: &CallFacts<'_>, catalog: u64) -> Option<Arc<Decision>> {
        if self.catalog != catalog {
            return None;
        }
        self.varied.iter().find_map(|vary| {
            let key = Key::of(call, *vary);
            let kept = self.decisions.get(&self.hasher.hash_one(&key))?;
            (call.now < kept.until && kept.key.is(&key)).then(|| Arc::clone(&kept.decision))
        })
    }

    /// Remembers the decision about `call`, if it may be taken again.
    pub fn put(&mut self, call: &CallFacts<'_>, catalog: u64, decision: &Arc<Decision>) {
        let Some(reuse) = decision.reuse.filter(|reuse| !reuse.ttl.is_zero()) else { return };
        if self.catalog != catalog {
            // Calls that took an older snapshot may still come; what is newer is not forgotten for them.
            if catalog < self.catalog {
                return;
            }
            self.catalog = catalog;
            self.decisions.clear();
            self.varied.clear();
        }
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions.retain(|_, kept| call.now < kept.until);
            if self.decisions.len() >= DECISIONS_MAX {
                self.decisions.clear();
            }
        }
        if !self.varied.contains(&reuse.vary) {
            self.varied.push(reuse.vary);
        }
        let key = Key::of(call, reuse.vary);
        let hash = self.hasher.hash_one(&key);
        let kept = Kept { key: key.to_owned(), until: call.now + reuse.ttl, decision: Arc::clone(decision) };
        self.decisions.insert(hash, kept);
    }
}

#[cfg(test)]
mod tests;
