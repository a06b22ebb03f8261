//! What a new build of a plugin would do to the calls of the last minutes, before it comes into force and from the
//! command line.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use support::guests::{component, drop_in, misbehaver, misbehaver_only};
use support::raw_upstream::RawOptions;
use support::{Mesh, RawUpstream, SOON, Value, eventually, json};

const CALLS: usize = 40;
const FILE: &str = "watch.wasm";

/// A mesh whose router `watch` 0.1.0 has decided some calls.
async fn with_calls() -> (Mesh, RawUpstream) {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "watch", "0.1.0"));
    plugin_where(&mesh, "it is in force", |plugin| plugin["generation"] == 1).await;
    for _ in 0..CALLS {
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    recorded(&mesh).await;
    (mesh, upstream)
}

async fn recorded(mesh: &Mesh) {
    eventually("the calls are recorded", SOON, || async {
        let listed = mesh.api.get("/api/v1/calls?limit=1000").await.ok();
        (listed["items"].as_array().map(Vec::len) == Some(CALLS)).then_some(())
    })
    .await;
}

async fn plugin_where(mesh: &Mesh, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let is_so = &is_so;
    eventually(what, SOON, || async move { mesh.api.plugin("watch").await.filter(|plugin| is_so(plugin)) })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_build_is_asked_about_recorded_calls_before_it_comes_into_force() {
    let (mesh, _upstream) = with_calls().await;
    assert_eq!(mesh.api.plugin("watch").await.expect("the plugin")["replay"], Value::Null);

    drop_in(&mesh.plugins_dir(), FILE, &misbehaver_only("trap", "watch", "0.2.0", "act"));
    let plugin = plugin_where(&mesh, "the build is refused", |plugin| plugin["refused"].is_object()).await;
    let reason = plugin["refused"]["reason"].as_str().expect("a reason").to_owned();
    assert!(
        reason.starts_with("asked again about the recorded call ") && reason.contains("trapped"),
        "{reason}"
    );
    assert_eq!((&plugin["version"], &plugin["faults"]), (&json!("0.1.0"), &json!(0)), "{plugin}");
    mesh.api.call("s", "act", json!({})).await.ok();

    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("reject", "watch", "0.3.0"));
    let plugin = plugin_where(&mesh, "the build is in force", |plugin| plugin["version"] == "0.3.0").await;
    let replay = &plugin["replay"];
    // The misbehaver is a balancer as well, and is asked to pick for each call, too.
    assert!(replay["changed"].as_u64() >= Some(CALLS as u64), "{plugin}");
    let example = &replay["examples"][0];
    assert_eq!((&example["service"], &example["tool"]), (&json!("s"), &json!("act")), "{plugin}");
    assert_eq!(example["before"], "forward to s");
    assert!(example["after"].as_str().is_some_and(|after| after.starts_with("reject: ")), "{plugin}");
    for figure in ["p99_us", "p99_us_before"] {
        assert!(replay[figure].as_f64().is_some_and(|us| us > 0.0), "{plugin}");
    }
    assert_eq!(mesh.api.call("s", "act", json!({})).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_a_new_name_is_asked_about_recorded_calls_too() {
    let (mesh, _upstream) = with_calls().await;
    drop_in(&mesh.plugins_dir(), "newcomer.wasm", &misbehaver("reject", "newcomer", "0.1.0"));
    let plugin = eventually("it is in force", SOON, || async { mesh.api.plugin("newcomer").await }).await;
    let replay = &plugin["replay"];
    // Nobody knows who would have picked for it, so only what it routes is compared.
    assert_eq!((&replay["compared"], &replay["changed"]), (&json!(CALLS), &json!(CALLS)), "{plugin}");
    assert_eq!((&replay["p99_us_before"], &replay["fault"]), (&Value::Null, &Value::Null), "{plugin}");
    assert_eq!(replay["examples"][0]["before"], "pass", "{plugin}");

    drop_in(&mesh.plugins_dir(), "crashing.wasm", &misbehaver_only("trap", "crashing", "0.1.0", "act"));
    let plugin = eventually("it is in force", SOON, || async { mesh.api.plugin("crashing").await }).await;
    assert_eq!(plugin["state"], "loaded", "of use for other calls: {plugin}");
    let listing = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .args(["plugin", "ls", "--url", &mesh.http])
        .output()
        .expect("run the command");
    let listing = String::from_utf8(listing.stdout).expect("UTF-8");
    let line = listing.lines().find(|line| line.starts_with("crashing")).expect("its line");
    assert!(line.contains("asked again about the recorded call") && line.contains("trapped"), "{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_how_many_calls_would_go_elsewhere() {
    let (mesh, _upstream) = with_calls().await;
    let file = mesh.home.path().join("candidate.wasm");
    let replay = |component: &[u8], args: &[&str]| {
        fs::write(&file, component).expect("write the component");
        let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
            .env("HOME", mesh.home.path())
            .current_dir(mesh.home.path())
            .stdin(Stdio::null())
            .args(["plugin", "replay", "--url", &mesh.http])
            .arg(&file)
            .args(args)
            .output()
            .expect("run the command");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
    };
    let alike = misbehaver("answer", "watch", "0.2.0");
    let (code, out, err) = replay(&alike, &["--fail-over", "0"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("watch 0.2.0: 0 of 40 calls would be decided otherwise"), "{out}");

    let other = misbehaver("reject", "watch", "0.2.0");
    let (code, out, err) = replay(&other, &["--since", "1h"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("40 of 40 calls") && out.contains("`act` of `s`: forward to s → reject: "), "{out}");
    assert_eq!(replay(&other, &["--fail-over", "50"]).0, 1);
    let (_, out, _) = replay(&other, &["--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&report["changed"], &report["fault"]), (&json!(40), &Value::Null), "{report}");

    let (code, out, _) = replay(&misbehaver("trap", "watch", "0.2.0"), &[]);
    assert_eq!(code, 1);
    assert!(out.contains("it faulted") && out.contains("trapped"), "{out}");
    // One that nobody has asked yet is compared with passing.
    let (_, out, _) = replay(&misbehaver("nothing", "newcomer", "0.1.0"), &[]);
    assert!(out.contains("newcomer 0.1.0: 0 of 40 calls"), "{out}");
    assert_eq!(
        mesh.api.plugin("watch").await.expect("the plugin")["version"],
        "0.1.0",
        "nothing was uploaded"
    );
}

/// Calls of the one tool of two that the new build refuses.
const REFUSED: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_decides_three_calls_of_ten_otherwise_is_said_to_with_examples() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    for n in 0..CALLS {
        // Here and there among the others.
        let tool = if n * REFUSED % CALLS < REFUSED { "act_read_only" } else { "act" };
        mesh.api.call("s", tool, json!({})).await.ok();
    }
    recorded(&mesh).await;

    let (newer, rules) = (component("tag-router"), mesh.home.path().join("candidate.toml"));
    let closes =
        "[[rules]]\nname = \"closed\"\nwhen = { tool = \"act_read_only\" }\nreject = { reason = \"no\" }\n";
    let file = mesh.home.path().join("candidate.wasm");
    fs::write(&file, &newer).expect("write the component");
    fs::write(&rules, closes).expect("write its configuration");
    let replay = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
            .args(["plugin", "replay", "--url", &mesh.http])
            .arg(&file)
            .args(args)
            .output()
            .expect("run the command");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, out) = replay(&["--fail-over", "30"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("12 of 40 calls would be decided otherwise"), "{out}");
    assert!(
        out.contains("`act_read_only` of `s`: pass → reject: ") && !out.contains("`act` of `s`"),
        "{out}"
    );
    assert_eq!(replay(&["--fail-over", "29"]).0, Some(1));
    let report: Value = serde_json::from_str(&replay(&["--json"]).1).expect("JSON");
    assert_eq!((&report["compared"], &report["changed"]), (&json!(CALLS), &json!(REFUSED)), "{report}");

    fs::write(mesh.plugins_dir().join("routes.toml"), closes).expect("write its configuration");
    drop_in(&mesh.plugins_dir(), "routes.wasm", &newer);
    let plugin = eventually("it takes the default's place", SOON, || async {
        mesh.api.plugin("tag-router").await.filter(|plugin| plugin["replay"].is_object())
    })
    .await;
    let replay = &plugin["replay"];
    assert_eq!((&replay["compared"], &replay["changed"]), (&json!(CALLS), &json!(REFUSED)), "{plugin}");
    let examples = replay["examples"].as_array().expect("examples");
    assert!(!examples.is_empty() && examples.iter().all(|one| one["tool"] == "act_read_only"), "{plugin}");
    assert!(examples.iter().all(|one| one["before"] == "pass"), "{plugin}");
    mesh.api.call("s", "act", json!({})).await.ok();
    assert_eq!(mesh.api.call("s", "act_read_only", json!({})).await.status, 403);
}
