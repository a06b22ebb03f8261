//! Keeps the proxy as its configuration says while it runs: what changed comes into force, a wrong file changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::doors::{self, instance_limits, plugin_config};
use super::tasks::{AskedToLook, settle};
use crate::clock;
use crate::config::{Config, ConfigError, LeftOut, Overrides};
use crate::http::Complaint;
use crate::mesh::observe::Event;
use crate::plugin::Plugins;
use crate::registry::{Instance, Reconfigured, Registry, Terms};
use crate::supervisor::Children;
use crate::watch::Watcher;

/// The files are read this often even if nothing is said to have changed.
const RESCAN: Duration = Duration::from_secs(30);
/// Distance of looks at calls that are still on their way to an instance that left.
const LOOK: Duration = Duration::from_millis(50);

/// The configuration that is in force, and what is wrong with it or with what came after it.
pub(super) struct Standing(Mutex<State>);

struct State {
    config: Arc<Config>,
    refused: Option<String>,
}

impl Standing {
    pub(super) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { config: Arc::new(config), refused: None })))
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
        let refused = state.refused.iter().map(|why| Complaint {
            service: None,
            what: "the changed configuration is not in force",
            why: why.clone(),
        });
        left.chain(refused).collect()
    }
}

/// Who is told of what changes.
pub(super) struct Reload {
    pub overrides: Overrides,
    pub standing: Arc<Standing>,
    pub registry: Registry,
    pub plugins: Arc<Plugins>,
    pub look: AskedToLook,
    /// Who changed a file and waits until it was read.
    pub asked: mpsc::Receiver<oneshot::Sender<()>>,
    pub children: Children,
    pub events: mpsc::Sender<Event>,
    pub tracker: TaskTracker,
}

/// What to do about a file that was read again.
enum Step {
    Nothing,
    Refuse(String),
    Apply(Box<Config>),
}

impl Reload {
    /// Reads the files whenever they change.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let mut watched = BTreeSet::new();
        let mut watchers = Vec::new();
        let mut rescans = tokio::time::interval(RESCAN);
        rescans.reset();
        loop {
            for folder in folders(&self.standing.config()) {
                if watched.insert(folder.clone()) {
                    watchers.extend(watch(&folder, &wake));
                }
            }
            let mut done = None;
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => settle(&wake).await,
                Some(asked) = self.asked.recv() => done = Some(asked),
                _ = rescans.tick() => {}
            }
            self.look_again().await;
            // Who asked may have gone away meanwhile.
            done.map(|done| done.send(()).ok());
        }
    }

    async fn look_again(&self) {
        let overrides = self.overrides.clone();
        let loaded = match tokio::task::spawn_blocking(move || Config::load(overrides)).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(error = %error, "reading the configuration panicked, nothing changes");
                return;
            }
        };
        match step(&self.standing.config(), loaded) {
            Step::Nothing => self.standing.state().refused = None,
            Step::Refuse(why) => {
                let before = self.standing.state().refused.replace(why.clone());
                if before.as_ref() != Some(&why) {
                    tracing::warn!(reason = why, "changed configuration refused, nothing changes");
                    self.tell("configuration_refused", why);
                }
            }
            Step::Apply(config) => self.apply(*config).await,
        }
    }

    async fn apply(&self, config: Config) {
        let before = self.standing.config();
        let waiting = before.differences(&config);
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
            let (done, looked) = oneshot::channel();
            // Neither fails but at the end of the process.
            if self.look.send(done).await.is_ok() {
                looked.await.ok();
            }
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
        let mut state = self.standing.state();
        state.config = Arc::new(config);
        state.refused = None;
    }

    fn tell(&self, kind: &'static str, detail: String) {
        let event = Event { at: clock::wall(), kind, service: None, instance: None, detail };
        if self.events.try_send(event).is_err() {
            tracing::debug!("configuration event dropped");
        }
    }
}

fn step(current: &Config, loaded: Result<Config, ConfigError>) -> Step {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(ConfigError::Wrong(flaws)) => {
            let flaws: Vec<String> = flaws.iter().map(|flaw| flaw.in_a_line()).collect();
            return Step::Refuse(flaws.join("; "));
        }
        Err(error) => return Step::Refuse(crate::upstream::chain(&error)),
    };
    let known = |left: &&LeftOut| {
        let same = |other: &LeftOut| other.service == left.service && other.flaw.message == left.flaw.message;
        current.left_out.iter().any(same)
    };
    if let Some(fresh) = loaded.left_out.iter().find(|left| !known(left) && !loaded.is_script(left)) {
        return Step::Refuse(fresh.flaw.in_a_line());
    }
    if loaded == *current { Step::Nothing } else { Step::Apply(Box::new(loaded)) }
}

/// Where files of the configuration are, or may appear.
fn folders(config: &Config) -> BTreeSet<PathBuf> {
    let of_files = config.files.iter().filter_map(|file| file.parent());
    let here =
        |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
    of_files.map(here).chain(config.folders.iter().map(|folder| here(folder))).collect()
}

fn watch(folder: &Path, wake: &Arc<Notify>) -> Option<Watcher> {
    let woken = Arc::clone(wake);
    Watcher::start(folder, move || woken.notify_one())
        .inspect_err(|error| {
            let folder = folder.display();
            tracing::warn!(error = %error, folder = %folder, "cannot watch the configuration, reading it every 30 s");
        })
        .ok()
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
