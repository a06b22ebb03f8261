//! What a round needs built: asked for, and taken when it is done.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Candidate, Memory, Refusal, Round};
use crate::plugin::building::{Begun, Wanted};
use crate::plugin::clock;
use crate::plugin::folder::Sha;
use crate::plugin::load::{Build, LoadError};

impl Round<'_> {
    /// Has all built that was not seen before, and takes what is.
    pub(super) fn build_all(&mut self, candidates: &[Candidate]) {
        self.take_built();
        let (memory, now) = (&self.reloader.memory, clock::now());
        let is_known = |sha: &Sha| {
            memory.builds.contains_key(sha)
                || memory.refusals.contains_key(&(*sha, None))
                || memory.is_put_off(sha, now)
        };
        let mut wanted: BTreeMap<Sha, Wanted<'_>> = BTreeMap::new();
        let mut embedded = HashSet::new();
        for candidate in candidates {
            let Ok((bytes, sha)) = &candidate.content else { continue };
            if !is_known(sha) {
                if candidate.is_embedded() {
                    embedded.insert(*sha);
                }
                wanted.entry(*sha).or_insert(Wanted { label: &candidate.label, sha: *sha, bytes });
            }
        }
        let mut wanted: Vec<Wanted<'_>> = wanted.into_values().collect();
        // What takes long keeps the others waiting least when it comes last.
        wanted.sort_by_key(|wanted| (!embedded.contains(&wanted.sha), wanted.bytes.len()));
        let building = &self.reloader.building;
        self.begun = building.want(&wanted);
        // What was not done within the patience of an earlier round says itself when it is.
        building.wait(&self.begun, self.patience);
        building.wait(&Begun::of(embedded), Duration::MAX);
        self.take_built();
    }

    /// Has a build made that no file holds any more. Whether it is there now; else the next round asks again.
    pub(super) fn build_again(&mut self, wanted: &Wanted<'_>) -> bool {
        let is_known = |memory: &Memory| {
            memory.builds.contains_key(&wanted.sha) || memory.component_refusal(wanted.sha).is_some()
        };
        if !is_known(&self.reloader.memory) {
            let begun = self.reloader.building.also(wanted);
            self.reloader.building.wait(&begun, self.patience);
            self.begun.extend(begun);
            self.take_built();
        }
        is_known(&self.reloader.memory)
    }

    fn take_built(&mut self) {
        for (sha, built) in self.reloader.building.take() {
            self.note_built(sha, built);
        }
    }

    fn note_built(&mut self, sha: Sha, built: Result<Build, LoadError>) {
        let memory = &mut self.reloader.memory;
        match built {
            Ok(build) => memory.built(sha, build),
            Err(error) => {
                let refusal = Refusal { reason: error.to_string(), name: None };
                if error.is_final() {
                    memory.refusals.insert((sha, None), refusal);
                } else {
                    memory.put_off(sha, refusal, clock::now());
                }
            }
        }
    }

    /// `Err(None)` while it is being built.
    pub(super) fn build(&self, sha: Sha) -> Result<Arc<Build>, Option<Refusal>> {
        let memory = &self.reloader.memory;
        if let Some(build) = memory.builds.get(&sha) {
            return Ok(Arc::clone(build));
        }
        Err(memory.component_refusal(sha).cloned())
    }
}
