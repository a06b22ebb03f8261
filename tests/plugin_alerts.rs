//! What becomes of alerts when plugins fail: the alerts of one that fails, and the alerts about it.

mod support;

use std::fs;
use std::time::Duration;

use support::children::alert;
use support::guests::{contrarian, drop_in, misbehaver, misbehaver_only};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

/// An alerter is asked every 5 s.
const HEARD: Duration = Duration::from_secs(60);
/// A condition must have been gone for 15 s.
const RESOLVED: Duration = Duration::from_secs(90);

async fn raised(mesh: &Mesh, rule: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let is_so = &is_so;
    eventually(rule, HEARD, || async move { alert(mesh, rule).await.filter(|alert| is_so(alert)) }).await
}

async fn resolved(mesh: &Mesh, rule: &str) {
    let what = format!("`{rule}` is resolved");
    eventually(&what, RESOLVED, || async { alert(mesh, rule).await.is_none().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_an_alerter_that_traps_are_stale_and_not_resolved() {
    let mesh = Mesh::plain().await;
    drop_in(&mesh.plugins_dir(), "guest.wasm", &contrarian("evaluate-trap-later"));
    let of_guest = |alert: &Value| alert["plugin"] == "guest" && alert["state"] == "firing";
    let fresh = raised(&mesh, "r", |alert| of_guest(alert) && alert["stale"] == false).await;
    raised(&mesh, "r", |alert| of_guest(alert) && alert["stale"] == true).await;
    // While it fails, while it rests, and when it fails again: longer than resolving takes.
    eventually("it rests", HEARD, || async {
        mesh.api.plugin("guest").await.filter(|plugin| plugin["state"] == "quarantined")
    })
    .await;
    let faults = mesh.api.plugin("guest").await.expect("listed")["faults"].as_u64();
    eventually("it fails again", HEARD, || async {
        let now = mesh.api.plugin("guest").await.expect("listed")["faults"].as_u64();
        let stands = alert(&mesh, "r").await.expect("it is not resolved");
        assert_eq!((&stands["state"], &stands["stale"]), (&json!("firing"), &json!(true)), "{stands}");
        (now > faults).then_some(())
    })
    .await;
    let stands = alert(&mesh, "r").await.expect("it is not resolved");
    assert_eq!(stands["since"], fresh["since"], "it is the same alert");

    drop_in(&mesh.plugins_dir(), "guest.wasm", &contrarian("nothing"));
    raised(&mesh, "r", |alert| of_guest(alert) && alert["stale"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_repeats_an_alert_nor_forgets_it() {
    let mut mesh = Mesh::plain().await;
    drop_in(&mesh.plugins_dir(), "guest.wasm", &contrarian("nothing"));
    let of_guest = |alert: &Value| alert["plugin"] == "guest" && alert["state"] == "firing";
    let before = raised(&mesh, "r", of_guest).await;
    mesh.terminate().await;
    mesh.restart().await;
    let restored = alert(&mesh, "r").await.expect("it is there before anybody is asked");
    assert_eq!((&restored["since"], &restored["stale"]), (&before["since"], &json!(true)), "{restored}");
    let heard = raised(&mesh, "r", |alert| of_guest(alert) && alert["stale"] == false).await;
    assert_eq!(heard["since"], before["since"], "it is the same alert");
    let log = mesh.log();
    assert_eq!(log.matches("alert firing rule=\"r\"").count(), 1, "it is not told again: {log}");

    fs::remove_file(mesh.plugins_dir().join("guest.wasm")).expect("take the alerter away");
    eventually("it is gone with its alerter", SOON, || async {
        alert(&mesh, "r").await.is_none().then_some(())
    })
    .await;
    mesh.terminate().await;
    mesh.restart().await;
    assert_eq!(alert(&mesh, "r").await, None, "what was resolved does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_rests_is_an_alert_until_it_is_replaced_by_one_that_is_well() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    drop_in(&mesh.plugins_dir(), "guest.wasm", &contrarian("collect-trap"));
    let alert = raised(&mesh, "plugin-quarantined", |alert| alert["state"] == "firing").await;
    assert_eq!((&alert["plugin"], &alert["labels"]), (&json!("meshwright"), &json!({"plugin": "guest"})));
    let detail = alert["detail"].as_str().expect("a reason");
    assert!(detail.contains("it trapped") && detail.contains("deliberate"), "{detail}");

    drop_in(&mesh.plugins_dir(), "guest.wasm", &contrarian("nothing"));
    resolved(&mesh, "plugin-quarantined").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_was_rolled_back_is_an_alert_until_another_takes_its_place() {
    let config = "[server]\nplugin_probation = \"5m\"\n".to_owned();
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    let at = async |version: &str| {
        eventually(&format!("{version} is in force"), SOON, || async {
            mesh.api.call("s", "act_read_only", json!({})).await.ok();
            mesh.api.plugin("watch").await.filter(|plugin| plugin["version"] == version)
        })
        .await
    };
    let put = |component: &[u8]| drop_in(&mesh.plugins_dir(), "watch.wasm", component);
    put(&misbehaver("answer", "watch", "0.1.0"));
    eventually("it is in force", SOON, || async { mesh.api.plugin("watch").await }).await;
    // No call of this tool was recorded, so nothing speaks against the build before it is in force.
    put(&misbehaver_only("trap", "watch", "0.2.0", "act_read_only"));
    eventually("the bad one is in force", SOON, || async {
        mesh.api.plugin("watch").await.filter(|plugin| plugin["version"] == "0.2.0")
    })
    .await;
    at("0.1.0").await;
    let alert = raised(&mesh, "plugin-rolled-back", |alert| alert["state"] == "firing").await;
    assert_eq!((&alert["plugin"], &alert["labels"]), (&json!("meshwright"), &json!({"plugin": "watch"})));
    let detail = alert["detail"].as_str().expect("a reason");
    assert!(detail.starts_with("rolled back: 3 faults") && detail.contains("trapped"), "{detail}");

    put(&misbehaver("answer", "watch", "0.3.0"));
    at("0.3.0").await;
    resolved(&mesh, "plugin-rolled-back").await;
}
