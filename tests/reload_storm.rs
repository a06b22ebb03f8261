//! Ten builds a second, every other one broken, while calls flow: none of them fails, and nothing grows.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::guests::{drop_in, misbehaver};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, eventually, json};

const STORM: Duration = Duration::from_secs(60);
const BUILDS_PER_S: u32 = 10;
const CALLERS: usize = 16;
/// What all callers together aim at; a slow machine calls less.
const CALLS_PER_S: u32 = 2_000;
const GROWTH_KIB_MAX: u64 = 64 << 10;
const SETTLED: Duration = Duration::from_secs(60);

/// A build that must not come into force.
fn broken(number: usize, version: &str) -> Vec<u8> {
    let whole = || misbehaver("answer", "hot", version);
    match number % 6 {
        0 => b"this is no component".to_vec(),
        1 => misbehaver("self-test-fails", "hot", version),
        2 => whole()[..5_000].to_vec(),
        3 => misbehaver("trap-in-configure", "hot", version),
        4 => misbehaver("trap-in-metadata", "hot", version),
        _ => misbehaver("configure-refuses", "hot", version),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_good_and_broken_builds_fails_no_call() {
    let args = vec!["--workers".to_owned(), "2".to_owned()];
    let mesh = Mesh::start(MeshOptions { args, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    let first = misbehaver("answer", "hot", "0.0.0");
    drop_in(&mesh.plugins_dir(), "hot.wasm", &first);
    eventually("the first one decides", SETTLED, || async {
        mesh.api.plugin("hot").await.filter(|plugin| plugin["state"] == "loaded")
    })
    .await;

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (api, stop, calls) = (mesh.api.clone(), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_secs(1) * CALLERS as u32 / CALLS_PER_S);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let body = api.call("s", "act", json!({"n": 1})).await.ok();
                    let by = body["routed_by"].as_str().expect("somebody decided");
                    let version = by.split(' ').nth(1).expect("a version");
                    assert_eq!(body["why"], format!("hot {version}"), "one call, two versions: {body}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // What the calls themselves need is there before it is measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before_kib = mesh.resident_kib();
    let began = Instant::now();
    let mut builds = tokio::time::interval(Duration::from_secs(1) / BUILDS_PER_S);
    let mut number = 0;
    while began.elapsed() < STORM {
        builds.tick().await;
        number += 1;
        let version = format!("0.{number}.0");
        let bytes = if number % 2 == 0 {
            misbehaver("answer", "hot", &version)
        } else {
            broken(number / 2, &version)
        };
        drop_in(&mesh.plugins_dir(), "hot.wasm", &bytes);
    }
    let last = misbehaver("answer", "hot", "1.0.0");
    drop_in(&mesh.plugins_dir(), "hot.wasm", &last);
    let plugin = eventually("the last one decides", SETTLED, || async {
        mesh.api.plugin("hot").await.filter(|plugin| plugin["version"] == "1.0.0")
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    let (calls, grown_kib) = (calls.load(Ordering::Relaxed), mesh.resident_kib().saturating_sub(before_kib));
    let per_s = calls as f64 / began.elapsed().as_secs_f64();
    eprintln!(
        "{number} builds, {} generations, {calls} calls ({per_s:.0}/s), {grown_kib} KiB more",
        plugin["generation"]
    );
    assert!(calls > 1_000, "only {calls} calls");
    assert!(plugin["generation"].as_u64().is_some_and(|generation| generation >= 5), "{plugin}");
    assert_eq!(plugin["faults"], 0, "{plugin}");
    assert!(grown_kib < GROWTH_KIB_MAX, "{grown_kib} KiB more than before");
}
