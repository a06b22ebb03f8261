//! A second instance is asked when the first is slow: for calls that only read, and no more often than can be afforded.

mod support;

use std::time::{Duration, Instant};

use support::raw_upstream::{Era, How, RawOptions};
use support::*;

/// What a slow instance takes; what a caller may notice of it.
const SLOW: Duration = Duration::from_secs(4);
const NOTICED: Duration = Duration::from_secs(2);

async fn scene(era: Era, hedge: &str) -> (Mesh, [RawUpstream; 2]) {
    let options = RawOptions { era, ..RawOptions::default() };
    let upstreams = [RawUpstream::start(options).await, RawUpstream::start(options).await];
    let urls = upstreams.each_ref().map(|upstream| format!("http://127.0.0.1:{}/mcp", upstream.port));
    let config = format!("[services.s]\nurls = {urls:?}\nhedge = {hedge}\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("both instances answer", SOON, || async {
        let status = mesh.api.get("/services/s").await.ok();
        let healthy = status["instances"].as_array()?.iter().filter(|one| one["state"] == "healthy").count();
        (healthy == 2).then_some(())
    })
    .await;
    // The delay is looked up each second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    (mesh, upstreams)
}

async fn count(mesh: &Mesh, metric: &str) -> u64 {
    let scraped = mesh.api.get("/metrics").await;
    let line = format!("meshwright_service_{metric}_total{{service=\"s\"}} ");
    let found = scraped.text().lines().find_map(|found| found.strip_prefix(&line)?.parse::<f64>().ok());
    found.unwrap_or_else(|| panic!("no {metric}")) as u64
}

fn calls(upstreams: &[RawUpstream; 2]) -> usize {
    upstreams.iter().map(RawUpstream::calls).sum()
}

/// Calls one after the other until one was hedged; none is noticeably slow. Answers the id of that call.
async fn until_hedged(mesh: &Mesh, mut call: impl AsyncFnMut() -> String) -> String {
    // One whose first calls were the slower ones is asked again when that has faded, after some seconds.
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (before, began) = (count(mesh, "hedges").await, Instant::now());
        let id = call().await;
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
        if count(mesh, "hedges").await > before {
            return id;
        }
    }
    panic!("the slow instance was never asked first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_instance_is_not_noticed_and_hears_that_nobody_waits() {
    let (mesh, [slow, quick]) = scene(Era::Legacy, r#"{ after = "150ms", budget_percent = 50 }"#).await;
    for _ in 0..20 {
        assert_eq!(mesh.api.call("s", "act_read_only", json!({})).await.status, 200);
    }
    slow.now(How::AnswerAfter(SLOW));
    let id = until_hedged(&mesh, async || {
        let answer = mesh.api.call("s", "act_read_only", json!({})).await;
        assert_eq!(answer.ok()["instance"], "s-2");
        answer.json()["call_id"].as_str().expect("an id").to_owned()
    })
    .await;
    assert_eq!(count(&mesh, "hedges_won").await, count(&mesh, "hedges").await);
    assert_eq!(count(&mesh, "retries").await, 0);
    let call = slow.seen("tools/call").pop().expect("it was asked");
    let told =
        eventually("it hears of it", SOON, || async { slow.seen("notifications/cancelled").pop() }).await;
    let (call, told): (Value, Value) =
        (serde_json::from_str(&call.body).expect("JSON"), serde_json::from_str(&told.body).expect("JSON"));
    assert_eq!(told["params"]["requestId"], call["id"]);

    let why = mesh.api.get(&format!("/api/v1/calls/{id}")).await.ok();
    let attempts = why["attempts"].as_array().expect("attempts");
    let told = |at: usize| {
        let attempt = &attempts[at];
        (attempt["instance"].clone(), attempt["hedges"].clone(), attempt["outcome"].clone())
    };
    assert_eq!(attempts.len(), 2, "{why}");
    assert_eq!(told(0), (json!("s-1"), json!(false), json!("outrun")));
    assert_eq!(told(1), (json!("s-2"), json!(true), json!("answered")));
    assert_eq!(why["instance"], "s-2");
    slow.assert_polite();
    quick.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn modern_clients_are_answered_by_the_first_and_the_other_connection_is_closed() {
    let (mesh, [slow, _quick]) = scene(Era::Modern, r#"{ after = "150ms", budget_percent = 50 }"#).await;
    let client = Client::modern(&mesh.mcp);
    for _ in 0..20 {
        client.call("s__act_read_only", json!({})).await.expect("an answer");
    }
    slow.now(How::AnswerAfter(SLOW));
    until_hedged(&mesh, async || {
        client.call("s__act_read_only", json!({})).await.expect("an answer");
        String::new()
    })
    .await;
    eventually("it hears of it", SOON, || async { (slow.abandoned() > 0).then_some(()) }).await;
    assert_eq!(slow.seen("notifications/cancelled").len(), 0, "that is said by closing the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pool_is_asked_little_more_often_and_what_changes_things_only_once() {
    let (mesh, upstreams) = scene(Era::Legacy, r#"{ after = "20ms", budget_percent = 10 }"#).await;
    for upstream in &upstreams {
        upstream.now(How::AnswerAfter(Duration::from_millis(120)));
    }
    let all = async |tool: &str, many: usize| {
        let before = calls(&upstreams);
        let called = (0..many).map(|_| mesh.api.call("s", tool, json!({})));
        for answer in futures_util::future::join_all(called).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        calls(&upstreams) - before
    };
    assert_eq!(all("act", 50).await, 50, "nobody knows whether it may be repeated");
    assert_eq!(count(&mesh, "hedges").await, 0);
    let mut sent = 0;
    for _ in 0..5 {
        sent += all("act_read_only", 40).await;
    }
    let hedges = count(&mesh, "hedges").await as usize;
    assert_eq!(sent, 200 + hedges);
    // Those that the calls before have earned, and their own.
    assert!((10..=(50 + 200) / 10).contains(&hedges), "{hedges} of 200 were asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_either_attempt_leaves_the_call_to_the_other() {
    let (mesh, [slow, quick]) = scene(Era::Legacy, r#"{ after = "100ms", budget_percent = 50 }"#).await;
    for _ in 0..20 {
        assert_eq!(mesh.api.call("s", "act_read_only", json!({})).await.status, 200);
    }
    slow.now(How::AnswerAfter(Duration::from_millis(700)));
    quick.now(How::Reset);
    let mut hedged = false;
    for _ in 0..30 {
        let (before, began) = (count(&mesh, "hedges").await, Instant::now());
        let answer = mesh.api.call("s", "act_read_only", json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
        hedged |= count(&mesh, "hedges").await > before;
        if hedged {
            break;
        }
    }
    assert!(hedged, "the slow instance was never asked first");
}
