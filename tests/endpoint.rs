//! `/mcp`: one address for the tools of all services, with clients of both eras.

mod support;

use std::process::Command;

use support::python::{PythonInstance, python};
use support::*;

const MODERN: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// Sends one message and gives back its status and body.
async fn send(url: &str, version: Option<&str>, body: &str) -> (u16, String) {
    let mut request = reqwest::Client::new()
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body.to_owned());
    if let Some(version) = version {
        request = request.header("mcp-protocol-version", version);
    }
    let answer = request.send().await.expect("the proxy answers");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

async fn mesh_with_upstream() -> (Mesh, RawUpstream) {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    eventually("tools are known", SOON, || async {
        let (_, body) = send(&mesh.mcp, None, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
        body.contains("s__act").then_some(())
    })
    .await;
    (mesh, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_results_pass_byte_by_byte() {
    let (mesh, upstream) = mesh_with_upstream().await;
    let arguments = r#"{"big":123456789012345678901234567890,"one":1.0,"nul":"\u0000","deep":[[[[{}]]]]}"#;
    for (id, version, meta) in [("\"x\\u0079\"", None, ""), ("7", Some("2026-07-28"), MODERN)] {
        let meta = if meta.is_empty() { String::new() } else { format!(r#""_meta":{meta},"#) };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{{meta}"name":"s__act","arguments":{arguments}}}}}"#
        );
        for url in [mesh.mcp.clone(), format!("{}/mcp", mesh.http)] {
            let (status, answer) = send(&url, version, &body).await;
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains(&format!(r#""id":{id},"result":"#)), "{answer}");
            assert!(answer.contains(arguments), "{answer}");
            assert_eq!(version.is_some(), answer.contains(r#""resultType":"complete""#), "{answer}");
        }
    }
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_era_is_answered_in_its_own_words() {
    let (mesh, _upstream) = mesh_with_upstream().await;
    let ask = |version: Option<&'static str>, body: &'static str| send(&mesh.mcp, version, body);

    let (status, body) = ask(None, r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#).await;
    assert!(status == 200 && body.contains(r#""protocolVersion":"2025-03-26""#), "{status} {body}");
    assert_eq!(
        ask(None, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await,
        (202, String::new())
    );
    let (status, body) =
        ask(Some("2026-07-28"), r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#).await;
    assert!(status == 200 && body.contains(r#""supportedVersions":["2026-07-28""#), "{status} {body}");

    let unknown = r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#;
    let (legacy, body) = ask(Some("2025-11-25"), unknown).await;
    assert!(legacy == 200 && body.contains("-32601"), "{legacy} {body}");
    assert_eq!(ask(Some("2026-07-28"), unknown).await.0, 404);
    let (status, body) = ask(Some("2031-01-01"), unknown).await;
    assert!(status == 400 && body.contains("-32022") && body.contains("2025-11-25"), "{status} {body}");
    let (status, body) = ask(None, "{").await;
    assert!(status == 400 && body.contains("-32700"), "{status} {body}");
    let absent = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__absent"}}"#;
    let (status, body) = ask(None, absent).await;
    assert!(status == 200 && body.contains("-32602") && body.contains("s__absent"), "{status} {body}");
    assert_eq!(reqwest::get(&mesh.mcp).await.expect("an answer").status().as_u16(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_answered_is_an_error_that_says_why() {
    let (mesh, upstream) = mesh_with_upstream().await;
    upstream.now(raw_upstream::How::Reset);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s__act","arguments":{}}}"#;
    let (status, body) = send(&mesh.mcp, None, call).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["error"]["code"]), (200, &json!(-32000)), "{body}");
    assert_eq!(body["error"]["data"]["code"], "outcome_unknown", "{body}");
    assert_eq!(body["error"]["data"]["outcome"], "unknown", "{body}");
}

/// Lists and calls through `/mcp` with the official client, as it comes and told to speak the old way.
const CLIENT: &str = r#"
import asyncio, json, sys
from mcp import Client

async def main(url, mode):
    async with Client(url, **({"mode": mode} if mode else {})) as client:
        names = sorted(tool.name for tool in (await client.list_tools()).tools)
        answer = await client.call_tool("weather__add", {"a": 2**70, "b": 1})
        failed = await client.call_tool("weather__fail", {})
        print(json.dumps({"names": names, "sum": answer.content[0].text, "failed": failed.is_error}))

asyncio.run(main(*sys.argv[1:]))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_lists_and_calls_in_both_eras() {
    let mesh = Mesh::plain().await;
    let _modern = PythonInstance::join(&mesh, "weather", "w1", &[]).await;
    let _legacy = PythonInstance::join(&mesh, "old", "o1", &["--legacy"]).await;
    for mode in ["", "legacy"] {
        let output =
            Command::new(python()).args(["-c", CLIENT, &mesh.mcp, mode]).output().expect("run the client");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{mode}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(seen["sum"], (2_u128.pow(70) + 1).to_string(), "{mode}");
        assert_eq!(seen["failed"], true, "{mode}");
        let names: Vec<&str> =
            seen["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        assert!(names.contains(&"weather__echo") && names.contains(&"old__echo"), "{mode}: {names:?}");
    }
}
