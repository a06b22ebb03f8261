//! What one decision costs: natively, by plan, in WebAssembly, and reused. Each line is the median over rounds that
//! alternate, of the mean over many decisions; nothing else of a call is in it.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use meshwright::mesh::balance;
use meshwright::mesh::ids::{CallId, Name, PoolId, Slot};
use meshwright::mesh::pool::{Catalog, CatalogService, Live, Member, Pool};
use meshwright::mesh::time::{Mono, Wall};
use meshwright::mesh::verdict::CallFacts;
use meshwright::plugin::{Configuration, InForce, Workbench};
use meshwright::policy::{Ask, Balancer, Router};
use support::guests::{component, misbehaver};

const ROUNDS: usize = 9;
const DECISIONS: u32 = 20_000;
const MEMBERS: [u32; 2] = [3, 100];
const SERVICES: usize = 100;
/// Longer than a decision may hold.
const REUSE_OVER: Duration = Duration::from_secs(61);

struct Line<'a> {
    what: String,
    once: Box<dyn FnMut() + 'a>,
    nanos: Vec<f64>,
}

fn main() {
    let bench = Workbench::in_process().expect("an engine");
    let in_force = |bytes: &[u8], config: &str| {
        let component = bench.load("bench", bytes).expect("a good component");
        bench
            .bring_into_force(
                &component,
                &Configuration { json: config.to_owned(), ..Configuration::default() },
            )
            .expect("it comes into force")
    };
    let rule = r#"{"rules": [{"name": "r", "when": {"tool": "never_*"}, "reject": {"reason": "no"}}]}"#;
    let tag_router = in_force(&component("tag-router"), rule);
    let zone_balancer = in_force(&component("zone-balancer"), "{}");
    let wasm_balancer = in_force(&misbehaver("pick-first", "first", "1.0.0"), "{}");

    let catalog = Arc::new(catalog());
    let mut lines = Vec::new();
    let router = Arc::clone(&tag_router.policies.routers[0]);
    lines.push(routes("route, asked (100 services)", Arc::clone(&router), &catalog, REUSE_OVER));
    lines.push(routes("route, reused (100 services)", router, &catalog, Duration::ZERO));
    let pools = MEMBERS.map(|members| Arc::new(pool(members)));
    zone_balancer.policies.planned[0].refresh(pools.iter(), Mono::from_secs(0));
    for (members, pool) in MEMBERS.into_iter().zip(&pools) {
        let native = Arc::clone(pool);
        let mut random = 0_u64;
        lines.push(Line::new(format!("pick, native ({members} members)"), move || {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            black_box(balance::pick(&native, |_| false, random));
        }));
        lines.push(picks(format!("pick, by plan ({members} members)"), &zone_balancer, pool));
        lines.push(picks(format!("pick, in WebAssembly ({members} members)"), &wasm_balancer, pool));
    }
    measure(&mut lines);
    println!("| decision | median ns | least | most |\n|---|---|---|---|");
    for Line { what, mut nanos, .. } in lines {
        nanos.sort_by(f64::total_cmp);
        let (least, median, most) = (nanos[0], nanos[ROUNDS / 2], nanos[ROUNDS - 1]);
        println!("| {what} | {median:.0} | {least:.0} | {most:.0} |");
    }
}

impl<'a> Line<'a> {
    fn new(what: impl Into<String>, once: impl FnMut() + 'a) -> Self {
        Self { what: what.into(), once: Box::new(once), nanos: Vec::new() }
    }
}

fn measure(lines: &mut [Line<'_>]) {
    for round in 0..=ROUNDS {
        for line in lines.iter_mut() {
            let started = Instant::now();
            for _ in 0..DECISIONS {
                (line.once)();
            }
            // The first round warms up.
            if round > 0 {
                line.nanos.push(started.elapsed().as_nanos() as f64 / f64::from(DECISIONS));
            }
        }
    }
}

/// `step` is the time between two calls.
fn routes<'a>(what: &str, router: Arc<dyn Router>, catalog: &'a Arc<Catalog>, step: Duration) -> Line<'a> {
    let mut now = Mono::from_secs(0);
    let mut number = 0_usize;
    Line::new(what, move || {
        now = now + step;
        number += 1;
        let facts = CallFacts {
            id: CallId(number as u64),
            arrived: Wall::from_millis(0),
            now,
            random: 7,
            affinity: 9,
            service: catalog.services[number % SERVICES].name.as_str(),
            tool: "tool_3",
            method: "tools/call",
            client: "measurer",
            size: 400,
            time_left: Duration::from_secs(60),
            arguments: b"{}",
        };
        black_box(router.route(&facts, catalog)).expect("a decision");
    })
}

fn picks(what: String, in_force: &InForce, pool: &Arc<Pool>) -> Line<'static> {
    let balancer: Arc<dyn Balancer> = Arc::clone(&in_force.policies.balancers[0]);
    let pool = Arc::clone(pool);
    let mut random = 0_u64;
    Line::new(what, move || {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let ask = Ask { affinity: random, random, excluded: 0, now: Mono::from_secs(0) };
        black_box(balancer.pick(&pool, ask)).expect("no fault").expect("a slot");
    })
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn catalog() -> Catalog {
    let service = |index: usize| CatalogService {
        name: name(&format!("service-{index}")),
        tags: vec![name("stable")],
        tools: (0..10).map(|tool| format!("tool_{tool}")).collect(),
        instances: 3,
        healthy: 3,
    };
    Catalog { version: 1, services: (0..SERVICES).map(service).collect() }
}

fn pool(members: u32) -> Pool {
    let member = |slot| {
        let live = Arc::new(Live::default());
        live.observe(Mono::from_secs(1), Duration::from_micros(5_000 + 100 * u64::from(slot)));
        Member {
            slot: Slot(slot),
            instance: name(&format!("service-{slot}")),
            node: name("node"),
            zone: None,
            weight: 100,
            tags: [name("stable")].into(),
            live,
        }
    };
    let members: Vec<Member> = (0..members).map(member).collect();
    Pool {
        id: PoolId(members.len() as u32),
        version: 1,
        service: name("service"),
        members,
        loads_version: Arc::new(AtomicU64::new(1)),
    }
}
