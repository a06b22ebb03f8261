//! The plugins in force. Level-triggered: each reload looks at everything that is there, and compares.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bad::Bad;
use super::building::{Begun, Building};
use super::cache::{self, Cache};
use super::capsules::Shelf;
use super::engine::{EngineError, Purpose, Runtime};
use super::entry::Entry;
use super::folder::{self, Sha};
use super::good::Good;
use super::hot::Hot;
use super::loaded::Loaded;
use super::memories::Memories;
use super::probation;
use super::repair::Repair;
use super::round::{Candidate, Round};
use super::rulings::{Rulings, Terms};
use super::vacant::{self, Vacant};
use super::{EventSink, PluginConfig, Recorder, Settings, clock, embedded};
use crate::mesh::ids::Name;
use crate::mesh::memo::MemoChange;
use crate::mesh::observe::Event;
use crate::mesh::ruling::{self, Ruling};
use crate::policy::status::{PluginStatus, RollbackError};
use crate::policy::{PolicySet, Vacancy};

/// By file, component and configuration: the plugin, if it said its name, and the reason.
pub type KnownRefusals = HashMap<(Option<PathBuf>, Sha, Sha), (Option<Name>, String)>;

pub type Embedded = &'static [(&'static str, &'static [u8])];

/// All plugins. One reload runs at a time; status and configuration never wait for it.
pub struct Plugins {
    folder: Option<PathBuf>,
    embedded: Embedded,
    pub(super) reloader: Mutex<Reloader>,
    building: Arc<Building>,
    memories: Arc<Memories>,
    config: Mutex<BTreeMap<String, PluginConfig>>,
    /// Plugins that were on and that somebody switched on since the last reload: what was refused is tried again.
    pardoned: Mutex<Vec<Name>>,
    rulings: Mutex<Rulings>,
    listing: Mutex<Listing>,
    complaint: Mutex<Option<String>>,
}

/// What a reload remembers for the next one.
pub struct Reloader {
    pub runtime: Arc<Runtime>,
    pub building: Arc<Building>,
    pub repair: Repair,
    pub workers: usize,
    pub events: EventSink,
    pub recorder: Option<Recorder>,
    pub in_force: BTreeMap<Name, Entry>,
    pub memory: super::round::Memory,
    pub memories: Arc<Memories>,
    /// What the round before found to be refused: said once, not each time.
    pub known_refusals: KnownRefusals,
    /// Replaced generations that calls may still use. They are dropped here, not on a data-path worker.
    pub retired: Vec<Loaded>,
    pub probation: Duration,
    pub good: Option<Good>,
    pub bad: Option<Bad>,
    /// For what plugins fail on.
    pub shelf: Option<Arc<Shelf>>,
    /// Nothing was in force before this round.
    pub is_first: bool,
    /// Since the round before.
    pub rolled_back: bool,
    /// Routers without which no call passes, and which are not in force.
    vacant: Vec<Vacant>,
    begun: Begun,
    set: PolicySet,
    unreadable: bool,
}

#[derive(Default)]
struct Listing {
    in_force: Vec<Entry>,
    others: Vec<PluginStatus>,
    /// Routers that must agree and are not in force; something else of that name may be.
    vacant: Vec<Name>,
}

impl Plugins {
    /// Nothing is in force before the first reload.
    ///
    /// # Errors
    /// This machine cannot run WebAssembly, or has no thread to give.
    pub fn new(settings: Settings, events: EventSink) -> Result<Self, EngineError> {
        Self::with_embedded(settings, events, embedded::EMBEDDED)
    }

    pub(super) fn with_embedded(
        settings: Settings,
        events: EventSink,
        embedded: Embedded,
    ) -> Result<Self, EngineError> {
        let cache = settings.data.as_deref().and_then(|data| {
            let opened = Cache::open(data, cache::BYTES_MAX);
            opened
                .inspect_err(|error| tracing::warn!(error = %super::compiler::words(error), "plugins are compiled at each start"))
                .ok()
        });
        let good = settings.data.as_deref().and_then(|data| {
            let opened = Good::open(data);
            opened
                .inspect_err(|error| tracing::warn!(%error, "good builds are not kept for the next start"))
                .ok()
        });
        let bad = settings.data.as_deref().and_then(|data| {
            let opened = Bad::open(data);
            opened
                .inspect_err(
                    |error| tracing::warn!(%error, "rolled-back builds are tried again at the next start"),
                )
                .ok()
        });
        let mut memory = super::round::Memory::default();
        for (name, build) in bad.iter().flat_map(Bad::all) {
            memory.forbid(&name, build.component, build.config, build.reason);
        }
        let shelf = settings.data.as_deref().and_then(|data| {
            let opened = Shelf::open(data);
            opened.inspect_err(|error| tracing::warn!(%error, "what plugins fail on is not kept")).ok()
        });
        let mut rulings = Rulings::default();
        settings.rulings.into_iter().for_each(|ruling| rulings.add(ruling));
        let vacant = vacant::at_first(Terms { config: &settings.config, rulings: &rulings });
        let memories = Arc::new(Memories::restored(settings.memories, (clock::now(), clock::wall())));
        let runtime = Arc::new(Runtime::new(Purpose::Serving, settings.compiler, cache)?);
        let building = Arc::new(Building::new(Arc::clone(&runtime), settings.built));
        let mut reloader = Reloader {
            runtime,
            building: Arc::clone(&building),
            repair: Repair::start().map_err(EngineError::Thread)?,
            workers: settings.workers,
            events,
            recorder: settings.recorder,
            in_force: BTreeMap::new(),
            memory,
            memories: Arc::clone(&memories),
            known_refusals: KnownRefusals::new(),
            retired: Vec::new(),
            probation: settings.probation,
            rolled_back: false,
            good,
            bad,
            shelf: shelf.map(Arc::new),
            is_first: true,
            vacant,
            begun: Begun::default(),
            set: PolicySet::default(),
            unreadable: false,
        };
        reloader.set = reloader.policy_set(&ranking(&reloader.in_force, &reloader.vacant));
        Ok(Self {
            folder: settings.folder,
            embedded,
            reloader: Mutex::new(reloader),
            building,
            memories,
            config: Mutex::new(settings.config),
            pardoned: Mutex::default(),
            rulings: Mutex::new(rulings),
            listing: Mutex::default(),
            complaint: Mutex::default(),
        })
    }

    /// Looks at the folder, the embedded plugins and the configuration, and brings into force what is new and good.
    /// Answers the set in force and whether it changed. What is new is compiled beside this, and waited for at most
    /// `patience`; what is not done by then comes into force with a reload after [`Settings::built`] was called. May
    /// take seconds: never on a worker.
    pub fn reload(&self, patience: Duration) -> (PolicySet, bool) {
        let mut reloader = lock(&self.reloader);
        let found = match self.folder.as_deref().map_or_else(|| Ok(Vec::new()), folder::look) {
            Ok(found) => found,
            Err(error) => {
                if !reloader.unreadable {
                    tracing::warn!(folder = ?self.folder, %error, "plugins folder unreadable, nothing is changed");
                }
                reloader.unreadable = true;
                // Until it is read, those without which no call passes are missing.
                return (reloader.set.clone(), reloader.is_first && !reloader.vacant.is_empty());
            }
        };
        reloader.unreadable = false;
        self.complain();
        for name in std::mem::take(&mut *lock(&self.pardoned)) {
            reloader.pardon(&name);
            let files = reloader.memory.pardon_files(&name, &found);
            let is_pardoned = |file: &Option<PathBuf>| file.as_ref().is_some_and(|file| files.contains(file));
            reloader.known_refusals.retain(|(file, ..), _| !is_pardoned(file));
        }
        let (config, rulings) = (lock(&self.config).clone(), lock(&self.rulings).clone());
        let candidates: Vec<Candidate> = found
            .into_iter()
            .map(Candidate::file)
            .chain(self.embedded.iter().map(|(name, bytes)| Candidate::embedded(name, bytes)))
            .collect();
        reloader.end_probations();
        let terms = Terms { config: &config, rulings: &rulings };
        let mut outcome = Round::run(&mut reloader, terms, candidates, patience);
        let vacant = vacant::find(terms, &outcome.in_force, &mut outcome.others);
        let changed = reloader.bring_into_force(outcome.in_force, vacant, terms);
        reloader.known_refusals = outcome.refusals;
        reloader.begun = outcome.begun;
        let names = reloader.in_force.keys().map(Name::as_str);
        let names = names.chain(outcome.others.iter().map(|other| other.name.as_str()));
        self.memories.seen(names, clock::wall());
        reloader.is_first = false;
        *lock(&self.listing) = Listing {
            in_force: reloader.in_force.values().cloned().collect(),
            others: outcome.others,
            vacant: reloader.vacant.iter().map(|vacant| vacant.name.clone()).collect(),
        };
        (reloader.set.clone(), changed)
    }

    /// One entry for each plugin in force and for each file or embedded plugin that is not, sorted by name.
    pub fn status(&self) -> Vec<PluginStatus> {
        let listing = lock(&self.listing);
        let in_force = listing.in_force.iter().map(|entry| {
            let stops_calls = listing.vacant.contains(&entry.loaded.plugin.source.name);
            PluginStatus { stops_calls, ..entry.status() }
        });
        let mut all: Vec<PluginStatus> = in_force.chain(listing.others.iter().cloned()).collect();
        drop(listing);
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.state.as_str().cmp(b.state.as_str())));
        all
    }

    /// The set in force.
    pub fn policies(&self) -> PolicySet {
        lock(&self.reloader).set.clone()
    }

    /// What the last reload found and had compiled.
    pub fn begun(&self) -> Begun {
        lock(&self.reloader).begun.clone()
    }

    /// Whether all of that was compiled, and looked at by a reload.
    pub fn has_built(&self, begun: &Begun) -> bool {
        self.building.has_built(begun)
    }

    /// What is wrong with the folder, for people.
    pub fn complaint(&self) -> Option<String> {
        lock(&self.complaint).clone()
    }

    fn complain(&self) {
        let complaint = self.folder.as_deref().and_then(folder::complaint);
        let before = std::mem::replace(&mut *lock(&self.complaint), complaint.clone());
        if let Some(complaint) = complaint.filter(|complaint| before.as_ref() != Some(complaint)) {
            tracing::warn!("{complaint}");
        }
    }

    /// Whether the next reload will end a probation.
    pub fn has_probation_to_end(&self) -> bool {
        probation::is_any_over(lock(&self.listing).in_force.iter())
    }

    /// Has plugins rest that do not keep their latency budgets.
    pub fn judge_pace(&self) {
        let listing = lock(&self.listing);
        listing.in_force.iter().filter_map(|entry| entry.loaded.hot()).for_each(Hot::judge_pace);
    }

    /// Puts the build before the one in force back; it counts from the next reload on. Waits for a reload that is
    /// under way: never on a worker.
    ///
    /// # Errors
    /// No plugin of that name is in force, or none was before it lately.
    pub fn roll_back(&self, name: &str) -> Result<(), RollbackError> {
        let name = Name::new(name).map_err(|_| RollbackError::Unknown)?;
        lock(&self.reloader).roll_back(&name, "somebody asked for it")
    }

    /// Counts from the next reload on. Switching on what is on already has what was refused tried again.
    pub fn rule(&self, ruling: Ruling) {
        let config = lock(&self.config).clone();
        let mut rulings = lock(&self.rulings);
        if let Ruling::Switched { plugin, enabled: true } = &ruling
            && (Terms { config: &config, rulings: &rulings }).disabled_by(plugin).is_none()
        {
            lock(&self.pardoned).push(plugin.clone());
        }
        rulings.add(ruling);
    }

    /// What plugins remember and nobody has written down yet; it counts as written until [`Self::put_back`].
    pub fn unsaved(&self) -> Vec<MemoChange> {
        self.memories.unsaved((clock::now(), clock::wall()))
    }

    /// What could not be written down.
    pub fn put_back(&self, changes: &[MemoChange]) {
        self.memories.put_back(changes);
    }

    /// Counts from the next reload on.
    pub fn set_config(&self, config: BTreeMap<String, PluginConfig>) {
        *lock(&self.config) = config;
    }
}

impl Reloader {
    fn bring_into_force(
        &mut self,
        next: BTreeMap<Name, Entry>,
        vacant: Vec<Vacant>,
        terms: Terms<'_>,
    ) -> bool {
        for (name, old) in &self.in_force {
            let replaced = next.get(name).is_none_or(|new| new.generation() != old.generation());
            if replaced {
                self.retired.push(old.loaded.clone());
            }
            if !next.contains_key(name) {
                self.say_gone(name, old, terms);
            }
        }
        let before = ranking(&self.in_force, &self.vacant);
        let after = ranking(&next, &vacant);
        for new in vacant.iter().filter(|new| !self.vacant.contains(new)) {
            tracing::error!(plugin = %new.name, reason = %new.reason, "no call passes");
        }
        let changed = std::mem::take(&mut self.rolled_back)
            || self.vacant != vacant
            || before
                .iter()
                .map(|(_, name, generation)| (name, generation))
                .ne(after.iter().map(|(_, name, generation)| (name, generation)));
        (self.in_force, self.vacant) = (next, vacant);
        if changed {
            self.set = self.policy_set(&after);
        }
        // The clones in the listing are replaced after this, so what retires now is dropped next time at the earliest.
        self.retired.retain(Loaded::in_use);
        changed
    }

    fn say_gone(&self, name: &Name, old: &Entry, terms: Terms<'_>) {
        let version = &old.loaded.plugin.source.version;
        let lost = ruling::list(&terms.lacks(old));
        let detail = if let Some(reason) = terms.disabled_by(name) {
            tracing::info!(plugin = %name, %version, reason, "plugin disabled");
            format!("plugin `{name}` {version} is disabled: {reason}")
        } else if lost.is_empty() {
            tracing::info!(plugin = %name, %version, "plugin removed");
            format!("plugin `{name}` was removed")
        } else {
            tracing::info!(plugin = %name, %version, grants = %lost, "plugin out of force, as a grant was taken from it");
            format!("plugin `{name}` {version} is out of force: {lost} was taken from it")
        };
        self.announce("plugin_removed", detail);
    }

    fn policy_set(&self, ranking: &[(i32, Name, u64)]) -> PolicySet {
        let mut set = PolicySet::default();
        for (_, name, _) in ranking {
            if let Some(vacant) = self.vacant.iter().find(|vacant| vacant.name == *name) {
                set.routers.push(Arc::new(Vacancy::new(name.clone(), &vacant.reason)));
                continue;
            }
            let loaded = &self.in_force[name].loaded;
            set.routers.extend(loaded.policy_router());
            set.balancers.extend(loaded.balancers());
            set.planned.extend(loaded.planned.clone());
            set.alerters.extend(loaded.alerter.clone());
            set.meters.extend(loaded.meter.clone());
        }
        set
    }

    pub fn announce(&self, kind: &'static str, detail: String) {
        (self.events)(Event { at: clock::wall(), kind, service: None, instance: None, detail });
    }
}

/// In the order in which plugins are asked.
fn ranking(entries: &BTreeMap<Name, Entry>, vacant: &[Vacant]) -> Vec<(i32, Name, u64)> {
    let vacant = vacant.iter().map(|vacant| (vacant.order, vacant.name.clone(), 0));
    let in_force = entries.iter().map(|(name, entry)| (entry.order, name.clone(), entry.generation()));
    let mut ranking: Vec<_> = in_force.chain(vacant).collect();
    ranking.sort();
    ranking
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in a round leaves the values of the round before, which are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
