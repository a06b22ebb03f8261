//! A build that fails after it came into force gives its place back to the one before.

mod support;

use std::process::{Command, Stdio};

use support::guests::{drop_in, misbehaver, misbehaver_only};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

const FILE: &str = "watch.wasm";

/// A mesh whose router `watch` is at 0.1.0.
async fn scene() -> (Mesh, RawUpstream) {
    let config = "[server]\nplugin_probation = \"5m\"\n".to_owned();
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "watch", "0.1.0"));
    at(&mesh, "0.1.0").await;
    (mesh, upstream)
}

async fn at(mesh: &Mesh, version: &str) -> Value {
    eventually(&format!("{version} is in force"), SOON, || async {
        mesh.api.plugin("watch").await.filter(|plugin| plugin["version"] == version)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_faults_on_calls_is_rolled_back_by_itself() {
    let (mesh, _upstream) = scene().await;
    // No call of this tool was recorded, so nothing speaks against the build before it is in force.
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver_only("trap", "watch", "0.2.0", "act_read_only"));
    let plugin = at(&mesh, "0.2.0").await;
    assert_eq!(plugin["probation"]["previous"], json!({"version": "0.1.0", "generation": 1}), "{plugin}");
    let plugin = eventually("it is rolled back", SOON, || async {
        mesh.api.call("s", "act_read_only", json!({})).await.ok();
        mesh.api.plugin("watch").await.filter(|plugin| plugin["version"] == "0.1.0")
    })
    .await;
    let reason = plugin["refused"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("rolled back: 3 faults") && reason.contains("trapped"), "{reason}");
    assert_eq!((&plugin["generation"], &plugin["probation"]), (&json!(1), &Value::Null), "{plugin}");
    let body = mesh.api.call("s", "act_read_only", json!({})).await.ok();
    assert_eq!(body["routed_by"], "watch 0.1.0 #1", "{body}");
}

/// `meshwright plugin COMMAND watch`
fn plugin(mesh: &Mesh, command: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .env("HOME", mesh.home.path())
        .current_dir(mesh.home.path())
        .stdin(Stdio::null())
        .args(["plugin", command, "watch", "--url", &mesh.http])
        .output()
        .expect("run the command");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_was_rolled_back_stays_out_at_the_next_start_until_somebody_wants_it() {
    let (mut mesh, _upstream) = scene().await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("reject", "watch", "0.2.0"));
    at(&mesh, "0.2.0").await;
    let (code, _, err) = plugin(&mesh, "rollback");
    assert_eq!(code, 0, "{err}");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    let refused = mesh.api.plugin("watch").await.expect("the plugin");
    assert_eq!((&refused["state"], &refused["generation"]), (&json!("refused"), &json!(0)), "{refused}");
    assert_eq!(refused["reason"], "rolled back: somebody asked for it");

    let (code, out, err) = plugin(&mesh, "enable");
    assert_eq!((code, out.as_str()), (0, "watch 0.2.0 is loaded\n"), "{err}");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    assert_eq!(
        mesh.api.plugin("watch").await.expect("the plugin")["state"],
        "loaded",
        "nor does it go again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_rolled_back_from_the_command_line() {
    let (mesh, _upstream) = scene().await;
    let rollback = || plugin(&mesh, "rollback");
    let (code, _, err) = rollback();
    assert_eq!(code, 1);
    assert!(err.contains("it has taken no other build's place lately"), "{err}");
    mesh.api.post("/api/v1/plugins/nobody/rollbacks", &json!({})).await.problem(404, "unknown_plugin");

    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("reject", "watch", "0.2.0"));
    at(&mesh, "0.2.0").await;
    mesh.api.call("s", "act", json!({})).await.problem(403, "policy_refused");
    let (code, out, err) = rollback();
    assert_eq!((code, out.as_str()), (0, "✔ watch 0.1.0 #1 is in force again\n"), "{err}");
    mesh.api.call("s", "act", json!({})).await.ok();
    let plugin = mesh.api.plugin("watch").await.expect("the plugin");
    assert_eq!(plugin["refused"]["reason"], "rolled back: somebody asked for it");

    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "watch", "0.3.0"));
    at(&mesh, "0.3.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_broken_file_has_the_last_build_that_kept_well() {
    let config = "[server]\nplugin_probation = \"100ms\"\n".to_owned();
    let mut mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "watch", "0.1.0"));
    at(&mesh, "0.1.0").await;
    let kept = mesh.data_dir().join("plugins-good/watch.json");
    eventually("the build is kept", SOON, || async { kept.exists().then_some(()) }).await;
    assert!(mesh.terminate().await.success());
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("self-test-fails", "watch", "0.2.0"));
    mesh.restart().await;
    let plugin = mesh.api.plugin("watch").await.expect("the plugin");
    assert_eq!((&plugin["version"], &plugin["state"]), (&json!("0.1.0"), &json!("loaded")), "{plugin}");
    assert!(plugin["reason"].as_str().is_some_and(|reason| reason.contains("kept well")), "{plugin}");
    let reason = plugin["refused"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("self-test failed"), "{reason}");
}
