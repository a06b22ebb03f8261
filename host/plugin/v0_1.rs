//! `meshwright:plugin@0.1`: the generated bindings, and the only code that sees them. Everything that goes in or
//! comes out is the domain's; what a guest answers is checked here, since a guest may answer anything.

mod answers;
mod imports;
mod plans;

use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};
use wasmtime::{Result, Store};

use self::bindings::exports::meshwright::plugin as exports;
use super::host_state::HostState;
use crate::mesh::observe::{Event, Finished, Firing, MeterDescription, Point, Sample, Want};
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Catalog, Member, Pool};
use crate::mesh::time::Wall;
use crate::mesh::verdict::{CallFacts, Decision};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "everything",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// What this build offers, as `major.minor.patch`; every `0.1.x` fits.
pub const VERSION: &str = "0.1.0";
pub const PACKAGE: &str = "meshwright:plugin";
/// Interfaces that a plugin may import.
pub const IMPORTS: &[&str] = &["arguments", "kv", "live", "log", "types"];
pub const LIFECYCLE: &str = "lifecycle";
/// The interfaces that make a plugin of a kind.
pub const KINDS: &[&str] = &["router", "balancer", "planner", "alerter", "meter"];

/// The slot that stands for "leave it to the next".
const NO_SLOT: u32 = u32::MAX;

/// What a guest said, or why that cannot be used.
pub type Answer<T> = std::result::Result<T, &'static str>;

/// A complaint about the configuration: a JSON pointer and a message.
pub type Issue = (String, String);

pub fn link(linker: &mut Linker<HostState>) -> Result<()> {
    use self::bindings::meshwright::plugin::{arguments, kv, live, log, types};
    type Host = HasSelf<HostState>;
    log::add_to_linker::<_, Host>(linker, |state| state)?;
    kv::add_to_linker::<_, Host>(linker, |state| state)?;
    arguments::add_to_linker::<_, Host>(linker, |state| state)?;
    live::add_to_linker::<_, Host>(linker, |state| state)?;
    types::add_to_linker::<_, Host>(linker, |state| state)
}

/// Where the exports are that a component has.
pub struct Indices {
    lifecycle: exports::lifecycle::GuestIndices,
    catalog: Option<exports::catalog::GuestIndices>,
    router: Option<exports::router::GuestIndices>,
    balancer: Option<exports::balancer::GuestIndices>,
    planner: Option<exports::planner::GuestIndices>,
    alerter: Option<exports::alerter::GuestIndices>,
    meter: Option<exports::meter::GuestIndices>,
}

impl Indices {
    /// # Errors
    /// An interface is there, but not with all of its functions; or `lifecycle` is missing.
    pub fn new(pre: &InstancePre<HostState>) -> Result<Self> {
        let has = |interface: &str| {
            let name = format!("{PACKAGE}/{interface}@{VERSION}");
            pre.component().get_export_index(None, &name).is_some()
        };
        macro_rules! optional {
            ($interface:ident) => {
                has(stringify!($interface))
                    .then(|| exports::$interface::GuestIndices::new(pre))
                    .transpose()?
            };
        }
        Ok(Self {
            lifecycle: exports::lifecycle::GuestIndices::new(pre)?,
            catalog: optional!(catalog),
            router: optional!(router),
            balancer: optional!(balancer),
            planner: optional!(planner),
            alerter: optional!(alerter),
            meter: optional!(meter),
        })
    }

    /// In the order of [`KINDS`].
    pub fn kinds(&self) -> Vec<&'static str> {
        let there = [
            self.router.is_some(),
            self.balancer.is_some(),
            self.planner.is_some(),
            self.alerter.is_some(),
            self.meter.is_some(),
        ];
        KINDS.iter().zip(there).filter(|(_, there)| *there).map(|(kind, _)| *kind).collect()
    }

    /// # Errors
    /// A function has other types than the contract says.
    pub fn load(&self, store: &mut Store<HostState>, instance: &Instance) -> Result<Guest> {
        macro_rules! optional {
            ($interface:ident) => {
                self.$interface.as_ref().map(|indices| indices.load(&mut *store, instance)).transpose()?
            };
        }
        Ok(Guest {
            lifecycle: self.lifecycle.load(&mut *store, instance)?,
            catalog: optional!(catalog),
            router: optional!(router),
            balancer: optional!(balancer),
            planner: optional!(planner),
            alerter: optional!(alerter),
            meter: optional!(meter),
        })
    }
}

/// The exports of one instance. A method for a kind that the component does not have answers "nothing".
pub struct Guest {
    lifecycle: exports::lifecycle::Guest,
    catalog: Option<exports::catalog::Guest>,
    router: Option<exports::router::Guest>,
    balancer: Option<exports::balancer::Guest>,
    planner: Option<exports::planner::Guest>,
    alerter: Option<exports::alerter::Guest>,
    meter: Option<exports::meter::Guest>,
}

const NO_SUCH_KIND: &str = "it is not of this kind";

impl Guest {
    pub fn metadata(&self, store: &mut Store<HostState>) -> Result<String> {
        self.lifecycle.call_metadata(store)
    }

    pub fn self_test(&self, store: &mut Store<HostState>) -> Result<std::result::Result<(), String>> {
        self.lifecycle.call_self_test(store)
    }

    pub fn configure(
        &self,
        store: &mut Store<HostState>,
        config_json: &str,
    ) -> Result<std::result::Result<(), Vec<Issue>>> {
        let answer = self.lifecycle.call_configure(store, config_json)?;
        Ok(answer.map_err(|issues| issues.into_iter().map(|issue| (issue.path, issue.message)).collect()))
    }

    pub fn on_catalog(&self, store: &mut Store<HostState>, catalog: &Catalog) -> Result<()> {
        let Some(guest) = &self.catalog else { return Ok(()) };
        let tags: Vec<Vec<&str>> =
            catalog.services.iter().map(|s| s.tags.iter().map(|tag| tag.as_str()).collect()).collect();
        let tools: Vec<Vec<&str>> =
            catalog.services.iter().map(|s| s.tools.iter().map(String::as_str).collect()).collect();
        let services: Vec<_> = catalog
            .services
            .iter()
            .zip(tags.iter().zip(&tools))
            .map(|(service, (tags, tools))| exports::catalog::Service {
                name: service.name.as_str(),
                tags,
                tools,
                instances: service.instances,
                healthy: service.healthy,
            })
            .collect();
        guest.call_on_catalog(store, &services)
    }

    pub fn wants_catalog(&self) -> bool {
        self.catalog.is_some()
    }

    pub fn route(&self, store: &mut Store<HostState>, call: &CallFacts<'_>) -> Result<Answer<Decision>> {
        let Some(guest) = &self.router else { return Ok(Err(NO_SUCH_KIND)) };
        let call = exports::router::Call {
            id: call.id.0,
            now_ms: millis(call.arrived),
            random: call.random,
            affinity: call.affinity,
            service: call.service,
            tool: call.tool,
            method: call.method,
            client: call.client,
            size: call.size,
            deadline_ms: u32::try_from(call.time_left.as_millis()).unwrap_or(u32::MAX),
        };
        Ok(answers::decision(guest.call_route(store, call)?))
    }

    pub fn on_pool(&self, store: &mut Store<HostState>, pool: &Pool) -> Result<()> {
        let Some(guest) = &self.balancer else { return Ok(()) };
        let tags = member_tags(pool);
        guest.call_on_pool(store, pool.id.0, pool.service.as_str(), &members(pool, &tags))
    }

    /// Tells that a pool is gone.
    pub fn on_pool_gone(&self, store: &mut Store<HostState>, pool: u32, service: &str) -> Result<()> {
        let Some(guest) = &self.balancer else { return Ok(()) };
        guest.call_on_pool(store, pool, service, &[])
    }

    pub fn on_load(&self, store: &mut Store<HostState>, pool: &Pool) -> Result<()> {
        let Some(guest) = &self.balancer else { return Ok(()) };
        guest.call_on_load(store, pool.id.0, &loads(pool))
    }

    pub fn pick(
        &self,
        store: &mut Store<HostState>,
        pool: u32,
        affinity: u64,
        random: u64,
        tried: u64,
    ) -> Result<Answer<Option<u32>>> {
        let Some(guest) = &self.balancer else { return Ok(Err(NO_SUCH_KIND)) };
        let slot = guest.call_pick(store, pool, affinity, random, tried)?;
        Ok(Ok((slot != NO_SLOT).then_some(slot)))
    }

    pub fn compile(&self, store: &mut Store<HostState>, pool: &Pool) -> Result<Answer<Option<Plan>>> {
        let Some(guest) = &self.planner else { return Ok(Err(NO_SUCH_KIND)) };
        let tags = member_tags(pool);
        let service = pool.service.as_str();
        let said = guest.call_compile(store, pool.id.0, service, &members(pool, &tags), &loads(pool))?;
        Ok(said.map(|plan| plans::plan(plan, pool)).transpose())
    }

    /// Nothing when the component is no alerter.
    pub fn wants(&self, store: &mut Store<HostState>) -> Result<Option<Answer<Vec<Want>>>> {
        let Some(guest) = &self.alerter else { return Ok(None) };
        Ok(Some(answers::wants(guest.call_wants(store)?)))
    }

    pub fn evaluate(
        &self,
        store: &mut Store<HostState>,
        now: Wall,
        samples: &[Sample],
        events: &[Event],
    ) -> Result<Answer<Vec<Firing>>> {
        let Some(guest) = &self.alerter else { return Ok(Err(NO_SUCH_KIND)) };
        let labels: Vec<Vec<(&str, &str)>> = samples
            .iter()
            .map(|s| s.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
            .collect();
        let samples: Vec<_> = samples
            .iter()
            .zip(&labels)
            .map(|(s, labels)| exports::alerter::Sample { want: s.want, labels, value: s.value })
            .collect();
        let events: Vec<_> = events
            .iter()
            .map(|event| exports::alerter::Event {
                at_ms: millis(event.at),
                kind: event.kind,
                service: event.service.as_ref().map_or("", |name| name.as_str()),
                instance: event.instance.as_ref().map_or("", |name| name.as_str()),
                detail: &event.detail,
            })
            .collect();
        Ok(answers::firings(guest.call_evaluate(store, millis(now), &samples, &events)?))
    }

    /// Nothing when the component is no meter.
    pub fn describe(&self, store: &mut Store<HostState>) -> Result<Option<Answer<MeterDescription>>> {
        let Some(guest) = &self.meter else { return Ok(None) };
        let (metrics, panels) = guest.call_describe(store)?;
        Ok(Some(answers::description(metrics, panels)))
    }

    pub fn on_calls(&self, store: &mut Store<HostState>, calls: &[Finished], dropped: u32) -> Result<()> {
        let Some(guest) = &self.meter else { return Ok(()) };
        let calls: Vec<_> = calls
            .iter()
            .map(|call| exports::meter::Finished {
                service: call.service.as_str(),
                instance: call.instance.as_ref().map_or("", |name| name.as_str()),
                tool: &call.tool,
                client: &call.client,
                us: call.latency_us,
                status: call.status,
                request_bytes: call.request_bytes,
                response_bytes: call.response_bytes,
            })
            .collect();
        guest.call_on_calls(store, &calls, dropped)
    }

    pub fn collect(
        &self,
        store: &mut Store<HostState>,
        now: Wall,
        description: &MeterDescription,
    ) -> Result<Answer<Vec<Point>>> {
        let Some(guest) = &self.meter else { return Ok(Err(NO_SUCH_KIND)) };
        Ok(answers::points(guest.call_collect(store, millis(now))?, description))
    }
}

fn member_tags(pool: &Pool) -> Vec<Vec<&str>> {
    pool.members.iter().map(|member| member.tags.iter().map(|tag| tag.as_str()).collect()).collect()
}

/// `tags` are those of the members, in their order.
fn members<'a>(pool: &'a Pool, tags: &'a [Vec<&'a str>]) -> Vec<exports::balancer::Member<'a>> {
    let member = |(member, tags): (&'a Member, &'a Vec<&'a str>)| exports::balancer::Member {
        slot: member.slot.0,
        instance: member.instance.as_str(),
        node: member.node.as_str(),
        zone: member.zone.as_ref().map_or("", |zone| zone.as_str()),
        weight: member.weight,
        tags,
    };
    pool.members.iter().zip(tags).map(member).collect()
}

fn loads(pool: &Pool) -> Vec<exports::balancer::Load> {
    let load = |member: &Member| exports::balancer::Load {
        slot: member.slot.0,
        in_flight: member.live.in_flight(),
        ewma_us: member.live.ewma_us(),
        errors_permille: (1000 - member.live.success_permille().min(1000)) as u16,
        score: member.live.score(),
    };
    pool.members.iter().map(load).collect()
}

fn millis(wall: Wall) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(0)
}
