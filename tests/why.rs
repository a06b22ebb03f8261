//! Every call can be explained afterwards: what was asked, who decided, why, and what else could have been picked.

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::guests::{drop_in, misbehaver, sha256};
use support::raw_upstream::{How, RawOptions};
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

fn why(mesh: &Mesh, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .current_dir(mesh.home.path())
        .stdin(Stdio::null())
        .args(["why", "--url", &mesh.http])
        .args(args)
        .output()
        .expect("run the command");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

async fn explained(mesh: &Mesh, id: &str) -> Value {
    mesh.api.get(&format!("/api/v1/calls/{id}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_stood_in_line_tells_for_how_long_and_behind_how_many() {
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    let url = format!("http://127.0.0.1:{}/mcp", upstream.port);
    let config = format!("[services.s]\nurl = {url:?}\nconcurrency = 1\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("it answers", SOON, || async {
        let answer = mesh.api.call("s", "act", json!({})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    upstream.now(How::AnswerAfter(Duration::from_millis(500)));
    let calls = futures_util::future::join_all((0..3).map(|_| mesh.api.call("s", "act", json!({})))).await;
    let mut calls: Vec<Value> = futures_util::future::join_all(calls.iter().map(|answer| {
        let id = answer.ok()["call_id"].as_str().expect("an id").to_owned();
        let mesh = &mesh;
        async move { explained(mesh, &id).await }
    }))
    .await;
    let us = |call: &Value, key: &str| call[key].as_u64().unwrap_or_else(|| panic!("no {key}: {call}"));
    calls.sort_by_key(|call| us(call, "waited_us"));
    for (number, call) in (0_u64..).zip(&calls) {
        let (waited, attempt) = (us(call, "waited_us"), &call["attempts"][0]);
        // On a busy machine the one before was under way for a while already when it came.
        assert!(waited >= [0, 100_000, 500_000][number as usize], "{number}: {call}");
        assert_eq!(waited == 0, number == 0, "{call}");
        assert_eq!(
            (us(attempt, "waited_us"), us(attempt, "waited_behind")),
            (waited, number.saturating_sub(1))
        );
        assert!(waited + us(attempt, "us") <= us(call, "latency_us") + 1, "{call}");
    }
    let id = calls[2]["call_id"].as_str().expect("an id");
    let (_, text, _) = why(&mesh, &[id]);
    assert!(text.contains("for an instance to have room, behind 1 other call"), "{text}");
    assert!(text.contains("of which it waited"), "{text}");
    let (_, text, _) = why(&mesh, &[calls[0]["call_id"].as_str().expect("an id")]);
    assert!(!text.contains("waited"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_names_the_build_that_decided_and_the_instances_that_were_left() {
    let mesh = Mesh::plain().await;
    let mut upstreams = Vec::new();
    for name in ["s-1", "s-2", "s-3"] {
        let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
        let spec = json!({"instance_name": name, "service": "s", "port": upstream.port, "tools": []});
        mesh.api.join_as(spec).await;
        upstreams.push(upstream);
    }
    let component = misbehaver("answer", "night-watch", "1.2.3");
    drop_in(&mesh.plugins_dir(), "watch.wasm", &component);
    let answer = eventually("the router decides", SOON, || async {
        let answer = mesh.api.call("s", "act", json!({})).await;
        answer.ok().get("routed_by").is_some().then_some(answer)
    })
    .await;
    let body = answer.json();
    let id = body["call_id"].as_str().expect("an id");
    assert_eq!(answer.header("meshwright-call-id"), Some(id));

    let call = explained(&mesh, id).await;
    let hash = sha256(&component);
    assert_eq!(call["asked"]["service"], "s");
    assert_eq!((&call["asked"]["tool"], &call["asked"]["method"]), (&json!("act"), &json!("tools/call")));
    assert_eq!(call["asked"]["deadline_ms"], 60_000);
    let ruling = &call["ruling"];
    assert_eq!((&ruling["plugin"], &ruling["version"]), (&json!("night-watch"), &json!("1.2.3")), "{call}");
    assert_eq!((&ruling["generation"], &ruling["why"]), (&json!(1), &body["why"]), "{call}");
    assert_eq!(ruling["sha256"], hash[..12], "{call}");
    let attempts = call["attempts"].as_array().expect("attempts");
    let [attempt] = &attempts[..] else { panic!("one attempt: {call}") };
    assert_eq!(attempt["instance"], body["instance"]);
    assert_eq!(
        (&attempt["picked_by"], &attempt["plugin"]["plugin"]),
        (&json!("plugin"), &json!("zone-balancer"))
    );
    assert_eq!((&attempt["candidates"], &attempt["outcome"]), (&json!(3), &json!("answered")), "{call}");
    let mut all: Vec<&str> = attempt["alternatives"]
        .as_array()
        .expect("alternatives")
        .iter()
        .chain([attempt])
        .filter_map(|instance| instance["instance"].as_str())
        .collect();
    all.sort_unstable();
    assert_eq!(all, ["s-1", "s-2", "s-3"]);

    let (code, out, err) = why(&mesh, &[id]);
    assert_eq!(code, 0, "{err}");
    for part in [id, "tools/call `act` of `s`", "night-watch 1.2.3 #1", &hash[..12], "one of 3", "status 200"]
    {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    let (code, out, _) = why(&mesh, &[id, "-o", "json"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), call);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_failed_and_unknown_calls_are_told_apart() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    let named = mesh.api.call("s", "act", json!({})).await;
    let named = explained(&mesh, named.header("meshwright-call-id").expect("an id")).await;
    assert_eq!(named["ruling"], Value::Null, "all routers passed: {named}");
    assert!(named["routers"].as_array().is_some_and(|routers| routers[0]["fate"] == "passed"), "{named}");

    let listed = mesh.api.get("/api/v1/calls?limit=1&service=s").await.ok();
    assert_eq!(listed["items"], json!([named]));
    assert_eq!(mesh.api.get("/api/v1/calls?service=other").await.ok()["items"], json!([]));

    mesh.api.get("/api/v1/calls?limit=-1").await.problem(400, "invalid_filter");
    let unknown = mesh.api.get("/api/v1/calls/0000000000000001").await.problem(404, "unknown_call");
    assert!(
        unknown["detail"].as_str().is_some_and(|detail| detail.contains("0000000000000001")),
        "{unknown}"
    );
    mesh.api.get("/api/v1/calls/xyz").await.problem(404, "unknown_call");
    let (code, _, err) = why(&mesh, &["0000000000000001"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no call `0000000000000001` is known"), "{err}");

    drop(upstream);
    // A connection that is closed while a request goes out on it leaves that call in doubt; a new one is not made.
    let failed = eventually("a call that was not sent", SOON, || async {
        let failed = mesh.api.call("s", "act", json!({})).await;
        assert_ne!(failed.status, 200);
        let failed = explained(&mesh, failed.header("meshwright-call-id").expect("an id")).await;
        let outcome = failed["attempts"][0]["outcome"].as_str().expect("an attempt").to_owned();
        assert!(["unanswered", "not sent"].contains(&outcome.as_str()), "{failed}");
        (outcome == "not sent").then_some(failed)
    })
    .await;
    assert_eq!(failed["instance"], "s", "{failed}");
    let told = failed["error"].as_str().expect("what the caller was told");
    assert!(told.starts_with("`s` of `s` gave no answer in 1 attempt: "), "{failed}");
    let (_, text, _) = why(&mesh, &[failed["call_id"].as_str().expect("an id")]);
    assert!(text.contains("ended     status 502") && text.contains(told), "{text}");
    assert_eq!(named["error"], "", "{named}");

    let reason = eventually("it is known why it is not there", SOON, || async {
        let service = mesh.api.service("s").await;
        let reason = service["reason"].as_str().expect("a reason").to_owned();
        reason.contains("3 probes in a row failed").then_some(reason)
    })
    .await;
    assert!(reason.contains("`s` unhealthy (") && reason.contains("the connection was refused"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_protocol_finds_its_call_by_a_header() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "looker", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "s__act", "arguments": {}, "_meta": meta}});
    let request = mesh
        .api
        .request(http::Method::POST, "/mcp")
        .json(&call)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "s__act");
    let answer = support::Api::send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("meshwright-call-id").expect("the call's id").to_owned();
    let call = explained(&mesh, &id).await;
    assert_eq!(
        (&call["asked"]["client"], &call["asked"]["tool"]),
        (&json!("looker"), &json!("act")),
        "{call}"
    );
}
