//! Who is settled first, and so has what several want: the name of a plugin, or of a metric.

use std::collections::HashSet;

use super::{Candidate, Round};

/// In this order; among equals the order of file names decides.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// It is the file of what is in force.
    InForce,
    /// It holds what is in force, as after a renaming.
    Renamed,
    /// It brought into force what is switched off now.
    Carried,
    /// It is new, and overrides an embedded plugin.
    Override,
    Embedded,
    New,
}

impl Round<'_> {
    /// Whatever a newcomer's file is called, it takes nothing from what is in force.
    pub(super) fn in_order(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        let embedded: HashSet<String> = candidates
            .iter()
            .filter(|candidate| candidate.is_embedded())
            .map(|candidate| candidate.label.clone())
            .collect();
        candidates.sort_by_cached_key(|candidate| self.claim(candidate, &embedded));
        candidates
    }

    fn claim(&self, candidate: &Candidate, embedded: &HashSet<String>) -> Claim {
        let Some(file) = &candidate.file else { return Claim::Embedded };
        let mut in_force = self.reloader.in_force.values();
        if in_force.clone().any(|entry| entry.file.as_ref() == Some(file)) {
            return Claim::InForce;
        }
        // What cannot be read is refused when it is settled, and claims nothing before.
        let content = candidate.content.as_ref().ok();
        if in_force.any(|entry| content.is_some_and(|(_, sha)| *sha == entry.component)) {
            return Claim::Renamed;
        }
        let memory = &self.reloader.memory;
        if memory.carried.contains_key(file) {
            return Claim::Carried;
        }
        let build = content.and_then(|(_, sha)| memory.builds.get(sha));
        if build.is_some_and(|build| embedded.contains(build.name.as_str())) {
            Claim::Override
        } else {
            Claim::New
        }
    }
}
