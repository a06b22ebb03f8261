//! What rounds remember.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::back::Suspended;
use crate::mesh::ids::Name;
use crate::plugin::folder::Sha;
use crate::plugin::load::Build;

/// Remembered refusals; when there are more, all are forgotten and found out again.
const REFUSALS_MAX: usize = 1_024;

#[derive(Clone)]
pub struct Refusal {
    pub reason: String,
    /// When the component got as far as saying it.
    pub name: Option<Name>,
}

/// Successful builds are kept while a file has them, refusals for as long as there is room.
#[derive(Default)]
pub struct Memory {
    pub builds: HashMap<Sha, Arc<Build>>,
    /// By component alone, or by component and configuration.
    pub refusals: HashMap<(Sha, Option<Sha>), Refusal>,
    /// The plugin that each file last brought into force.
    pub carried: HashMap<PathBuf, Name>,
    /// The plugin that each file last was, in force or not.
    pub named: HashMap<PathBuf, Name>,
    /// Files of plugins that are switched off, with what was in force then, if anything was.
    pub switched_off: HashMap<PathBuf, Option<Suspended>>,
    /// Names of metrics, by component and configuration, of builds that were refused for them.
    pub metered: HashMap<(Sha, Sha), Vec<String>>,
    pub generations: BTreeMap<Name, u64>,
    /// Files that were there at the start and of which it was not known since whether they are good.
    pub starting: HashSet<PathBuf>,
}

impl Memory {
    /// Has all builds of a plugin looked at again that were refused.
    pub fn pardon(&mut self, name: &Name) {
        self.refusals.retain(|_, refusal| refusal.name.as_ref() != Some(name));
    }

    /// Refuses a build with a configuration from now on.
    pub fn forbid(&mut self, name: &Name, component: Sha, config: Sha, reason: String) {
        self.refusals.insert((component, Some(config)), Refusal { reason, name: Some(name.clone()) });
    }

    pub fn refused_names(&self) -> impl Iterator<Item = &Name> {
        self.refusals.values().filter_map(|refusal| refusal.name.as_ref())
    }

    /// Forgets what belongs to neither of the `components` nor the files that are `here`.
    pub fn retain(&mut self, components: &HashSet<Sha>, here: &HashSet<PathBuf>) {
        self.builds.retain(|sha, _| components.contains(sha));
        self.carried.retain(|file, _| here.contains(file));
        self.named.retain(|file, _| here.contains(file));
        self.starting.retain(|file| here.contains(file));
        self.switched_off.retain(|file, _| here.contains(file));
        self.metered.retain(|(sha, _), _| components.contains(sha));
        if self.refusals.len() > REFUSALS_MAX {
            self.refusals.clear();
        }
    }

    pub fn names_of_files(&self) -> BTreeSet<Name> {
        self.named.values().cloned().collect()
    }
}
