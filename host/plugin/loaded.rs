//! One generation of a plugin: what its instances have in common, and the policies it is asked through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::background::{Background, WasmAlerter, WasmMeter, WasmPlanner};
use super::capsules::Capsules;
use super::fault::{Fault, Health};
use super::host_state::Shared;
use super::hot::{Hot, WasmBalancer};
use super::instance::{Class, Compiled, Instance};
use super::load::{Budget, Build, LoadError};
use super::repair::Repair;
use super::router::WasmRouter;
use super::settings::{Configuration, Origin};
use super::stats::{self, Stats, Times};
use crate::mesh::allowance::Allowance;
use crate::mesh::observe::Panel;
use crate::policy::status::BudgetStatus;
use crate::policy::{Alerter, Balancer, Meter, Planned, Router, Source};

/// What every instance of a generation is made from.
pub struct Plugin {
    pub source: Arc<Source>,
    pub health: Health,
    pub refuses_on_fault: AtomicBool,
    /// Whether it is on probation.
    pub is_tried: AtomicBool,
    /// Whether it is, and the build before is still there.
    pub gives_way: AtomicBool,
    /// Whether its answers seem to take longer than it has.
    pub is_watched: AtomicBool,
    pub capsules: Capsules,
    /// Microseconds within which 99 of 100 calls are answered.
    pub budget: Budget,
    allowance: Allowance,
    compiled: Arc<Compiled>,
    shared: Arc<Shared>,
    config_json: String,
    written_json: Option<String>,
}

impl Plugin {
    pub fn new(
        source: Arc<Source>,
        health: Health,
        build: &Build,
        shared: Arc<Shared>,
        (configuration, allowance): (&Configuration, Allowance),
        capsules: Capsules,
    ) -> Self {
        let compiled = Arc::clone(&build.compiled);
        Self {
            source,
            health,
            refuses_on_fault: AtomicBool::new(false),
            is_tried: AtomicBool::new(false),
            gives_way: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            capsules,
            budget: build.budgets.within(&allowance),
            allowance,
            compiled,
            shared,
            config_json: configuration.json.clone(),
            written_json: configuration.written_json.clone(),
        }
    }

    /// Whether the processor time of answers is of interest.
    pub fn is_clocked(&self) -> bool {
        self.is_tried.load(Ordering::Relaxed) || self.is_watched.load(Ordering::Relaxed)
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.compiled.indices.kinds()
    }

    /// Its configuration as somebody may read it who must not know what was filled in.
    pub fn config_for_people(&self) -> &str {
        self.written_json.as_ref().unwrap_or(&self.config_json)
    }

    pub fn configuration(&self) -> Configuration {
        let (json, written_json) = (self.config_json.clone(), self.written_json.clone());
        Configuration { json, written_json, origin: Origin::Nowhere }
    }

    /// A fresh instance, configured, that shares no memory with the others: what it does leaves no trace.
    ///
    /// # Errors
    /// Any fault; nothing has been accounted for.
    pub fn apart(&self, class: Class) -> Result<Box<Instance>, Fault> {
        self.instance_with(class, Shared::new(self.source.name.as_str()))
    }

    /// A fresh instance, configured.
    ///
    /// # Errors
    /// Any fault; nothing has been accounted for.
    pub fn instance(&self, class: Class) -> Result<Box<Instance>, Fault> {
        self.instance_with(class, Arc::clone(&self.shared))
    }

    fn instance_with(&self, class: Class, shared: Arc<Shared>) -> Result<Box<Instance>, Fault> {
        let mut instance = Box::new(self.compiled.instantiate(class, &self.allowance, shared)?);
        instance.configure(&self.config_json)?.map_err(|_| Fault::Configuration)?;
        Ok(instance)
    }
}

/// A generation in force.
#[derive(Clone)]
pub struct Loaded {
    pub plugin: Arc<Plugin>,
    pub kinds: Vec<&'static str>,
    pub panels: Vec<Panel>,
    router: Option<Arc<WasmRouter>>,
    pub balancer: Option<Arc<dyn Balancer>>,
    pub planned: Option<Arc<Planned>>,
    pub alerter: Option<Arc<dyn Alerter>>,
    pub meter: Option<Arc<dyn Meter>>,
    hot: Option<Arc<Hot>>,
    background: Option<Arc<Background>>,
}

/// Of the calls that a generation answered or failed.
pub struct Figures {
    pub calls: u64,
    /// Of these, how many were timed, and what they took together.
    pub timed: u64,
    pub took: Duration,
    /// The 99th percentile of their latency in microseconds.
    pub p99_us: f64,
}

impl Loaded {
    /// Makes and configures all instances of `plugin`.
    ///
    /// # Errors
    /// What the plugin does not like about its configuration, or the fault that ended an instance.
    pub fn warm(plugin: Plugin, workers: usize, repair: &Repair) -> Result<Self, LoadError> {
        let kinds = plugin.compiled.indices.kinds();
        let is = |kind: &str| kinds.contains(&kind);
        let plugin = Arc::new(plugin);
        let hot = if is("router") || is("balancer") {
            let first = configured(&plugin, Class::Hot)?;
            let hot = Hot::warm(Arc::clone(&plugin), first, workers.max(1), repair.clone());
            Some(hot.map_err(LoadError::during("its preparation"))?)
        } else {
            None
        };
        let background = if is("planner") || is("alerter") || is("meter") {
            let first = configured(&plugin, Class::Background)?;
            let background = Background::warm(Arc::clone(&plugin), first);
            Some(background.map_err(LoadError::during("its preparation"))?)
        } else {
            None
        };
        let router = hot.clone().filter(|_| is("router")).map(|hot| Arc::new(WasmRouter::new(hot)));
        let balancer = hot
            .clone()
            .filter(|_| is("balancer"))
            .map(|hot| Arc::new(WasmBalancer(hot)) as Arc<dyn Balancer>);
        let planned = background
            .clone()
            .filter(|_| is("planner"))
            .map(|background| Planned::new(Arc::new(WasmPlanner(background))));
        let alerter = background
            .clone()
            .filter(|_| is("alerter"))
            .map(|background| Arc::new(WasmAlerter(background)) as Arc<dyn Alerter>);
        let meter = background
            .clone()
            .filter(|_| is("meter"))
            .map(|background| Arc::new(WasmMeter(background)) as Arc<dyn Meter>);
        let panels = meter.as_ref().map_or_else(Vec::new, |meter| meter.describe().panels.clone());
        Ok(Self { plugin, kinds, panels, router, balancer, planned, alerter, meter, hot, background })
    }

    pub fn figures(&self) -> Figures {
        let times = Times::of(self.stats());
        Figures {
            calls: stats::calls(self.stats()),
            timed: times.count(),
            took: stats::took(self.stats()),
            p99_us: times.p99_us(),
        }
    }

    fn stats(&self) -> impl Iterator<Item = &Stats> {
        let hot = self.hot.iter().flat_map(|hot| hot.stats());
        hot.chain(self.background.iter().map(|background| background.stats()))
    }

    /// What answers its calls, if any wait for it.
    pub fn hot(&self) -> Option<&Hot> {
        self.hot.as_deref()
    }

    /// Microseconds for 99 of 100 answers, of what it is asked.
    pub fn budget(&self) -> BudgetStatus {
        let of = |kind, budget_us| self.kinds.contains(&kind).then_some(budget_us);
        let Budget { route_us, pick_us } = self.plugin.budget;
        BudgetStatus { route_us: of("router", route_us), pick_us: of("balancer", pick_us) }
    }

    pub fn policy_router(&self) -> Option<Arc<dyn Router>> {
        self.router.clone().map(|router| router as Arc<dyn Router>)
    }

    /// Calls that followed an earlier decision or a plan, so that the plugin was not asked.
    pub fn reused(&self) -> u64 {
        let decisions = self.router.as_ref().map_or(0, |router| router.reused());
        decisions + self.planned.as_ref().map_or(0, |planned| planned.followed())
    }

    /// All that picks instances; a plan is followed before anything is asked.
    pub fn balancers(&self) -> impl Iterator<Item = Arc<dyn Balancer>> {
        let planned = self.planned.clone().map(|planned| planned as Arc<dyn Balancer>);
        planned.into_iter().chain(self.balancer.clone())
    }

    pub fn memory_bytes(&self) -> usize {
        let hot = self.hot.as_ref().map_or(0, |hot| hot.memory_bytes());
        hot + self.background.as_ref().map_or(0, |background| background.memory_bytes())
    }

    /// Names of what it measures.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        let meter = self.meter.iter();
        meter.flat_map(|meter| meter.describe().metrics.iter().map(|metric| metric.name.as_str()))
    }

    /// Whether anything but this value still uses the generation.
    pub fn in_use(&self) -> bool {
        fn used<T: ?Sized>(policy: Option<&Arc<T>>) -> bool {
            policy.is_some_and(|policy| Arc::strong_count(policy) > 1)
        }
        used(self.router.as_ref())
            || used(self.balancer.as_ref())
            || used(self.planned.as_ref())
            || used(self.alerter.as_ref())
            || used(self.meter.as_ref())
    }
}

/// The first instance of its class: here a configuration that is not accepted gets its reasons.
fn configured(plugin: &Plugin, class: Class) -> Result<Box<Instance>, LoadError> {
    let instance = plugin.compiled.instantiate(class, &plugin.allowance, Arc::clone(&plugin.shared));
    let mut instance = Box::new(instance.map_err(LoadError::during("its start"))?);
    let configured = instance.configure(&plugin.config_json).map_err(LoadError::during("`configure`"))?;
    configured.map_err(|issues| LoadError::Configuration(issues.into()))?;
    if instance.is_worn() {
        let (bytes, bytes_max) = (instance.memory_bytes(), instance.memory_bytes_max());
        return Err(LoadError::Memory { bytes, bytes_max });
    }
    Ok(instance)
}
