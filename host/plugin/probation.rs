//! The first minute of a build that took the place of another: does it stay, or does the one before come back? That
//! one stays warm as long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bad::BadBuild;
use super::clock;
use super::entry::Entry;
use super::hot::QUESTIONS;
use super::loaded::Loaded;
use super::pace::JUDGED_FROM;
use super::reload::Reloader;
use crate::mesh::ids::Name;
use crate::mesh::time::{Mono, Wall};
use crate::policy::status::{ProbationStatus, RefusedBuild, RollbackError};

/// Of its own making, within its probation.
const FAULTS_MAX: u64 = 3;

/// What is known of a build while it is tried out.
pub struct Probation {
    ends: Mono,
    until: Wall,
    /// `None` of the first build of a file.
    previous: Option<Entry>,
}

/// What has become of a probation.
enum Standing {
    Survived,
    Failed(String),
}

impl Probation {
    /// Of the build that takes the place of `previous` now; `None` when builds are not tried out.
    pub fn begin(previous: Option<&Entry>, time: Duration) -> Option<Arc<Self>> {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        (!time.is_zero()).then(|| {
            Arc::new(Self {
                ends: clock::now() + time,
                until: Wall::from_millis(clock::wall().as_millis().saturating_add(millis)),
                previous: previous.map(|before| Entry {
                    probation: None,
                    refused: None,
                    building: None,
                    ..before.clone()
                }),
            })
        })
    }

    /// `None` when there is nothing to go back to.
    pub fn status(&self) -> Option<ProbationStatus> {
        let source = &self.previous.as_ref()?.loaded.plugin.source;
        Some(ProbationStatus {
            until: self.until,
            previous_version: source.version.clone(),
            previous_generation: source.generation,
        })
    }

    /// `None` while nothing is decided.
    fn judge(&self, loaded: &Loaded) -> Option<Standing> {
        let health = &loaded.plugin.health;
        let faults = health.faults();
        if faults.by_guest >= FAULTS_MAX {
            let (count, last) = (faults.by_guest, faults.last.unwrap_or_default());
            let capsule = loaded.plugin.capsules.newest();
            let capsule = capsule.map_or_else(String::new, |file| format!(" (`capsules/{file}` repeats it)"));
            return Some(Standing::Failed(format!(
                "{count} faults while it was on probation, the last: {last}{capsule}"
            )));
        }
        // The first build of a file has nobody to give its place to; being too slow, it rests.
        let hot = loaded.hot().filter(|_| self.previous.is_some());
        for (hot, question) in hot.into_iter().flat_map(|hot| QUESTIONS.map(|question| (hot, question))) {
            // In processor time: a busy machine is not the plugin's fault.
            let (times, budget_us) = (hot.computed(question), loaded.plugin.budget.of(question));
            if times.count() >= JUDGED_FROM && times.p99_us_at_least() > budget_us {
                return Some(Standing::Failed(format!(
                    "over its budget: 99 of 100 answers of `{}` took up to {:.0} µs, and {budget_us:.0} µs are allowed",
                    question.as_str(),
                    times.p99_us()
                )));
            }
        }
        (clock::now() >= self.ends).then_some(Standing::Survived)
    }
}

/// Whether a probation among `entries` has come to its end.
pub fn is_any_over<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> bool {
    entries.any(|entry| entry.standing().is_some())
}

impl Entry {
    fn standing(&self) -> Option<Standing> {
        self.probation.as_ref()?.judge(&self.loaded)
    }

    /// The build whose place this one took, for that place: `None` when it is not warm any more, and of an embedded one,
    /// which is found again by itself.
    pub fn before(&self) -> Option<Self> {
        let previous = self.probation.as_ref()?.previous.clone()?;
        previous.file.as_ref()?;
        // It may have been tried out itself when its place was taken.
        previous.loaded.plugin.is_tried.store(false, Ordering::Relaxed);
        previous.loaded.plugin.gives_way.store(false, Ordering::Relaxed);
        Some(Self { file: self.file.clone(), ..previous })
    }
}

impl Reloader {
    /// Ends the probations that are over. A build that failed gives its place back to the one before, and is not
    /// tried again with the same configuration.
    pub fn end_probations(&mut self) {
        let over: Vec<(Name, Standing)> = self
            .in_force
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.standing()?)))
            .collect();
        for (name, standing) in over {
            match standing {
                Standing::Failed(reason) => {
                    if self.roll_back(&name, &reason).is_err() {
                        self.release(&name);
                    }
                }
                Standing::Survived => {
                    self.release(&name);
                    self.keep_good(&name);
                }
            }
        }
    }

    fn release(&mut self, name: &Name) {
        let ended = self.in_force.get_mut(name).and_then(|entry| {
            entry.loaded.plugin.is_tried.store(false, Ordering::Relaxed);
            entry.loaded.plugin.gives_way.store(false, Ordering::Relaxed);
            entry.probation.take()
        });
        if ended.is_some_and(|probation| probation.previous.is_some()) {
            tracing::info!(plugin = %name, "plugin is no longer on probation");
        }
    }

    /// Keeps a build out, also after the next start.
    fn forbid(&mut self, name: &Name, build: BadBuild) {
        self.memory.forbid(name, build.component, build.config, build.reason.clone());
        let kept = self.bad.as_ref().map_or(Ok(()), |bad| bad.remember(name, build));
        if let Err(error) = kept {
            tracing::warn!(plugin = %name, %error, "the rolled-back build will be tried again at the next start");
        }
    }

    /// Has the builds of a plugin tried again that were rolled back.
    pub fn pardon(&mut self, name: &Name) {
        self.memory.pardon(name);
        // What is found out again is said again.
        self.known_refusals.retain(|_, (refused, _)| refused.as_ref() != Some(name));
        if let Some(entry) = self.in_force.get_mut(name) {
            entry.refused = None;
        }
        if let Some(bad) = &self.bad {
            bad.forget(name);
        }
    }

    /// Of a plugin whose file was taken away.
    pub fn forget(&mut self, name: &Name) {
        self.pardon(name);
        if let Some(good) = &self.good {
            good.forget(name);
        }
    }

    fn keep_good(&self, name: &Name) {
        let (Some(good), Some(entry)) = (&self.good, self.in_force.get(name)) else { return };
        let Some(file) = entry.file.as_deref() else { return };
        let configuration = entry.loaded.plugin.configuration();
        // What was filled in may be secret, and is not written down.
        let json = configuration.written_json.is_none().then_some(configuration.json);
        if let Err(error) = good.keep(name, file, &entry.component, json.map(|json| (entry.config, json))) {
            tracing::warn!(plugin = %name, error = %super::compiler::words(&error), "build that kept well is not kept for the next start");
        }
    }

    /// Puts the build before the one in force back, from the next round on.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn roll_back(&mut self, name: &Name, reason: &str) -> Result<(), RollbackError> {
        let entry = self.in_force.get_mut(name).ok_or(RollbackError::Unknown)?;
        let probation = entry.probation.clone().ok_or(RollbackError::NothingBefore)?;
        let previous = probation.previous.clone().ok_or(RollbackError::NothingBefore)?;
        let reason = format!("rolled back: {reason}");
        let refused =
            RefusedBuild { sha256: hex::encode(entry.component), reason: reason.clone(), at: clock::wall() };
        // A file that carries the plugin carries the build before, too; an embedded one is found again by itself.
        let file = previous.file.as_ref().and(entry.file.clone());
        let previous = Entry { file, order: entry.order, refused: Some(refused), ..previous };
        let bad = std::mem::replace(entry, previous);
        // It may have been tried out itself when its place was taken.
        entry.loaded.plugin.is_tried.store(false, Ordering::Relaxed);
        entry.loaded.plugin.gives_way.store(false, Ordering::Relaxed);
        let (version, generation) = (&bad.loaded.plugin.source.version, bad.generation());
        let back = Arc::clone(&entry.loaded.plugin.source);
        tracing::warn!(plugin = %name, version = %version, generation, previous = back.generation, %reason, "plugin rolled back");
        self.announce(
            "plugin_rolled_back",
            format!(
                "plugin `{name}` {version} #{generation} was {reason}; {} #{} is in force again",
                back.version, back.generation
            ),
        );
        let key = (bad.file.clone(), bad.component, bad.terms());
        self.known_refusals.insert(key, (Some(name.clone()), reason.clone()));
        self.forbid(name, BadBuild { component: bad.component, config: bad.terms(), reason });
        self.retired.push(bad.loaded);
        self.rolled_back = true;
        Ok(())
    }
}
