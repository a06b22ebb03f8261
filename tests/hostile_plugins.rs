//! Plugins that loop, hoard, trap, recurse and talk nonsense: the calls go on.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::callers::p99;
use support::guests::{drop_in, misbehaver, misbehaver_only};
use support::{Api, Callers, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};
use tokio::sync::{Mutex, MutexGuard};

const GROWTH_KIB_MAX: u64 = 64 << 10;

/// Latencies are compared here, so one test runs at a time.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// A proxy with the services `victim`, for whose tool `act` plugins misbehave, and `other`.
async fn scene() -> (Mesh, [RawUpstream; 2]) {
    let mesh = Mesh::plain().await;
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    for (name, upstream) in ["victim", "other"].into_iter().zip(&upstreams) {
        mesh.api.join(name, upstream.port).await;
    }
    (mesh, upstreams)
}

async fn in_force(api: &Api, name: &str, version: &str) {
    eventually(&format!("{name} {version} is in force"), SOON, || async {
        api.plugin(name).await.filter(|plugin| plugin["version"] == version).map(|_| ())
    })
    .await;
}

async fn bystanders_are_not_slowed_by(doing: &str) {
    let _alone = alone().await;
    let mut measured = Vec::new();
    // A noisy machine gets several chances; a plugin that really gets in the way fails all of them.
    for attempt in 0..5 {
        let (mesh, _upstreams) = scene().await;
        drop_in(&mesh.plugins_dir(), "calm.wasm", &misbehaver_only("nothing", "calm", "1.0.0", "act"));
        in_force(&mesh.api, "calm", "1.0.0").await;
        let nuisance = Callers::start(&mesh.api, 2, "victim", "act");
        let (before, memory) = (p99(&mesh.api, "other", "act_read_only").await, mesh.resident_kib());
        // Of another name: a new build of the same plugin would be asked about the recorded calls, and refused.
        fs::remove_file(mesh.plugins_dir().join("calm.wasm")).expect("take the calm one away");
        drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver_only(doing, "bad", "1.1.0", "act"));
        in_force(&mesh.api, "bad", "1.1.0").await;
        let after = p99(&mesh.api, "other", "act_read_only").await;
        let bad = skipping(&mesh.api).await;
        nuisance.stop().await;
        eventually("its memory is given back", SOON, || async {
            (mesh.resident_kib() < memory + GROWTH_KIB_MAX).then_some(())
        })
        .await;
        assert_eq!(bad["state"], "loaded", "others are still decided by it: {bad}");
        assert!(bad["faults"].as_u64().is_some_and(|faults| faults >= 2), "{bad}");
        assert!(bad["last_fault"].as_str().is_some_and(|fault| !fault.is_empty()), "{bad}");
        let fallbacks = bad["fallbacks"].as_u64().expect("fallbacks");
        assert!(fallbacks >= bad["skipped"].as_u64().expect("skipped"), "{bad}");
        measured.push((before, after));
        if after <= before + Duration::from_millis(5) {
            eprintln!("`{doing}`: p99 {before:?} before, {after:?} after, attempt {attempt}");
            return;
        }
    }
    panic!("`{doing}` slows others: p99 before and after: {measured:?}");
}

async fn skipping(api: &Api) -> Value {
    eventually("the plugin is not asked about such calls any more", 2 * SOON, || async {
        api.plugin("bad").await.filter(|plugin| plugin["skipped"].as_u64() > Some(0))
    })
    .await
}

async fn quarantine(api: &Api) -> Value {
    eventually("the plugin rests and the listing says so", 2 * SOON, || async {
        api.plugin("bad").await.filter(|plugin| plugin["state"] == "quarantined")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_costs_bystanders_nothing() {
    bystanders_are_not_slowed_by("loop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_costs_bystanders_nothing() {
    bystanders_are_not_slowed_by("trap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_recursion_costs_bystanders_nothing() {
    bystanders_are_not_slowed_by("recurse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_allocation_costs_bystanders_nothing() {
    bystanders_are_not_slowed_by("allocate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_no_verdict() {
    let _alone = alone().await;
    for doing in ["unknown-service", "bad-name", "big-why"] {
        let (mesh, upstreams) = scene().await;
        drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver_only(doing, "bad", "1.0.0", "act"));
        in_force(&mesh.api, "bad", "1.0.0").await;
        for _ in 0..20 {
            let body = mesh.api.call("victim", "act", json!({})).await.ok();
            assert_eq!(
                (&body["service"], &body["instance"]),
                (&json!("victim"), &json!("victim")),
                "{doing}"
            );
            assert_eq!(body.get("routed_by"), None, "{doing}: {body}");
        }
        assert_eq!(upstreams[0].calls(), 20, "{doing}");
        let plugin = mesh.api.plugin("bad").await.expect("listed");
        assert!(plugin["faults"].as_u64().is_some_and(|faults| faults > 0), "{doing}: {plugin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_logs_and_keys_neither_fail_calls_nor_grow_without_end() {
    let _alone = alone().await;
    for doing in ["log-flood", "kv-flood"] {
        let (mesh, _upstreams) = scene().await;
        drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver_only(doing, "bad", "1.0.0", "act"));
        in_force(&mesh.api, "bad", "1.0.0").await;
        let start = Instant::now();
        for _ in 0..30 {
            mesh.api.call("victim", "act", json!({})).await.ok();
        }
        // 100 lines a second of 4 KiB, with room for what else is logged.
        let allowed = (start.elapsed().as_secs() as usize + 2) * 100 * 5_000 + 200_000;
        assert!(mesh.log().len() < allowed, "{doing}: {} bytes of log", mesh.log().len());
        mesh.api.call("other", "act", json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_fails_or_picks_nobody_leaves_every_pick_to_the_next() {
    let _alone = alone().await;
    for doing in ["loop-in-pick", "trap-in-pick", "allocate-in-pick", "nonsense-slot"] {
        let (mesh, _upstreams) = scene().await;
        drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver(doing, "bad", "1.0.0"));
        in_force(&mesh.api, "bad", "1.0.0").await;
        let nuisance = Callers::start(&mesh.api, 2, "victim", "act");
        for _ in 0..100 {
            mesh.api.call("other", "act", json!({})).await.ok();
        }
        if doing == "nonsense-slot" {
            let plugin = mesh.api.plugin("bad").await.expect("listed");
            assert!(plugin["faults"].as_u64().is_some_and(|faults| faults > 0), "{plugin}");
        } else {
            quarantine(&mesh.api).await;
        }
        assert!(nuisance.stop().await > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_balancer_picks_the_instance() {
    let _alone = alone().await;
    let mesh = Mesh::plain().await;
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await, RawUpstream::plain().await];
    for (number, upstream) in upstreams.iter().enumerate() {
        let spec = json!({"instance_name": format!("p-{number}"), "service": "pool", "port": upstream.port, "tools": []});
        mesh.api.join_as(spec).await;
    }
    drop_in(&mesh.plugins_dir(), "first.wasm", &misbehaver("pick-first", "first", "1.0.0"));
    in_force(&mesh.api, "first", "1.0.0").await;
    let mut by: Vec<Value> = Vec::new();
    for _ in 0..40 {
        by.push(mesh.api.call("pool", "act", json!({})).await.ok()["instance"].clone());
    }
    by.dedup();
    assert_eq!(by.len(), 1, "always the lowest slot: {by:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_must_agree_refuses_by_its_fault_and_only_what_it_judges() {
    let _alone = alone().await;
    let config = "[plugins.bad]\non_error = \"reject\"\n";
    let plugins = vec![("bad.wasm".to_owned(), misbehaver_only("trap", "bad", "1.0.0", "act"))];
    let mesh = Mesh::start(MeshOptions { config: config.into(), plugins, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("victim", upstream.port).await;
    for _ in 0..10 {
        mesh.api.call("victim", "act", json!({})).await.problem(403, "policy_refused");
    }
    assert_eq!(upstream.calls(), 0);
    // While an instance is replaced nobody can be asked, so nothing passes; afterwards what it does not judge does.
    eventually("it answers for other tools", SOON, || async {
        (mesh.api.call("victim", "act_read_only", json!({})).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        mesh.api.plugin("bad").await.expect("listed")["state"],
        "loaded",
        "what it does not judge is no fault"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_plugin_is_replaced_by_a_good_build_and_in_force_at_once() {
    let _alone = alone().await;
    let (mesh, _upstreams) = scene().await;
    drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver("trap", "bad", "1.0.0"));
    in_force(&mesh.api, "bad", "1.0.0").await;
    eventually("it rests, since it crashes whatever it is asked", SOON, || async {
        mesh.api.call("victim", "act", json!({})).await.ok();
        mesh.api.call("victim", "act_read_only", json!({})).await.ok();
        mesh.api.plugin("bad").await.filter(|plugin| plugin["state"] == "quarantined")
    })
    .await;
    drop_in(&mesh.plugins_dir(), "bad.wasm", &misbehaver("answer", "bad", "1.0.1"));
    eventually("the good build decides", SOON, || async {
        let body = mesh.api.call("victim", "act", json!({})).await.ok();
        (body["why"] == "bad 1.0.1").then_some(())
    })
    .await;
}
