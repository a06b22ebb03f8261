//! The official conformance suites: the server that offers everything passes them, and through the proxy, over one
//! instance or several, each check comes out as it does directly.

mod support;

use std::sync::OnceLock;

use support::conformance::{Outcome, Suite};
use support::everything::Everything;
use support::*;

const SERVICE: &str = "everything";

/// What the suite finds when it asks the server itself.
fn direct(suite: Suite) -> &'static Outcome {
    static OUTCOMES: [OnceLock<Outcome>; 3] = [const { OnceLock::new() }; 3];
    OUTCOMES[suite as usize].get_or_init(|| suite.run(&Everything::start(&[]).url))
}

/// A proxy with that many instances of the server.
struct Through {
    mesh: Mesh,
    _instances: Vec<Everything>,
}

impl Through {
    async fn start(instances: usize) -> Self {
        let mesh = Mesh::plain().await;
        let mut running = Vec::new();
        for number in 1..=instances {
            let name = format!("{SERVICE}-{number}");
            let instance = Everything::start(&["--name", &name]);
            let spec = json!({"instance_name": name, "service": SERVICE, "port": instance.port, "tools": []});
            mesh.api.join_as(spec).await;
            running.push(instance);
        }
        Self { mesh, _instances: running }
    }

    fn url(&self) -> String {
        format!("{}/servers/{SERVICE}/mcp", self.mesh.http)
    }
}

async fn compare(suite: Suite, instances: usize) {
    let direct = direct(suite);
    let through = Through::start(instances).await;
    suite.run(&through.url()).assert_like(direct);
}

#[test]
fn the_server_passes_all_that_2026_07_28_requires() {
    direct(Suite::Modern).assert_passed(Suite::Modern);
}

#[test]
fn the_server_passes_all_that_2025_11_25_requires() {
    direct(Suite::Legacy).assert_passed(Suite::Legacy);
}

#[test]
fn the_server_passes_the_suite_of_2025() {
    direct(Suite::Old).assert_passed(Suite::Old);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_conforms_to_2026_07_28_through_the_proxy_as_it_does_directly() {
    compare(Suite::Modern, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_conforms_to_2025_11_25_through_the_proxy_as_it_does_directly() {
    compare(Suite::Legacy, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_passes_the_suite_of_2025_through_the_proxy_as_it_does_directly() {
    compare(Suite::Old, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_conform_to_2026_07_28_through_the_proxy_as_one_does_directly() {
    compare(Suite::Modern, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_conform_to_2025_11_25_through_the_proxy_as_one_does_directly() {
    compare(Suite::Legacy, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_pass_the_suite_of_2025_through_the_proxy_as_one_does_directly() {
    compare(Suite::Old, 2).await;
}

/// Posts a message of 2026-07-28 with its headers.
async fn post(url: &str, method: &str, name: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    });
    let request = reqwest::Client::new()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method)
        .header("mcp-name", name)
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
    request.send().await.expect("the server answers").json().await.expect("JSON")
}

/// What makes the comparison over two instances worth something.
#[tokio::test(flavor = "multi_thread")]
async fn states_and_sessions_are_good_in_their_own_process_only() {
    let (one, other) = (Everything::start(&[]), Everything::start(&[]));
    let tool = "test_input_required_result_request_state";
    let asked = post(&one.url, "tools/call", tool, json!({"name": tool})).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let retry = json!({
        "name": tool,
        "requestState": asked["result"]["requestState"],
        "inputResponses": {"confirm": {"action": "accept", "content": {"ok": true}}},
    });
    let refused = post(&other.url, "tools/call", tool, retry.clone()).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let answered = post(&one.url, "tools/call", tool, retry).await;
    assert_eq!(answered["result"]["content"][0]["text"], "state-ok, ok: true", "{answered}");

    let client = reqwest::Client::new();
    let legacy = |url: &str, body: Value| {
        client.post(url).header("accept", "application/json, text/event-stream").json(&body)
    };
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"},
    }});
    let opened = legacy(&one.url, initialize).send().await.expect("an answer");
    let session = opened.headers()["mcp-session-id"].clone();
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    for (url, status) in [(&one.url, 202), (&other.url, 404)] {
        let request = legacy(url, initialized.clone()).header("mcp-session-id", session.clone());
        assert_eq!(request.send().await.expect("an answer").status(), status);
    }
}
