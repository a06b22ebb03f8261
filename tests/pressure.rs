//! MCP clients that come when there is no room, or read less than they are told: neither costs the others anything.

mod support;

use std::time::{Duration, Instant};

use support::raw_upstream::{Era, How, RawOptions};
use support::*;
use tempfile::TempDir;

/// A proxy before a process that talks a lot, the folder where that says in the file `told` that it was told of a
/// cancellation, and its pid.
async fn before_a_chatty_process() -> (Mesh, TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (script, file) = (repository().join("tests/fixtures/chatty_child.py"), folder.path().join("told"));
    let config = format!("[services.chatty]\ncommand = \"python3\"\nargs = [{script:?}, {file:?}]\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    let pid = children::until_called(&mesh, "chatty").await;
    let client = Client::modern(&mesh.mcp);
    eventually("its tools are listed", 2 * SOON, || async {
        client.tools().await.iter().any(|name| name == "chatty__chat").then_some(())
    })
    .await;
    (mesh, folder, pid)
}

/// A call that is told so many times 32 KiB.
fn chat(steps: u32) -> Value {
    json!({"name": "chatty__chat", "arguments": {"steps": steps}, "_meta": {"progressToken": "p"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_given_up_and_its_process_serves_all_others() {
    let (mesh, folder, pid) = before_a_chatty_process().await;
    let file = folder.path().join("told");
    let mut unread = Client::modern(&mesh.mcp).open("tools/call", &chat(50_000)).await;
    let told = eventually("the process is told that nobody waits", 2 * SOON, || async {
        // Meanwhile it is asked by others.
        assert_eq!(mesh.api.call("chatty", "pid", json!({})).await.tool_text(), pid);
        std::fs::read_to_string(&file).ok()
    });
    assert_eq!(told.await, "cancelled");
    assert_eq!(mesh.api.call("chatty", "pid", json!({})).await.tool_text(), pid, "it is the same process");
    assert_eq!(children::process(&mesh, "chatty").await["restarts"], 0);

    let answer = unread.answer_text().await;
    assert!(answer.contains("the client reads too slowly"), "{answer}");
    assert!(answer.contains(r#""outcome":"unknown""#), "{answer}");
    let instance = mesh.api.instance("chatty").await;
    assert_eq!(
        (&instance["breaker"], &instance["counts"]["failed"]),
        (&json!("closed"), &json!(0)),
        "{instance}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_nothing_one_after_another_hold_a_process_up_no_longer_than_one() {
    let (mesh, folder, pid) = before_a_chatty_process().await;
    let file = folder.path().join("told");
    let (mut unread, mut times) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let start = Instant::now();
        unread.push(Client::modern(&mesh.mcp).open("tools/call", &chat(50_000)).await);
        eventually("it is given up", 2 * SOON, || async { file.exists().then_some(()) }).await;
        times.push(start.elapsed());
        std::fs::remove_file(&file).expect("remove the file");
        assert_eq!(mesh.api.call("chatty", "pid", json!({})).await.tool_text(), pid);
    }
    // Each would hold it up for a second if it were alone.
    times.sort();
    assert!(times[3] < Duration::from_secs(1), "{times:?}");
    let mut stream = Client::modern(&mesh.mcp).open("tools/call", &chat(300)).await;
    let answer = stream.answer().await;
    assert_eq!(
        answer["result"]["content"][0]["text"], "said",
        "who reads is not taken for one of them: {answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_gets_all_that_a_process_says() {
    let (mesh, _folder, _) = before_a_chatty_process().await;
    let mut stream = Client::modern(&mesh.mcp).open("tools/call", &chat(2048)).await;
    let mut steps = 0;
    let answer = loop {
        let message = stream.next().await.expect("an answer comes").json();
        if message["method"] != "notifications/progress" {
            break message;
        }
        assert_eq!(message["params"]["progress"], steps);
        steps += 1;
    };
    assert_eq!((steps, &answer["result"]["content"][0]["text"]), (2048, &json!("said")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_asked_something_is_not_taken_for_one_that_reads_nothing() {
    let (mesh, _folder, pid) = before_a_chatty_process().await;
    let client = Client::modern(&mesh.mcp).that_can(json!({"sampling": {}}));
    let mut call = chat(600);
    call["name"] = json!("chatty__ask");
    let asked = client.ask("tools/call", call.clone()).await.expect("a result");
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    eventually("all was said, and nobody waited for the client", 2 * SOON, || async {
        assert_eq!(mesh.api.call("chatty", "pid", json!({})).await.tool_text(), pid);
        let done = mesh.api.call("chatty", "done", json!({})).await.tool_text();
        (done == "1").then_some(())
    })
    .await;
    let keys = asked["inputRequests"].as_object().expect("questions").keys();
    let sample = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "so"}});
    call["inputResponses"] =
        keys.map(|key| (key.clone(), sample.clone())).collect::<serde_json::Map<_, _>>().into();
    call["requestState"] = asked["requestState"].clone();
    let answer = client.ask("tools/call", call).await.expect("a result");
    assert_eq!(answer["content"][0]["text"], "said", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_at_an_mcp_address_is_told_when_to_come_again() {
    let upstream = RawUpstream::start(RawOptions::default()).await;
    let url = format!("http://127.0.0.1:{}/mcp", upstream.port);
    let config = format!("[services.s]\nurl = {url:?}\nconcurrency = 1\n[limits]\nwait = \"10ms\"\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("it answers", SOON, || async {
        (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    let addresses = [(mesh.mcp.clone(), "s__act"), (format!("{}/servers/s/mcp", mesh.http), "act")];
    let mut clients = Vec::new();
    for (address, tool) in addresses {
        for era in [Era::Legacy, Era::Modern] {
            clients.push((Client::of(era, &address).await, tool));
        }
    }
    upstream.now(How::AnswerAfter(Duration::from_secs(60)));
    let api = mesh.api.clone();
    let occupies = tokio::spawn(async move { api.try_call("s", "act", json!({})).await.is_ok() });
    eventually("it is full", SOON, || async {
        (mesh.api.instance("s").await["in_flight"] == 1).then_some(())
    })
    .await;
    for (client, tool) in clients {
        let mut refused = client.open("tools/call", &json!({"name": tool, "arguments": {}})).await;
        let answer = refused.answer().await;
        assert_eq!(refused.status, 503, "{tool}, {:?}: {answer}", client.era);
        let after = refused.headers.get("retry-after").and_then(|after| after.to_str().ok());
        assert_eq!(after, Some("1"), "{answer}");
        let data = &answer["error"]["data"];
        assert_eq!(
            (&data["code"], &data["retry_after_ms"]),
            (&json!("overloaded"), &json!(1000)),
            "{answer}"
        );
        assert_eq!(answer["id"], 1, "{answer}");
    }
    occupies.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_reads_nothing_is_sent_a_bounded_part_of_what_waits_for_it() {
    const CALLS: usize = 100;
    let files = children::Book::new();
    let mesh = children::mesh(files.service("busy", &["naps"], "")).await;
    children::until_called(&mesh, "busy").await;
    let nap = tokio::spawn({
        let api = mesh.api.clone();
        async move { api.call("busy", "pid", json!({"nap_s": 8})).await }
    });
    let before = mesh.resident_kib();
    let text = "x".repeat(2 << 20);
    let calls = (0..CALLS).map(|_| {
        let body = json!({"target_instance": "busy", "tool_name": "pid", "arguments": {"text": text}, "timeout_ms": 3_000});
        let api = mesh.api.clone();
        tokio::spawn(async move { api.post("/call", &body).await.status })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("an answer"), 504, "it is busy for longer than anybody waits");
    }
    // What nobody waits for any more is no more than may wait, of 200 MiB.
    let after = eventually("the rest is let go", SOON, || async {
        let after = mesh.resident_kib();
        (after < before + (128 << 10)).then_some(after)
    })
    .await;
    eprintln!("{before} KiB, then {after} KiB");
    assert_eq!(nap.await.expect("an answer").status, 200);
    children::until_called(&mesh, "busy").await;
}
