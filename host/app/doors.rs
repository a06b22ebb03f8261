//! Doors between rooms that do not know one another: what one needs of the other is handed in here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};

use super::configuration::{AskedToRead, Standing};
use super::tasks::Look;
use crate::clock;
use crate::config::{self, ChildConfig, Config, EditError, Overrides};
use crate::http::{
    ConfigFile, Configure, Edit, NotEdited, NotRuled, Pages, RollBack, Rule, Search, SearchFailed, Shown,
};
use crate::mesh::ids::Name;
use crate::mesh::memo::Memories;
use crate::mesh::ruling::Ruling;
use crate::mesh::story::Recording;
use crate::plugin::{self, Plugins};
use crate::policy::status::RollbackError;
use crate::proxy::{MirrorBook, Proxy};
use crate::registry::{InstanceLimits, Registry};
use crate::store::{Change, Store};
use crate::supervisor::Children;
use crate::telemetry::account::Unsaved;
use crate::telemetry::journal::Journal;

pub(super) fn unsaved(plugins: &Arc<Plugins>) -> Unsaved {
    let (taken_from, given_back) = (Arc::clone(plugins), Arc::clone(plugins));
    Unsaved {
        take: Box::new(move || taken_from.unsaved()),
        put_back: Box::new(move |changes| given_back.put_back(changes)),
    }
}

pub(super) fn instance_limits(config: &Config) -> InstanceLimits {
    let own = config.services.iter().filter_map(|(name, service)| Some((name.clone(), service.concurrency?)));
    let hedges = config.services.iter().filter_map(|(name, service)| Some((name.clone(), service.hedge?)));
    InstanceLimits { usual: config.limits.per_instance, of_services: own.collect(), hedges: hedges.collect() }
}

/// The plugins' settings as that room has them.
pub(super) fn plugin_config(config: &Config) -> BTreeMap<String, plugin::PluginConfig> {
    let configured = config.plugins.iter().map(|(name, plugin)| {
        let plugin = plugin::PluginConfig {
            enabled: plugin.enabled,
            order: plugin.order,
            refuse_on_fault: plugin.refuse_on_fault,
            grants: plugin.grants.clone(),
            limits: plugin.limits,
            config_json: plugin.config_json.clone(),
            written_json: plugin.written_json.clone(),
        };
        (name.to_string(), plugin)
    });
    configured.collect()
}

pub(super) fn open_plugins(
    config: &Config,
    memories: Memories,
    rulings: Vec<Ruling>,
    events: mpsc::Sender<crate::mesh::observe::Event>,
    recorder: plugin::Recorder,
    built: plugin::Wake,
) -> anyhow::Result<Plugins> {
    let settings = plugin::Settings {
        folder: Some(config.plugins_dir.clone()),
        workers: config.workers,
        config: plugin_config(config),
        compiler: plugin::Compiler::own(),
        data: Some(config.data_dir.clone()),
        memories,
        rulings,
        recorder: Some(recorder),
        probation: config.plugin_probation,
        built: Some(built),
    };
    let sink = move |event| {
        if events.try_send(event).is_err() {
            tracing::debug!("plugin event dropped");
        }
    };
    std::fs::create_dir_all(&config.plugins_dir)
        .with_context(|| format!("cannot make the plugins folder `{}`", config.plugins_dir.display()))?;
    Ok(Plugins::new(settings, Arc::new(sink))?)
}

/// Has the plugins looked at before it answers.
fn roll_back(plugins: &Arc<Plugins>, look: Look) -> RollBack {
    let plugins = Arc::clone(plugins);
    Arc::new(move |name| {
        let (plugins, look) = (Arc::clone(&plugins), look.clone());
        Box::pin(async move {
            let rolled = tokio::task::spawn_blocking(move || plugins.roll_back(&name)).await;
            rolled.unwrap_or(Err(RollbackError::Unknown))?;
            look.now().await;
            Ok(())
        })
    })
}

/// Changes the configuration file, and has it read before it answers.
pub(super) fn configure(
    overrides: &Overrides,
    standing: &Arc<Standing>,
    ask: mpsc::Sender<AskedToRead>,
) -> Configure {
    let (overrides, standing) = (overrides.clone(), Arc::clone(standing));
    Arc::new(move |edit| {
        let (file, ask) = (standing.config().file.clone(), ask.clone());
        let overrides = Overrides { file: file.or_else(|| overrides.file.clone()), ..overrides.clone() };
        Box::pin(async move {
            let edited = tokio::task::spawn_blocking(move || match edit {
                Edit::Add { name, settings } => config::add_service(&overrides, &name, &settings).map(drop),
                Edit::Remove { name } => config::remove_service(&overrides, &name).map(drop),
                Edit::Nothing => Ok(()),
            });
            let edited = edited.await.map_err(|error| NotEdited::Failed(error.to_string()))?;
            edited.map_err(|error| {
                let why = crate::upstream::chain(&error);
                match error {
                    EditError::Taken { .. } => NotEdited::Taken(why),
                    EditError::NotThere(_) => NotEdited::NotThere(why),
                    EditError::Elsewhere { .. } | EditError::Broken(_) => NotEdited::ByHand(why),
                    EditError::Wrong(_) => NotEdited::Wrong(why),
                    EditError::NoHome | EditError::Write { .. } | EditError::Config(_) => {
                        NotEdited::Failed(why)
                    }
                }
            })?;
            let (done, looked) = oneshot::channel();
            // Neither fails but at the end of the process, and what was written holds at the next start.
            match ask.send(done).await {
                Ok(()) => looked.await.unwrap_or(Ok(())).map_err(NotEdited::NotInForce),
                Err(_) => Ok(()),
            }
        })
    })
}

/// Services that may have processes, and how these are supervised.
pub(super) fn children(config: &Config) -> BTreeMap<Name, ChildConfig> {
    config.services.iter().map(|(name, service)| (name.clone(), service.child.clone())).collect()
}

/// What happened lately, for builds that are about to come into force.
pub(super) fn recorder(journal: &Arc<Journal>, registry: &Registry) -> plugin::Recorder {
    let (journal, registry) = (Arc::clone(journal), registry.clone());
    Arc::new(move || {
        let snapshot = registry.snapshot();
        Recording {
            calls: journal.recorded(plugin::REPLAYED_CALLS_MAX),
            catalog: Arc::clone(&snapshot.catalog),
            pools: snapshot.services().iter().map(|service| Arc::clone(&service.pool)).collect(),
        }
    })
}

#[expect(clippy::too_many_arguments, reason = "one for each room that is shown")]
pub(super) fn pages(
    config: &Config,
    standing: &Arc<Standing>,
    configure: Configure,
    registry: &Registry,
    proxy: &Arc<Proxy>,
    (plugins, look): (&Arc<Plugins>, Look),
    journal: &Arc<Journal>,
    store: &Store,
    children: &Children,
) -> Pages {
    let (rule, roll_back) = (rule(store, plugins, look.clone()), roll_back(plugins, look));
    let plugins = Arc::clone(plugins);
    let persistence = Arc::clone(store.persistence());
    let (searched, standing) = (store.clone(), Arc::clone(standing));
    let in_force = Arc::clone(&standing);
    let config_file: ConfigFile = Arc::new(move || {
        let file = in_force.config().file.clone()?;
        Some(std::path::absolute(&file).unwrap_or(file))
    });
    let search: Search = Arc::new(move |query, limit, admits| {
        let store = searched.clone();
        Box::pin(async move {
            let found = store.find_tools(query, limit, admits).await;
            let found = found.map_err(|error| SearchFailed(error.into()))?;
            Ok(found.into_iter().map(|found| (found.service, found.tool)).collect())
        })
    });
    Pages::new(Shown {
        registry: registry.clone(),
        proxy: Arc::clone(proxy),
        plugins: Arc::new({
            let plugins = Arc::clone(&plugins);
            move || plugins.status()
        }),
        plugins_folder: Arc::new(move || plugins.complaint()),
        rule,
        alerts: Arc::default(),
        readings: Arc::default(),
        mirrors: MirrorBook::default(),
        journal: Arc::clone(journal),
        persistence: Arc::new(move || persistence.degraded()),
        complaints: Arc::new(move || standing.complaints()),
        config_file,
        configure,
        search,
        roll_back,
        children: children.clone(),
        started: clock::wall(),
        started_mono: clock::mono(),
        draining: Arc::new(AtomicBool::new(false)),
        body_bytes_max: config.body_bytes_max,
        lease_ttl: config.lease.ttl,
    })
}

/// Writes down what operators decide, and has the plugins looked at before it answers.
fn rule(store: &Store, plugins: &Arc<Plugins>, look: Look) -> Rule {
    let (store, plugins) = (store.clone(), Arc::clone(plugins));
    Arc::new(move |rulings| {
        let (store, plugins, look) = (store.clone(), Arc::clone(&plugins), look.clone());
        Box::pin(async move {
            let changes = rulings.iter().cloned().map(Change::Ruling).collect();
            store.commit(changes).await.map_err(|error| NotRuled(error.into()))?;
            // What was refused is compiled anew, and the answer says what came of it.
            let compiles =
                rulings.iter().any(|ruling| matches!(ruling, Ruling::Switched { enabled: true, .. }));
            rulings.into_iter().for_each(|ruling| plugins.rule(ruling));
            if compiles {
                look.and_build().await
            } else {
                look.now().await
            }
            Ok(())
        })
    })
}
