//! A component of every kind. What it does is written into its marker after it was built: see [`behaviour`]. The
//! component in `tests/components/misbehaver` is for tests from outside; this one reaches what those cannot see.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use exports::meshwright::plugin::{alerter, balancer, catalog, lifecycle, meter, planner, router};
use meshwright::plugin::{arguments, kv, live, log};

wit_bindgen::generate!({ path: "../../../../wit", world: "everything" });
export!(Contrarian);

struct Contrarian;

const MARK: &[u8] = b"@@CONTRARIAN@@";

#[used]
static MARKER: [u8; 64] = *b"@@CONTRARIAN@@nothing                                           ";

thread_local! {
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static CALLS: Cell<f64> = const { Cell::new(0.0) };
}

/// One word, such as `nothing`, or `route-trap`: a function, and what happens in it.
fn behaviour() -> String {
    // Hidden from the optimiser, which knows the marker's first text only.
    let marker: &[u8; 64] = black_box(&MARKER);
    String::from_utf8_lossy(&marker[MARK.len()..]).trim_end().to_owned()
}

fn does(what: &str) -> bool {
    behaviour() == what
}

/// Does what the behaviour says for this function.
fn act(function: &str) {
    match behaviour().strip_prefix(function).and_then(|rest| rest.strip_prefix('-')) {
        Some("trap") => panic!("deliberate"),
        Some("loop") => loop {
            black_box(0);
        },
        Some("recurse") => {
            black_box(recurse(1));
        }
        Some("allocate") => loop {
            HOARD.with_borrow_mut(|hoard| hoard.push(vec![1; 1 << 20]));
        },
        // Slowly, and never all of it: 27 of 32 MiB.
        Some("hoard") => HOARD.with_borrow_mut(|hoard| {
            if hoard.len() < 27 {
                hoard.push(vec![1; 1 << 20]);
            }
        }),
        Some("feast-20") => feast(20),
        Some("feast-40") => feast(40),
        Some("dawdle") => {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {
                black_box(0);
            }
        }
        Some("sleep") => std::thread::sleep(Duration::from_secs(10)),
        Some("exit") => std::process::exit(3),
        Some("use-wasi") => use_wasi(),
        Some("use-files") => use_files(),
        Some("connect") => drop(std::net::TcpStream::connect("127.0.0.1:9")),
        Some("ask-arguments") => assert_eq!(arguments::at(""), None, "without the grant there is nothing"),
        Some("leak") => loop {
            std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(1));
        },
        Some("flood") => (0..1_000).for_each(|i| {
            log::emit(log::Level::Info, &format!("line {i}"));
            println!("out\nput");
        }),
        Some("trap-later") if kv::add("asked", 1, 0).is_ok_and(|asked| asked > 1) => panic!("deliberate"),
        Some("fail-thrice") if kv::add("asked", 1, 0).is_ok_and(|asked| asked <= 3) => panic!("one of three"),
        _ => {}
    }
}

/// Wants so much at once, and leaves it.
fn feast(mib: usize) {
    drop(black_box(Vec::<u8>::with_capacity(mib << 20)));
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { recurse(depth + 1) + black_box(1) }
}

fn use_wasi() {
    let mut line = String::new();
    assert_eq!(std::io::stdin().read_line(&mut line).ok(), Some(0), "standard input is at its end");
    print!("a line in ");
    println!("two parts");
    eprintln!("another");
    assert_eq!(std::env::vars().count() + std::env::args().count(), 0, "the environment is empty");
    assert!(SystemTime::now() > SystemTime::UNIX_EPOCH);
    black_box(Instant::now());
    let map: std::collections::HashMap<u8, u8> = [(1, 2)].into();
    assert_eq!(map[&1], 2, "hashing needs a seed");
}

/// Standard libraries of other languages import files whether or not they are used.
fn use_files() {
    use std::fs;
    assert!(fs::read("/etc/hostname").is_err() && fs::read("Cargo.toml").is_err());
    assert!(fs::write("/tmp/x", "x").is_err() && fs::write("x", "x").is_err());
    assert!(fs::read_dir("/").is_err() && fs::read_dir(".").is_err() && fs::metadata("/").is_err());
    assert!(fs::create_dir("/x").is_err() && fs::remove_file("/etc/hostname").is_err());
}

/// A number that is always another, for what shall be new each time.
fn fresh() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn number(key: &str) -> u32 {
    kv::get(key)
        .and_then(|value| String::from_utf8(value).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

impl lifecycle::Guest for Contrarian {
    fn metadata() -> String {
        match behaviour().as_str() {
            "no-metadata" => "nope".into(),
            "bad-name" => "name = \"../x\"\nversion = \"1\"".into(),
            _ => "name = \"guest\"\nversion = \"1.0.0\"\nsummary = \"a test\"\nauthors = [\"me\"]\n".into(),
        }
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        act("configure");
        if config_json.contains("bad") {
            return Err(vec![lifecycle::Issue { path: "/bad".into(), message: "must not be there".into() }]);
        }
        Ok(())
    }

    fn self_test() -> Result<(), String> {
        if does("self-test-fails") { Err("it does not work".into()) } else { Ok(()) }
    }
}

impl catalog::Guest for Contrarian {
    fn on_catalog(services: Vec<catalog::Service>) {
        act("catalog");
        let _ = kv::set("services", services.len().to_string().as_bytes(), 0);
    }
}

impl router::Guest for Contrarian {
    fn route(call: router::Call) -> router::Decision {
        act("route");
        assert!(!does("trap-at-times") || call.random % 40 != 0, "deliberate");
        let to = |service: &str, tool: Option<&str>| {
            let (service, tool) = (service.into(), tool.map(Into::into));
            router::Verdict::Forward(router::Target { service, tag: None, tool, timeout_ms: None, mirror: None })
        };
        let verdict = match behaviour().as_str() {
            "bad-service" => to("../etc", None),
            "bad-tool" => to("a", Some("x\n")),
            "long-reason" => router::Verdict::Reject(router::Refusal {
                reason: "r".repeat(100_000),
                retry_after_ms: Some(5),
            }),
            _ => to(&call.service, None),
        };
        let why = match behaviour().as_str() {
            "long-why" => "é".repeat(100_000),
            "huge-why" => "x".repeat(2 << 20),
            _ => format!("{} services\n", number("services")),
        };
        let reuse = does("reuse").then(|| {
            let asked = kv::add("asked", 1, 0);
            log::emit(log::Level::Debug, &format!("{asked:?}"));
            router::Reuse { ttl_ms: u32::MAX, vary: router::Vary::TOOL }
        });
        router::Decision { verdict, why, reuse }
    }
}

impl balancer::Guest for Contrarian {
    fn on_pool(_pool: u32, _service: String, members: Vec<balancer::Member>) {
        act("pool");
        let _ = kv::add(if members.is_empty() { "gone" } else { "pools" }, 1, 0);
    }

    fn on_load(_pool: u32, _loads: Vec<balancer::Load>) {
        act("load");
        let _ = kv::add("loads", 1, 0);
    }

    fn pick(pool: u32, _affinity: u64, _random: u64, tried: u64) -> u32 {
        act("pick");
        match behaviour().as_str() {
            "count" => number("pools") * 100 + number("loads") * 10 + number("gone"),
            "live" => {
                let own = live::in_flight(pool, 1) * 1_000 + live::ewma_us(pool, 1);
                own + live::in_flight(pool + 1, 1) + live::in_flight(pool, 77)
            }
            _ if tried & 1 != 0 => u32::MAX,
            _ => 0,
        }
    }
}

impl planner::Guest for Contrarian {
    fn compile(
        _pool: u32,
        _service: String,
        members: Vec<balancer::Member>,
        _loads: Vec<balancer::Load>,
    ) -> Option<planner::Plan> {
        act("compile");
        let strategy = match behaviour().as_str() {
            "plan" => planner::Strategy::Weighted((0..members.len() as u32).collect()),
            "plan-short" => planner::Strategy::Weighted(vec![1]),
            "plan-nobody" => planner::Strategy::Tiers(vec![vec![77]]),
            "plan-huge" => planner::Strategy::Ring((0..1 << 20).map(|at| (at << 44, 0)).collect()),
            "plan-nowhere" => planner::Strategy::Ring(vec![(1, 77)]),
            "plan-free" => {
                let choice = planner::Choice { share: 1, price: f32::NAN, first: false };
                let choices = vec![choice; members.len()];
                planner::Strategy::TwoChoices(planner::TwoChoices { choices, failure_us: 0 })
            }
            _ => return None,
        };
        Some(planner::Plan { strategy, ttl_ms: u32::MAX, why: "planned".into() })
    }
}

impl alerter::Guest for Contrarian {
    fn wants() -> Vec<alerter::Want> {
        act("wants");
        let window_s = if does("bad-window") { 0 } else { 60 };
        vec![alerter::Want {
            series: "meshwright_calls_total".into(),
            aggregate: alerter::Aggregate::Rate,
            window_s,
        }]
    }

    fn evaluate(_: u64, samples: Vec<alerter::Sample>, events: Vec<alerter::Event>) -> Vec<alerter::Firing> {
        act("evaluate");
        let firing = alerter::Firing {
            rule: "r".into(),
            severity: alerter::Severity::Error,
            labels: samples.into_iter().take(1).flat_map(|sample| sample.labels).collect(),
            title: format!("{} events", events.len()),
            detail: String::new(),
            value: if does("not-a-number") { f64::NAN } else { 1.0 },
            threshold: 1.0,
            for_s: 0,
            resolve_at: 0.5,
        };
        if does("alert-flood") {
            // As many as are allowed, each time others.
            let begun = fresh();
            let rule = |at: u64| alerter::Firing { rule: format!("r{}", at / 100), ..firing.clone() };
            let labels = |at: u64| vec![("at".into(), format!("{:0>200}", begun + at))];
            return (0..1_000).map(|at| alerter::Firing { labels: labels(at), ..rule(at) }).collect();
        }
        vec![firing; if does("many-alerts") { 101 } else { 1 }]
    }
}

impl meter::Guest for Contrarian {
    fn describe() -> (Vec<meter::Metric>, Vec<meter::Panel>) {
        act("describe");
        let metric = meter::Metric {
            name: match () {
                () if does("own-metric") => "meshwright_plugin_calls_total".into(),
                () if does("other-metric") => "others".into(),
                () => "calls".into(),
            },
            help: "Calls.".into(),
            unit: String::new(),
            kind: meter::Kind::Counter,
            labels: vec!["tool".into()],
            series_max: if does("series-flood") { u32::MAX } else { 2 },
        };
        let (title, unit) = ("Calls".into(), String::new());
        let metrics = vec![metric; if does("metric-flood") { 10_000 } else { 1 }];
        (metrics, vec![meter::Panel { title, chart: meter::Chart::Line, metrics: vec![0], unit }])
    }

    fn on_calls(calls: Vec<meter::Finished>, _dropped: u32) {
        act("on-calls");
        CALLS.set(CALLS.get() + calls.len() as f64);
    }

    fn collect(_: u64) -> Vec<meter::Point> {
        act("collect");
        let metric = if does("bad-point") { 7 } else { 0 };
        let label = |at: u64| match does("series-flood") {
            true => format!("{:0>200}", fresh() + at),
            false => at.to_string(),
        };
        let points = if does("series-flood") { 10_000 } else { 5 };
        (0..points).map(|at| meter::Point { metric, labels: vec![label(at)], value: CALLS.get() }).collect()
    }
}
