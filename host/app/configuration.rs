//! Keeps the proxy as its configuration says while it runs: what changed comes into force, a wrong file changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::doors::{self, instance_limits, plugin_config};
use super::tasks::{Look, settle};
use crate::clock;
use crate::config::{Config, ConfigError, Overrides, Reloaded};
use crate::http::Complaint;
use crate::mesh::observe::Event;
use crate::plugin::Plugins;
use crate::registry::{Instance, Reconfigured, Registry, Terms};
use crate::supervisor::Children;
use crate::watch::Watcher;

/// The files are read this often even if nothing is said to have changed.
const RESCAN: Duration = Duration::from_secs(30);
/// The same while a folder cannot be watched, as when it is not there.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(2);
/// Links that lead to one another are followed so far, as the kernel does.
const LINKS_MAX: usize = 40;
/// Distance of looks at calls that are still on their way to an instance that left.
const LOOK: Duration = Duration::from_millis(50);

/// The configuration that is in force, and what is wrong with it or with what came after it.
pub(super) struct Standing(Mutex<State>);

struct State {
    config: Arc<Config>,
    /// What the process was started with: what needs a restart is as it says.
    started: Arc<Config>,
    refused: Vec<Refused>,
}

/// A change that is not in force, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    All(String),
    /// An included file stays as it was.
    File(String),
}

impl Refused {
    const fn what(&self) -> &'static str {
        match self {
            Self::All(_) => "the changed configuration is not in force",
            Self::File(_) => "the changed file is not in force",
        }
    }

    fn why(&self) -> &str {
        let (Self::All(why) | Self::File(why)) = self;
        why
    }
}

impl Standing {
    pub(super) fn new(config: Config) -> Arc<Self> {
        let config = Arc::new(config);
        let started = Arc::clone(&config);
        Arc::new(Self(Mutex::new(State { config, started, refused: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    /// What of the configuration is not in force, and why.
    pub(super) fn complaints(&self) -> Vec<Complaint> {
        let state = self.state();
        let left = state.config.left_out.iter().map(|left| Complaint {
            service: left.service.clone(),
            what: "left out",
            why: left.flaw.in_a_line(),
        });
        let refused = state.refused.iter().map(|refused| Complaint {
            service: None,
            what: refused.what(),
            why: refused.why().to_owned(),
        });
        left.chain(refused).collect()
    }
}

/// Is told why nothing changes, if so.
pub(super) type AskedToRead = oneshot::Sender<Result<(), String>>;

/// Who is told of what changes.
pub(super) struct Reload {
    pub overrides: Overrides,
    pub standing: Arc<Standing>,
    pub registry: Registry,
    pub plugins: Arc<Plugins>,
    pub look: Look,
    /// Who changed a file and waits until it was read.
    pub asked: mpsc::Receiver<AskedToRead>,
    pub children: Children,
    pub events: mpsc::Sender<Event>,
    pub tracker: TaskTracker,
}

impl Reload {
    /// Reads the files whenever they change.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let mut watches = BTreeMap::new();
        let mut rescans = tokio::time::interval(RESCAN);
        rescans.reset();
        loop {
            let all = keep_watching(&mut watches, &self.standing.config(), &wake);
            let mut done = None;
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => settle(&wake).await,
                Some(asked) = self.asked.recv() => done = Some(asked),
                _ = rescans.tick() => {}
                () = tokio::time::sleep(RESCAN_UNWATCHED), if !all => {}
            }
            let looked = self.look_again().await;
            // Who asked may have gone away meanwhile.
            done.map(|done| done.send(looked).ok());
        }
    }

    /// # Errors
    /// Why nothing changes.
    async fn look_again(&self) -> Result<(), String> {
        let current = self.standing.config();
        // A file that is gone is not another one: the next of the places to look in is no change of this one.
        let file = current.file.clone().or_else(|| self.overrides.file.clone());
        let overrides = Overrides { file, ..self.overrides.clone() };
        let read = tokio::task::spawn_blocking(move || {
            let reloaded = current.reloaded(overrides);
            (reloaded, current)
        });
        let (reloaded, current) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(error = %error, "reading the configuration panicked, nothing changes");
                return Err("reading it failed".to_owned());
            }
        };
        let Reloaded { config, held_back } = match reloaded {
            Ok(reloaded) => reloaded,
            Err(error) => {
                let why = in_a_line(&error);
                self.refuse(vec![Refused::All(why.clone())]);
                return Err(why);
            }
        };
        self.refuse(held_back.iter().map(|flaw| Refused::File(flaw.in_a_line())).collect());
        if config != *current {
            self.apply(config).await;
        }
        Ok(())
    }

    /// What is refused now; what is new of it is told.
    fn refuse(&self, refused: Vec<Refused>) {
        let before = std::mem::replace(&mut self.standing.state().refused, refused.clone());
        for fresh in refused.iter().filter(|refused| !before.contains(refused)) {
            tracing::warn!(reason = fresh.why(), "{}", fresh.what());
            self.tell("configuration_refused", format!("{}: {}", fresh.what(), fresh.why()));
        }
    }

    async fn apply(&self, config: Config) {
        let (before, started) = {
            let state = self.standing.state();
            (Arc::clone(&state.config), Arc::clone(&state.started))
        };
        let waiting = started.differences(&config);
        let terms = Terms {
            instances: config.instances.clone(),
            exposures: Arc::new(config.exposures()),
            limits: instance_limits(&config),
        };
        // Fails at the end of the process only.
        let Ok(Reconfigured { joined, left }) = self.registry.configure(terms).await else { return };
        self.children.configure(doors::children(&config)).await;
        if config.plugins != before.plugins {
            self.plugins.set_config(plugin_config(&config));
            self.look.now().await;
        }
        let mut detail = format!("{joined} instances are new, {} left", left.len());
        if !waiting.is_empty() {
            detail.push_str(&format!("; at the next start: {}", waiting.join(", ")));
        }
        for instance in left {
            self.tracker.spawn(end(instance, config.calls.drain));
        }
        tracing::info!(detail, "configuration changed");
        self.tell("configuration_changed", detail);
        self.standing.state().config = Arc::new(config);
    }

    fn tell(&self, kind: &'static str, detail: String) {
        let event = Event { at: clock::wall(), kind, service: None, instance: None, detail };
        if self.events.try_send(event).is_err() {
            tracing::debug!("configuration event dropped");
        }
    }
}

fn in_a_line(error: &ConfigError) -> String {
    match error {
        ConfigError::Wrong(flaws) => {
            let flaws: Vec<String> = flaws.iter().map(|flaw| flaw.in_a_line()).collect();
            flaws.join("; ")
        }
        error => crate::upstream::chain(error),
    }
}

/// What is of interest in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interest {
    names: BTreeSet<OsString>,
    /// Files that are not there yet may be read, too.
    any: bool,
}

impl Interest {
    fn covers(&self, name: &OsStr) -> bool {
        // Volumes of clusters exchange a link of such a name.
        let is_link = name.as_encoded_bytes().starts_with(b"..");
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        self.names.contains(name) || is_link || (self.any && !is_hidden)
    }
}

/// Folders where files of the configuration are, or may appear.
fn interests(config: &Config) -> BTreeMap<PathBuf, Interest> {
    let here =
        |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
    let mut interests = BTreeMap::<_, Interest>::new();
    for file in config.files.iter().flat_map(|file| ways(file)) {
        if let (Some(folder), Some(name)) = (file.parent(), file.file_name()) {
            interests.entry(here(folder)).or_default().names.insert(name.to_owned());
        }
    }
    for folder in &config.folders {
        interests.entry(here(folder)).or_default().any = true;
    }
    interests
}

/// A file, and where links lead that stand in its place, one after the other.
fn ways(file: &Path) -> Vec<PathBuf> {
    // Whatever is no link is the end of the way.
    let next = |link: &PathBuf| Some(link.parent()?.join(std::fs::read_link(link).ok()?));
    std::iter::successors(Some(file.to_owned()), next).take(LINKS_MAX).collect()
}

/// A watch of a folder that was there, and is while its device and number stay.
struct Watch {
    folder: (u64, u64),
    interest: Interest,
    _watcher: Watcher,
}

/// Watches what is of interest now, and nothing else; says whether all of it could be watched.
fn keep_watching(watches: &mut BTreeMap<PathBuf, Watch>, config: &Config, wake: &Arc<Notify>) -> bool {
    let mut interests = interests(config);
    watches.retain(|path, watch| {
        let stays = interests.get(path) == Some(&watch.interest) && number_of(path) == Some(watch.folder);
        if stays {
            interests.remove(path);
        }
        stays
    });
    let mut all = true;
    for (path, interest) in interests {
        let Some(folder) = number_of(&path) else {
            all = false;
            continue;
        };
        let (woken, wanted) = (Arc::clone(wake), interest.clone());
        let watcher = Watcher::start_for(&path, move |name| wanted.covers(name), move || woken.notify_one());
        match watcher {
            Ok(watcher) => {
                watches.insert(path, Watch { folder, interest, _watcher: watcher });
                // What changed before it was watched.
                wake.notify_one();
            }
            Err(error) => {
                tracing::debug!(error = %error, folder = %path.display(), "configuration is not watched, but read every 2 s");
                all = false;
            }
        }
    }
    all
}

/// Device and number of a folder that is there.
fn number_of(folder: &Path) -> Option<(u64, u64)> {
    let about = std::fs::metadata(folder).ok()?;
    Some((about.dev(), about.ino()))
}

/// Ends what an instance that left has running, once the calls that are on their way to it are over.
async fn end(instance: Arc<Instance>, at_most: Duration) {
    let idle = async {
        while instance.core.live.in_flight() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(at_most, idle).await.is_err() {
        tracing::warn!(instance = %instance.name(), "calls did not end in time and are cut");
    }
    instance.peer.stop().await;
}
