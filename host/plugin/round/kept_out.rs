//! Candidates that do not come into force: what is said of them, and what stays in force or stands in.

use std::sync::atomic::Ordering;

use super::{Candidate, Refusal, Round, describe};
use crate::mesh::ids::Name;
use crate::mesh::ruling::{self, Grant};
use crate::plugin::clock;
use crate::plugin::entry::Entry;
use crate::plugin::folder::Sha;
use crate::plugin::load::Build;
use crate::policy::status::{PendingBuild, PluginState, PluginStatus, RefusedBuild};

const IS_COMPILED: &str = "it is being compiled, and comes into force when that is done";

impl Round<'_> {
    pub(super) fn refuse(&mut self, candidate: &Candidate, refusal: Refusal, component: Sha, config: Sha) {
        let key = (candidate.file.clone(), component, config);
        let from = describe(candidate.file.as_deref());
        let known = self.reloader.known_refusals.get(&key);
        if known.is_none_or(|(_, reason)| *reason != refusal.reason) {
            tracing::warn!(%from, reason = %refusal.reason, "plugin refused");
            self.reloader.announce("plugin_refused", format!("{from} was refused: {}", refusal.reason));
        }
        self.outcome.refusals.insert(key, (refusal.name.clone(), refusal.reason.clone()));
        let sha256 = if component == Sha::default() { String::new() } else { hex::encode(component) };
        let build =
            RefusedBuild { sha256: sha256.clone(), reason: refusal.reason.clone(), at: clock::wall() };
        if self.keep(candidate, Some(build.clone()))
            || self.resume(candidate, Some(build.clone()))
            || self.stand_in(candidate, build.clone())
        {
            return;
        }
        if let Some((suspended, reason)) = self.suspended(candidate) {
            let name = suspended.name.clone();
            self.list(candidate, name.as_str(), PluginState::Disabled, reason.to_owned());
            if let Some(listed) = self.outcome.others.last_mut() {
                listed.refused = Some(build);
            }
            return;
        }
        if let Some(file) = &candidate.file {
            self.reloader.memory.switched_off.remove(file);
        }
        let name = refusal.name.as_ref().map_or(candidate.label.as_str(), Name::as_str).to_owned();
        self.list(candidate, &name, PluginState::Refused, refusal.reason);
        if let Some(listed) = self.outcome.others.last_mut() {
            listed.sha256 = sha256;
        }
    }

    /// Keeps a build out until somebody gives it what it asks for; the one before stays in force.
    pub(super) fn wait(&mut self, candidate: &Candidate, build: &Build, component: Sha, missing: &[Grant]) {
        let name = &build.name;
        let reason = format!(
            "it asks for {}, which nobody gave this build; `meshwright plugin allow {name}` shows and gives it",
            ruling::list(missing)
        );
        let from = describe(candidate.file.as_deref());
        let key = (candidate.file.clone(), component, Sha::default());
        if !self.reloader.known_refusals.contains_key(&key) {
            tracing::warn!(plugin = %name, version = %build.version, %from, %reason, "plugin waits for a grant");
            self.reloader.announce("plugin_pending", format!("plugin `{name}` waits: {reason}"));
        }
        self.outcome.refusals.insert(key, (Some(name.clone()), reason.clone()));
        let pending = PendingBuild {
            sha256: hex::encode(component),
            version: build.version.clone(),
            grants: missing.to_vec(),
            reason: reason.clone(),
        };
        // The file may have brought another name into force before, which is kept then.
        if (self.keep(candidate, None) || self.resume(candidate, None))
            && let Some(entry) = self.outcome.in_force.get_mut(name)
        {
            (entry.pending, entry.refused) = (Some(pending), None);
            return;
        }
        self.list(candidate, name.as_str(), PluginState::Pending, reason);
        if let Some(listed) = self.outcome.others.last_mut() {
            listed.pending = Some(pending);
        }
    }

    /// What a file brought into force stays there while its next build is compiled.
    pub(super) fn await_build(&mut self, candidate: &Candidate) {
        let before = candidate.file.as_ref().and_then(|file| self.reloader.memory.named.get(file)).cloned();
        if self.keep(candidate, None) || self.resume(candidate, None) {
            let kept = self.outcome.in_force.values_mut().find(|entry| entry.file == candidate.file);
            if let (Some(entry), Ok((_, sha))) = (kept, &candidate.content) {
                entry.building = Some(*sha);
            }
            return;
        }
        if let Some((suspended, reason)) = self.suspended(candidate) {
            let name = suspended.name.clone();
            self.list(candidate, name.as_str(), PluginState::Disabled, reason.to_owned());
            return;
        }
        let name = before.as_ref().map_or(candidate.label.as_str(), Name::as_str).to_owned();
        self.list(candidate, &name, PluginState::Building, IS_COMPILED.to_owned());
    }

    /// Leaves in force what the file last brought into force, if there is such a plugin and it still has its grants; if
    /// it lost one, the build before it comes back while that is warm.
    pub(super) fn keep(&mut self, candidate: &Candidate, refused: Option<RefusedBuild>) -> bool {
        let carried = candidate.file.as_ref().and_then(|file| self.reloader.memory.carried.get(file));
        let Some(name) = carried else { return false };
        let is_enabled = self.terms.disabled_by(name).is_none();
        let Some(entry) = self.reloader.in_force.get(name).filter(|entry| entry.file == candidate.file)
        else {
            return false;
        };
        if !is_enabled || self.outcome.in_force.contains_key(name) {
            return false;
        }
        let Some(entry) = self.permitted(entry) else { return false };
        let refuses = self.terms.settings(name).is_some_and(|settings| settings.refuse_on_fault);
        entry.loaded.plugin.refuses_on_fault.store(refuses, Ordering::Relaxed);
        // The same refusal keeps the time at which it was first seen.
        let refused = match (&entry.refused, refused) {
            (Some(old), Some(new)) if (&old.sha256, &old.reason) == (&new.sha256, &new.reason) => {
                Some(old.clone())
            }
            (_, Some(new)) => Some(new),
            (old, None) => old.clone(),
        };
        let order = self.terms.settings(name).and_then(|settings| settings.order).unwrap_or(entry.order);
        let kept = Entry { refused, order, pending: None, building: None, ..entry };
        self.outcome.in_force.insert(name.clone(), kept);
        true
    }

    /// The build in force, or else the one before it, as long as it has what it asks for.
    fn permitted(&self, entry: &Entry) -> Option<Entry> {
        if self.terms.lacks(entry).is_empty() {
            return Some(entry.clone());
        }
        entry.before().filter(|before| self.terms.lacks(before).is_empty())
    }

    pub(super) fn list(&mut self, candidate: &Candidate, name: &str, state: PluginState, reason: String) {
        let mut status = PluginStatus::idle(name.to_owned(), candidate.file.clone(), state, reason);
        let suspended = self.suspended(candidate).filter(|(was, _)| was.name.as_str() == name);
        if let Some((suspended, _)) = suspended {
            suspended.show(&mut status);
        } else if let Ok((bytes, sha)) = &candidate.content {
            status.sha256 = hex::encode(sha);
            status.size_bytes = bytes.len();
            if let Some(build) = self.reloader.memory.builds.get(sha) {
                build.show(&mut status);
            }
        }
        self.outcome.others.push(status);
    }
}
