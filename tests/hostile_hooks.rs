//! A plugin of every kind that misbehaves in one hook after another: what it does costs itself alone.

mod support;

use std::fs;
use std::time::Duration;

use support::callers::p99;
use support::guests::{contrarian, drop_in};
use support::{Api, Callers, Mesh, RawUpstream, SOON, Value, eventually, json};
use tokio::sync::Mutex;

const GROWTH_KIB_MAX: u64 = 64 << 10;
const SLOWER_MAX: Duration = Duration::from_millis(5);
/// A busy machine slows one look or the other; what is in the way slows all.
const LOOKS_MAX: usize = 3;
/// Latencies are compared here, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());
const FILE: &str = "guest.wasm";

/// What is noticed only when the plugin is asked: it is in force, and has faults.
const FAULTS: &[&str] = &[
    "catalog-trap",
    "catalog-loop",
    "catalog-leak",
    "route-leak",
    "pool-trap",
    "pool-loop",
    "pool-allocate",
    "load-loop",
    "pick-leak",
    "pick-recurse",
    "compile-trap",
    "compile-loop",
    "compile-allocate",
    "plan-huge",
    "plan-nobody",
    "plan-free",
    "evaluate-loop",
    "evaluate-allocate",
    "evaluate-leak",
    "many-alerts",
    "on-calls-loop",
    "on-calls-allocate",
    "collect-loop",
    "collect-leak",
    "bad-point",
];

/// How the fault is told; whether time or memory ends first depends on the machine.
fn words(doing: &str) -> &'static [&'static str] {
    match doing.rsplit('-').next() {
        Some("trap") => &["deliberate"],
        Some("loop") => &["it took longer than"],
        Some("allocate") => &["MiB of memory", "it took longer than"],
        Some("leak") => &["handle limit exceeded"],
        Some("recurse") => &["stack"],
        _ => &["it answered nonsense", "it took longer than", "it trapped"],
    }
}

/// What keeps a plugin out.
const REFUSED: &[&str] = &[
    "configure-loop",
    "configure-allocate",
    "configure-leak",
    "wants-loop",
    "describe-loop",
    "describe-allocate",
    "metric-flood",
    "bad-window",
    "no-metadata",
    "bad-name",
];

async fn scene() -> (Mesh, [RawUpstream; 2]) {
    let mesh = Mesh::plain().await;
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    for (name, upstream) in ["victim", "other"].into_iter().zip(&upstreams) {
        mesh.api.join(name, upstream.port).await;
    }
    (mesh, upstreams)
}

fn is_of(plugin: &Value, file: &str) -> bool {
    plugin["source"].as_str().is_some_and(|source| source.ends_with(file))
}

/// What is said of the plugin once that is true.
async fn when(mesh: &Mesh, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, 2 * SOON, || async {
        let page = mesh.api.get("/plugins").await.ok();
        let plugins = page["plugins"].as_array().expect("plugins").clone();
        plugins.into_iter().find(|plugin| is_of(plugin, FILE) && holds(plugin))
    })
    .await
}

async fn gone(mesh: &Mesh) {
    fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take it away");
    eventually("it is gone", SOON, || async {
        let page = mesh.api.get("/plugins").await.ok();
        page["plugins"].as_array().expect("plugins").iter().all(|plugin| !is_of(plugin, FILE)).then_some(())
    })
    .await;
}

async fn all_is_well(api: &Api, doing: &str) {
    for page in ["/health", "/metrics", "/api/v1/alerts", "/plugins", "/services"] {
        let answer = api.get(page).await;
        assert_eq!(answer.status, 200, "{doing}: {page}: {}", answer.text());
    }
}

/// What others' calls take beside a plugin that does that.
async fn beside(mesh: &Mesh, doing: &str) -> Duration {
    drop_in(&mesh.plugins_dir(), FILE, &contrarian(doing));
    // The first one may be the fault of a machine that was too busy to run it.
    let faulty =
        |plugin: &Value| plugin["last_fault"].as_str().is_some_and(|fault| !fault.contains("too busy"));
    let plugin = when(mesh, &format!("{doing}: a fault"), faulty).await;
    let fault = plugin["last_fault"].as_str().expect("its last fault");
    assert!(words(doing).iter().any(|words| fault.contains(words)), "{doing}: {fault}");
    let beside = p99(&mesh.api, "other", "act_read_only").await;
    all_is_well(&mesh.api, doing).await;
    gone(mesh).await;
    beside
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_plugin_does_in_any_hook_costs_itself_alone() {
    let _alone = ALONE.lock().await;
    let (mesh, _upstreams) = scene().await;
    let callers = Callers::start(&mesh.api, 2, "victim", "act");
    let mut calm = p99(&mesh.api, "other", "act_read_only").await;
    let before = mesh.resident_kib();
    let (mut again, mut slow) = (0, Vec::new());
    for doing in FAULTS {
        let mut looks = Vec::new();
        while looks.len() < LOOKS_MAX {
            if !looks.is_empty() {
                calm = p99(&mesh.api, "other", "act_read_only").await;
            }
            let beside = beside(&mesh, doing).await;
            if beside <= calm + SLOWER_MAX {
                break;
            }
            looks.push((calm, beside));
        }
        again += looks.len();
        if looks.len() == LOOKS_MAX {
            slow.push((*doing, looks));
        }
    }
    for doing in REFUSED {
        drop_in(&mesh.plugins_dir(), FILE, &contrarian(doing));
        let plugin = when(&mesh, &format!("{doing}: refused"), |plugin| plugin["state"] == "refused").await;
        assert!(plugin["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{doing}: {plugin}");
        all_is_well(&mesh.api, doing).await;
        gone(&mesh).await;
    }
    assert!(callers.stop().await > 1_000);
    let after = eventually("its memory is given back", 2 * SOON, || async {
        let now = mesh.resident_kib();
        (now < before + GROWTH_KIB_MAX).then_some(now)
    })
    .await;
    eprintln!(
        "{} behaviours; p99 {calm:?}, {again} slow looks; {before} KiB, then {after} KiB",
        FAULTS.len() + REFUSED.len()
    );
    assert!(slow.is_empty(), "others' p99 before and beside, at each look: {slow:?}");
    // Guests that panic say so themselves.
    let log = mesh.log();
    let panicked = |line: &&str| line.contains("panicked") && !line.contains("meshwright::plugin:");
    assert_eq!(log.lines().find(panicked), None, "the host panicked");
    assert!(!log.contains("the host failed"), "the host is never to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_series_and_alerts_end_at_their_limits() {
    let _alone = ALONE.lock().await;
    let (mesh, _upstreams) = scene().await;
    for (doing, page, bytes_max) in
        [("series-flood", "/metrics", 4 << 20), ("alert-flood", "/api/v1/alerts", 4 << 20)]
    {
        let before = mesh.resident_kib();
        drop_in(&mesh.plugins_dir(), FILE, &contrarian(doing));
        when(&mesh, doing, |plugin| plugin["state"] == "loaded" || plugin["state"] == "quarantined").await;
        let mut sizes = Vec::new();
        for second in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            mesh.api.call("other", "act", json!({})).await.ok();
            sizes.push(mesh.api.get(page).await.text().len());
            assert!(sizes[second] < bytes_max, "{doing}: {page} has {sizes:?} bytes");
        }
        all_is_well(&mesh.api, doing).await;
        gone(&mesh).await;
        let after = mesh.resident_kib();
        eprintln!("{doing}: {page} had {sizes:?} bytes; {before} KiB, then {after} KiB");
        assert!(after < before + GROWTH_KIB_MAX, "{doing}: {before} KiB, then {after} KiB");
    }
}
