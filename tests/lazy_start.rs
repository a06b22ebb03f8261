//! Services whose processes run only while somebody needs them.

mod support;

use std::time::{Duration, Instant};

use support::children::*;
use support::*;

/// A proxy that has learned what its services offer, and was started again.
async fn known(config: String, services: &[&str]) -> Mesh {
    let mut mesh = mesh(config).await;
    for service in services {
        until(&mesh, service, "ready").await;
        eventually(&format!("what `{service}` offers is known"), SOON, || async {
            let tools = mesh.api.service(service).await["tools"].clone();
            tools.as_array().is_some_and(|tools| !tools.is_empty()).then_some(())
        })
        .await;
    }
    assert!(mesh.terminate().await.success());
    mesh.restart_elsewhere().await;
    mesh
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_listed_without_a_process_and_the_first_call_starts_it() {
    let book = Book::new();
    let config = book.service("lazy", &["fork"], "start = \"lazy\"\ndepends_on = [\"base\"]")
        + &book.service("base", &[], "start = \"lazy\"");
    let mesh = known(config, &["lazy", "base"]).await;
    let idle = until(&mesh, "lazy", "idle").await;
    assert_eq!((&idle["pid"], &idle["reason"]), (&Value::Null, &json!("the next call starts it")), "{idle}");
    let startup = mesh.api.get("/api/v1/processes").await.ok()["startup"].clone();
    assert_eq!(startup["idle"], json!(["base", "lazy"]), "{startup}");
    for url in [mesh.mcp.clone(), format!("{}/servers/lazy/mcp", mesh.http)] {
        for client in [Client::modern(&url), Client::legacy(&url).await] {
            let tools = client.tools().await;
            assert!(tools.iter().any(|tool| tool == "lazy__pid" || tool == "pid"), "{tools:?} at {url}");
        }
    }
    eventually("it is healthy", SOON, || async {
        let service = mesh.api.service("lazy").await;
        (service["status"] == "healthy" && service["instances"][0]["state"] == "idle").then_some(())
    })
    .await;
    let status = mesh.api.get("/services/lazy/status").await.ok();
    assert_eq!((&status["available"], &status["process_running"]), (&json!(true), &json!(false)), "{status}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = book.pids("lazy").len();
    assert_eq!(
        (process(&mesh, "lazy").await["state"].clone(), before),
        (json!("idle"), 4),
        "nobody has called"
    );

    let calls = (0..20).map(|_| mesh.api.call("lazy", "pid", json!({})));
    let answers = futures_util::future::join_all(calls).await;
    let pids: Vec<String> = answers.iter().map(Answer::tool_text).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    assert_eq!(book.pids("lazy").len(), 8, "one start for all of them");
    until(&mesh, "base", "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_no_longer_than_its_caller_does_and_a_start_that_fails_is_told_at_once() {
    let book = Book::new();
    let config = book.service("slow", &["slow"], "start = \"lazy\"")
        + &book.service("fails", &["crash"], "start = \"lazy\"");
    std::fs::write(book.file("fails.calm"), "").expect("calm it");
    let mesh = known(config, &["slow", "fails"]).await;
    until(&mesh, "slow", "idle").await;
    let call = json!({"target_instance": "slow", "tool_name": "pid", "arguments": {}, "timeout_ms": 700});
    let begun = Instant::now();
    let late = mesh.api.post("/call", &call).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let problem = late.problem(502, "upstream_unreachable");
    contains(problem["detail"].as_str().expect("a detail"), &["was not ready in time"]);
    assert_eq!(mesh.api.call("slow", "pid", json!({})).await.status, 200, "it came up for who waits");

    until(&mesh, "fails", "idle").await;
    std::fs::remove_file(book.file("fails.calm")).expect("let it crash");
    let begun = Instant::now();
    let failed = mesh.api.call("fails", "pid", json!({})).await;
    contains(failed.text(), &["missing CHAOS_TOKEN"]);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_stopped_and_no_call_is_lost_to_that() {
    let book = Book::new();
    let mesh = mesh(book.service("rests", &["lags"], "idle_stop = \"300ms\"")).await;
    until_called(&mesh, "rests").await;
    until(&mesh, "rests", "idle").await;
    let begun = Instant::now();
    let mut random = 11_u64;
    let mut stopping = 0;
    while begun.elapsed() < Duration::from_secs(40) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Around the moment at which it is put to rest, and while it ends.
        tokio::time::sleep(Duration::from_millis((random >> 33) % 1600)).await;
        stopping += u32::from(process(&mesh, "rests").await["state"] == "stopping");
        let calls = (0..4).map(|_| mesh.api.call("rests", "pid", json!({})));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), mesh.log());
        }
    }
    let starts = book.pids("rests").len();
    assert!(starts > 4 && stopping > 0, "{starts} starts, {stopping} calls while it ended: shows nothing");
    until(&mesh, "rests", "idle").await;
    assert_eq!(running(&book.pids("rests")), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_sessions_keep_it_running() {
    let book = Book::new();
    let mesh = mesh(book.service("held", &["naps"], "idle_stop = \"500ms\"")).await;
    until_called(&mesh, "held").await;
    let client = Client::legacy(&mesh.mcp).await;
    let pid = client.tool_text("held__pid", json!({})).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(client.tool_text("held__pid", json!({})).await, pid, "a session holds it");
    client.delete().await;
    until(&mesh, "held", "idle").await;

    let call = mesh.api.call("held", "pid", json!({"nap_s": 4}));
    let answer = call.await;
    assert_eq!(answer.status, 200, "a call that takes longer than that is not cut: {}", answer.text());
    until(&mesh, "held", "idle").await;

    rewrite(&mesh, &book.service("held", &["naps"], ""));
    until(&mesh, "held", "ready").await;
}
