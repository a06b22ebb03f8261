//! Instances that are taken out of use: nothing new goes there, nothing fails, and everybody can see it.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::raw_upstream::How;
use support::*;

/// Two instances, `a` and `b`, of the service `s`.
async fn scene() -> (Mesh, [RawUpstream; 2]) {
    let mesh = Mesh::plain().await;
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    for (name, upstream) in ["a", "b"].into_iter().zip(&upstreams) {
        mesh.api.join_as(spec(name, upstream)).await;
    }
    (mesh, upstreams)
}

fn spec(name: &str, upstream: &RawUpstream) -> Value {
    json!({"instance_name": name, "service": "s", "port": upstream.port, "tools": []})
}

async fn order(mesh: &Mesh, instance: &str, word: &str, body: Value) -> Value {
    mesh.api.post(&format!("/api/v1/instances/{instance}/{word}"), &body).await.ok()
}

async fn instance(mesh: &Mesh, name: &str) -> Value {
    let service = mesh.api.service("s").await;
    let instances = service["instances"].as_array().expect("instances");
    instances.iter().find(|one| one["instance_name"] == name).expect("it is there").clone()
}

async fn metric(mesh: &Mesh, line: &str) -> Option<f64> {
    let scraped = mesh.api.get("/metrics").await;
    let text = scraped.text();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

/// So many calls that both instances get some.
async fn call_often(mesh: &Mesh) {
    for _ in 0..20 {
        assert_eq!(mesh.api.call("s", "act", json!({})).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_ends_what_it_has_and_gets_nothing_new_until_it_is_taken_back() {
    let (mesh, [a, b]) = scene().await;
    for upstream in [&a, &b] {
        upstream.now(How::AnswerAfter(Duration::from_millis(1500)));
    }
    let under_way: Vec<_> = (0..8)
        .map(|_| {
            let api = mesh.api.clone();
            tokio::spawn(async move { api.call("s", "act", json!({})).await.status })
        })
        .collect();
    eventually("both are at work", SOON, || async { (a.calls() > 0 && b.calls() > 0).then_some(()) }).await;

    let drained = order(&mesh, "a", "drain", json!({"reason": "new disk"})).await;
    let (had, left) = (a.calls(), drained["draining"]["calls"].as_u64().expect("calls"));
    assert!(left > 0 && left <= had as u64, "{drained}");
    assert_eq!((&drained["state"], &drained["draining"]["reason"]), (&json!("draining"), &json!("new disk")));
    let why = drained["reason"].as_str().expect("a reason");
    assert!(why.contains("new disk") && why.contains(&format!("{left} calls")), "{why}");
    assert_eq!(metric(&mesh, r#"meshwright_instance_draining{service="s",instance="a"}"#).await, Some(1.0));
    for ended in under_way {
        assert_eq!(ended.await.expect("it ended"), 200);
    }
    for upstream in [&a, &b] {
        upstream.now(How::Answer);
    }
    call_often(&mesh).await;
    assert_eq!(a.calls(), had, "nothing new went there");
    eventually("it is said that nothing is left", SOON, || async {
        let said = mesh.log().contains("no call and no session is left");
        (said && instance(&mesh, "a").await["draining"]["calls"] == 0).then_some(())
    })
    .await;
    let service = mesh.api.get("/services/s/status").await.ok();
    assert_eq!((&service["status"], &service["available"]), (&json!("healthy"), &json!(true)), "{service}");
    assert!(service["reason"].as_str().is_some_and(|why| why.contains("1 of 2")), "{service}");

    let back = order(&mesh, "a", "undrain", json!({})).await;
    assert_eq!((&back["state"], &back["draining"]), (&json!("healthy"), &Value::Null), "{back}");
    // Its calls took long when it was last asked, so it is not the first choice.
    eventually("it is in use again", SOON, || async {
        call_often(&mesh).await;
        (a.calls() > had).then_some(())
    })
    .await;
    assert_eq!(metric(&mesh, r#"meshwright_instance_draining{service="s",instance="a"}"#).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_holds_across_a_restart_and_a_registration_and_callers_are_told() {
    let (mut mesh, upstreams) = scene().await;
    let id = instance(&mesh, "b").await["instance_id"].as_str().expect("an id").to_owned();
    order(&mesh, "a", "drain", json!({"reason": "new disk"})).await;
    order(&mesh, &id, "drain", json!({})).await;
    let problem = mesh.api.call("s", "act", json!({})).await.problem(503, "no_instance_available");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("`a` draining") && detail.contains("new disk"), "{problem}");
    assert!(detail.contains("`b` draining"), "{problem}");
    mesh.api.call("a", "act", json!({})).await.problem(503, "no_instance_available");

    mesh.kill();
    mesh.restart().await;
    eventually("both are probed again", SOON, || async {
        (instance(&mesh, "a").await["state"] == "draining"
            && instance(&mesh, "b").await["state"] == "draining")
            .then_some(())
    })
    .await;
    mesh.api.call("s", "act", json!({})).await.problem(503, "no_instance_available");
    let [a, _] = &upstreams;
    assert_eq!(mesh.api.post("/register", &spec("a", a)).await.status, 200, "it says again that it is there");
    assert_eq!(instance(&mesh, "a").await["draining"]["reason"], "new disk");
    assert_eq!(upstreams.iter().map(RawUpstream::calls).sum::<usize>(), 0);

    // Who leaves and comes again is another one.
    assert_eq!(mesh.api.post("/deregister", &json!({"instance_name": "a"})).await.status, 200);
    mesh.api.join_as(spec("a", a)).await;
    assert_eq!(mesh.api.call("s", "act", json!({})).await.status, 200);
    assert_eq!(a.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_on_for_a_while_and_then_begin_anew_elsewhere() {
    let (mesh, [a, b]) = scene().await;
    order(&mesh, "b", "drain", json!({})).await;
    let address = format!("{}/servers/s/mcp", mesh.http);
    let mut client = Client::legacy(&address).await;
    assert_eq!(instance(&mesh, "a").await["sessions"], 1);
    order(&mesh, "b", "undrain", json!({})).await;
    let drained = order(&mesh, "a", "drain", json!({"sessions_s": 3})).await;
    assert_eq!(drained["draining"]["sessions"], 1, "{drained}");

    client.call("act", json!({})).await.expect("its session goes on");
    assert_eq!((a.calls(), b.calls()), (1, 0));
    let other = Client::legacy(&address).await;
    other.call("act", json!({})).await.expect("a new session is elsewhere");
    assert_eq!((a.calls(), b.calls()), (1, 1));

    tokio::time::sleep(Duration::from_secs(3)).await;
    let call = json!({"name": "act", "arguments": {}});
    assert_eq!(client.open("tools/call", &call).await.status, 404);
    client.begin().await;
    client.call("act", json!({})).await.expect("it began anew");
    assert_eq!((a.calls(), b.calls()), (1, 2));
    for upstream in [&a, &b] {
        upstream.assert_polite();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_deregisters_ends_what_it_has_and_its_sessions_begin_anew() {
    let (mesh, [a, b]) = scene().await;
    order(&mesh, "b", "drain", json!({})).await;
    let address = format!("{}/servers/s/mcp", mesh.http);
    let client = Client::legacy(&address).await;
    order(&mesh, "b", "undrain", json!({})).await;
    a.now(How::AnswerAfter(Duration::from_millis(800)));
    let api = mesh.api.clone();
    let call = tokio::spawn(async move { api.call("a", "act", json!({})).await.status });
    let session = async {
        client.call("act", json!({})).await.expect("a call in a session");
        client
    };
    let leaves = async {
        eventually("both are under way", SOON, || async { (a.calls() == 2).then_some(()) }).await;
        mesh.api.post("/deregister", &json!({"instance_name": "a"})).await
    };
    let (client, left) = tokio::join!(session, leaves);
    assert_eq!((left.status, call.await.expect("it ended")), (200, 200));
    let again = client.open("tools/call", &json!({"name": "act", "arguments": {}})).await;
    assert_eq!((again.status, b.calls()), (404, 0), "no session is moved behind its client's back");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_out_of_use_is_not_called_down() {
    let (mesh, _upstreams) = scene().await;
    for name in ["a", "b"] {
        order(&mesh, name, "drain", json!({})).await;
    }
    let alerts = eventually("the service is said to be out of use", 2 * SOON, || async {
        let alerts = mesh.api.get("/api/v1/alerts").await.ok()["items"].clone();
        let of_service = alerts.as_array()?.iter().find(|alert| alert["rule"] == "service-unavailable")?;
        (of_service["detail"] == "all of its 2 instances are taken out of use").then(|| alerts.clone())
    })
    .await;
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
    order(&mesh, "a", "undrain", json!({})).await;
    eventually("it can be called, and that is over", 2 * SOON, || async {
        let alerts = mesh.api.get("/api/v1/alerts").await.ok()["items"].clone();
        alerts.as_array()?.iter().all(|alert| alert["state"] == "resolving").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_is_refused_and_the_command_line_says_what_became_of_one() {
    let (mesh, _upstreams) = scene().await;
    let path = "/api/v1/instances/a/drain";
    for bad in [
        json!([]),
        json!({"sessions_s": -1}),
        json!({"sessions_s": 86_401}),
        json!({"reason": "a\u{7}"}),
        json!({"why": ""}),
    ] {
        mesh.api.post(path, &bad).await.problem(400, "invalid_drain");
    }
    for nobody in ["c", "i-999", "i-", "-", "%20"] {
        let path = format!("/api/v1/instances/{nobody}/drain");
        mesh.api.post(&path, &json!({})).await.problem(404, "unknown_instance");
    }
    assert_eq!(instance(&mesh, "a").await["draining"], Value::Null);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        command.args(args).args(["--url", &mesh.http]).stdin(Stdio::null());
        let output = command.output().expect("run the command line");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = run(&["drain", "a", "--reason", "new disk", "--sessions", "1m"]);
    assert_eq!(code, Some(0));
    assert_eq!(said, "a is draining: taken out of use: new disk; 0 calls and 0 sessions are left\n");
    let left = instance(&mesh, "a").await["draining"]["sessions_left_s"].as_u64();
    assert!(left.is_some_and(|left| (30..=60).contains(&left)), "{left:?}");
    assert_eq!(run(&["undrain", "a"]), (Some(0), "a is healthy\n".to_owned()));
    assert_eq!(run(&["drain", "c"]).0, Some(5));
}
