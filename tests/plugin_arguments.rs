//! Routers that read the arguments of calls, when they were given that.

mod support;

use std::fs;
use std::process::Command;

use support::guests::{component, drop_in};
use support::raw_upstream::RawOptions;
use support::{Client, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

const GRANTED: &str = "[plugins.reader]\ngrants = [\"arguments\"]\n";

async fn start(config: &str, reader: Vec<u8>) -> (Mesh, RawUpstream) {
    let plugins = vec![("reader.wasm".to_owned(), reader)];
    let mesh = Mesh::start(MeshOptions { config: config.into(), plugins, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    (mesh, upstream)
}

/// What the router found at a pointer into the arguments, which are sent as they stand here.
async fn at(mesh: &Mesh, pointer: &str, arguments: &str) -> Value {
    let body = format!(
        r#"{{"target_instance": "s", "tool_name": "act", "client": {pointer:?}, "arguments": {arguments}}}"#
    );
    let answer = mesh.api.post_text("/call", &body).await.ok();
    assert_eq!(answer["routed_by"], "reader 1.0.0 #1", "{answer}");
    answer["why"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_the_grant_reads_arguments_as_they_came() {
    let (mesh, _upstream) = start(GRANTED, component("reader")).await;
    let arguments = r#"{"a": {"b/c": [1.0, "x\u0041"]}, "n": 12345678901234567890, "amount": 7}"#;
    for (pointer, text) in [
        ("/a/b~1c/0", "1.0"),
        ("/a/b~1c/1", r#""x\u0041""#),
        ("/n", "12345678901234567890"),
        ("/a/b~1c/2", "nothing"),
        ("a", "nothing"),
    ] {
        assert_eq!(at(&mesh, pointer, arguments).await, text, "{pointer}");
    }
    assert_eq!(at(&mesh, "/long", &format!("{{\"long\": \"{}\"}}", "x".repeat(64 << 10))).await, "nothing");
    // One call's arguments are not the next one's.
    assert_eq!(at(&mesh, "/n", "{}").await, "nothing");

    let body = json!({"target_instance": "s", "tool_name": "act", "arguments": {"amount": 101}});
    let refused = mesh.api.post("/call", &body).await.problem(403, "policy_refused");
    assert!(refused["detail"].as_str().expect("a detail").contains("more than 100"), "{refused}");
    // The last of two members counts, as for most who read it.
    let twice = r#"{"target_instance": "s", "tool_name": "act", "arguments": {"amount": 1, "amount": 101}}"#;
    mesh.api.post_text("/call", twice).await.problem(403, "policy_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_mcp_clients_are_read_too() {
    let (mesh, _upstream) = start(GRANTED, component("reader")).await;
    let client = Client::modern(&mesh.mcp);
    client.call("s__act", json!({"amount": 1})).await.expect("it passes");
    let refused = client.call("s__act", json!({"amount": 1e3})).await.expect_err("it is refused");
    assert!(refused.to_string().contains("more than 100"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_arguments_are_read_are_not_held_against_a_new_build() {
    let (mesh, _upstream) = start(GRANTED, component("reader")).await;
    for amount in [1, 101, 7] {
        mesh.api.call("s", "act", json!({"amount": amount})).await;
    }
    let mut other = component("reader");
    // An empty custom section: other bytes, and the same decisions.
    other.extend([0, 2, 1, b'x']);
    drop_in(&mesh.plugins_dir(), "reader.wasm", &other);
    let plugin = eventually("the other build is in force", SOON, || async {
        mesh.api.plugin("reader").await.filter(|plugin| plugin["generation"] == 2)
    })
    .await;
    let replay = &plugin["replay"];
    assert_eq!((&replay["compared"], &replay["unrepeatable"]), (&json!(0), &json!(3)), "{plugin}");

    let file = mesh.plugins_dir().join("reader.wasm");
    let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .args(["plugin", "replay", "--url", &mesh.http, "--fail-over", "0"])
        .arg(file)
        .output()
        .expect("run the command");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("0 of 0 calls"), "{said}");
    assert!(said.contains("3 more were left out: it read their arguments"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_without_the_grant_is_a_fault_that_names_it() {
    let mut reader = component("reader");
    let place = reader.windows(8).position(|window| window == b"grants =").expect("its metadata");
    reader[place..place + 6].copy_from_slice(b"grantz");
    let (mesh, _upstream) = start("", reader).await;
    let answer = mesh.api.call("s", "act", json!({"amount": 101})).await.ok();
    assert_eq!(answer.get("routed_by"), None, "the call goes on without it: {answer}");
    let plugin = mesh.api.plugin("reader").await.expect("listed");
    assert_eq!((&plugin["state"], &plugin["faults"]), (&json!("loaded"), &json!(1)), "{plugin}");
    assert!(plugin["last_fault"].as_str().expect("a fault").contains("grant `arguments`"), "{plugin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_grant_is_taken_out_of_the_configuration_reads_no_more() {
    let (mesh, _upstream) = start(GRANTED, component("reader")).await;
    assert_eq!(at(&mesh, "/n", r#"{"n": 7}"#).await, "7");
    let file = mesh.home.path().join("meshwright.toml");
    let granted = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, granted.replace("grants =", "#")).expect("write the configuration");
    let plugin = eventually("it waits for its grant again", SOON, || async {
        mesh.api.plugin("reader").await.filter(|plugin| plugin["state"] == "pending")
    })
    .await;
    assert_eq!((&plugin["generation"], &plugin["pending"]["grants"]), (&json!(0), &json!(["arguments"])));
    assert!(
        plugin["reason"].as_str().expect("a reason").contains("`meshwright plugin allow reader`"),
        "{plugin}"
    );
    let answer = mesh.api.call("s", "act", json!({"amount": 101})).await.ok();
    assert_eq!(answer.get("routed_by"), None, "{answer}");

    fs::write(&file, granted).expect("write the configuration");
    eventually("it is in force again", SOON, || async {
        mesh.api.plugin("reader").await.filter(|plugin| plugin["state"] == "loaded")
    })
    .await;
    let refused = json!({"target_instance": "s", "tool_name": "act", "arguments": {"amount": 101}});
    mesh.api.post("/call", &refused).await.problem(403, "policy_refused");
}
