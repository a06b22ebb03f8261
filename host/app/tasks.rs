//! The tasks that keep plugins as the folder says, and plans as planners say.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::Config;
use crate::plugin::{Begun, Plugins};
use crate::process::{Launcher, Ledger};
use crate::registry::Registry;
use crate::watch::Watcher;

/// How long the folder must have been quiet before it is read: a file that is being copied makes many events.
const QUIET: Duration = Duration::from_millis(100);
/// Distance of looks at what balancers are told.
const PLAN_EVERY: Duration = Duration::from_millis(250);
/// The folder is read this often even if nothing is said to have changed.
const RESCAN: Duration = Duration::from_secs(30);

/// Distance of looks at builds that are on probation, and at how quick plugins are.
const PROBATION_EVERY: Duration = Duration::from_millis(250);

/// Requests to look at once that may wait for the look before.
pub(super) const ASKED: usize = 16;

/// How long a look waits for what it finds to be compiled. What takes longer comes into force when it is done.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long who asks waits for what is compiled.
const BUILD_PATIENCE: Duration = Duration::from_secs(10);

/// For those who must have the plugins looked at now.
#[derive(Clone)]
pub(super) struct Look(mpsc::Sender<Asked>);

struct Asked {
    done: oneshot::Sender<()>,
    /// Told earlier when what the look found is compiled.
    at_latest: Instant,
}

/// Who waits for what was begun.
struct Waiting {
    asked: Asked,
    begun: Begun,
}

impl Look {
    /// Comes back when plugins were looked at. What is new may be being compiled then.
    pub(super) async fn now(&self) {
        self.within(Duration::ZERO).await;
    }

    /// Comes back when what is new was compiled and looked at, or that takes long.
    pub(super) async fn and_build(&self) {
        self.within(BUILD_PATIENCE).await;
    }

    async fn within(&self, patience: Duration) {
        let (done, looked) = oneshot::channel();
        // Neither fails but at the end of the process, and what was decided holds at the next start.
        if self.0.send(Asked { done, at_latest: Instant::now() + patience }).await.is_ok() {
            looked.await.ok();
        }
    }
}

/// Begins to start programs, behind the end of what the last run left. The thread lives as long as the process does.
pub(super) fn launch_programs(folder: &Path) -> anyhow::Result<Launcher> {
    let ledger = Ledger::open(folder).context("cannot open the list of children in the data folder")?;
    let (launcher, launching) = Launcher::new(ledger);
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(move || launching.run())
        .context("cannot start the thread that starts programs")?;
    Ok(launcher)
}

/// Brings the plugins into force, then keeps them as the folder says and whenever they are asked to be looked at. The
/// watcher ends with what is returned; without one (some file systems have none) the folder is still read every 30 s.
pub(super) async fn reload_plugins(
    config: &Config,
    plugins: &Arc<Plugins>,
    built: Arc<Notify>,
    registry: &Registry,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<(Option<Watcher>, Look)> {
    let wake = Arc::new(Notify::new());
    let woken = Arc::clone(&wake);
    let watcher = match Watcher::start(&config.plugins_dir, move || woken.notify_one()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(error = %error, "cannot watch the plugins folder, reading it every 30 s");
            None
        }
    };
    // Whatever becomes of the first look, no call passes without a router that must agree.
    registry.publish_policies(Arc::new(plugins.policies())).await;
    reload(plugins, registry, PATIENCE).await;
    let (plugins, registry, stop) = (Arc::clone(plugins), registry.clone(), stop.clone());
    let (ask, mut asked) = mpsc::channel::<Asked>(ASKED);
    tracker.spawn(async move {
        let mut rescans = tokio::time::interval(RESCAN);
        let mut probations = tokio::time::interval(PROBATION_EVERY);
        probations.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        rescans.reset();
        let mut waiting: Vec<Waiting> = Vec::new();
        loop {
            let mut new = None;
            let looks = tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => {
                    settle(&wake).await;
                    true
                }
                () = built.notified() => true,
                Some(asked) = asked.recv(), if waiting.len() < ASKED => {
                    new = Some(asked);
                    true
                }
                _ = rescans.tick() => true,
                _ = probations.tick() => {
                    plugins.judge_pace();
                    plugins.has_probation_to_end()
                }
            };
            if looks {
                reload(&plugins, &registry, PATIENCE).await;
            }
            waiting.extend(new.map(|asked| Waiting { asked, begun: plugins.begun() }));
            let now = Instant::now();
            let is_over = |one: &mut Waiting| one.asked.at_latest <= now || plugins.has_built(&one.begun);
            for over in waiting.extract_if(.., is_over) {
                // Who asked may have gone away meanwhile.
                over.asked.done.send(()).ok();
            }
        }
    });
    Ok((watcher, Look(ask)))
}

/// Has planners plan for all pools, whenever these change and a few times a second.
pub(super) fn keep_plans(registry: &Registry, tracker: &TaskTracker, stop: &CancellationToken) {
    let (registry, stop) = (registry.clone(), stop.clone());
    tracker.spawn(async move {
        let mut generations = registry.generations();
        let mut ticks = tokio::time::interval(PLAN_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Ok(()) = generations.changed() => {}
            }
            let snapshot = registry.snapshot();
            if snapshot.policies.planned.is_empty() {
                continue;
            }
            let planning = tokio::task::spawn_blocking(move || {
                for planned in &snapshot.policies.planned {
                    planned.refresh(snapshot.services().iter().map(|service| &service.pool), clock::mono());
                }
            });
            if let Err(error) = planning.await {
                tracing::error!(error = %error, "planning panicked, the native balancer takes over");
            }
        }
    });
}

/// Waits until nothing was said for a moment, at most five moments.
pub(super) async fn settle(wake: &Notify) {
    for _ in 0..5 {
        if tokio::time::timeout(QUIET, wake.notified()).await.is_err() {
            return;
        }
    }
}

async fn reload(plugins: &Arc<Plugins>, registry: &Registry, patience: Duration) {
    let loading = Arc::clone(plugins);
    match tokio::task::spawn_blocking(move || loading.reload(patience)).await {
        Ok((policies, true)) => registry.publish_policies(Arc::new(policies)).await,
        Ok((_, false)) => {}
        Err(error) => tracing::error!(error = %error, "plugin reload panicked, the plugins in force stay"),
    }
}
