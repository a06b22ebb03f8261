//! The life of a call over `POST /call`: what goes through unchanged, and what each failure becomes.

mod support;

#[path = "fixtures/rmcp_server.rs"]
mod rmcp_server;

use std::time::{Duration, Instant};

use support::raw_upstream::{Era, Form, How, RawOptions, VERBATIM, closed_port};
use support::{Answer, Api, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

const QUIET: &str = "[health]\nprobe_every = \"60s\"\n";

/// A proxy that leaves upstreams alone but for calls.
async fn quiet_mesh() -> Mesh {
    Mesh::start(MeshOptions { config: QUIET.into(), ..MeshOptions::default() }).await
}

/// A proxy with one service `s` of one raw upstream.
async fn one(options: RawOptions) -> (Mesh, RawUpstream) {
    let mesh = quiet_mesh().await;
    let upstream = RawUpstream::start(options).await;
    mesh.api.join("s", upstream.port).await;
    (mesh, upstream)
}

/// The bytes of a member of a JSON object.
fn raw<'a>(object: &'a str, member: &str) -> &'a str {
    let members: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_str(object).expect("a JSON object");
    members.get(member).unwrap_or_else(|| panic!("no `{member}` in {object}")).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_who_answered() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    let body = mesh.api.call("s", "act", json!({"n": 1})).await.ok();
    assert_eq!((&body["service"], &body["instance"]), (&json!("s"), &json!("s")));
    let id = body["call_id"].as_str().expect("a call id");
    assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let other = mesh.api.call("s", "act", json!({"n": 1})).await.ok();
    assert_ne!(other["call_id"], body["call_id"]);
    assert_eq!(body["result"]["structuredContent"], json!({"n": 1}));
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_name_an_instance_or_a_service() {
    let mesh = quiet_mesh().await;
    let (a, b) = (RawUpstream::plain().await, RawUpstream::plain().await);
    for (name, upstream) in [("pair-a", &a), ("pair-b", &b)] {
        mesh.api
            .join_as(json!({"instance_name": name, "service": "pair", "port": upstream.port, "tools": []}))
            .await;
    }
    for _ in 0..10 {
        let body = mesh.api.call("pair-b", "act", json!({})).await.ok();
        assert_eq!((&body["service"], &body["instance"]), (&json!("pair"), &json!("pair-b")));
    }
    assert_eq!((a.calls(), b.calls()), (0, 10));
    let callers = (0..8).map(|_| {
        let api = mesh.api.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                api.call("pair", "act", json!({})).await.ok();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no call failed");
    }
    assert!(a.calls() >= 40 && b.calls() >= 50, "balanced: {} and {}", a.calls(), b.calls());
    assert_eq!(a.calls() + b.calls(), 210);
}

const FORMS: [(Era, bool, Form); 7] = [
    (Era::Legacy, true, Form::Json),
    (Era::Legacy, true, Form::Sse),
    (Era::Legacy, true, Form::RaggedSse),
    (Era::Legacy, false, Form::Json),
    (Era::Legacy, false, Form::Sse),
    (Era::Modern, false, Form::Json),
    (Era::Modern, false, Form::RaggedSse),
];

/// Numbers, escapes, blanks and an order that do not survive parsing into a tree.
const ARGUMENTS: &str = "{ \"z\": 123456789012345678901234567890, \"a\" : 1.0, \"e\":1E+2, \"neg\":-0, \"deep\":[[[{\"k\":null}]]],\
     \"emoji\":\"\u{1f9f5}\", \"escaped\":\"\\ud83e\\uddf5\\u0000\\/\", \"\":\"\u{202e}\u{feff}\", \"tiny\":0.1e-400 }";

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_results_pass_byte_by_byte_whatever_the_upstream_speaks() {
    let mesh = quiet_mesh().await;
    for (number, (era, sessions, form)) in FORMS.into_iter().enumerate() {
        let upstream = RawUpstream::start(RawOptions { era, sessions, form }).await;
        let name = format!("form-{number}");
        mesh.api.join(&name, upstream.port).await;
        let request =
            format!("{{\"target_instance\":\"{name}\",\"tool_name\":\"act\",\"arguments\":{ARGUMENTS}}}");
        let answer = mesh.api.post_text("/call", &request).await;
        assert_eq!(answer.status, 200, "{era:?} {form:?}: {}", answer.text());
        let call = upstream.seen("tools/call").pop().expect("the call arrived");
        assert_eq!(call.arguments(), ARGUMENTS, "{era:?} {form:?}: arguments");
        let result = raw(answer.text(), "result");
        assert_eq!(raw(result, "structuredContent"), ARGUMENTS, "{era:?} {form:?}: arguments and back");

        let request = format!("{{\"target_instance\":\"{name}\",\"tool_name\":\"verbatim\"}}");
        let answer = mesh.api.post_text("/call", &request).await;
        assert_eq!(answer.status, 200, "{era:?} {form:?}: {}", answer.text());
        let result = raw(answer.text(), "result");
        if era == Era::Legacy {
            assert_eq!(result, VERBATIM, "{form:?}");
        } else {
            for member in ["zeta", "content", "structuredContent", "_meta"] {
                assert_eq!(raw(result, member), raw(VERBATIM, member), "{form:?}");
            }
        }
        upstream.assert_polite();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_an_rmcp_server_answer_in_every_mode() {
    use rmcp_server::{Options, start};
    let mesh = quiet_mesh().await;
    let modes = [
        Options { modern: false, sessions: true, json: false },
        Options { modern: false, sessions: false, json: false },
        Options { modern: false, sessions: false, json: true },
        Options { modern: true, sessions: true, json: false },
        Options { modern: true, sessions: false, json: true },
    ];
    for (number, options) in modes.into_iter().enumerate() {
        let name = format!("rmcp-{number}");
        let fixture = start(&name, options).await;
        mesh.api.join(&name, fixture.port).await;
        let text = "Grüße \u{1f9f5}\n\"quoted\" \\ \u{2028}";
        assert_eq!(mesh.api.call(&name, "echo", json!({"text": text})).await.tool_text(), text);
        let sum = mesh.api.call(&name, "add", json!({"a": 9_007_199_254_740_993_i64, "b": 2})).await;
        assert_eq!(sum.tool_text(), "9007199254740995");
        assert_eq!(mesh.api.call(&name, "whoami", json!({})).await.tool_text(), name);
        assert_eq!(mesh.api.call(&name, "slow", json!({"seconds": 0.05})).await.tool_text(), "slept 0.05");
        for count in 1..=5 {
            let answer = mesh.api.call(&name, "count", json!({"key": "k"})).await;
            assert_eq!(answer.tool_text(), count.to_string());
        }
        let problem = mesh.api.call(&name, "fail", json!({})).await.problem(422, "tool_error");
        assert_eq!(problem["result"]["content"][0]["text"], "this tool always fails");
        let problem = mesh.api.call(&name, "refuse", json!({})).await.problem(422, "rpc_error");
        assert_eq!(problem["rpc"]["code"], -32602);
        assert_eq!(fixture.counts.lock().expect("no panic holds it")["k"], 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_session_is_opened_once_and_used_for_all_calls() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    for _ in 0..50 {
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    assert_eq!(upstream.seen("initialize").len(), 1);
    assert_eq!(upstream.seen("notifications/initialized").len(), 1);
    let sessions: std::collections::BTreeSet<_> = upstream
        .seen("tools/call")
        .iter()
        .map(|seen| seen.header("mcp-session-id").map(str::to_owned))
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_is_opened_anew_and_no_call_fails() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    mesh.api.call("s", "act", json!({})).await.ok();
    for round in 1..=3 {
        upstream.forget_sessions();
        // Refused unread, so even a tool that changes things may be called again.
        let calls = (0..16).map(|_| {
            let api = mesh.api.clone();
            tokio::spawn(async move { api.call("s", "act", json!({})).await.status })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.expect("no panic"), 200);
        }
        assert_eq!(upstream.seen("initialize").len(), 1 + round, "one handshake for all sixteen");
    }
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_refused_with_400_is_opened_anew_too() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    mesh.api.call("s", "act", json!({})).await.ok();
    upstream.forget_sessions_as(400);
    mesh.api.call("s", "act", json!({})).await.ok();
    assert_eq!(upstream.seen("initialize").len(), 2);
    upstream.assert_polite();
}

/// A 400 that does not speak the protocol says nothing of the session: the call may have run, and is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_400_is_not_taken_for_a_lost_session() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(How::Status(400));
    let answer = mesh.api.call("s", "act", json!({})).await;
    answer.problem(502, "upstream_status");
    assert_eq!(upstream.calls(), 1);
    assert_eq!(upstream.seen("initialize").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_target_is_404_and_counts_nowhere() {
    let mesh = quiet_mesh().await;
    mesh.api.call("nobody", "act", json!({})).await.problem(404, "unknown_service");
    assert_eq!(mesh.api.stats().await["total_messages"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_502_and_the_next_instance_is_tried_for_any_tool() {
    let mesh = quiet_mesh().await;
    let spec = json!({"instance_name": "gone", "port": closed_port().await, "tools": ["act"]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    let problem = mesh.api.call("gone", "act", json!({})).await.problem(502, "upstream_unreachable");
    assert!(problem["call_id"].is_string(), "{problem}");
    assert!(problem["outcome"] != "unknown", "nothing was sent: {problem}");

    let upstream = RawUpstream::plain().await;
    for (name, port) in [("pair-a", closed_port().await), ("pair-b", upstream.port)] {
        let spec = json!({"instance_name": name, "service": "pair", "port": port, "tools": ["act"]});
        assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    }
    for _ in 0..30 {
        let body = mesh.api.call("pair", "act", json!({})).await.ok();
        assert_eq!(body["instance"], "pair-b");
    }
    assert_eq!(upstream.calls(), 30, "no call was sent twice");
    let counts = mesh.api.service("pair").await["counts"].clone();
    assert_eq!((&counts["ok"], &counts["failed"]), (&json!(30), &json!(0)), "{counts}");
    assert!(counts["retries"].as_u64().is_some_and(|retries| retries >= 1), "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_sending_leaves_the_outcome_unknown_and_is_not_repeated() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(How::Reset);
    let problem = mesh.api.call("s", "act", json!({})).await.problem(502, "outcome_unknown");
    assert_eq!(problem["outcome"], "unknown", "{problem}");
    assert_eq!(upstream.calls(), 1);
}

/// A proxy with a service `pair` of two instances, `pair-bad` and `pair-good`.
async fn pair() -> (Mesh, RawUpstream, RawUpstream) {
    let mesh = quiet_mesh().await;
    let (bad, good) = (RawUpstream::plain().await, RawUpstream::plain().await);
    for (name, upstream) in [("pair-bad", &bad), ("pair-good", &good)] {
        let spec = json!({"instance_name": name, "service": "pair", "port": upstream.port, "tools": []});
        mesh.api.join_as(spec).await;
    }
    (mesh, bad, good)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_may_be_repeated_is_tried_elsewhere_after_a_reset() {
    for tool in ["act_read_only", "act_idempotent"] {
        let (mesh, bad, good) = pair().await;
        bad.now(How::Reset);
        for _ in 0..40 {
            assert_eq!(mesh.api.call("pair", tool, json!({})).await.ok()["instance"], "pair-good", "{tool}");
        }
        assert!(bad.calls() >= 1, "`{tool}` never met the bad instance");
        assert_eq!(good.calls(), 40);
        let counts = mesh.api.service("pair").await["counts"].clone();
        assert_eq!(counts["retries"], bad.calls(), "{counts}");
        assert_eq!((&counts["ok"], &counts["failed"]), (&json!(40), &json!(0)), "{counts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_changes_things_is_sent_once_and_its_outcome_called_unknown() {
    let (mesh, bad, good) = pair().await;
    bad.now(How::Reset);
    let mut unknown = 0;
    for _ in 0..40 {
        let answer = mesh.api.call("pair", "act", json!({})).await;
        if answer.status != 200 {
            assert_eq!(answer.problem(502, "outcome_unknown")["outcome"], "unknown");
            unknown += 1;
        }
    }
    assert!(unknown >= 1, "`act` never met the bad instance");
    assert_eq!((bad.calls(), good.calls()), (unknown, 40 - unknown), "each call was sent once");
}

async fn failing(how: How, status: u16, code: &str) -> (Mesh, RawUpstream, Answer) {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(how);
    let answer = mesh.api.call("s", "act", json!({})).await;
    answer.problem(status, code);
    (mesh, upstream, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_the_protocol_is_502_upstream_invalid() {
    for how in [How::Garbage, How::NotRpc, How::WrongId] {
        let (_mesh, upstream, _) = failing(how.clone(), 502, "upstream_invalid").await;
        assert_eq!(upstream.calls(), 1, "{how:?} is not repeated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_off_midway_leaves_the_outcome_unknown() {
    for how in [How::Truncated, How::TruncatedSse, How::NotHttp] {
        let (_mesh, upstream, answer) = failing(how.clone(), 502, "outcome_unknown").await;
        assert_eq!(answer.json()["outcome"], "unknown", "{how:?}");
        assert_eq!(upstream.calls(), 1, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_no_answer_is_502_upstream_status_and_is_named() {
    for status in [500, 503, 429, 403, 302] {
        let (_mesh, upstream, answer) = failing(How::Status(status), 502, "upstream_status").await;
        assert!(answer.text().contains(&status.to_string()), "{status}: {}", answer.text());
        assert_eq!(upstream.calls(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_504_and_its_outcome_unknown() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(How::Hang);
    let body = json!({"target_instance": "s", "tool_name": "act", "arguments": {}, "timeout_ms": 300});
    let start = Instant::now();
    let problem = mesh.api.post("/call", &body).await.problem(504, "upstream_timeout");
    let took = start.elapsed();
    assert_eq!(problem["outcome"], "unknown", "{problem}");
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_timeout_holds_when_the_caller_names_none() {
    let config = format!("{QUIET}\n[calls]\ntimeout = \"400ms\"\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    upstream.now(How::Hang);
    let start = Instant::now();
    mesh.api.call("s", "act", json!({})).await.problem(504, "upstream_timeout");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_says_nothing_or_cannot_be_connected_is_given_up_in_the_configured_time() {
    let config = format!("{QUIET}\n[calls]\nfirst_byte_timeout = \"400ms\"\nconnect_timeout = \"400ms\"\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("silent", upstream.port).await;
    upstream.now(How::Hang);
    let start = Instant::now();
    let problem = mesh.api.call("silent", "act", json!({})).await.problem(504, "upstream_timeout");
    assert_eq!(problem["outcome"], "unknown");
    // An address that is nobody's (RFC 5737): packets vanish, or the network says at once that there is no way.
    let spec = json!({"instance_name": "nowhere", "host": "192.0.2.1", "port": 5000, "tools": ["act"]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    mesh.api.call("nowhere", "act", json!({})).await.problem(502, "upstream_unreachable");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_tool_reach_the_caller_whole_and_are_never_repeated() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(How::ToolError);
    let problem = mesh.api.call("s", "act_read_only", json!({})).await.problem(422, "tool_error");
    assert_eq!(
        problem["result"],
        json!({"content": [{"type": "text", "text": "it broke"}], "isError": true})
    );
    upstream.now(How::RpcError);
    let problem = mesh.api.call("s", "act_read_only", json!({})).await.problem(422, "rpc_error");
    assert_eq!(problem["rpc"], json!({"code": -32602, "message": "no such thing", "data": {"kept": true}}));
    assert_eq!(upstream.calls(), 2);
    let info = mesh.api.service("s").await;
    assert_eq!(info["counts"]["tool_errors"], 2, "{info}");
    assert_eq!(
        info["instances"][0]["breaker"], "closed",
        "an error of a tool is not a failure of its instance"
    );
    assert_eq!(info["instances"][0]["state"], "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_call_is_counted_once() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    let ends = [
        (How::Answer, 200),
        (How::ToolError, 422),
        (How::RpcError, 422),
        (How::Garbage, 502),
        (How::Answer, 200),
        (How::Reset, 502),
    ];
    for (how, status) in ends.clone() {
        upstream.now(how);
        assert_eq!(mesh.api.call("s", "act", json!({})).await.status, status);
    }
    let info = mesh.api.service("s").await;
    let counts = &info["counts"];
    assert_eq!(info["message_count"], ends.len(), "{info}");
    assert_eq!(counts["messages"], ends.len(), "{info}");
    let of = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("no `{key}`: {counts}"));
    assert_eq!((of("ok"), of("tool_errors"), of("failed"), of("refused")), (2, 2, 2, 0), "{counts}");
    let stats = mesh.api.stats().await;
    assert_eq!(stats["total_messages"], ends.len());
    assert_eq!(stats["services"][0]["message_count"], ends.len());
    assert!(info["latency"]["p50_us"].as_u64().is_some_and(|us| us > 0), "{info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_calls_are_400_invalid_call() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    for text in [
        "",
        "null",
        "[]",
        "\"s\"",
        "{",
        "{}",
        r#"{"target_instance":"s"}"#,
        r#"{"tool_name":"act"}"#,
        r#"{"target_instance":"s","tool_name":""}"#,
        r#"{"target_instance":7,"tool_name":"act"}"#,
        r#"{"target_instance":"s","tool_name":"act","arguments":[1]}"#,
        r#"{"target_instance":"s","tool_name":"act","arguments":"{}"}"#,
        r#"{"target_instance":"s","tool_name":"act","arguments":{"a":}}"#,
        r#"{"target_instance":"s","tool_name":"act","timeout_ms":0}"#,
        r#"{"target_instance":"s","tool_name":"act","timeout_ms":-1}"#,
        r#"{"target_instance":"s","tool_name":"act","timeout_ms":1.5}"#,
        r#"{"target_instance":"s","target_instance":"t","tool_name":"act"}"#,
        r#"{"target_instance":"s","tool_name":"act","arguments":{}} trailing"#,
    ] {
        let answer = mesh.api.post_text("/call", text).await;
        assert_eq!(answer.status, 400, "{text}: {}", answer.text());
        answer.problem(400, "invalid_call");
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_and_one_below_it_passes() {
    let config = format!("{QUIET}\n[server]\nbody_bytes_max = 100000\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let big = "x".repeat(99_000);
    let body = mesh.api.call("s", "act", json!({"text": big})).await.ok();
    assert_eq!(body["result"]["structuredContent"]["text"], big);
    let over = mesh.api.call("s", "act", json!({"text": "x".repeat(100_001)})).await;
    over.problem(413, "body_too_large");

    // The same without a Content-Length to believe.
    let frame = |_| Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from("y".repeat(10_000))));
    let chunks = http_body_util::StreamBody::new(futures_util::stream::iter((0..20).map(frame)));
    let request = mesh.api.request(http::Method::POST, "/call").header("content-type", "application/json");
    let answer = Api::send(request.body(reqwest::Body::wrap(chunks))).await;
    answer.problem(413, "body_too_large");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_goes_there_and_back() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    let text = "Ü".repeat(600_000);
    let body = mesh.api.call("s", "act", json!({"text": text})).await.ok();
    assert_eq!(body["result"]["structuredContent"]["text"], text);
    upstream.now(How::Big(5 << 20));
    assert_eq!(mesh.api.call("s", "act", json!({})).await.tool_text().len(), 5 << 20);
    // 16 MiB of an upstream's answer are buffered, no more.
    upstream.now(How::Big(17 << 20));
    let answer = mesh.api.call("s", "act", json!({})).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    upstream.now(How::Answer);
    mesh.api.call("s", "act", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_is_taken_for_a_call() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    let body = r#"{"target_instance":"s","tool_name":"act","arguments":{}}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = mesh.api.request(http::Method::POST, "/call").header("content-type", kind).body(body);
        let answer = Api::send(request).await;
        assert_eq!(answer.status, 415, "{kind}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let request = mesh.api.request(http::Method::POST, "/call").body(body);
    assert_eq!(Api::send(request).await.status, 415, "no type at all");
    assert_eq!(upstream.calls(), 0);
    let request = mesh
        .api
        .request(http::Method::POST, "/call")
        .header("content-type", "application/json; charset=utf-8");
    assert_eq!(Api::send(request.body(body)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_keeps_failing_is_cut_off_and_taken_back() {
    let (mesh, upstream) = one(RawOptions::default()).await;
    upstream.now(How::Status(500));
    for _ in 0..5 {
        mesh.api.call("s", "act", json!({})).await.problem(502, "upstream_status");
    }
    let shown = mesh.api.instance("s").await;
    assert_ne!(shown["breaker"], "closed", "{shown}");
    upstream.now(How::Answer);
    eventually("the breaker closes", 2 * SOON, || async {
        let _ = mesh.api.call("s", "act", json!({})).await;
        (mesh.api.instance("s").await["breaker"] == "closed").then_some(())
    })
    .await;
    mesh.api.call("s", "act", json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_instance_of_three_costs_no_read_only_call() {
    let mesh = quiet_mesh().await;
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await, RawUpstream::plain().await];
    for (number, upstream) in upstreams.iter().enumerate() {
        let spec = json!({"instance_name": format!("trio-{number}"), "service": "trio", "port": upstream.port, "tools": []});
        mesh.api.join_as(spec).await;
    }
    for how in [How::Reset, How::Status(503), How::Truncated] {
        upstreams[0].now(how.clone());
        for _ in 0..100 {
            let answer = mesh.api.call("trio", "act_read_only", json!({})).await;
            assert_eq!(answer.status, 200, "{how:?}: {}", answer.text());
        }
    }
    let counts: Value = mesh.api.service("trio").await["counts"].clone();
    assert_eq!(counts["ok"], 300, "{counts}");
    assert_eq!(counts["failed"], 0, "{counts}");
}
