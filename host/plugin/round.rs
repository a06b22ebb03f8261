//! One reload: decides for each file and each embedded plugin whether it comes into force, stays, or is refused.

mod back;
mod built;
mod kept_out;
mod memory;
mod metrics;
mod order;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use self::memory::Memory;
use self::memory::Refusal;
use super::building::Begun;
use super::capsules::Capsules;
use super::clock;
use super::entry::Entry;
use super::folder::{Content, Found, FoundConfig, Sha, sha256};
use super::load::{self, Build, LoadError};
use super::loaded::{Loaded, Plugin};
use super::probation::Probation;
use super::reload::{KnownRefusals, Reloader};
use super::replay;
use super::rulings::Terms;
use super::settings::{Configuration, Origin};
use crate::mesh::allowance::Allowance;
use crate::mesh::ids::Name;
use crate::mesh::ruling::Grant;
use crate::policy::Source;
use crate::policy::status::{PluginState, PluginStatus, Replay};

pub const ORDER: i32 = 100;
const ORDER_EMBEDDED: i32 = 1000;

/// A generation that may come into force.
struct Warmed {
    loaded: Loaded,
    replay: Option<Arc<Replay>>,
    probation: Option<Arc<Probation>>,
}

/// A file or an embedded plugin.
pub struct Candidate {
    /// `None` for an embedded one.
    file: Option<PathBuf>,
    label: String,
    content: Result<(Cow<'static, [u8]>, Sha), Option<LoadError>>,
    config: Option<Arc<FoundConfig>>,
}

impl Candidate {
    pub fn file(found: Found) -> Self {
        let content = match (found.open, found.content) {
            (Some(file), _) => Err(Some(LoadError::Open(file))),
            (None, Content::Whole { bytes, sha256 }) => Ok((Cow::Owned(bytes), sha256)),
            (None, Content::Failed(kind)) => Err(Some(LoadError::Unreadable(kind))),
            (None, Content::Moving) => Err(None),
        };
        Self { file: Some(found.path), label: found.stem, content, config: found.config.map(Arc::new) }
    }

    pub fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        Self {
            file: None,
            label: name.to_owned(),
            content: Ok((Cow::Borrowed(bytes), sha256(bytes))),
            config: None,
        }
    }

    fn is_embedded(&self) -> bool {
        self.file.is_none()
    }
}

/// What a round found.
pub struct Outcome {
    pub in_force: BTreeMap<Name, Entry>,
    pub others: Vec<PluginStatus>,
    pub refusals: KnownRefusals,
    pub begun: Begun,
}

pub struct Round<'a> {
    reloader: &'a mut Reloader,
    terms: Terms<'a>,
    patience: Duration,
    /// What was not built before.
    begun: Begun,
    /// Files in whose place a build is to stand that is being compiled again.
    awaited: HashSet<PathBuf>,
    outcome: Outcome,
    /// Files that are there.
    here: HashSet<PathBuf>,
}

/// What stands in the way of a candidate.
enum Obstacle {
    /// It is being written: nothing changes.
    Moving,
    /// It is being compiled: nothing changes until then.
    Building,
    Disabled(Name, &'static str),
    /// It asks for what nobody gave it.
    Pending(Arc<Build>, Sha, Vec<Grant>),
    Shadowed(Name),
    Refused {
        refusal: Refusal,
        component: Sha,
        config: Sha,
    },
}

impl Round<'_> {
    /// What is not built within `patience` is left to a later round; embedded plugins are always waited for.
    pub fn run(
        reloader: &mut Reloader,
        terms: Terms<'_>,
        candidates: Vec<Candidate>,
        patience: Duration,
    ) -> Outcome {
        let outcome = Outcome {
            in_force: BTreeMap::new(),
            others: Vec::new(),
            refusals: KnownRefusals::new(),
            begun: Begun::default(),
        };
        let here = candidates.iter().filter_map(|candidate| candidate.file.clone()).collect();
        let mut round = Round {
            reloader,
            terms,
            patience,
            begun: Begun::default(),
            awaited: HashSet::new(),
            outcome,
            here,
        };
        round.build_all(&candidates);
        let before = round.names(&candidates);
        if round.reloader.is_first {
            round.reloader.memory.starting.clone_from(&round.here);
        }
        round.suspend();
        let mut components = HashSet::new();
        for candidate in round.in_order(candidates) {
            components.extend(candidate.content.as_ref().ok().map(|(_, sha)| *sha));
            round.settle(&candidate);
        }
        let Round { reloader, mut outcome, here, begun, .. } = round;
        outcome.begun = begun;
        reloader.memory.retain(&components, &here);
        let mut names = reloader.memory.names_of_files();
        // One may be kept whose file is another plugin by now.
        names.extend(
            outcome.in_force.iter().filter(|(_, entry)| entry.file.is_some()).map(|(name, _)| name.clone()),
        );
        before.difference(&names).for_each(|name| reloader.forget(name));
        outcome
    }

    /// What files were until now; notes what they are.
    fn names(&mut self, candidates: &[Candidate]) -> BTreeSet<Name> {
        let memory = &mut self.reloader.memory;
        let mut before = memory.names_of_files();
        let mut are_known = true;
        for candidate in candidates {
            let Some(file) = &candidate.file else { continue };
            // Of what cannot be read it is not known which plugin it is.
            let build = candidate.content.as_ref().ok().and_then(|(_, sha)| memory.builds.get(sha));
            are_known &= build.is_some();
            if let Some(build) = build {
                memory.named.insert(file.clone(), build.name.clone());
            }
        }
        // What was rolled back in an earlier run, and taken away since.
        if are_known && !std::mem::replace(&mut self.reloader.memory.is_compared, true) {
            let memory = &self.reloader.memory;
            let embedded: HashSet<&str> = candidates
                .iter()
                .filter(|candidate| candidate.is_embedded())
                .map(|candidate| candidate.label.as_str())
                .collect();
            before.extend(memory.refused_names().filter(|name| !embedded.contains(name.as_str())).cloned());
        }
        before
    }

    fn settle(&mut self, candidate: &Candidate) {
        match self.admit(candidate) {
            Ok(entry) => {
                let name = entry.loaded.plugin.source.name.clone();
                if let Some(file) = &candidate.file {
                    let memory = &mut self.reloader.memory;
                    memory.carried.insert(file.clone(), name.clone());
                    memory.switched_off.remove(file);
                }
                self.outcome.in_force.insert(name, entry);
            }
            Err(Obstacle::Moving) => {
                self.keep(candidate, None);
                return;
            }
            Err(Obstacle::Building) => {
                self.await_build(candidate);
                return;
            }
            Err(Obstacle::Disabled(name, reason)) => {
                if let Some(file) = &candidate.file {
                    self.reloader.memory.switched_off.entry(file.clone()).or_default();
                }
                self.list(candidate, name.as_str(), PluginState::Disabled, reason.to_owned());
            }
            Err(Obstacle::Pending(build, component, missing)) => {
                self.wait(candidate, &build, component, &missing);
            }
            Err(Obstacle::Shadowed(name)) => {
                let by = self.outcome.in_force.get(&name).map(|entry| describe(entry.file.as_deref()));
                let reason = by.map_or_else(String::new, |by| format!("{by} overrides it"));
                self.list(candidate, name.as_str(), PluginState::Shadowed, reason);
            }
            Err(Obstacle::Refused { refusal, component, config }) => {
                self.refuse(candidate, refusal, component, config);
            }
        }
        if let Some(file) = candidate.file.as_ref().filter(|file| !self.awaited.contains(*file)) {
            self.reloader.memory.starting.remove(file);
        }
    }

    fn admit(&mut self, candidate: &Candidate) -> Result<Entry, Obstacle> {
        let (bytes, component) = match &candidate.content {
            Ok((bytes, sha)) => (bytes, *sha),
            Err(None) => return Err(Obstacle::Moving),
            Err(Some(error)) => {
                let refusal = Refusal { reason: error.to_string(), name: None };
                return Err(Obstacle::Refused { refusal, component: Sha::default(), config: Sha::default() });
            }
        };
        let build = self.build(component).map_err(|refusal| {
            let config = Sha::default();
            refusal.map_or(Obstacle::Building, |refusal| Obstacle::Refused { refusal, component, config })
        })?;
        let name = build.name.clone();
        if let Some(reason) = self.terms.disabled_by(&name) {
            return Err(Obstacle::Disabled(name, reason));
        }
        let settings = self.terms.settings(&name);
        let default_json = settings.map_or("", |settings| settings.config_json.as_str());
        let default_json = if default_json.is_empty() { "{}" } else { default_json };
        let limits = settings.map_or_else(Allowance::default, |settings| settings.limits);
        let config =
            candidate.config.as_ref().map_or_else(|| sha256(default_json.as_bytes()), |file| file.sha256);
        let terms = under(config, &limits);
        let refused = |refusal| Obstacle::Refused { refusal, component, config: terms };
        if let Some(rival) = self.outcome.in_force.get(&name) {
            if candidate.is_embedded() {
                return Err(Obstacle::Shadowed(name));
            }
            let error = LoadError::Duplicate(describe(rival.file.as_deref()), name.clone());
            return Err(refused(Refusal { reason: error.to_string(), name: Some(name) }));
        }
        let missing = self.terms.missing(&name, component, &build.grants);
        if !missing.is_empty() {
            return Err(Obstacle::Pending(build, component, missing));
        }
        let usual = if candidate.is_embedded() { ORDER_EMBEDDED } else { ORDER };
        let order = settings.and_then(|settings| settings.order).unwrap_or(usual);
        let refuses = settings.is_some_and(|settings| settings.refuse_on_fault);
        if let Some(same) = self.reloader.in_force.get(&name)
            && (same.component, same.terms()) == (component, terms)
        {
            same.loaded.plugin.refuses_on_fault.store(refuses, Ordering::Relaxed);
            return Ok(Entry {
                file: candidate.file.clone(),
                order,
                refused: None,
                pending: None,
                building: None,
                // Whoever brings back what the file does not hold says so.
                stands_in: None,
                ..same.clone()
            });
        }
        if let Some(refusal) = self.reloader.memory.refusal(&name, component, terms) {
            return Err(refused(refusal));
        }
        let origin = settings.map_or(Origin::Nowhere, |_| Origin::Proxy(name.clone()));
        let written_json = settings.and_then(|settings| settings.written_json.clone());
        let written = Configuration { json: default_json.to_owned(), written_json, origin };
        let configuration = match &candidate.config {
            None => Ok(&written),
            Some(file) => file.configuration.as_ref(),
        };
        let warmed = match configuration {
            Ok(configuration) => self.warm(&build, (component, terms), (configuration, limits), refuses),
            Err(error) => Err((error.to_string(), true)),
        };
        match warmed {
            Ok(Warmed { loaded, replay, probation }) => Ok(Entry {
                loaded,
                replay,
                probation,
                stands_in: None,
                file: candidate.file.clone(),
                component,
                config,
                limits,
                size_bytes: bytes.len(),
                order,
                loaded_at: clock::wall(),
                refused: None,
                pending: None,
                building: None,
                build,
            })
            .inspect(|entry| self.greet(entry)),
            Err((reason, is_final)) => {
                let refusal = Refusal { reason, name: Some(name) };
                if is_final {
                    self.reloader.memory.refusals.insert((component, Some(terms)), refusal.clone());
                }
                Err(refused(refusal))
            }
        }
    }

    /// The next generation of a plugin; a number that failed is not used up. Besides the reason for a failure:
    /// whether it would fail again.
    fn warm(
        &mut self,
        build: &Build,
        (component, config): (Sha, Sha),
        (configuration, limits): (&Configuration, Allowance),
        refuses: bool,
    ) -> Result<Warmed, (String, bool)> {
        let taken = self
            .taken_metrics(&build.name, (component, config))
            .map_err(|error| (error.to_string(), error.is_final()))?;
        let Reloader {
            memory,
            memories,
            events,
            workers,
            repair,
            runtime,
            recorder,
            in_force,
            probation,
            shelf,
            ..
        } = &mut *self.reloader;
        let generation = memory.generations.get(&build.name).map_or(1, |before| before + 1);
        let (name, version) = (build.name.clone(), build.version.clone());
        let source = Arc::new(Source { name, version, generation, component });
        let shared = memories.of(&build.name, clock::wall());
        let reads_arguments = build.compiled.reads_arguments;
        let health = super::fault::Health::new(build.name.clone(), Arc::clone(events), reads_arguments);
        let capsules = Capsules::new(shelf.clone(), repair.clone());
        let plugin = Plugin::new(source, health, build, shared, (configuration, limits), capsules);
        plugin.refuses_on_fault.store(refuses, Ordering::Relaxed);
        let loaded = load::check_configuration(runtime, build, &configuration.json)
            .and_then(|()| Loaded::warm(plugin, *workers, repair))
            .map_err(|error| error.about(&configuration.origin))
            .map_err(|error| (error.to_string(), error.is_final()))?;
        if let Err(error) = metrics::check(loaded.metrics(), &taken) {
            let names = loaded.metrics().map(str::to_owned).collect();
            memory.metered.insert((component, config), names);
            return Err((error.to_string(), error.is_final()));
        }
        let before = in_force.get(&build.name).map(|before| &*before.loaded.plugin);
        let replay = match recorder {
            Some(record) => replay::replay(before, &loaded.plugin, loaded.plugin.budget, &record())
                .map_err(|setback| (setback.to_string(), setback.is_final()))?,
            None => None,
        };
        memory.generations.insert(build.name.clone(), generation);
        let probation = Probation::begin(in_force.get(&build.name), *probation);
        loaded.plugin.is_tried.store(probation.is_some(), Ordering::Relaxed);
        let gives_way = probation.as_ref().is_some_and(|probation| probation.status().is_some());
        loaded.plugin.gives_way.store(gives_way, Ordering::Relaxed);
        Ok(Warmed { loaded, replay: replay.map(Arc::new), probation })
    }

    fn greet(&self, entry: &Entry) {
        let source = &entry.loaded.plugin.source;
        let (from, kinds) = (describe(entry.file.as_deref()), entry.loaded.kinds.join(", "));
        let generation = source.generation;
        tracing::info!(plugin = %source.name, version = %source.version, generation, %kinds, %from, "plugin loaded");
        let mut detail = format!(
            "plugin `{}` {} is in force: generation {generation}, from {from}",
            source.name, source.version
        );
        if let Some(replay) = entry.replay.as_deref() {
            let Replay { compared, changed, uncompared, p99_us, p99_us_before, .. } = *replay;
            tracing::info!(plugin = %source.name, generation, compared, changed, uncompared, p99_us, p99_us_before, "recorded calls replayed");
            // Writing to a string cannot fail.
            if let Some(fault) = &replay.fault {
                tracing::warn!(plugin = %source.name, generation, %fault, "it faults on recorded calls");
                write!(detail, "; {fault}").ok();
            } else if compared > 0 {
                write!(detail, "; it decides {changed} of the last {compared} calls otherwise").ok();
            }
            if uncompared > 0 {
                write!(detail, "; {uncompared} could not be compared, as the build before faulted").ok();
            }
        }
        self.reloader.announce("plugin_loaded", detail);
    }
}

/// The checksum of a configuration under limits, by which what became of a build with both is remembered.
pub fn under(config: Sha, limits: &Allowance) -> Sha {
    if *limits == Allowance::default() {
        return config;
    }
    sha256(format!("{} {}", hex::encode(config), limits.key()).as_bytes())
}

fn describe(file: Option<&Path>) -> String {
    let name = file.and_then(Path::file_name);
    name.map_or_else(|| "the embedded default".to_owned(), |name| name.to_string_lossy().into_owned())
}
