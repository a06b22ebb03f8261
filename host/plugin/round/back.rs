//! What comes back in the place of a build that is kept out: the one that kept well, or the one that was in force
//! when its plugin was switched off.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Candidate, Round};
use crate::mesh::ids::Name;
use crate::plugin::building::Wanted;
use crate::plugin::entry::Entry;
use crate::plugin::folder::{FoundConfig, Sha, sha256};
use crate::plugin::good::Kept;
use crate::plugin::load::Build;
use crate::policy::status::{PluginStatus, RefusedBuild};

const AS_IT_WAS: &str =
    "its file is refused; the last build that kept well is in force, with the configuration it had";
const RECONFIGURED: &str =
    "its file is refused; the last build that kept well is in force, with the present configuration";

/// What was in force when its plugin was switched off. It has no instances.
pub struct Suspended {
    pub name: Name,
    build: Arc<Build>,
    component: Sha,
    config: Arc<FoundConfig>,
    size_bytes: usize,
}

impl Suspended {
    fn of(entry: &Entry) -> Self {
        let configuration = entry.loaded.plugin.configuration();
        Self {
            name: entry.loaded.plugin.source.name.clone(),
            build: Arc::clone(&entry.build),
            component: entry.component,
            config: Arc::new(FoundConfig { sha256: entry.config, configuration: Ok(configuration) }),
            size_bytes: entry.size_bytes,
        }
    }

    pub fn show(&self, status: &mut PluginStatus) {
        status.sha256 = hex::encode(self.component);
        status.size_bytes = self.size_bytes;
        self.build.show(status);
    }
}

impl Round<'_> {
    /// Notes what is in force of the plugins that are switched off now. Their files may hold something else.
    pub(super) fn suspend(&mut self) {
        for (name, entry) in &self.reloader.in_force {
            if let Some(file) = entry.file.as_ref().filter(|file| self.here.contains(*file))
                && self.terms.disabled_by(name).is_some()
            {
                let suspended = Some(Suspended::of(entry));
                self.reloader.memory.switched_off.insert(file.clone(), suspended);
            }
        }
    }

    /// The plugin of a file that is switched off, as it was in force, and who says so.
    pub(super) fn suspended(&self, candidate: &Candidate) -> Option<(&Suspended, &'static str)> {
        let suspended = self.reloader.memory.switched_off.get(candidate.file.as_ref()?)?.as_ref()?;
        Some((suspended, self.terms.disabled_by(&suspended.name)?))
    }

    /// Brings into force what was when the plugin was switched off, now that it is on again.
    pub(super) fn resume(&mut self, candidate: &Candidate, refused: Option<RefusedBuild>) -> bool {
        let switched_off = &self.reloader.memory.switched_off;
        let Some(Some(was)) = candidate.file.as_ref().and_then(|file| switched_off.get(file)) else {
            return false;
        };
        let (build, size_bytes) = (Arc::clone(&was.build), was.size_bytes);
        let before = Candidate {
            file: candidate.file.clone(),
            label: candidate.label.clone(),
            content: Ok((Cow::Borrowed(&[]), was.component)),
            config: Some(Arc::clone(&was.config)),
        };
        self.reloader.memory.builds.insert(was.component, build);
        let Ok(entry) = self.admit(&before) else { return false };
        self.bring_back(candidate, Entry { refused, size_bytes, probation: None, ..entry });
        true
    }

    /// At a start, and when the plugin was switched on again, brings the last build of the file into force that kept
    /// well, with the configuration that it had.
    pub(super) fn stand_in(&mut self, candidate: &Candidate, refused: RefusedBuild) -> bool {
        let Some(file) = &candidate.file else { return false };
        let memory = &self.reloader.memory;
        let may = memory.starting.contains(file) || memory.switched_off.contains_key(file);
        let good = self.reloader.good.as_ref().filter(|_| may);
        let Some(Kept { bytes, config }) = good.and_then(|good| good.find(file)) else { return false };
        let sha = sha256(&bytes);
        let stands_in = Some(if config.is_some() { AS_IT_WAS } else { RECONFIGURED });
        let before = Candidate {
            file: Some(file.clone()),
            label: candidate.label.clone(),
            content: Ok((Cow::Owned(bytes), sha)),
            config: config.map(Arc::new).or_else(|| candidate.config.clone()),
        };
        if let Ok((bytes, _)) = &before.content
            && !self.build_again(&Wanted { label: &before.label, sha, bytes })
        {
            self.awaited.insert(file.clone());
            return false;
        }
        let Ok(entry) = self.admit(&before) else { return false };
        let source = &entry.loaded.plugin.source;
        tracing::warn!(plugin = %source.name, version = %source.version, "the last build that kept well stands in for the refused one");
        let entry = Entry { refused: Some(refused), stands_in, probation: None, ..entry };
        self.bring_back(candidate, entry);
        true
    }

    fn bring_back(&mut self, candidate: &Candidate, entry: Entry) {
        let name = entry.loaded.plugin.source.name.clone();
        let memory = &mut self.reloader.memory;
        if let Some(file) = &candidate.file {
            memory.carried.insert(file.clone(), name.clone());
            memory.named.entry(file.clone()).or_insert_with(|| name.clone());
            memory.switched_off.remove(file);
        }
        self.outcome.in_force.insert(name, entry);
    }
}
