//! The file of a capsule. `call`, `services`, `pool`, `pick`, `round` and `calls` are those of scenario files.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Capsule, FORMAT, Seen};
use crate::mesh::observe::{Event, Finished, Sample, Want};
use crate::mesh::pool::{Catalog, CatalogService, Member, Pool};
use crate::mesh::verdict::CallFacts;
use crate::policy::Ask;

#[derive(Serialize)]
pub struct View<'a> {
    format: u32,
    plugin: PluginView<'a>,
    /// The release that wrote it.
    host: &'static str,
    at_ms: i64,
    hook: &'static str,
    fault: &'a str,
    config: &'a RawValue,
    #[serde(flatten)]
    seen: SeenView<'a>,
}

#[derive(Serialize)]
struct PluginView<'a> {
    name: &'a str,
    version: &'a str,
    sha256: String,
    generation: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SeenView<'a> {
    Route { call: &'a CallSeen, services: Vec<ServiceView<'a>> },
    Pick { pick: PickView, pool: PoolView<'a> },
    Compile { pool: PoolView<'a> },
    Evaluate { now_ms: i64, round: RoundView<'a> },
    OnCalls { calls: Vec<FinishedView<'a>>, dropped: u32 },
}

/// What a router sees of a call, but for its id.
#[derive(Serialize)]
pub struct CallSeen {
    service: String,
    tool: String,
    method: String,
    client: String,
    size: u32,
    now_ms: i64,
    deadline_ms: u32,
    /// Scenario files have no unsigned numbers.
    random: i64,
    affinity: i64,
}

impl CallSeen {
    pub fn of(call: &CallFacts<'_>) -> Self {
        Self {
            service: call.service.to_owned(),
            tool: call.tool.to_owned(),
            method: call.method.to_owned(),
            client: call.client.to_owned(),
            size: call.size,
            now_ms: call.arrived.as_millis(),
            deadline_ms: u32::try_from(call.time_left.as_millis()).unwrap_or(u32::MAX),
            random: call.random.cast_signed(),
            affinity: call.affinity.cast_signed(),
        }
    }
}

#[derive(Serialize)]
struct ServiceView<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
    tools: &'a [String],
    instances: u32,
    healthy: u32,
}

#[derive(Serialize)]
struct PickView {
    affinity: i64,
    random: i64,
    tried: Vec<u32>,
}

#[derive(Serialize)]
struct PoolView<'a> {
    service: &'a str,
    members: Vec<MemberView<'a>>,
}

#[derive(Serialize)]
struct MemberView<'a> {
    instance: &'a str,
    slot: u32,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    weight: u16,
    tags: Vec<&'a str>,
    in_flight: u32,
    ewma_us: u32,
    errors_permille: u32,
    score: u8,
}

#[derive(Serialize)]
struct RoundView<'a> {
    samples: Vec<SampleView<'a>>,
    events: Vec<EventView<'a>>,
}

#[derive(Serialize)]
struct SampleView<'a> {
    series: &'a str,
    aggregate: String,
    window_s: u32,
    labels: BTreeMap<&'a str, &'a str>,
    value: f64,
}

#[derive(Serialize)]
struct EventView<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    detail: &'a str,
}

#[derive(Serialize)]
struct FinishedView<'a> {
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    tool: &'a str,
    client: &'a str,
    us: u32,
    status: u16,
    request_bytes: u32,
    response_bytes: u32,
}

impl<'a> View<'a> {
    pub fn of(capsule: &'a Capsule) -> serde_json::Result<Self> {
        let source = &capsule.plugin.source;
        Ok(Self {
            format: FORMAT,
            plugin: PluginView {
                name: source.name.as_str(),
                version: &source.version,
                sha256: hex::encode(source.component),
                generation: source.generation,
            },
            host: env!("CARGO_PKG_VERSION"),
            at_ms: capsule.at.as_millis(),
            hook: capsule.seen.hook(),
            fault: &capsule.fault,
            config: serde_json::from_str(capsule.plugin.config_for_people())?,
            seen: SeenView::from(&capsule.seen),
        })
    }
}

impl<'a> From<&'a Seen> for SeenView<'a> {
    fn from(seen: &'a Seen) -> Self {
        match seen {
            Seen::Route { call, catalog } => Self::Route { call, services: services(catalog) },
            Seen::Pick { pool, ask } => Self::Pick { pick: pick(*ask), pool: pool.into() },
            Seen::Compile { pool } => Self::Compile { pool: pool.into() },
            Seen::Evaluate { now, wants, samples, events } => {
                let samples =
                    samples.iter().filter_map(|one| Some(sample(one, wants.get(one.want as usize)?)));
                let round =
                    RoundView { samples: samples.collect(), events: events.iter().map(event).collect() };
                Self::Evaluate { now_ms: now.as_millis(), round }
            }
            Seen::OnCalls { calls, dropped } => {
                Self::OnCalls { calls: calls.iter().map(finished).collect(), dropped: *dropped }
            }
        }
    }
}

fn services(catalog: &Catalog) -> Vec<ServiceView<'_>> {
    catalog.services.iter().map(ServiceView::from).collect()
}

impl<'a> From<&'a CatalogService> for ServiceView<'a> {
    fn from(service: &'a CatalogService) -> Self {
        Self {
            name: service.name.as_str(),
            tags: service.tags.iter().map(|tag| tag.as_str()).collect(),
            tools: &service.tools,
            instances: service.instances,
            healthy: service.healthy,
        }
    }
}

fn pick(ask: Ask) -> PickView {
    PickView {
        affinity: ask.affinity.cast_signed(),
        random: ask.random.cast_signed(),
        tried: (0..u64::BITS).filter(|slot| ask.excluded >> slot & 1 == 1).collect(),
    }
}

impl<'a> From<&'a Pool> for PoolView<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self { service: pool.service.as_str(), members: pool.members.iter().map(MemberView::from).collect() }
    }
}

impl<'a> From<&'a Member> for MemberView<'a> {
    fn from(member: &'a Member) -> Self {
        let live = &member.live;
        Self {
            instance: member.instance.as_str(),
            slot: member.slot.0,
            node: member.node.as_str(),
            zone: member.zone.as_ref().map(|zone| zone.as_str()),
            weight: member.weight,
            tags: member.tags.iter().map(|tag| tag.as_str()).collect(),
            in_flight: live.in_flight(),
            ewma_us: live.ewma_us(),
            errors_permille: 1000 - live.success_permille().min(1000),
            score: live.score(),
        }
    }
}

fn sample<'a>(sample: &'a Sample, want: &'a Want) -> SampleView<'a> {
    SampleView {
        series: &want.series,
        aggregate: format!("{:?}", want.aggregate).to_lowercase(),
        window_s: want.window_s,
        labels: sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        value: sample.value,
    }
}

fn event(event: &Event) -> EventView<'_> {
    EventView {
        kind: event.kind,
        service: event.service.as_ref().map(|name| name.as_str()),
        instance: event.instance.as_ref().map(|name| name.as_str()),
        detail: &event.detail,
    }
}

fn finished(call: &Finished) -> FinishedView<'_> {
    FinishedView {
        service: call.service.as_str(),
        instance: call.instance.as_ref().map(|name| name.as_str()),
        tool: &call.tool,
        client: &call.client,
        us: call.latency_us,
        status: call.status,
        request_bytes: call.request_bytes,
        response_bytes: call.response_bytes,
    }
}
