//! What a component may do to a call, and what it may not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::support::{Bench, SETTLED, ask, catalog, facts, guest, name, pool, until};
use crate::mesh::ids::Slot;
use crate::mesh::observe::{Finished, Sample};
use crate::mesh::pool::Pool;
use crate::mesh::story::Story;
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::{CallFacts, Decision, Verdict};
use crate::plugin::set_worker;
use crate::policy::status::PluginState;
use crate::policy::{PolicyFault, PolicySet};

fn route(set: &PolicySet) -> Result<Arc<Decision>, PolicyFault> {
    set.routers[0].route(&facts(), &catalog(1, 3))
}

/// Routes until the instance that the last fault ended is replaced.
fn route_when_repaired(set: &PolicySet, tool: &str) -> Result<Arc<Decision>, PolicyFault> {
    until("a repair", || match set.routers[0].route(&CallFacts { tool, ..facts() }, &catalog(1, 3)) {
        Err(PolicyFault::Busy(_)) => None,
        answer => Some(answer),
    })
}

#[test]
fn a_well_behaved_component_is_all_kinds_at_once() {
    let (bench, set) = Bench::of("nothing");
    let status = bench.only();
    assert_eq!(status.kinds, ["router", "balancer", "planner", "alerter", "meter"]);
    assert_eq!((status.name.as_str(), status.version.as_str(), status.generation), ("guest", "1.0.0", 1));
    assert_eq!((status.state, status.summary.as_str()), (PluginState::Loaded, "a test"));

    let decision = route(&set).unwrap();
    assert!(matches!(decision.verdict, Verdict::Forward(ref target) if target.service == name("docs")));
    assert_eq!(&*decision.why, "3 services ", "the catalogue came first, and control characters are gone");
    assert_eq!(set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask()), Ok(Some(Slot(0))));
    let mut elsewhere = ask();
    elsewhere.excluded = 1;
    assert_eq!(set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), elsewhere), Ok(None));

    assert_eq!(set.alerters[0].wants()[0].window_s, 60);
    let sample = Sample { want: 0, labels: vec![("service".into(), "docs".into())], value: 3.0 };
    let firings = set.alerters[0].evaluate(Wall::from_millis(1), &[sample], &[]).unwrap();
    assert_eq!(firings[0].labels, [("service".to_owned(), "docs".to_owned())]);

    assert_eq!(set.meters[0].describe().metrics[0].name, "calls");
    set.meters[0].on_calls(&[finished(), finished()], 0).unwrap();
    let points = set.meters[0].collect(Wall::from_millis(1)).unwrap();
    assert_eq!(points.len(), 2, "no more series than the metric announced");
    assert_eq!(points[0].value, 2.0);
    assert_eq!(bench.kinds_of_events(), ["plugin_loaded"]);
    assert!(bench.only().calls >= 5 && bench.only().p99_us > 0.0 && bench.only().memory_bytes > 0);
}

fn finished() -> Finished {
    Finished {
        id: crate::mesh::ids::CallId(1),
        at: Wall::from_millis(1),
        service: name("docs"),
        instance: None,
        tool: "search".into(),
        client: "alice".into(),
        attempt_us: 0,
        latency_us: 10,
        status: 200,
        request_bytes: 1,
        response_bytes: 1,
        story: Story::default(),
    }
}

#[test]
fn an_endless_loop_is_stopped_within_its_deadline() {
    for (behaviour, picks) in [("route-loop", false), ("pick-loop", true)] {
        let (bench, set) = Bench::of(behaviour);
        let started = Instant::now();
        let fault = if picks {
            set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask()).unwrap_err()
        } else {
            route(&set).unwrap_err()
        };
        assert_eq!(fault, PolicyFault::Deadline(name("guest")));
        // Many times the budget, since the machine that runs this may be busy.
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        assert_eq!((bench.only().faults, bench.only().fallbacks), (1, 1));
    }
}

#[test]
fn traps_recursion_exits_and_memory_bombs_cost_one_call_each() {
    for (behaviour, words) in [
        ("route-trap", "deliberate"),
        ("route-recurse", "stack"),
        ("route-exit", "exit"),
        ("huge-why", "trap"),
        ("route-connect", "plugins have no network, and it called `wasi:sockets/"),
    ] {
        let (bench, set) = Bench::of(behaviour);
        assert_eq!(route(&set), Err(PolicyFault::Trap(name("guest"))), "{behaviour}");
        let fault = bench.only().last_fault.unwrap();
        assert!(fault.contains(words), "{behaviour}: {fault}");
        let other = set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask());
        assert_eq!(other, Ok(Some(Slot(0))), "{behaviour}: a neighbour takes the next question");
    }
}

/// Whether the memory or the time ends first depends on the machine.
#[test]
fn a_memory_bomb_stays_within_its_instance() {
    let (bench, set) = Bench::of("route-allocate");
    assert!(matches!(route(&set), Err(PolicyFault::Trap(_) | PolicyFault::Deadline(_))));
    assert!(bench.only().memory_bytes <= 2 * (32 << 20));
    assert_eq!(set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask()), Ok(Some(Slot(0))));
    until("the repair", || (bench.only().memory_bytes < 8 << 20).then_some(()));
}

#[test]
fn nonsense_is_refused_and_long_texts_are_cut() {
    for (behaviour, words) in [("bad-service", "service"), ("bad-tool", "tool")] {
        let (_bench, set) = Bench::of(behaviour);
        let Err(PolicyFault::Nonsense(_, what)) = route(&set) else { panic!("{behaviour}") };
        assert!(what.contains(words), "{what}");
    }
    let (_bench, set) = Bench::of("long-why");
    let why = Arc::clone(&route(&set).unwrap().why);
    assert_eq!((why.len(), why.chars().all(|c| c == 'é')), (1024, true));
    let (_bench, set) = Bench::of("long-reason");
    let decision = route(&set).unwrap();
    let Verdict::Reject(refusal) = &decision.verdict else { panic!() };
    assert_eq!((refusal.reason.len(), refusal.retry_after), (4096, Some(Duration::from_millis(5))));
}

#[test]
fn alerters_and_meters_are_held_to_the_contract() {
    let evaluate = |set: &PolicySet| set.alerters[0].evaluate(Wall::from_millis(1), &[], &[]);
    for behaviour in ["not-a-number", "many-alerts"] {
        let (_bench, set) = Bench::of(behaviour);
        assert!(matches!(evaluate(&set), Err(PolicyFault::Nonsense(..))), "{behaviour}");
    }
    let (_bench, set) = Bench::of("bad-point");
    assert!(matches!(set.meters[0].collect(Wall::from_millis(1)), Err(PolicyFault::Nonsense(..))));
    let (_bench, set) = Bench::of("evaluate-trap");
    assert_eq!(evaluate(&set), Err(PolicyFault::Trap(name("guest"))));
    set.meters[0].collect(Wall::from_millis(1)).expect("the instance is made anew for the next question");
    let (_bench, set) = Bench::of("evaluate-loop");
    assert_eq!(evaluate(&set), Err(PolicyFault::Deadline(name("guest"))));
}

#[test]
fn three_faults_bring_a_rest_and_the_plugin_comes_back() {
    let (bench, set) = Bench::of("route-fail-thrice");
    for tool in ["a", "b", "c"] {
        assert_eq!(route_when_repaired(&set, tool), Err(PolicyFault::Trap(name("guest"))));
    }
    assert_eq!(route(&set), Err(PolicyFault::Quarantined(name("guest"))));
    let status = bench.only();
    assert_eq!((status.state, status.faults), (PluginState::Quarantined, 3));
    assert!(status.reason.contains("one of three"), "{}", status.reason);
    assert_eq!(bench.kinds_of_events(), ["plugin_loaded", "plugin_quarantined"]);
    until("the return", || route(&set).ok());
    assert_eq!(bench.only().state, PluginState::Loaded);
}

#[test]
fn a_condemned_instance_is_replaced_in_the_background() {
    let bench = Bench::with(1, &[]);
    bench.put("guest.wasm", &guest("route-fail-thrice"));
    let (set, _) = bench.plugins.reload(SETTLED);
    assert!(matches!(route(&set), Err(PolicyFault::Trap(_))));
    until("the repair", || set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask()).ok());
}

#[test]
fn an_instance_with_full_memory_is_recycled_without_a_fault() {
    let (bench, set) = Bench::of("route-hoard");
    let (mut highest, mut fallen) = (0, 0);
    for _ in 0..80 {
        until("an answer", || match route(&set) {
            Err(PolicyFault::Busy(_)) => None,
            answer => Some(answer.unwrap()),
        });
        let bytes = bench.only().memory_bytes;
        (highest, fallen) = (highest.max(bytes), fallen.max(highest.saturating_sub(bytes)));
    }
    assert_eq!(bench.only().faults, 0);
    assert!(highest < 2 * (32 << 20));
    // One that is not recycled stays as full as it is.
    assert!(fallen > 16 << 20, "{highest} bytes at most, {fallen} fewer later");
}

/// Inside a tokio worker, `block_on` would panic and sleeping would stall every connection of the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn blocking_calls_of_wasi_do_not_block_a_tokio_worker() {
    tokio::spawn(async {
        let (bench, set) = Bench::of("route-sleep");
        let started = Instant::now();
        // Sleeping returns at once: a guest that insists is stopped by its deadline.
        let _ = route(&set);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        drop(bench);
        let (bench, set) = Bench::of("route-use-wasi");
        route(&set).expect("standard streams, clocks and the environment are there, and empty");
        assert_eq!(bench.only().faults, 0);
        let (bench, set) = Bench::of("route-use-files");
        route(&set).expect("no file is there, and asking for one is no fault");
        assert_eq!(bench.only().faults, 0);
    })
    .await
    .unwrap();
}

#[test]
fn importing_arguments_needs_no_grant_but_reading_them_does() {
    let (bench, set) = Bench::of("nothing");
    route(&set).unwrap();
    assert_eq!(bench.only().faults, 0);
    let (bench, set) = Bench::of("route-ask-arguments");
    route(&set).unwrap_err();
    let fault = bench.only().last_fault.unwrap();
    assert!(fault.contains("grant `arguments`"), "{fault}");
}

#[test]
fn floods_of_log_lines_cost_nothing_but_themselves() {
    let (_bench, set) = Bench::of("route-flood");
    let _ = route(&set);
    set.balancers[1].pick(&Arc::new(pool(0, 1, 2)), ask()).unwrap();
}

#[test]
fn pools_are_pushed_when_they_change_and_only_forward() {
    let bench = Bench::with(1, &[]);
    bench.put("guest.wasm", &guest("count"));
    let (set, _) = bench.plugins.reload(SETTLED);
    // The guest answers how often it was told of pools (hundreds), of loads (tens) and of pools gone (ones).
    let picks = |pool: &Arc<Pool>| set.balancers[1].pick(pool, ask()).unwrap().unwrap().0;
    let first = pool(3, 1, 2);
    let loads_version = Arc::clone(&first.loads_version);
    let (first, mut second) = (Arc::new(first), pool(3, 2, 3));
    second.loads_version = Arc::clone(&loads_version);
    let second = Arc::new(second);
    assert_eq!(picks(&first), 110);
    assert_eq!(picks(&first), 110);
    loads_version.fetch_add(1, Ordering::Relaxed);
    assert_eq!(picks(&first), 120);
    assert_eq!(picks(&second), 230);
    let older = set.balancers[1].pick(&first, ask());
    assert_eq!(older, Ok(None), "slots of a later membership mean nothing in an older snapshot");
    assert_eq!(picks(&second), 230, "and it teaches nothing");
    drop((first, second, loads_version));
    let third = Arc::new(pool(4, 1, 2));
    assert_eq!(picks(&third), 341, "the pool that is gone is taken back");
}

#[test]
fn live_figures_are_those_of_the_pool_that_is_asked_about() {
    let (_bench, set) = Bench::of("live");
    let pool = Arc::new(pool(3, 1, 2));
    pool.members[1].live.observe(Mono::from_secs(1), Duration::from_micros(77));
    let _in_flight = pool.members[1].live.enter();
    assert_eq!(set.balancers[1].pick(&pool, ask()), Ok(Some(Slot(1077))));
}

#[test]
fn workers_share_no_instance_and_strangers_are_worker_0() {
    let (_bench, set) = Bench::of("nothing");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let set = &set;
            scope.spawn(move || {
                set_worker(worker);
                for _ in 0..200 {
                    // Four threads on two instances: some calls find all of them busy, none finds anything else.
                    assert!(matches!(route(set), Ok(_) | Err(PolicyFault::Busy(_))));
                }
            });
        }
    });
}

#[test]
fn a_decision_that_may_be_reused_is_not_asked_for_again() {
    let (bench, set) = Bench::of("reuse");
    let at = |tool: &'static str, secs: u64, version: u64| {
        let call = CallFacts { tool, now: Mono::from_secs(secs), ..facts() };
        set.routers[0].route(&call, &catalog(version, 3)).unwrap()
    };
    let first = at("search", 0, 1);
    let again = at("search", 59, 1);
    assert!(Arc::ptr_eq(&first, &again), "at most for a minute, whatever it says");
    assert_eq!((bench.only().calls, bench.only().reused), (1, 1));
    at("other", 59, 1);
    at("search", 60, 1);
    at("search", 61, 2);
    assert_eq!((bench.only().calls, bench.only().reused), (4, 1), "another tool, its end, another catalogue");
    at("search", 62, 2);
    assert_eq!((bench.only().calls, bench.only().reused), (4, 2));
}

#[test]
fn a_plan_is_followed_without_asking() {
    let (bench, set) = Bench::of("plan");
    let pool = Arc::new(pool(0, 1, 2));
    assert_eq!(set.balancers[0].pick(&pool, ask()), Ok(None), "nothing is planned yet");
    set.planned[0].refresh([&pool].into_iter(), Mono::from_secs(0));
    let asked = bench.only().calls;
    for _ in 0..100 {
        assert_eq!(set.balancers[0].pick(&pool, ask()), Ok(Some(Slot(1))));
    }
    assert_eq!((bench.only().calls, bench.only().reused), (asked, 100));
}

#[test]
fn a_plan_that_cannot_be_followed_is_a_fault_and_no_plan() {
    for behaviour in ["plan-short", "plan-nobody", "plan-nowhere", "plan-free", "compile-trap"] {
        let (bench, set) = Bench::of(behaviour);
        let pool = Arc::new(pool(0, 1, 2));
        set.planned[0].refresh([&pool].into_iter(), Mono::from_secs(0));
        assert_eq!(set.balancers[0].pick(&pool, ask()), Ok(None), "{behaviour}");
        assert_eq!(bench.only().faults, 1, "{behaviour}");
        assert_eq!(set.balancers[1].pick(&pool, ask()), Ok(Some(Slot(0))), "{behaviour}: it is asked itself");
    }
}
