//! When nobody answers, instances are sent little more than the calls that come.

mod support;

use std::time::{Duration, Instant};

use support::raw_upstream::{How, RawOptions};
use support::*;

/// A proxy whose service `s` has so many healthy instances, and that tool first.
async fn mesh(config: String, tool: &str, instances: usize) -> Mesh {
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("all instances answer", SOON, || async {
        let status = mesh.api.get("/services/s").await.ok();
        let healthy = status["instances"].as_array()?.iter().filter(|one| one["state"] == "healthy").count();
        (healthy == instances && status["tools"][0]["name"] == tool).then_some(())
    })
    .await;
    mesh
}

/// What a service may be sent when `calls` end within that time: a fifth more, three a second, and what a quiet
/// service has saved.
fn affordable(calls: usize, within: Duration) -> usize {
    calls + calls / 5 + (3.0 * within.as_secs_f64()).ceil() as usize + 10
}

/// Reading calls, eight at a time, of which none is answered; how many they were and how long they took.
async fn fail_for(mesh: &Mesh, service: &str, tool: &str, time: Duration) -> (usize, Duration) {
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < time {
        let eight = (0..8).map(|_| mesh.api.call(service, tool, json!({})));
        for answer in futures_util::future::join_all(eight).await {
            assert!(answer.status >= 500, "{}", answer.text());
            calls += 1;
        }
    }
    (calls, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_all_fail_are_sent_no_more_than_a_fifth_of_retries() {
    let options = RawOptions { sessions: false, ..RawOptions::default() };
    let upstreams = [RawUpstream::start(options).await, RawUpstream::start(options).await];
    let urls = upstreams.each_ref().map(|upstream| format!("http://127.0.0.1:{}/mcp", upstream.port));
    let mesh = mesh(format!("[services.s]\nurls = {urls:?}\n"), "act", 2).await;
    upstreams.iter().for_each(|upstream| upstream.now(How::Status(503)));
    let (calls, took) = fail_for(&mesh, "s", "act_read_only", Duration::from_secs(5)).await;
    let sent: usize = upstreams.iter().map(RawUpstream::calls).sum();
    eprintln!("{calls} calls in {took:?} were sent {sent} times");
    assert!(calls > 200, "{calls} calls");
    let retries = mesh.api.service("s").await["counts"]["retries"].as_u64().expect("a count") as usize;
    assert!(retries > 10, "some were tried again: {retries}");
    assert!(calls + retries <= affordable(calls, took), "{retries} of {calls} in {took:?}");
    assert!(sent <= affordable(calls, took), "{sent} of {calls} in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_die_of_every_call_are_sent_no_more_than_a_fifth_of_retries() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, child) = (folder.path().join("calls"), repository().join("tests/fixtures/mirror_child.py"));
    let config = format!(
        "[services.s]\ncommand = \"python3\"\nargs = [{child:?}, {file:?}]\ninstances = 4\n\
         restart = {{ policy = \"always\", max = 1000 }}\n"
    );
    let mesh = mesh(config, "show", 4).await;
    let (calls, took) = fail_for(&mesh, "s", "show", Duration::from_secs(6)).await;
    let sent = std::fs::read_to_string(&file).expect("calls came").lines().count();
    eprintln!("{calls} calls in {took:?} were sent {sent} times");
    assert!(sent > 0 && sent <= affordable(calls, took), "{sent} of {calls} in {took:?}");
}
