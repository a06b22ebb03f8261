//! Policies in six languages, built with their own tool chains as their READMEs say, in force in a running proxy.

mod support;

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use support::guests::{component, drop_in};
use support::raw_upstream::How;
use support::toolchains::{self, Built};
use support::{Answer, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json, repository};

/// Those whose tool chains come from registries; `plugin_cli` builds what `plugin new` writes in Rust.
const LANGUAGES: [&str; 5] = ["js", "python", "go", "c", "zig"];
const KINDS: [&str; 4] = ["router", "balancer", "planner", "alerter"];
/// Those whose bindings lie in the template.
const BY_HAND: [&str; 3] = ["go", "c", "zig"];
const EXAMPLES: [&str; 5] =
    ["canary-router", "error-ratio-alerts", "read-replica-router", "quota-router", "calm-balancer"];
/// A compiler without its own optimisation, on a busy machine, may need this for a Python interpreter.
const LOADED: Duration = Duration::from_secs(240);
const ALERTED: Duration = Duration::from_secs(60);
/// Calls that each policy is asked about after it has shown what it does.
const FURTHER_CALLS: usize = 300;
const WORKERS: u64 = 2;
/// Compiling takes all processors for a while, and a policy that is asked meanwhile may miss its deadline of 5 ms.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A line of the table.
struct Row {
    what: String,
    bytes: usize,
    build: Duration,
    load: Duration,
    plugin: Value,
}

async fn mesh() -> Mesh {
    let args = vec!["--workers".to_owned(), WORKERS.to_string()];
    Mesh::start(MeshOptions { args, ..MeshOptions::default() }).await
}

/// Drops it in, with its configuration before it, and waits until it is in force.
async fn load(mesh: &Mesh, name: &str, config: &str, component: &[u8]) -> Duration {
    fs::write(mesh.plugins_dir().join(format!("{name}.toml")), config).expect("write the configuration");
    drop_in(&mesh.plugins_dir(), &format!("{name}.wasm"), component);
    let start = Instant::now();
    eventually(&format!("`{name}` is loaded"), LOADED, || async {
        let plugin = mesh.api.plugin(name).await?;
        assert_ne!(plugin["state"], "refused", "{plugin}");
        (plugin["state"] == "loaded").then_some(())
    })
    .await;
    start.elapsed()
}

/// Calls on, two at a time, and checks that each ends with one of `statuses` and none with a fault of the plugin.
async fn call_on(mesh: &Mesh, name: &str, tool: &str, statuses: &[u16]) -> Value {
    let callers = (0..2).map(|_| {
        let (api, tool, statuses) = (mesh.api.clone(), tool.to_owned(), statuses.to_vec());
        tokio::spawn(async move {
            for _ in 0..FURTHER_CALLS / 2 {
                let answer = api.call("s", &tool, json!({})).await;
                assert!(statuses.contains(&answer.status), "{}: {}", answer.status, answer.text());
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no call failed");
    }
    let plugin = mesh.api.plugin(name).await.expect("listed");
    assert_eq!((&plugin["faults"], &plugin["fallbacks"]), (&json!(0), &json!(0)), "{plugin}");
    plugin
}

async fn by(mesh: &Mesh, client: &str, tool: &str) -> Answer {
    let body = json!({"target_instance": "s", "tool_name": tool, "arguments": {}, "client": client});
    mesh.api.post("/call", &body).await
}

async fn instance(mesh: &Mesh, name: &str, tags: &[&str]) -> RawUpstream {
    let upstream = RawUpstream::plain().await;
    let spec =
        json!({"instance_name": name, "service": "s", "port": upstream.port, "tags": tags, "tools": []});
    mesh.api.join_as(spec).await;
    upstream
}

fn row(what: &str, built: &Built, load: Duration, plugin: Value) -> Row {
    Row { what: what.to_owned(), bytes: built.component.len(), build: built.took, load, plugin }
}

/// Shown when the test passes, too: only macros write to where output is captured.
fn print(rows: &[Row]) {
    let mut table =
        String::from("\n| policy | component | build | load | p99 of a question | memory per instance |\n");
    table += "|---|---|---|---|---|---|\n";
    for Row { what, bytes, build, load, plugin } in rows {
        let is_hot = plugin["kinds"].as_array().is_some_and(|kinds| {
            kinds.iter().any(|kind| ["router", "balancer"].contains(&kind.as_str().unwrap_or_default()))
        });
        let memory = plugin["memory_bytes"].as_u64().unwrap_or(0) / if is_hot { WORKERS } else { 1 };
        let p99_us = plugin["p99_us"].as_f64().unwrap_or(0.0);
        let (kib, mib) = (bytes >> 10, memory as f64 / f64::from(1 << 20));
        table +=
            &format!("| {what} | {kib} KiB | {build:.1?} | {load:.1?} | {p99_us:.1} µs | {mib:.1} MiB |\n");
    }
    std::io::stderr().write_all(table.as_bytes()).expect("write to standard error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_example_in_each_language_does_what_its_readme_says() {
    let _alone = ALONE.lock().await;
    let rows = [
        rust_closes_tools_on_other_days().await,
        javascript_sends_chosen_clients_to_the_canary().await,
        python_alerts_when_too_many_calls_fail().await,
        go_keeps_writes_off_replicas().await,
        c_refuses_what_is_over_the_quota().await,
        zig_picks_the_instance_that_does_nothing().await,
    ];
    print(&rows);
}

async fn rust_closes_tools_on_other_days() -> Row {
    let mesh = mesh().await;
    let _upstream = instance(&mesh, "a", &[]).await;
    let start = Instant::now();
    let component = component("business-hours-router");
    let build = start.elapsed();
    let days = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let today = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs() / 86_400;
    let other = days[usize::try_from((today + 3) % 7).expect("a day")];
    let config = format!("tools = [\"act\"]\ndays = [\"{other}\"]\n");
    let took = load(&mesh, "business-hours-router", &config, &component).await;
    mesh.api.call("s", "act", json!({})).await.problem(429, "policy_refused");
    mesh.api.call("s", "act_read_only", json!({})).await.ok();
    let plugin = call_on(&mesh, "business-hours-router", "act", &[429]).await;
    Row { what: "Rust, router".to_owned(), bytes: component.len(), build, load: took, plugin }
}

async fn javascript_sends_chosen_clients_to_the_canary() -> Row {
    let built = toolchains::example("canary-router");
    let mesh = mesh().await;
    let stable = instance(&mesh, "stable", &[]).await;
    let canary = instance(&mesh, "canary", &["canary"]).await;
    let took = load(&mesh, "canary-router", "clients = [\"alice\", \"ci-*\"]", &built.component).await;
    for client in ["alice", "ci-7", "ci-8"].iter().cycle().take(30) {
        let body = by(&mesh, client, "act").await.ok();
        assert_eq!(
            (&body["instance"], &body["why"]),
            (&json!("canary"), &json!(format!("{client} tries the canary")))
        );
    }
    assert_eq!((stable.calls(), canary.calls()), (0, 30));
    for _ in 0..30 {
        let body = by(&mesh, "xci-7", "act").await.ok();
        assert_eq!(body.get("why"), None, "{body}");
    }
    assert!(stable.calls() > 0, "all others go anywhere");
    // What is refused is named with its place, and changes nothing.
    fs::write(mesh.plugins_dir().join("canary-router.toml"), "clients = 7\nrag = \"x\"").expect("write");
    let refused = eventually("the configuration is refused", SOON, || async {
        let plugin = mesh.api.plugin("canary-router").await?;
        plugin["refused"]["reason"].as_str().map(str::to_owned)
    })
    .await;
    assert!(refused.contains("`/rag`") && refused.contains("`/clients`"), "{refused}");
    assert_eq!(by(&mesh, "alice", "act").await.ok()["instance"], "canary");
    let plugin = call_on(&mesh, "canary-router", "act", &[200]).await;
    row("JavaScript, router", &built, took, plugin)
}

async fn python_alerts_when_too_many_calls_fail() -> Row {
    let built = toolchains::example("error-ratio-alerts");
    let mesh = mesh().await;
    let upstream = instance(&mesh, "a", &[]).await;
    let config = "ratio = 0.25\nwindow_s = 10\ncalls_min = 4\n";
    let took = load(&mesh, "error-ratio-alerts", config, &built.component).await;
    let alert = || async {
        let list = mesh.api.get("/api/v1/alerts").await.ok();
        let alerts = list["items"].as_array().expect("a list").clone();
        alerts.into_iter().find(|one| one["plugin"] == "error-ratio-alerts" && one["state"] == "firing")
    };
    assert_eq!(alert().await, None, "nothing has failed");
    upstream.now(How::Status(500));
    let fired = eventually("the alert fires", ALERTED, || async {
        mesh.api.call("s", "act", json!({})).await;
        alert().await
    })
    .await;
    assert_eq!((&fired["rule"], &fired["severity"]), (&json!("error-ratio"), &json!("error")), "{fired}");
    assert_eq!((&fired["labels"]["service"], &fired["threshold"]), (&json!("s"), &json!(0.25)), "{fired}");
    upstream.now(How::Answer);
    eventually("the service answers again", ALERTED, || async {
        (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    let plugin = call_on(&mesh, "error-ratio-alerts", "act", &[200]).await;
    eventually("the alert is resolved", ALERTED, || async { alert().await.is_none().then_some(()) }).await;
    row("Python, alerter", &built, took, plugin)
}

async fn go_keeps_writes_off_replicas() -> Row {
    let built = toolchains::example("read-replica-router");
    let mesh = mesh().await;
    let primary = instance(&mesh, "one", &["primary"]).await;
    let replicas = [instance(&mesh, "two", &["replica"]).await, instance(&mesh, "three", &["replica"]).await];
    let took = load(&mesh, "read-replica-router", "writes = [\"act\"]", &built.component).await;
    for _ in 0..20 {
        let body = mesh.api.call("s", "act", json!({})).await.ok();
        assert_eq!((&body["instance"], &body["why"]), (&json!("one"), &json!("writes go to the primary")));
        mesh.api.call("s", "act_read_only", json!({})).await.ok();
    }
    assert_eq!(primary.calls(), 20, "all writes, and nothing else");
    assert_eq!(replicas[0].calls() + replicas[1].calls(), 20);
    let plugin = call_on(&mesh, "read-replica-router", "act", &[200]).await;
    row("Go, router", &built, took, plugin)
}

async fn c_refuses_what_is_over_the_quota() -> Row {
    let built = toolchains::example("quota-router");
    let mesh = mesh().await;
    let _upstream = instance(&mesh, "a", &[]).await;
    let took = load(&mesh, "quota-router", "per_minute = 5", &built.component).await;
    let mut refused = Vec::new();
    // The minute may end meanwhile.
    for _ in 0..11 {
        let answer = by(&mesh, "greedy", "act").await;
        if answer.status != 200 {
            answer.problem(429, "policy_refused");
            refused.push(answer);
        }
    }
    assert!((1..=6).contains(&refused.len()), "{} of 11 refused", refused.len());
    let retry_after = refused[0].header("retry-after").and_then(|text| text.parse::<u64>().ok());
    assert!(retry_after.is_some_and(|secs| (1..=60).contains(&secs)), "{:?}", refused[0].headers);
    by(&mesh, "modest", "act").await.ok();
    let plugin = call_on(&mesh, "quota-router", "act", &[200, 429]).await;
    row("C, router", &built, took, plugin)
}

async fn zig_picks_the_instance_that_does_nothing() -> Row {
    let built = toolchains::example("calm-balancer");
    let mesh = mesh().await;
    let busy = instance(&mesh, "busy", &[]).await;
    let calm = instance(&mesh, "calm", &[]).await;
    let took = load(&mesh, "calm-balancer", "", &built.component).await;
    busy.now(How::Hang);
    let api = mesh.api.clone();
    let hanging = tokio::spawn(async move { api.try_call("busy", "act", json!({})).await });
    eventually("a call hangs", SOON, || async { (busy.calls() == 1).then_some(()) }).await;
    for _ in 0..50 {
        assert_eq!(mesh.api.call("s", "act", json!({})).await.ok()["instance"], "calm");
    }
    assert_eq!((busy.calls(), calm.calls()), (1, 50));
    // Two callers at a time make both equally busy now and then.
    busy.now(How::Answer);
    let plugin = call_on(&mesh, "calm-balancer", "act", &[200]).await;
    assert!(plugin["calls"].as_u64().is_some_and(|calls| calls > 50), "it was asked: {plugin}");
    hanging.abort();
    row("Zig, balancer", &built, took, plugin)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_template_builds_and_comes_into_force() {
    let _alone = ALONE.lock().await;
    let mut rows = Vec::new();
    for language in LANGUAGES {
        rows.push(the_router_refuses(language).await);
        // Interpreters need most of a pick's deadline on a busy machine; scenarios have none.
        if BY_HAND.contains(&language) {
            rows.push(the_balancer_shares(language).await);
        }
        rows.push(the_alerter_warns(language).await);
    }
    print(&rows);
}

async fn the_router_refuses(language: &str) -> Row {
    let (name, built) = (format!("{language}-router"), toolchains::template(language, "router"));
    let mesh = mesh().await;
    let _upstream = instance(&mesh, "a", &[]).await;
    let took = load(&mesh, &name, "", &built.component).await;
    mesh.api.call("s", "act", json!({})).await.ok();
    // A plugin is listed a moment before the first call goes by it.
    let refused = eventually("the router refuses", SOON, || async {
        let answer = mesh.api.call("s", "delete_all", json!({})).await;
        (answer.status != 200).then_some(answer)
    })
    .await
    .problem(403, "policy_refused");
    assert_eq!(refused["why"], format!("refused by {name}"), "{refused}");
    let plugin = call_on(&mesh, &name, "act", &[200]).await;
    row(&format!("template {name}"), &built, took, plugin)
}

async fn the_balancer_shares(language: &str) -> Row {
    let (name, built) = (format!("{language}-balancer"), toolchains::template(language, "balancer"));
    let mesh = mesh().await;
    let upstreams = [instance(&mesh, "a", &[]).await, instance(&mesh, "b", &[]).await];
    let took = load(&mesh, &name, "", &built.component).await;
    let plugin = call_on(&mesh, &name, "act", &[200]).await;
    assert!(plugin["calls"].as_u64() >= Some(FURTHER_CALLS as u64 / 2), "it was asked: {plugin}");
    for upstream in upstreams {
        assert!(upstream.calls() > FURTHER_CALLS / 4, "both take their part");
    }
    row(&format!("template {name}"), &built, took, plugin)
}

async fn the_alerter_warns(language: &str) -> Row {
    let (name, built) = (format!("{language}-alerter"), toolchains::template(language, "alerter"));
    let mesh = mesh().await;
    let _upstream = instance(&mesh, "a", &[]).await;
    let took = load(&mesh, &name, "", &built.component).await;
    let alert = eventually(&format!("`{name}` alerts"), ALERTED, || async {
        let list = mesh.api.get("/api/v1/alerts").await.ok();
        let alerts = list["items"].as_array().expect("a list").clone();
        alerts.into_iter().find(|one| one["plugin"] == *name)
    })
    .await;
    assert_eq!((&alert["rule"], &alert["severity"]), (&json!("few-instances"), &json!("warning")), "{alert}");
    assert_eq!((&alert["labels"]["service"], &alert["value"]), (&json!("s"), &json!(1.0)), "{alert}");
    let plugin = mesh.api.plugin(&name).await.expect("listed");
    assert_eq!(plugin["faults"], 0, "{plugin}");
    row(&format!("template {name}"), &built, took, plugin)
}

#[test]
fn each_template_is_good_and_answers_as_its_scenarios_say() {
    let _alone = ALONE.blocking_lock();
    for language in LANGUAGES {
        for kind in KINDS {
            let said = toolchains::template(language, kind).tried();
            assert!(said.contains(&format!("{language}-{kind} 0.1.0")), "{said}");
            assert!(said.contains(" passed, 0 failed"), "{said}");
            assert!(!said.contains("{{"), "{said}");
        }
    }
}

#[test]
fn bindings_by_hand_reach_all_that_the_host_offers_to_routers() {
    let _alone = ALONE.blocking_lock();
    for language in BY_HAND {
        let said = toolchains::reaching(language).tried();
        assert!(said.contains("1 passed, 0 failed") && said.contains("refused: "), "{said}");
        assert!(said.contains("a key has 1 to 256 bytes"), "{said}");
    }
}

#[test]
fn readmes_install_what_is_tested() {
    let pinned = toolchains::pinned();
    let mut folders = EXAMPLES.map(|name| format!("examples/{name}")).to_vec();
    for language in LANGUAGES {
        folders.extend(KINDS.map(|kind| format!("templates/{language}/{kind}")));
    }
    for folder in folders {
        let tools = toolchains::tools_of(&folder);
        assert!(!tools.is_empty(), "{folder} wants no tools");
        for tool in tools {
            assert!(pinned.contains(&tool), "{folder}: `{tool}` is not in {pinned:?}");
        }
    }
}

#[test]
fn the_guide_has_the_commands_of_the_readmes() {
    let guide = fs::read_to_string(repository().join("wit/README.md")).expect("read the guide");
    for language in ["js", "python"] {
        for command in toolchains::commands_of(&format!("templates/{language}/router")) {
            let command = command.replace("{{name}}", "night-watch");
            let has = guide.lines().any(|line| line == command || line.starts_with(&format!("{command}  ")));
            assert!(has, "the guide lacks `{command}` of {language}");
        }
    }
}
