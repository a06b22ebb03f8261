//! Three real Python servers, thousands of calls, and the death of one server and of the proxy.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::python::{PythonInstance, lines};
use support::{Mesh, MeshOptions, SOON, Value, eventually, json};

const CONCURRENCY: usize = 16;
const SERVICE: &str = "py";

/// How many calls to make; `MESHWRIGHT_TEST_CALLS` makes it more or fewer.
fn calls() -> usize {
    std::env::var("MESHWRIGHT_TEST_CALLS")
        .ok()
        .map_or(10_000, |text| text.parse().expect("a number of calls"))
}

struct Ended {
    number: usize,
    tool: &'static str,
    began: Instant,
    instance: Value,
    /// What went wrong, with the problem's code and outcome.
    failure: Option<(String, Value, Value)>,
}

/// Call `number`: which tool with which arguments, and the right answer. Every tenth changes something.
fn plan(number: usize) -> (&'static str, Value, String) {
    match number % 10 {
        9 => ("count", json!({"key": format!("key-{number}")}), "1".to_owned()),
        odd if odd % 2 == 1 => {
            let text = format!("№ {number} \u{1f9f5} \"quoted\"\n");
            ("echo", json!({"text": text}), text)
        }
        _ => (
            "add",
            json!({"a": number as u64 + (1 << 53), "b": 1}),
            (number as u64 + (1 << 53) + 1).to_string(),
        ),
    }
}

async fn call(mesh: &support::Api, number: usize) -> Ended {
    let (tool, arguments, right) = plan(number);
    let began = Instant::now();
    let answer = mesh.call(SERVICE, tool, arguments).await;
    let body = answer.json();
    let wrong = || {
        (format!("call {number}, {tool}: {}", answer.text()), body["code"].clone(), body["outcome"].clone())
    };
    let is_right = answer.status == 200 && body["result"]["content"][0]["text"] == right.as_str();
    Ended { number, tool, began, instance: body["instance"].clone(), failure: (!is_right).then(wrong) }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_are_answered_rightly_while_an_instance_and_the_proxy_are_killed() {
    let total = calls();
    let mut mesh = Mesh::plain().await;
    let journal = |name: &str| mesh.home.path().join(format!("{name}.journal"));
    // Sessions and event streams, neither of them, and the protocol of 2026.
    let modes: [(&str, &[&str]); 3] = [
        ("py-session", &["--legacy"]),
        ("py-stateless", &["--legacy", "--stateless", "--json"]),
        ("py-modern", &[]),
    ];
    let mut instances = Vec::new();
    for (name, flags) in modes {
        let journal = journal(name).to_string_lossy().into_owned();
        let flags = [flags, &["--journal", &journal]].concat();
        instances.push(PythonInstance::join(&mesh, SERVICE, name, &flags).await);
    }
    let journals = modes.map(|(name, _)| journal(name));

    let next = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (api, next) = (mesh.api.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut ended = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return ended;
                    }
                    ended.push(call(&api, number).await);
                }
            })
        })
        .collect();
    let start = Instant::now();
    eventually("half of the calls began", Duration::from_secs(300), || async {
        (next.load(Ordering::Relaxed) >= total / 2).then_some(())
    })
    .await;
    instances[0].kill();
    let killed = Instant::now();
    let mut ended = Vec::new();
    for caller in callers {
        ended.append(&mut caller.await.expect("no panic"));
    }
    eprintln!("{total} calls in {:?}", start.elapsed());

    let failed: Vec<_> = ended.iter().filter(|call| call.failure.is_some()).collect();
    for call in &failed {
        let (what, code, outcome) = call.failure.as_ref().expect("it failed");
        assert!(call.began < killed + Duration::from_secs(1), "began more than 1 s after the kill: {what}");
        assert_eq!(call.tool, "count", "a read-only tool is repeated elsewhere: {what}");
        assert_eq!((code, outcome), (&json!("outcome_unknown"), &json!("unknown")), "{what}");
    }
    assert!(failed.len() <= CONCURRENCY, "only what was in flight may fail, {} did", failed.len());
    assert_eq!(ended.len(), total);

    // Nothing that changes state was executed twice, and everything that was said to be done was.
    let mut executed: HashMap<String, usize> = HashMap::new();
    for key in journals.iter().flat_map(|journal| lines(journal)) {
        *executed.entry(key).or_default() += 1;
    }
    for call in ended.iter().filter(|call| call.tool == "count") {
        let times = executed.get(&format!("key-{}", call.number)).copied().unwrap_or(0);
        let fine = if call.failure.is_none() { times == 1 } else { times <= 1 };
        assert!(fine, "call {} was executed {times} times", call.number);
    }
    for (name, _) in modes {
        let share = ended.iter().filter(|call| call.instance == name).count();
        assert!(share >= total / 20, "`{name}` answered only {share} of {total}");
    }

    // Every view counts the same.
    let info = mesh.api.service(SERVICE).await;
    let of = |key: &str| info["counts"][key].as_u64().unwrap_or_else(|| panic!("no `{key}`: {info}"));
    assert_eq!(info["message_count"], total, "{}", info["counts"]);
    assert_eq!(
        of("messages"),
        of("ok") + of("tool_errors") + of("failed") + of("refused"),
        "{}",
        info["counts"]
    );
    assert_eq!(
        (of("ok"), of("failed")),
        ((total - failed.len()) as u64, failed.len() as u64),
        "{}",
        info["counts"]
    );
    assert_eq!(mesh.api.stats().await["total_messages"], total);
    let stats_file = mesh.stats_file();
    let read = || -> Option<Value> { serde_json::from_slice(&std::fs::read(&stats_file).ok()?).ok() };
    eventually("the file agrees", SOON, || async {
        read().filter(|stats| {
            stats["total_messages"] == total && stats["services"][0]["message_count"] == total
        })
    })
    .await;

    // What is older than 500 ms survives the proxy's own death.
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.kill();
    mesh.restart().await;
    assert_eq!(mesh.api.stats().await["total_messages"], total);
    let names: Vec<_> = mesh.api.service(SERVICE).await["instances"]
        .as_array()
        .expect("instances")
        .iter()
        .map(|instance| instance["instance_name"].as_str().expect("a name").to_owned())
        .collect();
    for name in ["py-stateless", "py-modern"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    eventually("calls are answered again", SOON, || async {
        (mesh.api.call(SERVICE, "echo", json!({"text": "x"})).await.status == 200).then_some(())
    })
    .await;
    for number in 0..200 {
        let ended = call(&mesh.api, total + number).await;
        assert!(ended.failure.is_none(), "{:?}", ended.failure);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_of_the_example_does_what_it_says() {
    let mesh = Mesh::plain().await;
    let modes: [(&str, &[&str]); 3] = [
        ("py-1", &["--zone", "attic"]),
        ("py-2", &["--legacy", "--stateless"]),
        ("py-3", &["--legacy", "--json"]),
    ];
    for (name, flags) in modes {
        let mut instance = PythonInstance::join(&mesh, name, name, flags).await;
        assert_eq!(mesh.api.call(name, "echo", json!({"text": "Grüße"})).await.tool_text(), "Grüße");
        let big = r#"{"a":123456789012345678901234567890,"b":1}"#;
        let sum = format!(r#"{{"target_instance":"{name}","tool_name":"add","arguments":{big}}}"#);
        assert_eq!(mesh.api.post_text("/call", &sum).await.tool_text(), "123456789012345678901234567891");
        assert_eq!(mesh.api.call(name, "whoami", json!({})).await.tool_text(), name);
        assert_eq!(mesh.api.call(name, "slow", json!({"seconds": 0.1})).await.tool_text(), "slept 0.1");
        assert_eq!(mesh.api.call(name, "count", json!({"key": "k"})).await.tool_text(), "1");
        assert_eq!(mesh.api.call(name, "count", json!({"key": "k"})).await.tool_text(), "2");
        let problem = mesh.api.call(name, "fail", json!({})).await.problem(422, "tool_error");
        assert_eq!(problem["result"]["isError"], true);
        let shown = mesh.api.instance(name).await;
        let port: u16 =
            shown["url"].as_str().and_then(|url| url.split([':', '/']).nth(4)?.parse().ok()).expect("a port");
        assert!((5000..5100).contains(&port), "{shown}");
        let info = mesh.api.service(name).await;
        let add = info["tools"]
            .as_array()
            .expect("tools")
            .iter()
            .find(|tool| tool["name"] == "add")
            .expect("`add`");
        assert_eq!(add["inputSchema"]["properties"]["a"]["type"], "integer", "{add}");
        assert_eq!(add["annotations"]["readOnlyHint"], true, "{add}");

        assert!(instance.terminate().await.success(), "{}", instance.log());
        mesh.api.call(name, "echo", json!({"text": "x"})).await.problem(404, "unknown_service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_lease_is_gone_registers_anew_by_itself() {
    let config = "[lease]\nsuspect_after = \"2s\"\nttl = \"4s\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let _instance = PythonInstance::join(&mesh, SERVICE, "py-1", &[]).await;
    mesh.api.post("/deregister", &json!({"instance_name": "py-1"})).await.ok();
    eventually("it is back", 2 * SOON, || async {
        (mesh.api.call(SERVICE, "whoami", json!({})).await.status == 200).then_some(())
    })
    .await;
}
