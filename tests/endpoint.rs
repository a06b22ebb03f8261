//! `/mcp`: one address for the tools of all services, with clients of both eras.

mod support;

use std::process::Command;

use http::Method;
use support::client::{LEGACY_VERSION, MODERN_VERSION, Stream};
use support::python::{PythonInstance, python};
use support::raw_upstream::Era;
use support::*;

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

async fn mesh_with_upstream() -> (Mesh, RawUpstream) {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let client = Client::modern(&mesh.mcp);
    eventually("tools are known", SOON, || async {
        client.tools().await.iter().any(|name| name == "s__act").then_some(())
    })
    .await;
    (mesh, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_results_pass_byte_by_byte() {
    let (mesh, upstream) = mesh_with_upstream().await;
    let arguments = r#"{"big":123456789012345678901234567890,"one":1.0,"nul":"\u0000","deep":[[[[{}]]]]}"#;
    let params = format!(r#"{{"name":"s__act","arguments":{arguments}}}"#);
    for (era, id) in [(Era::Legacy, "\"x\\u0079\""), (Era::Modern, "7")] {
        for url in [mesh.mcp.clone(), format!("{}/mcp", mesh.http)] {
            let client = Client::of(era, &url).await;
            let mut stream = client.post(&client.body(id, "tools/call", &params)).await;
            assert_eq!(stream.status, 200);
            let answer = stream.answer_text().await;
            assert!(answer.contains(&format!(r#""id":{id},"result":"#)), "{answer}");
            assert!(answer.contains(arguments), "{answer}");
            let is_modern = era == Era::Modern;
            assert_eq!(is_modern, answer.contains(r#""resultType":"complete""#), "{answer}");
        }
    }
    upstream.assert_polite();
}

async fn status_and_text(mut stream: Stream) -> (u16, String) {
    (stream.status, stream.rest().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_era_is_answered_in_its_own_words() {
    let (mesh, _upstream) = mesh_with_upstream().await;
    let legacy = Client::legacy(&mesh.mcp).await;
    let modern = Client::modern(&mesh.mcp);

    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;
    let (status, body) = status_and_text(Client::stranger(&mesh.mcp).post(initialize).await).await;
    assert!(status == 200 && body.contains(r#""protocolVersion":"2025-03-26""#), "{status} {body}");
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(status_and_text(legacy.post(ready).await).await, (202, String::new()));
    let (status, body) = status_and_text(modern.open("server/discover", &json!({})).await).await;
    assert!(status == 200 && body.contains(r#""supportedVersions":["2026-07-28""#), "{status} {body}");

    for (client, wanted) in [(&legacy, 200), (&modern, 404)] {
        let (status, body) = status_and_text(client.open("no/such", &json!({})).await).await;
        assert!(status == wanted && body.contains("-32601"), "{status} {body}");
    }
    let gone = status_and_text(modern.open("ping", &json!({})).await).await;
    assert!(gone.0 == 404 && gone.1.contains("-32601"), "{gone:?}");
    for (client, code) in [(&legacy, "-32602"), (&modern, "-32602")] {
        let absent = client.open("tools/call", &json!({"name": "s__absent"})).await;
        let (status, body) = status_and_text(absent).await;
        assert!(status == 200 && body.contains(code) && body.contains("s__absent"), "{status} {body}");
    }
    let (status, body) = status_and_text(legacy.post("{").await).await;
    assert!(status == 400 && body.contains("-32700"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_nobody_knows_is_refused_with_those_that_are_known() {
    let (mesh, _upstream) = mesh_with_upstream().await;
    let http = reqwest::Client::new();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    for body in [r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, body] {
        let request = http.post(&mesh.mcp).header("content-type", "application/json");
        let request = request
            .header("mcp-protocol-version", "2031-01-01")
            .header("mcp-method", "tools/list")
            .body(body);
        let mut stream = Stream::of(request.send().await.expect("an answer"));
        let answer = stream.answer().await;
        assert_eq!((stream.status, &answer["error"]["code"]), (400, &json!(-32022)), "{answer}");
        let supported = answer["error"]["data"]["supported"].as_array().expect("versions");
        assert!(supported.contains(&json!(MODERN_VERSION)) && supported.contains(&json!(LEGACY_VERSION)));
        assert_eq!(answer["error"]["data"]["requested"], "2031-01-01", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_message_must_say_in_its_headers_what_its_body_says() {
    let (mesh, upstream) = mesh_with_upstream().await;
    let client = Client::modern(&mesh.mcp);
    let body = client.body("1", "tools/call", r#"{"name":"s__act","arguments":{}}"#);
    let send = async |headers: &[(&str, &str)]| {
        let mut request = reqwest::Client::new()
            .post(&mesh.mcp)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut stream = Stream::of(request.send().await.expect("an answer"));
        (stream.status, stream.answer().await)
    };
    let (version, method) = (("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"));
    let wrong: [&[(&str, &str)]; 7] = [
        &[method, ("mcp-name", "s__act")],
        &[version, ("mcp-name", "s__act")],
        &[version, method],
        &[("mcp-protocol-version", "2025-11-25"), method, ("mcp-name", "s__act")],
        &[version, ("mcp-method", "tools/list"), ("mcp-name", "s__act")],
        &[version, method, ("mcp-name", "s__verbatim")],
        &[version, method, ("mcp-name", "s__act"), ("mcp-name", "s__verbatim")],
    ];
    for headers in wrong {
        let (status, answer) = send(headers).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32020)), "{headers:?}: {answer}");
    }
    assert_eq!(upstream.calls(), 0, "nothing of this reached the instance");
    // `s__act`, wrapped as names beyond ASCII are.
    for name in ["s__act", "=?base64?c19fYWN0?="] {
        let (status, answer) = send(&[version, method, ("mcp-name", name)]).await;
        assert_eq!((status, &answer["error"]), (200, &Value::Null), "{answer}");
    }
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_message_must_say_its_revision_and_what_its_client_can_do() {
    let (mesh, upstream) = mesh_with_upstream().await;
    for meta in [
        "{}",
        r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
        r#"{"io.modelcontextprotocol/clientCapabilities":{}}"#,
    ] {
        let params = format!(r#"{{"_meta":{meta},"name":"s__act","arguments":{{}}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let mut stream = Client::modern(&mesh.mcp).post(&body).await;
        let answer = stream.answer().await;
        assert_eq!((stream.status, &answer["error"]["code"]), (400, &json!(-32602)), "{meta}: {answer}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_says_which_verbs_it_takes() {
    let (mesh, _upstream) = mesh_with_upstream().await;
    for url in [mesh.mcp.clone(), format!("{}/servers/s/mcp", mesh.http)] {
        let modern = Client::modern(&url);
        for verb in [Method::GET, Method::DELETE, Method::PUT] {
            let answer = modern.request(verb.clone(), "", None).send().await.expect("an answer");
            assert_eq!(answer.status(), 405, "{verb} {url}");
            assert_eq!(answer.headers()["allow"], "POST", "{verb} {url}");
        }
        let legacy = Client::legacy(&url).await;
        let answer = legacy.request(Method::PUT, "", None).send().await.expect("an answer");
        assert_eq!(answer.status(), 405, "{url}");
    }
    for path in ["/servers/nobody/mcp", "/mcp/nobody"] {
        let url = format!("{}{path}", mesh.http);
        let mut stream = Client::stranger(&url).open("initialize", &json!({})).await;
        assert_eq!(stream.status, 404, "{path}");
        let problem: Value = serde_json::from_str(&stream.rest().await).expect("JSON");
        assert_eq!(problem["code"], "unknown_endpoint", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("`nobody`")), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_answered_is_an_error_that_says_why() {
    let (mesh, upstream) = mesh_with_upstream().await;
    upstream.now(raw_upstream::How::Reset);
    for era in ERAS {
        let client = Client::of(era, &mesh.mcp).await;
        let mut stream = client.open("tools/call", &json!({"name": "s__act", "arguments": {}})).await;
        let body = stream.answer().await;
        assert_eq!((stream.status, &body["error"]["code"]), (200, &json!(-32000)), "{body}");
        assert_eq!(body["error"]["data"]["code"], "outcome_unknown", "{body}");
        assert_eq!(body["error"]["data"]["outcome"], "unknown", "{body}");
    }
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
