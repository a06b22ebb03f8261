//! What messages may be: they pass byte by byte whatever they hold, and what is too large, too deep or ambiguous is
//! refused with its reason before an instance sees it.

mod support;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use support::client::Stream;
use support::raw_upstream::{Era, Form, RawOptions, VERBATIM};
use support::*;

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

/// Numbers beyond any type, escapes, doubled and odd keys, blanks inside.
const AWKWARD: &str = r#"{ "big" :123456789012345678901234567890, "one":1 ,"same":1.0,"exp":1E+2,"neg":-0 , "tiny":0.1e-400,
 "nul":"\u0000","lone":"\ud800","slash":"\/","plain":"ü🧵\u00fc\ud83e\uddf5", "":null,"__proto__":{},	"dup":1,"dup":2.50,
 "_meta" :{"name":"s__act","id":1}, "Name" : [ ],"nested":"{\"method\":\"tools/call\"}" }"#;

async fn mesh_with(options: RawOptions) -> (Mesh, RawUpstream) {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(options).await;
    mesh.api.join("s", upstream.port).await;
    let client = Client::modern(&mesh.mcp);
    eventually("its tools are listed", SOON, || async {
        client.tools().await.iter().any(|name| name == "s__act").then_some(())
    })
    .await;
    (mesh, upstream)
}

fn members(object: &str) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(object).expect("an object")
}

/// The members of the inside of an object, JSON text.
fn inside(object: &str, path: &[&str]) -> BTreeMap<String, Box<RawValue>> {
    match path {
        [] => members(object),
        [key, rest @ ..] => inside(members(object)[*key].get(), rest),
    }
}

/// Everything that a message may hold, each beside a name for it.
fn awkward() -> Vec<(&'static str, String)> {
    // The arguments are three levels down.
    let deep = format!("{}1.0{}", "[".repeat(28) + &"{\"a\":".repeat(28), "}".repeat(28) + &"]".repeat(28));
    vec![
        ("awkward", AWKWARD.to_owned()),
        ("on one line", AWKWARD.replace('\n', " ")),
        ("deep", format!("{{\"deep\":{deep}}}")),
        ("long", format!("{{\"long\":\"{}\\u0000\"}}", "ä".repeat(1 << 19))),
        ("empty", "{ }".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_and_instances_say_passes_byte_by_byte_in_every_pair_of_eras() {
    for (spoken, form) in [(Era::Legacy, Form::Json), (Era::Modern, Form::Json), (Era::Legacy, Form::Sse)] {
        let (mesh, upstream) = mesh_with(RawOptions { era: spoken, form, ..RawOptions::default() }).await;
        for era in ERAS {
            for url in [format!("{}/servers/s/mcp", mesh.http), mesh.mcp.clone()] {
                let client = Client::of(era, &url).await;
                for (what, arguments) in awkward() {
                    if form == Form::Sse && arguments.contains('\n') {
                        continue;
                    }
                    let what = format!("{what}: {era:?} to {spoken:?}, {form:?}, {url}");
                    passes(&client, spoken, &upstream, &arguments, "act", &what).await;
                }
                let what = format!("verbatim: {era:?} to {spoken:?}, {form:?}, {url}");
                passes(&client, spoken, &upstream, "{}", "verbatim", &what).await;
            }
        }
        upstream.assert_polite();
    }
}

async fn passes(
    client: &Client,
    spoken: Era,
    upstream: &RawUpstream,
    arguments: &str,
    tool: &str,
    what: &str,
) {
    let name = if client.url.contains("/servers/") { tool.to_owned() } else { format!("s__{tool}") };
    let more = r#""x-unknown" :[ 1.0,{"y":1e2} ], "_meta":{"vendor/own": 1.0 }"#;
    let body = client.body(
        r#""x\u0079""#,
        "tools/call",
        &format!(r#"{{"name":"{name}" ,"arguments":{arguments}, {more}}}"#),
    );
    let mut stream = client.post(&body).await;
    assert_eq!(stream.status, 200, "{what}");
    let answer = stream.answer_text().await;

    let seen = upstream.seen("tools/call").pop().expect("a call");
    let bridged = client.era != spoken;
    if bridged {
        assert!(seen.arguments() == arguments, "{what}: arguments changed");
        let params = inside(&seen.body, &["params"]);
        assert_eq!(params["name"].get(), format!("\"{tool}\""), "{what}");
        assert_eq!(params["x-unknown"].get(), r#"[ 1.0,{"y":1e2} ]"#, "{what}");
        assert_eq!(inside(&seen.body, &["params", "_meta"])["vendor/own"].get(), "1.0", "{what}");
        let said = inside(&seen.body, &["params", "_meta"]).len();
        assert_eq!(said, if spoken == Era::Modern { 4 } else { 1 }, "{what}: {:?}", seen.body);
    } else {
        let wanted = body.replacen(&format!("\"name\":\"{name}\""), &format!("\"name\":\"{tool}\""), 1);
        assert!(seen.body == wanted, "{what}: the request changed");
    }

    let result = if tool == "verbatim" {
        VERBATIM.to_owned()
    } else {
        format!(r#"{{"content":[{{"type":"text","text":"done"}}],"structuredContent":{arguments}}}"#)
    };
    let modern = result.replacen('{', r#"{"resultType":"complete","#, 1);
    let result = if client.era == Era::Modern { modern } else { result };
    let id = r#""x\u0079""#;
    if spoken == Era::Modern && bridged {
        // A member is taken out, so what stood between members is written anew.
        assert_eq!(members(&answer)["id"].get(), id, "{what}");
        let (here, there) = (inside(&answer, &["result"]), members(&result));
        assert!(here.keys().eq(there.keys()), "{what}: {:?}", here.keys());
        assert!(
            here.values().map(|v| v.get()).eq(there.values().map(|v| v.get())),
            "{what}: the result changed"
        );
    } else {
        let wanted = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        assert!(answer == wanted, "{what}: the answer changed: {:.300}", answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_listed_as_their_instance_describes_them() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let tool = r#"{ "name":"odd", "inputSchema" :{"type":"object","default":{"n":1.0,"big":18446744073709551616}}, "x-unknown":[ 1E2 ],"description":"\u0000\/" }"#;
    let spec = format!(r#"{{"instance_name":"s","port":{},"tools":[{tool}]}}"#, upstream.port);
    assert_eq!(mesh.api.post_text("/register", &spec).await.status, 201);
    for era in ERAS {
        let client = Client::of(era, &mesh.mcp).await;
        let answer = client.open("tools/list", &json!({})).await.answer_text().await;
        let tools: Vec<Box<RawValue>> =
            serde_json::from_str(inside(&answer, &["result"])["tools"].get()).expect("tools");
        let odd =
            tools.iter().map(|tool| members(tool.get())).find(|tool| tool["name"].get() == "\"s__odd\"");
        let odd = odd.expect("the tool is listed");
        for (key, value) in members(tool) {
            if key != "name" {
                assert_eq!(odd[&key].get(), value.get(), "{era:?}: {key}");
            }
        }
    }
}

/// A call of `act` with these arguments, in the words of the client.
fn call(client: &Client, arguments: &str) -> String {
    let name = if client.url.contains("/servers/") { "act" } else { "s__act" };
    client.body("1", "tools/call", &format!(r#"{{"name":"{name}","arguments":{arguments}}}"#))
}

/// Arguments that make a call of this depth.
fn nested(depth: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(depth - 3), "]".repeat(depth - 3))
}

async fn refused(client: &Client, body: &str) -> (u16, Value) {
    let mut stream: Stream = client.post(body).await;
    let status = stream.status;
    let text = stream.rest().await;
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_within_the_limits_passes_and_what_is_just_beyond_is_refused_by_name() {
    let (mesh, upstream) = mesh_with(RawOptions::default()).await;
    const LONG: usize = 2 << 20;
    let string = |bytes: usize| format!("{{\"a\":\"{}\"}}", "a".repeat(bytes));
    let numbers = |count: usize| format!("{{\"a\":[{}0]}}", "0,".repeat(count - 1));
    for era in ERAS {
        for url in [format!("{}/servers/s/mcp", mesh.http), mesh.mcp.clone()] {
            let client = Client::of(era, &url).await;
            let before = upstream.calls();
            for (within, beyond, reason) in [
                (nested(64), nested(65), "deeper than 64 levels"),
                (string(LONG), string(LONG + 1), "string of more than 2097152 bytes"),
                (numbers(99_900), numbers(100_001), "more than 100000 values"),
            ] {
                let mut stream = client.post(&call(&client, &within)).await;
                let answer = stream.answer_text().await;
                assert_eq!(stream.status, 200, "{reason}: {answer:.300}");
                let (status, answer) = refused(&client, &call(&client, &beyond)).await;
                assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32600)), "{answer}");
                let message = answer["error"]["message"].as_str().expect("a message");
                assert!(message.contains(reason), "{message}");
            }
            assert_eq!(upstream.calls(), before + 3, "only what is within the limits is sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_413_with_the_setting_that_raises_it() {
    let (mesh, upstream) = mesh_with(RawOptions::default()).await;
    let arguments = |bytes: usize| {
        let half = "a".repeat(bytes / 4);
        format!("{{\"a\":\"{half}\",\"b\":\"{half}\",\"c\":\"{half}\",\"d\":\"{half}\"}}")
    };
    for era in ERAS {
        let client = Client::of(era, &mesh.mcp).await;
        let body = call(&client, &arguments((4 << 20) - 4096));
        assert!(body.len() < 4 << 20, "{}", body.len());
        assert_eq!(client.post(&body).await.status, 200);
        let before = upstream.calls();
        let (status, problem) = refused(&client, &call(&client, &arguments(4 << 20))).await;
        assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")), "{problem}");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("server.body_bytes_max")));
        assert_eq!(upstream.calls(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_two_readers_could_read_in_two_ways_are_refused() {
    let (mesh, upstream) = mesh_with(RawOptions::default()).await;
    for era in ERAS {
        for url in [format!("{}/servers/s/mcp", mesh.http), mesh.mcp.clone()] {
            let client = Client::of(era, &url).await;
            let right = call(&client, "{}");
            assert_eq!(client.post(&right).await.status, 200);
            let before = upstream.calls();
            let name = if url.contains("/servers/") { r#""name":"act""# } else { r#""name":"s__act""# };
            for (from, to, reason) in [
                (r#""id":1"#, r#""id":1,"id":2"#, "duplicate field `id`"),
                (r#""id":1"#, r#""id":1,"ID":2"#, "differs from `id` in case alone"),
                (r#""id":1"#, r#""id":1,"\u0069d":2"#, "duplicate field `id`"),
                (r#""method""#, r#""Method":"tools/list","method""#, "differs from `method` in case alone"),
                (r#""params""#, r#""PARAMS":{},"params""#, "differs from `params` in case alone"),
                (r#""params""#, r#""params":{},"params""#, "duplicate field `params`"),
                (name, r#""name":"act_read_only","name":"act""#, "duplicate field `name`"),
                (name, r#""Name":"act_read_only","name":"act""#, "differs from `name` in case alone"),
            ] {
                let wrong = right.replacen(from, to, 1);
                let request =
                    client.request(http::Method::POST, "tools/call", Some("act")).body(wrong.clone());
                let mut stream = Stream::of(request.send().await.expect("an answer"));
                let answer = stream.answer().await;
                let code = answer["error"]["code"].as_i64();
                assert_eq!((stream.status, code), (400, Some(-32600)), "{wrong}: {answer}");
                let message = answer["error"]["message"].as_str().expect("a message");
                assert!(message.contains(reason), "{wrong}: {message}");
            }
            assert_eq!(upstream.calls(), before);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_and_named() {
    let (mesh, _upstream) = mesh_with(RawOptions::default()).await;
    for era in ERAS {
        let client = Client::of(era, &mesh.mcp).await;
        let batch = format!(" [{}]", call(&client, "{}"));
        let cut = call(&client, "{}").replace("}}", "");
        for (body, code, reason) in [
            (batch.as_str(), -32600, "batch"),
            ("[]", -32600, "batch"),
            (&cut, -32700, "EOF"),
            ("", -32700, "EOF"),
            ("\"ping\"", -32600, "object"),
            ("1", -32600, "object"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}"#, -32600, "object"),
        ] {
            let (status, answer) = refused(&client, body).await;
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert_eq!((status, answer["error"]["code"].as_i64()), (400, Some(code)), "{body}: {answer}");
            assert!(message.contains(reason), "{body}: {message}");
            assert_eq!(answer["id"], Value::Null);
        }
        let request = client.request(http::Method::POST, "ping", None).body(b"{\"id\":\"\xff\"}".to_vec());
        let mut stream = Stream::of(request.send().await.expect("an answer"));
        let answer = stream.answer().await;
        assert_eq!((stream.status, &answer["error"]["code"]), (400, &json!(-32700)), "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("UTF-8")), "{answer}");
    }
}
