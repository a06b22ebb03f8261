//! What operators decide while the proxy runs: which build gets what it asks for, and which plugin is on.

mod support;

use std::fs;
use std::process::{Command, Output, Stdio};

use support::guests::{drop_in, misbehaver, sha256};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

const FILE: &str = "hot.wasm";
const GRANTS: &str = "/api/v1/plugins/hot/grants";
const ENABLED: &str = "/api/v1/plugins/hot/enabled";

fn asking(version: &str) -> Vec<u8> {
    misbehaver("asks", "hot", version)
}

async fn hot(mesh: &Mesh) -> Value {
    mesh.api.plugin("hot").await.expect("listed")
}

/// Until the plugin is as `is` wants it.
async fn until(mesh: &Mesh, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, SOON, || async { mesh.api.plugin("hot").await.filter(|plugin| is(plugin)) }).await
}

/// Who decides a call, and by which version.
async fn decides(mesh: &Mesh) -> Option<String> {
    let answer = mesh.api.call("s", "act", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["why"].as_str().map(str::to_owned)
}

async fn with_upstream(config: &str, component: Vec<u8>) -> (Mesh, RawUpstream) {
    let plugins = vec![(FILE.to_owned(), component)];
    let mesh = Mesh::start(MeshOptions { config: config.into(), plugins, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    (mesh, upstream)
}

fn tool(mesh: &Mesh, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    let command = command.arg("plugin").args(args).args(["--url", &mesh.http]).stdin(Stdio::null());
    command.output().expect("run it")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waits_for_its_grant_and_the_next_build_again() {
    let first = asking("1.0.0");
    let (mut mesh, _upstream) = with_upstream("", first.clone()).await;
    let listed = hot(&mesh).await;
    assert_eq!(listed["state"], "pending", "{listed}");
    assert_eq!(listed["pending"]["sha256"], sha256(&first));
    assert_eq!(listed["pending"]["grants"], json!(["arguments"]));
    let reason = listed["reason"].as_str().expect("a reason");
    assert!(reason.contains("`arguments`") && reason.contains("`meshwright plugin allow hot`"), "{reason}");
    assert!(mesh.log().contains(reason), "the log and the banner say so: {}", mesh.log());
    assert_eq!(decides(&mesh).await, None);

    let wrong = json!({"sha256": sha256(b"another"), "grants": ["arguments"]});
    mesh.api.post(GRANTS, &wrong).await.problem(409, "not_pending");
    let unknown = json!({"sha256": sha256(&first), "grants": ["moon"]});
    mesh.api.post(GRANTS, &unknown).await.problem(400, "invalid_grants");
    let absent = json!({"sha256": sha256(&first), "grants": ["arguments"]});
    mesh.api.post("/api/v1/plugins/nobody/grants", &absent).await.problem(404, "unknown_plugin");
    let allowed = mesh.api.post(GRANTS, &absent).await.ok();
    assert_eq!((&allowed["state"], &allowed["pending"]), (&json!("loaded"), &Value::Null), "{allowed}");
    assert_eq!(allowed["grants"], json!(["arguments"]));
    mesh.api.post(GRANTS, &absent).await.ok();
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"));

    drop_in(&mesh.plugins_dir(), FILE, &asking("1.1.0"));
    let listed = until(&mesh, "the second build waits", |plugin| !plugin["pending"].is_null()).await;
    assert_eq!((&listed["state"], &listed["version"]), (&json!("loaded"), &json!("1.0.0")), "{listed}");
    assert_eq!(listed["pending"]["version"], "1.1.0");
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"), "the one before serves on");
    let health = mesh.api.get("/health").await.ok().to_string();
    assert!(health.contains("waits"), "{health}");

    // The grant is bound to the build, also across a restart.
    mesh.kill();
    mesh.restart().await;
    assert_eq!(hot(&mesh).await["state"], "pending");
    drop_in(&mesh.plugins_dir(), FILE, &first);
    until(&mesh, "what was allowed before is in force", |plugin| plugin["state"] == "loaded").await;
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_shows_what_it_gives_and_asks_before() {
    let (mesh, _upstream) = with_upstream("", asking("1.0.0")).await;
    let unasked = tool(&mesh, &["allow", "hot"]);
    let text = said(&unasked);
    assert_eq!(unasked.status.code(), Some(2), "{text}");
    assert!(text.contains(&sha256(&asking("1.0.0"))) && text.contains("grant   arguments: "), "{text}");
    assert_eq!(hot(&mesh).await["state"], "pending", "nothing has changed");
    let allowed = tool(&mesh, &["allow", "hot", "--yes"]);
    assert!(allowed.status.success() && said(&allowed).contains("hot 1.0.0 is loaded"), "{}", said(&allowed));
    assert!(said(&tool(&mesh, &["allow", "hot"])).contains("waits for nothing"));
    assert_eq!(tool(&mesh, &["allow", "nobody"]).status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_gives_grants_by_name_to_every_build() {
    let (mesh, _upstream) = with_upstream("[plugins.hot]\ngrants = [\"arguments\"]\n", asking("1.0.0")).await;
    assert_eq!(hot(&mesh).await["state"], "loaded", "{}", hot(&mesh).await);
    drop_in(&mesh.plugins_dir(), FILE, &asking("1.1.0"));
    until(&mesh, "the second build is in force", |plugin| plugin["version"] == "1.1.0").await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("asks-for-the-moon", "hot", "1.2.0"));
    let listed = until(&mesh, "the third is refused", |plugin| !plugin["refused"].is_null()).await;
    let reason = listed["refused"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("`moon`") && reason.contains("`arguments`"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_switched_off_and_on_without_a_failed_call_and_stays_so() {
    let config = "[plugins.hot]\norder = 7\non_error = \"reject\"\n";
    let (mut mesh, _upstream) = with_upstream(config, misbehaver("answer", "hot", "1.0.0")).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (api, stop) = (mesh.api.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.is_cancelled() {
                    let answer = api.call("s", "act", json!({})).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..5 {
        let off = mesh.api.post(ENABLED, &json!({"enabled": false})).await.ok();
        assert_eq!((&off["state"], &off["generation"]), (&json!("disabled"), &json!(0)), "{off}");
        assert_eq!(decides(&mesh).await, None);
        let on = mesh.api.post(ENABLED, &json!({"enabled": true})).await.ok();
        assert_eq!((&on["state"], &on["order"]), (&json!("loaded"), &json!(7)), "{on}");
        assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"));
    }
    stop.cancel();
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("no call failed");
    }
    assert!(calls > 50, "only {calls}");

    let off = tool(&mesh, &["disable", "hot"]);
    assert!(off.status.success() && said(&off).contains("hot 1.0.0 is disabled"), "{}", said(&off));
    mesh.kill();
    mesh.restart().await;
    assert_eq!(hot(&mesh).await["state"], "disabled", "also after a restart");
    let on = tool(&mesh, &["enable", "hot"]);
    assert!(on.status.success() && said(&on).contains("hot 1.0.0 is loaded"), "{}", said(&on));
    assert_eq!(tool(&mesh, &["disable", "nobody"]).status.code(), Some(5));
    mesh.api.post(ENABLED, &json!({"enabled": "maybe"})).await.problem(400, "invalid_switch");
    fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take it away");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_overrules_the_configuration() {
    let config = "[plugins.hot]\nenabled = false\n[plugins.usage-meter]\nenabled = true\n";
    let (mut mesh, _upstream) = with_upstream(config, misbehaver("answer", "hot", "1.0.0")).await;
    assert_eq!(hot(&mesh).await["reason"], "`enabled = false` in the configuration");
    mesh.api.post(ENABLED, &json!({"enabled": true})).await.ok();
    mesh.api.post("/api/v1/plugins/usage-meter/enabled", &json!({"enabled": false})).await.ok();
    mesh.kill();
    mesh.restart().await;
    assert_eq!(hot(&mesh).await["state"], "loaded");
    let meter = mesh.api.plugin("usage-meter").await.expect("listed");
    assert_eq!(meter["state"], "disabled", "default plugins can be switched off, too");
    assert!(meter["reason"].as_str().expect("a reason").contains("`meshwright plugin enable`"), "{meter}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_comes_back_only_when_it_is_meant() {
    let (mesh, _upstream) = with_upstream("", misbehaver("answer", "hot", "1.0.0")).await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "hot", "1.4.0"));
    until(&mesh, "the second build is in force", |plugin| plugin["version"] == "1.4.0").await;
    assert!(tool(&mesh, &["rollback", "hot"]).status.success());
    let off = tool(&mesh, &["disable", "hot"]);
    assert!(off.status.success() && said(&off).starts_with("hot 1.0.0 is disabled"), "{}", said(&off));
    let log = mesh.log();
    let line = log.lines().find(|line| line.contains("plugin disabled")).expect("the log says so");
    assert!(line.contains("1.0.0") && line.contains("switched off"), "{line}");

    let on = tool(&mesh, &["enable", "hot"]);
    let words = "hot 1.0.0 is loaded; what is new is refused: rolled back: somebody asked for it";
    assert!(said(&on).starts_with(words), "{}", said(&on));
    assert_eq!(on.status.code(), Some(1), "something is kept out");
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"));
    let again = tool(&mesh, &["enable", "hot"]);
    assert!(again.status.success() && said(&again).starts_with("hot 1.4.0 is loaded"), "{}", said(&again));
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.4.0"));

    // Taken away and put back, it is not held against the file.
    assert!(tool(&mesh, &["rollback", "hot"]).status.success());
    fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take it away");
    eventually("it is gone", SOON, || async { mesh.api.plugin("hot").await.is_none().then_some(()) }).await;
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "hot", "1.4.0"));
    until(&mesh, "it is in force", |plugin| plugin["state"] == "loaded" && plugin["version"] == "1.4.0")
        .await;
}

/// Why no call passes.
async fn refusal(mesh: &Mesh) -> String {
    let body = json!({"target_instance": "s", "tool_name": "act", "arguments": {}});
    let problem = mesh.api.post("/call", &body).await.problem(403, "policy_refused");
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_another_kind_is_not_the_router_that_must_agree() {
    let config = "[plugins.threshold-alerts]\non_error = \"reject\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let said_so = refusal(&mesh).await;
    assert!(said_so.contains("plugin `threshold-alerts`") && said_so.contains("is no router"), "{said_so}");
    let listed = mesh.api.plugin("threshold-alerts").await.expect("listed");
    assert_eq!((&listed["state"], &listed["stops_calls"]), (&json!("loaded"), &json!(true)), "{listed}");
    let health = mesh.api.get("/health").await.ok().to_string();
    assert!(health.contains("no call passes without router `threshold-alerts`"), "{health}");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_passes_without_a_router_that_must_agree_however_it_is_absent() {
    let config = "[plugins.hot]\non_error = \"reject\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    let said_so = refusal(&mesh).await;
    assert!(said_so.contains("plugin `hot`") && said_so.contains("no file"), "{said_so}");
    assert!(said_so.contains("`meshwright plugin disable hot`"), "{said_so}");
    let listed = hot(&mesh).await;
    let shown = (&listed["state"], &listed["stops_calls"], &listed["source"]);
    assert_eq!(shown, (&json!("missing"), &json!(true), &json!("none")), "{listed}");
    let health = mesh.api.get("/health").await.ok();
    assert_eq!(health["status"], "degraded");
    let metrics = mesh.api.get("/metrics").await;
    for line in [
        "meshwright_plugin_state{plugin=\"hot\",state=\"missing\"} 1",
        "meshwright_plugin_state{plugin=\"hot\",state=\"loaded\"} 0",
        "meshwright_plugin_state{plugin=\"usage-meter\",state=\"loaded\"} 1",
    ] {
        assert!(metrics.text().contains(line), "no {line} in\n{}", metrics.text());
    }
    assert!(health.to_string().contains("no call passes without plugin `hot`"), "{health}");

    drop_in(&mesh.plugins_dir(), FILE, b"garbage");
    until(&mesh, "the broken file is refused", |plugin| plugin["state"] == "refused").await;
    let said_so = refusal(&mesh).await;
    assert!(said_so.contains("it is not WebAssembly"), "{said_so}");
    drop_in(&mesh.plugins_dir(), FILE, &asking("1.0.0"));
    until(&mesh, "the build waits", |plugin| plugin["state"] == "pending").await;
    let said_so = refusal(&mesh).await;
    assert!(said_so.contains("`meshwright plugin allow hot`"), "{said_so}");
    assert_eq!(upstream.calls(), 0);

    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("answer", "hot", "1.0.0"));
    let listed = until(&mesh, "the good file is in force", |plugin| plugin["state"] == "loaded").await;
    assert_eq!(listed["stops_calls"], false);
    assert_eq!(decides(&mesh).await.as_deref(), Some("hot 1.0.0"));
    fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take it away");
    until(&mesh, "it is missing again", |plugin| plugin["state"] == "missing").await;
    refusal(&mesh).await;
    let off = tool(&mesh, &["disable", "hot"]);
    assert!(off.status.success(), "{}", said(&off));
    assert_eq!(decides(&mesh).await, None, "what is switched off need not agree");
    assert!(tool(&mesh, &["enable", "hot"]).status.code() == Some(1), "it is still missing");
    refusal(&mesh).await;
}
