//! What rounds remember.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::back::Suspended;
use crate::mesh::ids::Name;
use crate::mesh::time::Mono;
use crate::plugin::folder::{Content, Found, Sha};
use crate::plugin::load::Build;

/// Remembered refusals; when there are more, all are forgotten and found out again.
const REFUSALS_MAX: usize = 1_024;
/// Of one plugin; the oldest goes first.
const FORBIDDEN_MAX: usize = 16;
/// How long a component is left alone that the machine had no time or memory for; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub struct Refusal {
    pub reason: String,
    /// When the component got as far as saying it.
    pub name: Option<Name>,
}

/// A component that could not be tried to the end.
struct PutOff {
    refusal: Refusal,
    pause: Duration,
    until: Mono,
}

/// Successful builds are kept while a file has them, refusals for as long as there is room.
#[derive(Default)]
pub struct Memory {
    pub builds: HashMap<Sha, Arc<Build>>,
    /// By component alone, or by component and configuration.
    pub refusals: HashMap<(Sha, Option<Sha>), Refusal>,
    /// Builds that were rolled back, with the configuration that they failed with and the reason. Nothing would find
    /// that out again before they have failed again.
    forbidden: HashMap<Name, Vec<(Sha, Sha, String)>>,
    put_off: HashMap<Sha, PutOff>,
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
    /// What was rolled back in earlier runs was compared with what the files are.
    pub is_compared: bool,
}

impl Memory {
    /// Has all builds of a plugin looked at again that were refused.
    pub fn pardon(&mut self, name: &Name) {
        self.refusals.retain(|_, refusal| refusal.name.as_ref() != Some(name));
        self.forbidden.remove(name);
    }

    /// Has the files looked at again that are called like the plugin, or last brought it into force: a component that
    /// was refused before it said its name is known by its file alone. Answers which these are.
    pub fn pardon_files(&mut self, name: &Name, found: &[Found]) -> HashSet<PathBuf> {
        let is_its = |found: &&Found| {
            found.stem == name.as_str()
                || self.carried.get(&found.path).is_some_and(|carried| carried == name)
        };
        let files: Vec<&Found> = found.iter().filter(is_its).collect();
        for file in &files {
            if let Content::Whole { sha256, .. } = &file.content {
                self.refusals.remove(&(*sha256, None));
                self.put_off.remove(sha256);
            }
        }
        files.into_iter().map(|file| file.path.clone()).collect()
    }

    /// Leaves a component alone for a while, longer each time.
    pub fn put_off(&mut self, component: Sha, refusal: Refusal, now: Mono) {
        let before = self.put_off.get(&component);
        let pause = before.map_or(PAUSE_FIRST, |before| (before.pause * 2).min(PAUSE_MAX));
        self.put_off.insert(component, PutOff { refusal, pause, until: now + pause });
    }

    pub fn is_put_off(&self, component: &Sha, now: Mono) -> bool {
        self.put_off.get(component).is_some_and(|put_off| now < put_off.until)
    }

    /// What is known to speak against a component, whatever its configuration.
    pub fn component_refusal(&self, component: Sha) -> Option<&Refusal> {
        let put_off = || self.put_off.get(&component).map(|put_off| &put_off.refusal);
        self.refusals.get(&(component, None)).or_else(put_off)
    }

    pub fn built(&mut self, component: Sha, build: Build) {
        self.put_off.remove(&component);
        self.builds.insert(component, Arc::new(build));
    }

    /// Refuses a build with a configuration from now on.
    pub fn forbid(&mut self, name: &Name, component: Sha, config: Sha, reason: String) {
        let builds = self.forbidden.entry(name.clone()).or_default();
        builds.retain(|build| (build.0, build.1) != (component, config));
        builds.push((component, config, reason));
        builds.drain(..builds.len().saturating_sub(FORBIDDEN_MAX));
    }

    /// What is known to speak against a build of the plugin with a configuration.
    pub fn refusal(&self, name: &Name, component: Sha, config: Sha) -> Option<Refusal> {
        let mut forbidden = self.forbidden.get(name).into_iter().flatten();
        let rolled_back = forbidden.find(|build| (build.0, build.1) == (component, config));
        let rolled_back =
            rolled_back.map(|(.., reason)| Refusal { reason: reason.clone(), name: Some(name.clone()) });
        rolled_back.or_else(|| self.refusals.get(&(component, Some(config))).cloned())
    }

    pub fn refused_names(&self) -> impl Iterator<Item = &Name> {
        let refused = self.refusals.values().filter_map(|refusal| refusal.name.as_ref());
        refused.chain(self.forbidden.keys())
    }

    /// Forgets what belongs to neither of the `components` nor the files that are `here`.
    pub fn retain(&mut self, components: &HashSet<Sha>, here: &HashSet<PathBuf>) {
        self.builds.retain(|sha, _| components.contains(sha));
        self.put_off.retain(|sha, _| components.contains(sha));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_tried_to_the_end_is_left_alone_for_longer_each_time_up_to_an_hour() {
        let mut memory = Memory::default();
        let (sha, mut now) = (Sha::default(), Mono::from_secs(100));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(!memory.is_put_off(&sha, now));
            memory.put_off(sha, Refusal { reason: "it was killed".to_owned(), name: None }, now);
            let begun = now;
            while memory.is_put_off(&sha, now) {
                now = now + PAUSE_FIRST;
            }
            pauses.push(now.since(begun).as_secs());
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        assert_eq!(
            memory.component_refusal(sha).map(|refusal| refusal.reason.as_str()),
            Some("it was killed")
        );
        memory.retain(&HashSet::new(), &HashSet::new());
        assert!(memory.component_refusal(sha).is_none(), "its file is gone");
    }

    #[test]
    fn however_much_is_refused_what_was_rolled_back_stays_out_until_it_is_pardoned() {
        let (name, other) = (Name::new("a").expect("a name"), Name::new("b").expect("a name"));
        let sha = |tag: usize| {
            let mut sha = Sha::default();
            sha[..8].copy_from_slice(&tag.to_le_bytes());
            sha
        };
        let mut memory = Memory::default();
        memory.forbid(&name, sha(0), sha(0), "rolled back".to_owned());
        for tag in 1..=REFUSALS_MAX + 1 {
            let refusal = Refusal { reason: "it is empty".to_owned(), name: None };
            memory.refusals.insert((sha(tag), None), refusal);
        }
        memory.retain(&HashSet::new(), &HashSet::new());
        assert!(memory.refusals.is_empty(), "these are found out again");
        let reason = |memory: &Memory| memory.refusal(&name, sha(0), sha(0)).map(|refusal| refusal.reason);
        assert_eq!(reason(&memory).as_deref(), Some("rolled back"));
        assert!(memory.refusal(&name, sha(0), sha(1)).is_none(), "it may do with another configuration");
        memory.pardon(&other);
        assert!(reason(&memory).is_some());
        memory.pardon(&name);
        assert!(reason(&memory).is_none());
    }
}
