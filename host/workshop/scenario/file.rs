//! What a scenario file may say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Deserialize;

use super::expect::{AlertExpected, DecisionExpected, IssueExpected, PickExpected, PointExpected};
use crate::mesh::ids::{Name, PoolId, Slot};
use crate::mesh::observe::Aggregate;
use crate::mesh::pool::{Catalog, CatalogService, InFlight, Live, Member, Pool};
use crate::mesh::time::Mono;
use crate::plugin::config_json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default)]
    config: toml::Table,
    #[serde(default)]
    services: Vec<RawService>,
    pool: Option<RawPool>,
    #[serde(rename = "case")]
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    /// These three take the place of the file's.
    config: Option<toml::Table>,
    services: Option<Vec<RawService>>,
    pool: Option<RawPool>,
    fuel_max: Option<u64>,
    /// How often a call or a pick is asked, each time with other random numbers.
    times: Option<usize>,
    seed: Option<u64>,
    call: Option<RawCall>,
    pick: Option<RawPick>,
    #[serde(rename = "round")]
    rounds: Option<Vec<Round>>,
    calls: Option<Vec<RawFinished>>,
    dropped: Option<u32>,
    issues: Option<Vec<IssueExpected>>,
    expect: Option<Expect>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    One(toml::Table),
    Many(Vec<toml::Table>),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    tools: Vec<String>,
    instances: Option<u32>,
    healthy: Option<u32>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPool {
    service: Option<String>,
    members: Vec<RawMember>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    instance: String,
    slot: Option<u32>,
    node: Option<String>,
    zone: Option<String>,
    weight: Option<u16>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    in_flight: u32,
    #[serde(default)]
    ewma_us: u32,
    #[serde(default)]
    errors_permille: u16,
    score: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCall {
    pub service: String,
    pub tool: String,
    pub method: String,
    pub client: String,
    pub size: u32,
    pub now_ms: i64,
    pub deadline_ms: u32,
    /// Drawn from the seed unless given.
    pub random: Option<i64>,
    pub affinity: Option<i64>,
    /// For routers with the grant `arguments`.
    pub arguments: toml::Table,
}

impl Default for RawCall {
    fn default() -> Self {
        Self {
            service: String::new(),
            tool: String::new(),
            method: "tools/call".into(),
            client: String::new(),
            size: 200,
            now_ms: NOW_MS,
            deadline_ms: 60_000,
            random: None,
            affinity: None,
            arguments: toml::Table::new(),
        }
    }
}

/// The time at which scenarios play unless they say another: 2026-01-01 00:00:00 UTC.
pub const NOW_MS: i64 = 1_767_225_600_000;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RawPick {
    pub affinity: Option<i64>,
    pub random: Option<i64>,
    /// Slots that must not be picked.
    pub tried: Vec<u32>,
}

/// One evaluation of an alerter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Seconds since the first.
    #[serde(default)]
    pub at_s: u32,
    #[serde(default)]
    pub samples: Vec<RawSample>,
    #[serde(default)]
    pub events: Vec<RawEvent>,
    /// All alerts that then stand, whatever their state; not looked at when absent.
    pub expect: Option<Vec<AlertExpected>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSample {
    pub series: String,
    pub aggregate: Option<RawAggregate>,
    pub window_s: Option<u32>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawAggregate {
    Last,
    Min,
    Max,
    Mean,
    P50,
    P95,
    P99,
    Rate,
    Count,
    Slope,
}

impl From<RawAggregate> for Aggregate {
    fn from(raw: RawAggregate) -> Self {
        match raw {
            RawAggregate::Last => Self::Last,
            RawAggregate::Min => Self::Min,
            RawAggregate::Max => Self::Max,
            RawAggregate::Mean => Self::Mean,
            RawAggregate::P50 => Self::P50,
            RawAggregate::P95 => Self::P95,
            RawAggregate::P99 => Self::P99,
            RawAggregate::Rate => Self::Rate,
            RawAggregate::Count => Self::Count,
            RawAggregate::Slope => Self::Slope,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEvent {
    pub kind: String,
    pub service: Option<String>,
    pub instance: Option<String>,
    #[serde(default)]
    pub detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFinished {
    pub service: String,
    pub instance: Option<String>,
    #[serde(default)]
    pub tool: String,
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub us: u32,
    pub status: Option<u16>,
    #[serde(default)]
    pub request_bytes: u32,
    #[serde(default)]
    pub response_bytes: u32,
}

pub struct Scenario {
    pub cases: Vec<Case>,
}

pub struct Case {
    pub name: String,
    pub config_json: String,
    pub fuel_max: Option<u64>,
    pub question: Question,
}

pub enum Question {
    Route { catalog: Catalog, call: RawCall, draws: Draws, expected: Vec<DecisionExpected> },
    Pick { pool: TestPool, pick: RawPick, draws: Draws, expected: Vec<PickExpected> },
    Evaluate { rounds: Vec<Round> },
    Measure { calls: Vec<RawFinished>, dropped: u32, expected: Vec<PointExpected> },
    Configure { expected: Vec<IssueExpected> },
}

/// How often to ask, and where the randoms come from.
#[derive(Clone, Copy)]
pub struct Draws {
    pub times: usize,
    pub seed: u64,
}

pub struct TestPool {
    pub pool: Arc<Pool>,
    /// Held while the pool is asked about.
    _in_flight: Vec<InFlight>,
}

impl Scenario {
    /// # Errors
    /// Where and why the text is no scenario file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawScenario =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let defaults = (raw.config, raw.services, raw.pool);
        let cases = raw.cases.into_iter().map(|case| {
            let name = case.name.clone();
            self::case(case, &defaults).map_err(|reason| format!("case `{name}`: {reason}"))
        });
        Ok(Self { cases: cases.collect::<Result<_, _>>()? })
    }
}

type Defaults = (toml::Table, Vec<RawService>, Option<RawPool>);

fn case(raw: RawCase, (config, services, pool): &Defaults) -> Result<Case, String> {
    let asked = [
        raw.call.is_some(),
        raw.pick.is_some(),
        raw.rounds.is_some(),
        raw.calls.is_some(),
        raw.issues.is_some(),
    ];
    if asked.iter().filter(|asked| **asked).count() != 1 {
        return Err("it needs one of `call` (for routers), `pick` (balancers and planners), `round` (alerters), `calls` \
                    (meters), `issues` (a configuration that is refused)"
            .into());
    }
    let draws = Draws { times: raw.times.unwrap_or(1).max(1), seed: raw.seed.unwrap_or(1) };
    let question = if let Some(call) = raw.call {
        let catalog = catalog(raw.services.as_ref().unwrap_or(services))?;
        Question::Route { catalog, call, draws, expected: expected(raw.expect)? }
    } else if let Some(pick) = raw.pick {
        let pool = raw.pool.as_ref().or(pool.as_ref()).ok_or("a `pick` needs a `pool`")?;
        Question::Pick { pool: test_pool(pool)?, pick, draws, expected: expected(raw.expect)? }
    } else if let Some(rounds) = raw.rounds {
        Question::Evaluate { rounds }
    } else if let Some(calls) = raw.calls {
        Question::Measure { calls, dropped: raw.dropped.unwrap_or(0), expected: expected(raw.expect)? }
    } else {
        Question::Configure { expected: raw.issues.unwrap_or_default() }
    };
    let config_json = config_json(raw.config.unwrap_or_else(|| config.clone()))?;
    Ok(Case { name: raw.name, config_json, fuel_max: raw.fuel_max, question })
}

fn expected<T: for<'a> Deserialize<'a>>(said: Option<Expect>) -> Result<Vec<T>, String> {
    let tables = match said {
        None => return Err("it needs `expect`".into()),
        Some(Expect::One(table)) => vec![table],
        Some(Expect::Many(tables)) => tables,
    };
    let read = |table: toml::Table| {
        T::deserialize(table).map_err(|error| format!("`expect`: {}", error.message().trim_end()))
    };
    tables.into_iter().map(read).collect()
}

/// # Errors
/// Why it is no name.
pub fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| format!("`{text}`: {error}"))
}

fn names(texts: &[String]) -> Result<Vec<Name>, String> {
    texts.iter().map(|text| name(text)).collect()
}

/// # Errors
/// A name that is none.
pub fn catalog(raw: &[RawService]) -> Result<Catalog, String> {
    let services = raw.iter().map(|service| {
        let instances = service.instances.unwrap_or(1);
        Ok(CatalogService {
            name: name(&service.name)?,
            tags: names(&service.tags)?,
            tools: service.tools.clone(),
            instances,
            healthy: service.healthy.unwrap_or(instances),
        })
    });
    Ok(Catalog { version: 1, services: services.collect::<Result<_, String>>()? })
}

/// # Errors
/// A name that is none.
pub fn test_pool(raw: &RawPool) -> Result<TestPool, String> {
    let mut in_flight = Vec::new();
    let mut members = Vec::new();
    for (slot, member) in (0..).zip(&raw.members) {
        let live = Arc::new(Live::default());
        let errors_permille = u32::from(member.errors_permille.min(1000));
        live.set_health(member.score.unwrap_or(100), 1000, 1000 - errors_permille);
        if member.ewma_us > 0 {
            live.observe(Mono::from_secs(1), Duration::from_micros(member.ewma_us.into()));
        }
        in_flight.extend((0..member.in_flight.min(IN_FLIGHT_MAX)).map(|_| live.enter()));
        members.push(Member {
            slot: Slot(member.slot.unwrap_or(slot)),
            instance: name(&member.instance)?,
            node: name(member.node.as_deref().unwrap_or("node"))?,
            zone: member.zone.as_deref().map(name).transpose()?,
            weight: member.weight.unwrap_or(100),
            tags: names(&member.tags)?.into(),
            live,
        });
    }
    let pool = Pool {
        id: PoolId(1),
        version: 1,
        service: name(raw.service.as_deref().unwrap_or("service"))?,
        members,
        loads_version: Arc::new(AtomicU64::new(1)),
    };
    Ok(TestPool { pool: Arc::new(pool), _in_flight: in_flight })
}

/// Calls in flight that a member of a scenario can have.
const IN_FLIGHT_MAX: u32 = 100_000;
