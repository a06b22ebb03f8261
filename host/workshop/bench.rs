//! `plugin bench`: what a component's answers cost, asked as a proxy asks them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Verdict, WorkshopError, explain, print, print_json, text};
use crate::mesh::ids::{CallId, Name, PoolId, Slot};
use crate::mesh::observe::{Finished, Sample};
use crate::mesh::pool::{Catalog, CatalogService, Live, Member, Pool};
use crate::mesh::story::Story;
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::CallFacts;
use crate::plugin::{Component, LoadError, Workbench, read_config};
use crate::policy::{Ask, Balancer, PolicyFault, PolicySet};

/// Sizes of the mesh: services for routers, members for balancers, instances for alerters.
const SIZES: [usize; 2] = [3, 100];
const WARM_UP: usize = 200;
const SAMPLES_MAX: usize = 20_000;
/// Longer than a decision may hold.
const REUSE_OVER: Duration = Duration::from_secs(61);
/// Each question is measured for at most so long.
const TIME_MAX: Duration = Duration::from_secs(1);
const INSTANTIATIONS: usize = 20;
/// Records that a meter gets at once.
const CALLS_AT_ONCE: usize = 100;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Component (`.wasm`)
    file: PathBuf,
    /// Configuration (TOML) to measure with [default: `NAME.toml` beside `NAME.wasm`, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints an object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    version: String,
    compile_ms: f64,
    /// A fresh instance, configured; half of all took no longer.
    instantiate_us: f64,
    memory_bytes: usize,
    answers: Vec<Cost>,
}

/// Times of one question, in microseconds.
#[derive(Serialize)]
struct Cost {
    question: &'static str,
    /// Of what: `services`, `members`, `samples`, `calls`.
    unit: &'static str,
    size: usize,
    count: usize,
    min_us: f64,
    median_us: f64,
    p99_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_us: Option<f64>,
}

impl Cost {
    fn is_over_budget(&self) -> bool {
        self.budget_us.is_some_and(|budget| self.p99_us > budget)
    }
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let bench = Workbench::new()?;
    let loaded = super::read(&args.file).and_then(|bytes| {
        let component = bench.load("measured", &bytes)?;
        let config = read_config(&args.file, args.config.as_deref())?;
        let in_force = bench.bring_into_force(&component, &config)?;
        Ok((instantiation(&component, &config.json)?, component, in_force))
    });
    let (instantiate_us, component, in_force) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(refused(args, &error)),
    };
    let answers = match answers(&component, &in_force.policies) {
        Ok(answers) => answers,
        Err(fault) => {
            print(&format!(
                "✖ {}\n  why       it faulted while it was measured: {fault}\n",
                args.file.display()
            ));
            return Ok(Verdict::Bad);
        }
    };
    let report = Report {
        name: component.name().to_string(),
        version: component.version().to_owned(),
        compile_ms: rounded(component.compile_time.as_secs_f64() * 1e3),
        instantiate_us: rounded(instantiate_us),
        memory_bytes: in_force.memory_bytes,
        answers,
    };
    if args.json {
        print_json(&report);
    } else {
        print(&report.text());
    }
    Ok(Verdict::good_if(!report.answers.iter().any(Cost::is_over_budget)))
}

fn refused(args: &Args, error: &LoadError) -> Verdict {
    let (step, advice) = (explain::step(error), explain::advice(error));
    let file = args.file.display();
    print(&format!("✖ {file}\n  where     {step}\n  why       {error}\n  do        {advice}\n"));
    Verdict::Bad
}

fn instantiation(component: &Component, config_json: &str) -> Result<f64, LoadError> {
    let mut times = Vec::with_capacity(INSTANTIATIONS);
    for _ in 0..INSTANTIATIONS {
        let started = Instant::now();
        let instance = component.instance(config_json)?;
        times.push(started.elapsed());
        drop(instance);
    }
    times.sort_unstable();
    Ok(micros(times[INSTANTIATIONS / 2]))
}

/// Each question that a component of these kinds is asked, in each size.
fn answers(component: &Component, policies: &PolicySet) -> Result<Vec<Cost>, PolicyFault> {
    let budgets = component.budgets();
    let mut costs = Vec::new();
    for size in SIZES {
        if let Some(router) = policies.routers.first() {
            let catalog = Arc::new(catalog(size));
            let names: Vec<_> = catalog.services.iter().map(|service| service.name.clone()).collect();
            let mut random = fastrand::Rng::with_seed(1);
            // Later than any decision holds, so that each is made anew.
            let mut now = Mono::from_secs(0);
            let times = timed(|round| {
                let service = names[round % names.len()].as_str();
                now = now + REUSE_OVER;
                router.route(&call(service, &mut random, now), &catalog).map(drop)
            })?;
            costs.push(Cost { budget_us: budgets.route_us, ..cost("route", "services", size, times) });
            let first = router.route(&call(names[0].as_str(), &mut random, now), &catalog)?;
            if first.reuse.is_some() {
                let times = timed(|round| {
                    let service = names[round % names.len()].as_str();
                    router.route(&call(service, &mut random, now), &catalog).map(drop)
                })?;
                costs.push(cost("reused route", "services", size, times));
            }
        }
        let pool = Arc::new(pool(size));
        if let Some(planned) = policies.planned.first() {
            let times = timed(|_| planned.planner().plan(&pool).map(drop))?;
            costs.push(cost("compile", "members", size, times));
            planned.refresh([&pool].into_iter(), Mono::from_secs(0));
            let question = if policies.balancers.len() > 1 { "planned pick" } else { "pick" };
            costs.push(Cost { budget_us: budgets.pick_us, ..picks(&**planned, &pool, question)? });
        }
        // The last of them is asked where a plan says nothing.
        if let Some(balancer) = policies.balancers.get(policies.planned.len()) {
            costs.push(Cost { budget_us: budgets.pick_us, ..picks(&**balancer, &pool, "pick")? });
        }
        if let Some(alerter) = policies.alerters.first() {
            let wants = (0..).zip(alerter.wants());
            let samples: Vec<Sample> = wants.flat_map(|(want, _)| samples(want, size)).collect();
            let times = timed(|_| alerter.evaluate(Wall::from_millis(0), &samples, &[]).map(drop))?;
            costs.push(cost("evaluate", "samples", samples.len(), times));
        }
    }
    if let Some(meter) = policies.meters.first() {
        let calls: Vec<Finished> = (0..CALLS_AT_ONCE).map(finished).collect();
        costs.push(cost("on-calls", "calls", calls.len(), timed(|_| meter.on_calls(&calls, 0))?));
        let times = timed(|_| meter.collect(Wall::from_millis(0)).map(drop))?;
        costs.push(cost("collect", "calls", calls.len(), times));
    }
    Ok(costs)
}

fn picks(balancer: &dyn Balancer, pool: &Arc<Pool>, question: &'static str) -> Result<Cost, PolicyFault> {
    let mut random = fastrand::Rng::with_seed(1);
    let now = Mono::from_secs(0);
    let times = timed(|_| {
        let ask = Ask { affinity: random.u64(..), random: random.u64(..), excluded: 0, now };
        balancer.pick(pool, ask).map(drop)
    })?;
    Ok(cost(question, "members", pool.members.len(), times))
}

/// The times of one answer after the other, sorted. Two readings of the clock, about 50 ns, are in each.
fn timed(mut question: impl FnMut(usize) -> Result<(), PolicyFault>) -> Result<Vec<Duration>, PolicyFault> {
    let begun = Instant::now();
    for round in 0..WARM_UP {
        question(round)?;
        if begun.elapsed() > TIME_MAX {
            break;
        }
    }
    let begun = Instant::now();
    let mut times = Vec::with_capacity(SAMPLES_MAX);
    while times.len() < SAMPLES_MAX && (times.is_empty() || begun.elapsed() < TIME_MAX) {
        let started = Instant::now();
        question(times.len())?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn cost(question: &'static str, unit: &'static str, size: usize, sorted: Vec<Duration>) -> Cost {
    let at = |permille: usize| rounded(micros(sorted[(sorted.len() - 1) * permille / 1000]));
    let (min_us, median_us, p99_us) = (at(0), at(500), at(990));
    Cost { question, unit, size, count: sorted.len(), min_us, median_us, p99_us, budget_us: None }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// To three digits behind the point.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

impl Report {
    fn text(&self) -> String {
        let time = |us: f64| text::duration(Duration::from_secs_f64(us / 1e6));
        let head = ["QUESTION", "OF", "MIN", "MEDIAN", "P99", "BUDGET", ""];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for cost in &self.answers {
            let verdict = match cost.budget_us {
                None => "",
                Some(_) if cost.is_over_budget() => "✖ over budget",
                Some(_) => "✔ within budget",
            };
            rows.push(vec![
                cost.question.to_owned(),
                format!("{} {}", cost.size, cost.unit),
                time(cost.min_us),
                time(cost.median_us),
                time(cost.p99_us),
                cost.budget_us.map_or_else(|| "-".to_owned(), time),
                verdict.to_owned(),
            ]);
        }
        let mut out = format!("{} {}\n\n{}\n", self.name, self.version, text::table(&rows));
        // Writing to a string cannot fail.
        writeln!(
            out,
            "instance  {} to make and configure, {} of memory; compiled in {:.0} ms",
            time(self.instantiate_us),
            text::bytes(self.memory_bytes),
            self.compile_ms
        )
        .ok();
        if cfg!(debug_assertions) {
            out.push_str(
                "measured by a debug build of meshwright, which is several times slower than a release\n",
            );
        }
        out
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("made of letters, digits and dashes")
}

fn catalog(services: usize) -> Catalog {
    let service = |index: usize| CatalogService {
        name: name(&format!("service-{index}")),
        tags: vec![name("stable"), name("canary")],
        tools: (0..10).map(|tool| format!("tool_{tool}")).collect(),
        instances: 3,
        healthy: 3,
    };
    Catalog { version: 1, services: (0..services).map(service).collect() }
}

fn call<'a>(service: &'a str, random: &mut fastrand::Rng, now: Mono) -> CallFacts<'a> {
    CallFacts {
        id: CallId(random.u64(..)),
        arrived: Wall::from_millis(1_767_225_600_000),
        now,
        random: random.u64(..),
        affinity: random.u64(..),
        service,
        tool: "tool_3",
        method: "tools/call",
        client: "measurer",
        size: 400,
        time_left: Duration::from_secs(60),
        arguments: br#"{"path":"/a/b","limit":10}"#,
    }
}

fn pool(members: usize) -> Pool {
    let zones = ["a", "b", "c"].map(name);
    let member = |index: usize| {
        let live = Arc::new(Live::default());
        live.observe(Mono::from_secs(1), Duration::from_micros(5_000 + 100 * index as u64));
        Member {
            slot: Slot(index as u32),
            instance: name(&format!("service-{index}")),
            node: name("node"),
            zone: Some(zones[index % zones.len()].clone()),
            weight: 100,
            tags: [name("stable")].into(),
            live,
        }
    };
    Pool {
        id: PoolId(members as u32),
        version: 1,
        service: name("service"),
        members: (0..members).map(member).collect(),
        loads_version: Arc::new(AtomicU64::new(1)),
    }
}

/// One of each instance for a want.
fn samples(want: u32, instances: usize) -> impl Iterator<Item = Sample> {
    (0..instances).map(move |index| Sample {
        want,
        labels: vec![
            ("service".into(), format!("service-{}", index / 3)),
            ("instance".into(), format!("service-{index}")),
        ],
        value: (index % 7) as f64 / 10.0,
    })
}

fn finished(index: usize) -> Finished {
    Finished {
        id: CallId(index as u64),
        at: Wall::from_millis(1_767_225_600_000),
        service: name(&format!("service-{}", index % 10)),
        instance: Some(name("service-1")),
        tool: Arc::from(format!("tool_{}", index % 7)),
        client: Arc::from("measurer"),
        latency_us: 8_000,
        attempt_us: 7_500,
        status: if index.is_multiple_of(50) { 502 } else { 200 },
        request_bytes: 400,
        response_bytes: 2_000,
        story: Story::default(),
    }
}
