//! How long a caller waits: what it may say, what instances are told of it, and that nothing takes longer.

mod support;

use std::time::{Duration, Instant};

use support::raw_upstream::{Era, How, RawOptions, Seen};
use support::*;

const HEADER: &str = "meshwright-timeout-ms";
const MEMBER: &str = "meshwright/timeoutMs";

/// Two instances of the service `s`, called `a` and `b`, and a service `show` on standard input and output.
async fn scene(era: Era) -> (Mesh, [RawUpstream; 2]) {
    let child = repository().join("tests/fixtures/mirror_child.py");
    let config = format!("[services.show]\ncommand = \"python3\"\nargs = [{child:?}]\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let options = RawOptions { era, ..RawOptions::default() };
    let upstreams = [RawUpstream::start(options).await, RawUpstream::start(options).await];
    for (name, upstream) in ["a", "b"].into_iter().zip(&upstreams) {
        mesh.api.join_as(json!({"instance_name": name, "service": "s", "port": upstream.port})).await;
    }
    eventually("the child is listed", SOON, || async {
        let show = mesh.api.get("/services/show").await;
        (show.status == 200 && show.json()["tools"][0]["name"] == "show").then_some(())
    })
    .await;
    (mesh, upstreams)
}

/// `POST /call` with this header, and this member of its body.
async fn call(mesh: &Mesh, target: &str, tool: &str, header: Option<&str>, member: Option<u64>) -> Answer {
    let mut body = json!({"target_instance": target, "tool_name": tool, "arguments": {}});
    if let Some(member) = member {
        body["timeout_ms"] = json!(member);
    }
    let mut request = mesh.api.request(http::Method::POST, "/call").json(&body);
    if let Some(header) = header {
        request = request.header(HEADER, header);
    }
    Api::send(request).await
}

/// What the calls that came to an instance were told, in milliseconds.
fn told(upstream: &RawUpstream) -> Vec<u64> {
    let told = |seen: &Seen| seen.header(HEADER).and_then(|told| told.parse().ok());
    upstream.seen("tools/call").iter().map(|seen| told(seen).unwrap_or_else(|| panic!("{seen:?}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_told_what_is_left_of_the_shortest_time_that_anybody_gave() {
    let (mesh, [upstream, _]) = scene(Era::Legacy).await;
    let given = [
        (None, None, 60_000),
        (Some("5000"), None, 5_000),
        (None, Some(4_000), 4_000),
        (Some("3000"), Some(7_000), 3_000),
        (Some("7000"), Some(2_000), 2_000),
        (Some("600001"), None, 600_000),
        (Some("99999999999999999999999"), None, 600_000),
        (None, Some(u64::MAX), 600_000),
    ];
    for (header, member, _) in given {
        assert_eq!(call(&mesh, "a", "act", header, member).await.status, 200);
    }
    let told = told(&upstream);
    assert_eq!(told.len(), given.len());
    for (told, (_, _, given)) in told.iter().zip(given) {
        assert!((given - 1_000..=given).contains(told), "{told} of {given}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_none_is_refused_and_nothing_is_sent() {
    let (mesh, upstreams) = scene(Era::Modern).await;
    for header in ["0", "-1", "1.5", "soon", "", "10s", "1e3"] {
        let answer = call(&mesh, "s", "act", Some(header), None).await;
        let problem = answer.problem(400, "invalid_call");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("milliseconds")), "{problem}");
    }
    for client in [Client::modern(&mesh.mcp), Client::legacy(&mesh.mcp).await] {
        for bad in [json!(0), json!(-1), json!("soon"), json!(1.5), json!({})] {
            let params = json!({"name": "s__act", "arguments": {}, "_meta": {MEMBER: bad}});
            let mut stream = client.open("tools/call", &params).await;
            let answer = stream.answer().await;
            assert_eq!(stream.status, 400, "{answer}");
            let text = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(text.contains(MEMBER) && text.contains("milliseconds"), "{answer}");
        }
    }
    assert!(upstreams.iter().all(|upstream| upstream.calls() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_instance_is_told_what_the_one_before_has_left() {
    let (mesh, upstreams) = scene(Era::Legacy).await;
    let slow = Duration::from_millis(400);
    for upstream in &upstreams {
        upstream.now(How::StatusAfter(slow, 503));
    }
    let answer = call(&mesh, "s", "act_read_only", Some("5000"), None).await;
    answer.problem(502, "upstream_status");
    let mut told: Vec<u64> = upstreams.iter().flat_map(told).collect();
    told.sort_unstable();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0] + 400 <= told[1] && told[0] > 3_000 && told[1] <= 5_000, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_pauses_end_when_the_caller_does_not_wait_any_more() {
    let (mesh, upstreams) = scene(Era::Legacy).await;
    for upstream in &upstreams {
        upstream.now(How::Hang);
    }
    let began = Instant::now();
    call(&mesh, "s", "act_read_only", Some("300"), None).await.problem(504, "upstream_timeout");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(3), "{took:?}");
    for upstream in &upstreams {
        upstream.now(How::StatusAfter(Duration::from_millis(250), 503));
    }
    // A pause is 25 ms at least, so after that one nothing is left.
    let began = Instant::now();
    let before: usize = upstreams.iter().map(RawUpstream::calls).sum();
    call(&mesh, "s", "act_read_only", Some("270"), None).await.problem(502, "upstream_status");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(upstreams.iter().map(RawUpstream::calls).sum::<usize>(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_told_in_its_message_and_all_else_stays_as_it_was_written() {
    let (mesh, _upstreams) = scene(Era::Legacy).await;
    let shown = |text: String| serde_json::from_str::<Value>(&text).expect("the line that it got");
    let left = |line: &Value| line["params"]["_meta"][MEMBER].as_u64();

    let line = shown(call(&mesh, "show", "show", None, None).await.tool_text());
    assert_eq!(left(&line), None, "nobody gave a time: {line}");
    let line = shown(call(&mesh, "show", "show", Some("5000"), None).await.tool_text());
    assert!(left(&line).is_some_and(|left| (4_000..=5_000).contains(&left)), "{line}");

    for client in [Client::modern(&mesh.mcp), Client::legacy(&mesh.mcp).await] {
        let arguments = r#"{ "n" : 1.0, "big":1e400 }"#;
        let params = format!(r#"{{"name":"show__show","arguments":{arguments},"_meta":{{"x/y":[ 1]}}}}"#);
        let body = client.body("7", "tools/call", &params);
        let answer = client.post(&body).await.answer().await;
        let plain = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(plain.contains(arguments) && !plain.contains(MEMBER), "{plain}");

        let request = client.request(http::Method::POST, "tools/call", Some("show__show"));
        let answer = request.header(HEADER, "5000").body(body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("one message");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(text.contains(arguments) && text.contains(r#""x/y":[ 1]"#), "{text}");
        let line = shown(text.replace("1e400", "0"));
        assert!(left(&line).is_some_and(|left| (4_000..=5_000).contains(&left)), "{line}");

        let params = json!({"name": "show__show", "arguments": {}, "_meta": {MEMBER: 3_000, "x/y": 1}});
        let answer = client.ask("tools/call", params).await.expect("a result");
        let line = shown(answer["content"][0]["text"].as_str().expect("a text").to_owned());
        assert!(left(&line).is_some_and(|left| (2_000..=3_000).contains(&left)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_its_time_in_its_message_is_brought_up_to_date() {
    for era in [Era::Legacy, Era::Modern] {
        let (mesh, upstreams) = scene(era).await;
        for client in [Client::modern(&mesh.mcp), Client::legacy(&mesh.mcp).await] {
            let params = json!({"name": "s__act", "arguments": {}, "_meta": {MEMBER: 700_000}});
            client.ask("tools/call", params).await.expect("a result");
        }
        let seen: Vec<Seen> = upstreams.iter().flat_map(|upstream| upstream.seen("tools/call")).collect();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            let body: Value = serde_json::from_str(&seen.body).expect("JSON");
            let left = body["params"]["_meta"][MEMBER].as_u64();
            assert!(left.is_some_and(|left| (599_000..=600_000).contains(&left)), "{body}");
        }
        upstreams.iter().for_each(RawUpstream::assert_polite);
    }
}
