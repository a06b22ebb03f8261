//! Plugins outside of a proxy: what tools for authors load, ask and measure.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::capsules::Capsules;
use super::compiler::Compiler;
use super::engine::{EngineError, Purpose, Runtime};
use super::fault::{Fault, Health};
use super::folder::{self, Content};
use super::host_state::Shared;
use super::hot::NO_SUCH_SLOT;
use super::inspect::inspect;
use super::instance::{Class, Instance, sensible};
use super::load::{self, Budgets, Build, LoadError};
use super::loaded::{Loaded, Plugin};
use super::repair::Repair;
use super::settings::Configuration;
use crate::mesh::allowance::Allowance;
use crate::mesh::ids::{Name, Slot};
use crate::mesh::observe::{Event, Finished, Firing, MeterDescription, Point, Sample, Want};
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Catalog, Member, Pool};
use crate::mesh::ruling::Grant;
use crate::mesh::time::Wall;
use crate::mesh::verdict::{CallFacts, Decision};
use crate::policy::status::BudgetStatus;
use crate::policy::{Ask, PolicySet, Source};

/// The component in a file, read as from the plugins folder.
///
/// # Errors
/// It cannot be read, or somebody is writing it.
pub fn read_component(path: &Path) -> Result<Vec<u8>, LoadError> {
    match folder::content(path) {
        Content::Whole { bytes, .. } => Ok(bytes),
        Content::Failed(kind) => Err(LoadError::Unreadable(kind)),
        Content::Moving => Err(LoadError::Truncated),
    }
}

/// The configuration of a component: that in `given`, or else in the `NAME.toml` beside it, or else none.
///
/// # Errors
/// The file is not there, or has no object in it.
pub fn read_config(component: &Path, given: Option<&Path>) -> Result<Configuration, LoadError> {
    let found = match given {
        None => folder::config_beside(component),
        Some(path) => Some(folder::config_at(path).ok_or_else(|| LoadError::ConfigurationFile {
            file: path.display().to_string(),
            reason: "there is no such file".into(),
        })?),
    };
    found.map_or_else(|| Ok(Configuration::default()), |found| found.configuration)
}

/// A configuration as plugins get it.
///
/// # Errors
/// A value that JSON does not have.
pub fn config_json(table: toml::Table) -> Result<String, String> {
    folder::table_to_json(table)
}

/// An engine of its own, with the linker and the limits of a proxy.
pub struct Workbench {
    runtime: Runtime,
    repair: Repair,
}

/// A component that a proxy would take, apart from its configuration.
pub struct Component {
    pub imports: Vec<String>,
    pub kinds: Vec<&'static str>,
    pub size_bytes: usize,
    pub compile_time: Duration,
    sha256: [u8; 32],
    build: Build,
}

impl Component {
    pub fn name(&self) -> &Name {
        &self.build.name
    }

    pub fn version(&self) -> &str {
        &self.build.version
    }

    pub fn summary(&self) -> &str {
        &self.build.summary
    }

    pub fn budgets(&self) -> Budgets {
        self.build.budgets
    }

    /// In hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex::encode(self.sha256)
    }

    /// What it asks for, and is taken as given here.
    pub fn grants(&self) -> &[Grant] {
        &self.build.grants
    }

    pub fn has_config_schema(&self) -> bool {
        self.build.config_schema.is_some()
    }

    fn class(&self) -> Class {
        // A component of both classes is asked about calls, too, and has to live with less memory.
        let hot = self.kinds.iter().any(|kind| !matches!(*kind, "planner" | "alerter" | "meter"));
        if hot { Class::Hot } else { Class::Background }
    }

    /// A fresh instance with a memory of its own.
    ///
    /// # Errors
    /// Its start failed, or it does not accept the configuration.
    pub fn instance(&self, config_json: &str) -> Result<Subject, LoadError> {
        let shared = Shared::new(self.build.name.as_str());
        let instance = self.build.compiled.instantiate(self.class(), &Allowance::default(), shared);
        let mut instance = instance.map_err(LoadError::during("its start"))?;
        let configured = instance.configure(config_json).map_err(LoadError::during("`configure`"))?;
        configured.map_err(|issues| LoadError::Configuration(issues.into()))?;
        let is = |kind: &str| self.kinds.contains(&kind);
        let (plans, picks) = (is("planner"), is("balancer"));
        Ok(Subject { instance: Box::new(instance), pool_told: None, plans, picks })
    }
}

/// What a proxy with one worker would have.
pub struct InForce {
    pub policies: PolicySet,
    pub memory_bytes: usize,
    pub budget: BudgetStatus,
}

impl Workbench {
    /// # Errors
    /// This machine cannot run WebAssembly, or has no thread to give.
    pub fn new() -> Result<Self, EngineError> {
        Self::with(Purpose::Serving, Compiler::own())
    }

    /// One that compiles in this process, for programs that are not `meshwright`.
    ///
    /// # Errors
    /// This machine cannot run WebAssembly, or has no thread to give.
    pub fn in_process() -> Result<Self, EngineError> {
        Self::with(Purpose::Serving, Compiler::InProcess)
    }

    /// One that counts instructions.
    ///
    /// # Errors
    /// This machine cannot run WebAssembly, or has no thread to give.
    pub fn counting() -> Result<Self, EngineError> {
        Self::with(Purpose::Counting, Compiler::own())
    }

    fn with(purpose: Purpose, compiler: Compiler) -> Result<Self, EngineError> {
        let runtime = Runtime::new(purpose, compiler, None)?;
        Ok(Self { runtime, repair: Repair::start().map_err(EngineError::Thread)? })
    }

    /// All that the loader does before a configuration comes into it. `label` stands in log lines of the plugin.
    ///
    /// # Errors
    /// What keeps a proxy from taking the component.
    pub fn load(&self, label: &str, file: &[u8]) -> Result<Component, LoadError> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let build = load::build(&self.runtime, label, file, threads)?;
        let (kinds, compile_time) = (build.compiled.indices.kinds(), build.made.took);
        Ok(Component {
            imports: inspect(file)?,
            kinds,
            size_bytes: file.len(),
            compile_time,
            sha256: folder::sha256(file),
            build,
        })
    }

    /// Whether a configuration fits the component's `config-schema`, which a proxy asks before the component sees it.
    ///
    /// # Errors
    /// It does not, or the schema is none.
    pub fn fits(&self, component: &Component, config_json: &str) -> Result<(), LoadError> {
        load::check_configuration(&self.runtime, &component.build, config_json)
    }

    /// The rest of it, as for a proxy with one worker.
    ///
    /// # Errors
    /// What keeps a proxy from bringing the component into force with this configuration.
    pub fn bring_into_force(
        &self,
        component: &Component,
        configuration: &Configuration,
    ) -> Result<InForce, LoadError> {
        let placed = |error: LoadError| error.about(&configuration.origin);
        self.fits(component, &configuration.json).map_err(placed)?;
        let name = component.name().clone();
        let version = component.version().to_owned();
        let source =
            Arc::new(Source { name: name.clone(), version, generation: 1, component: component.sha256 });
        let shared = Shared::new(name.as_str());
        let health = Health::new(name, Arc::new(|_| {}), component.build.compiled.reads_arguments);
        let capsules = Capsules::new(None, self.repair.clone());
        let plugin = Plugin::new(
            source,
            health,
            &component.build,
            shared,
            (configuration, Allowance::default()),
            capsules,
        );
        let loaded = Loaded::warm(plugin, 1, &self.repair).map_err(placed)?;
        let (memory_bytes, budget) = (loaded.memory_bytes(), loaded.budget());
        let policies = PolicySet {
            routers: loaded.policy_router().into_iter().collect(),
            balancers: loaded.balancers().collect(),
            planned: loaded.planned.into_iter().collect(),
            alerters: loaded.alerter.into_iter().collect(),
            meters: loaded.meter.into_iter().collect(),
        };
        Ok(InForce { policies, memory_bytes, budget })
    }
}

/// An answer, and the instructions that it took: 0 where they are not counted.
pub type Counted<T> = Result<(T, u64), Fault>;

/// One instance that is asked question by question. After a fault that condemns it must not be asked again.
pub struct Subject {
    instance: Box<Instance>,
    /// The version of the pool that it knows.
    pool_told: Option<u64>,
    plans: bool,
    picks: bool,
}

impl Subject {
    pub fn route(&mut self, call: &CallFacts<'_>, catalog: &Catalog) -> Counted<Decision> {
        self.instance.tell(catalog)?;
        self.counted(|instance| instance.route(call, catalog))
    }

    /// Whether it read some of the arguments of the call that it routed last.
    pub fn has_read_arguments(&self) -> bool {
        self.instance.has_read_arguments()
    }

    /// By the plan of a planner, which is made anew each time; what it leaves to others, a balancer is asked.
    pub fn pick(&mut self, pool: &Arc<Pool>, ask: Ask) -> Counted<Option<u32>> {
        if !self.plans {
            return self.ask(pool, ask);
        }
        let (plan, fuel) = self.compile(pool)?;
        let excluded = |member: &Member| member.slot.0 < 64 && ask.excluded >> member.slot.0 & 1 == 1;
        let slot = plan.and_then(|plan| plan.pick(pool, excluded, ask.affinity, ask.random));
        match slot {
            None if self.picks => self.ask(pool, ask).map(|(slot, more)| (slot, fuel + more)),
            slot => Ok((slot.map(|slot| slot.0), fuel)),
        }
    }

    pub fn compile(&mut self, pool: &Pool) -> Counted<Option<Plan>> {
        self.counted(|instance| instance.compile(pool))
    }

    /// Of a balancer, whether or not it plans as well, as a proxy does.
    ///
    /// # Errors
    /// The fault; a slot that does not exist is one.
    pub fn pick_anew(&mut self, pool: &Arc<Pool>, ask: Ask) -> Result<Option<u32>, Fault> {
        match self.ask(pool, ask)?.0 {
            Some(slot) if pool.member(Slot(slot)).is_none() => Err(Fault::Nonsense(NO_SUCH_SLOT)),
            picked => Ok(picked),
        }
    }

    fn ask(&mut self, pool: &Arc<Pool>, ask: Ask) -> Counted<Option<u32>> {
        if self.pool_told != Some(pool.version) {
            self.instance.push(pool)?;
            self.pool_told = Some(pool.version);
        }
        self.counted(|instance| instance.pick(pool, ask))
    }

    /// Nothing when the component is no alerter.
    ///
    /// # Errors
    /// The fault.
    pub fn wants(&mut self) -> Result<Option<Vec<Want>>, Fault> {
        let wants = self.instance.enter_aside(|guest, store| guest.wants(store))?;
        wants.transpose().map_err(Fault::Nonsense)
    }

    pub fn evaluate(&mut self, now: Wall, samples: &[Sample], events: &[Event]) -> Counted<Vec<Firing>> {
        self.counted(|instance| {
            sensible(instance.enter_aside(|guest, store| guest.evaluate(store, now, samples, events)))
        })
    }

    /// Nothing when the component is no meter.
    ///
    /// # Errors
    /// The fault.
    pub fn describe(&mut self) -> Result<Option<MeterDescription>, Fault> {
        let description = self.instance.enter_aside(|guest, store| guest.describe(store))?;
        description.transpose().map_err(Fault::Nonsense)
    }

    pub fn on_calls(&mut self, calls: &[Finished], dropped: u32) -> Counted<()> {
        self.counted(|instance| instance.enter_aside(|guest, store| guest.on_calls(store, calls, dropped)))
    }

    /// # Errors
    /// The fault.
    pub fn collect(&mut self, now: Wall, description: &MeterDescription) -> Result<Vec<Point>, Fault> {
        sensible(self.instance.enter_aside(|guest, store| guest.collect(store, now, description)))
    }

    fn counted<T>(&mut self, question: impl FnOnce(&mut Instance) -> Result<T, Fault>) -> Counted<T> {
        self.instance.take_fuel();
        let answer = question(&mut self.instance)?;
        Ok((answer, self.instance.take_fuel().unwrap_or(0)))
    }
}
