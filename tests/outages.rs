//! What clients get while instances are down or hang: listings at once, calls an answer that says why, and both again
//! when the instances are back.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::everything::Everything;
use support::raw_upstream::Era;
use support::*;

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];
/// What an answer may take that needs no instance.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The answer, if it came at once.
async fn at_once<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let answer =
        tokio::time::timeout(SOON, answer).await.unwrap_or_else(|_| panic!("{what}: nothing after {SOON:?}"));
    assert!(start.elapsed() < AT_ONCE, "{what}: took {:?}", start.elapsed());
    answer
}

async fn until_listed(mesh: &Mesh, list: &str, key: &str, wanted: &str) {
    let client = Client::modern(&mesh.mcp);
    eventually(&format!("`{wanted}` is listed"), 2 * SOON, || async {
        client.names(list, key).await.iter().any(|name| name == wanted).then_some(())
    })
    .await;
}

/// All that is listed at an address, in order of the names.
async fn listed(url: &str, era: Era) -> Vec<Vec<String>> {
    let client = at_once(&format!("initialize, {era:?}, {url}"), Client::of(era, url)).await;
    let mut all = Vec::new();
    for (list, key) in [("tools", "name"), ("prompts", "name"), ("resources", "uri")] {
        let mut names = at_once(&format!("{list}, {era:?}, {url}"), client.names(list, key)).await;
        names.sort();
        all.push(names);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_down_all_is_listed_at_once_and_calls_say_what_is_down() {
    for speaks in ["legacy", "both"] {
        let mut instance = Everything::start(&["--era", speaks]);
        let port = instance.port;
        let config = format!("[services.fixed]\nurl = \"http://127.0.0.1:{port}/mcp\"\n");
        let mut mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
        mesh.api.join("joined", port).await;
        for service in ["fixed", "joined"] {
            until_listed(&mesh, "tools", "name", &format!("{service}__whoami")).await;
            until_listed(&mesh, "prompts", "name", &format!("{service}__test_simple_prompt")).await;
        }
        let addresses = ["/mcp", "/servers/fixed/mcp", "/servers/joined/mcp"];
        let mut before = Vec::new();
        for address in addresses {
            for era in ERAS {
                before.push(listed(&format!("{}{address}", mesh.http), era).await);
            }
        }
        assert!(before.iter().flatten().all(|names| names.len() > 2), "{before:?}");

        instance.kill();
        mesh.kill();
        mesh.restart().await;
        let mut after = Vec::new();
        for address in addresses {
            for era in ERAS {
                after.push(listed(&format!("{}{address}", mesh.http), era).await);
            }
        }
        for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
            assert_eq!(after, before, "{speaks}");
        }
        for era in ERAS {
            for (address, tool, service) in [
                ("/mcp", "fixed__whoami", "fixed"),
                ("/mcp", "joined__whoami", "joined"),
                ("/servers/fixed/mcp", "whoami", "fixed"),
            ] {
                let url = format!("{}{address}", mesh.http);
                let client = Client::of(era, &url).await;
                let why = eventually("the reason is known", SOON, || async {
                    let error =
                        at_once(&url, client.call(tool, json!({}))).await.expect_err("nobody can answer");
                    let data = &error["data"];
                    let code = data["code"].as_str().unwrap_or_default();
                    assert!(["no_instance_available", "upstream_unreachable"].contains(&code), "{error}");
                    assert_eq!(data["service"], service, "{error}");
                    assert!(data["outcome"].is_null(), "nothing was sent: {error}");
                    let detail = data["detail"].as_str().unwrap_or_default().to_owned();
                    assert!(!detail.contains("healthy ("), "nobody knows that: {error}");
                    let probed = !detail.contains("not probed yet");
                    probed.then_some(detail)
                })
                .await;
                assert!(why.contains(service) && why.contains("refused"), "{era:?} {url}: {why}");
            }
        }

        let _back = Everything::start(&["--era", speaks, "--port", &port.to_string()]);
        for era in ERAS {
            for (address, tool) in
                [("/mcp", "fixed__whoami"), ("/mcp", "joined__whoami"), ("/servers/fixed/mcp", "whoami")]
            {
                let client = Client::of(era, &format!("{}{address}", mesh.http)).await;
                eventually(&format!("{speaks} {era:?}: `{tool}` works again"), 3 * SOON, || async {
                    client.call(tool, json!({})).await.ok()
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_connected_lives_through_the_death_of_the_proxy_and_of_the_instance() {
    let mut mesh = Mesh::plain().await;
    let mut instance = Everything::start(&["--era", "legacy"]);
    let port = instance.port;
    mesh.api.join("s", port).await;
    let url = format!("{}/servers/s/mcp", mesh.http);
    let mut client = Client::legacy(&url).await;
    let before = client.tool_text("whoami", json!({})).await;
    instance.kill();
    mesh.kill();
    mesh.restart().await;
    assert_eq!(client.open("tools/list", &json!({})).await.status, 404, "the session was the old process's");
    let initialized = at_once("initialize", client.begin()).await;
    assert_eq!(initialized["serverInfo"]["name"], "everything", "{initialized}");
    let instructions = initialized["instructions"].as_str().unwrap_or_default();
    assert!(
        instructions.contains("conformance"),
        "what the service says of itself is remembered: {initialized}"
    );
    at_once("tools", client.tools()).await;
    let _back = Everything::start(&["--era", "legacy", "--port", &port.to_string()]);
    let after = eventually("the call works again", 3 * SOON, || async {
        client.call("whoami", json!({})).await.ok()
    })
    .await;
    assert_ne!(after["content"][0]["text"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_delays_neither_listings_nor_calls_of_others() {
    let mesh = Mesh::plain().await;
    let hangs = Everything::start(&["--era", "legacy"]);
    let upstream = RawUpstream::plain().await;
    mesh.api.join("hung", hangs.port).await;
    mesh.api.join("s", upstream.port).await;
    until_listed(&mesh, "tools", "name", "hung__whoami").await;
    until_listed(&mesh, "tools", "name", "s__act").await;
    let clients = [
        Arc::new(Client::legacy(&mesh.mcp).await),
        Arc::new(Client::legacy(&mesh.mcp).await),
        Arc::new(Client::modern(&mesh.mcp)),
    ];
    // The first has a session there already, the second has to begin one.
    clients[0].tool_text("hung__whoami", json!({})).await;
    hangs.signal(Signal::STOP);
    let mut waiting = Vec::new();
    for client in &clients {
        let client = Arc::clone(client);
        waiting.push(tokio::spawn(async move {
            client.open_as("99", "tools/call", &json!({"name": "hung__whoami", "arguments": {}})).await
        }));
    }
    eventually("the calls are under way", SOON, || async {
        let in_flight = mesh.api.service("hung").await["instances"][0]["in_flight"].as_u64()?;
        (in_flight >= 1).then_some(())
    })
    .await;
    for client in &clients {
        let era = client.era;
        for (list, key) in [("tools", "name"), ("prompts", "name"), ("resources", "uri")] {
            at_once(&format!("{list}, {era:?}"), client.names(list, key)).await;
        }
        at_once(&format!("a call, {era:?}"), client.call("s__act", json!({}))).await.expect("a result");
        if era == Era::Legacy {
            at_once("a notification", client.notify("notifications/roots/list_changed", &json!({}))).await;
            at_once("a level", client.ask("logging/setLevel", json!({"level": "info"}))).await.expect("{}");
        }
    }
    let fresh = at_once("a session", Client::legacy(&mesh.mcp)).await;
    at_once("a call", fresh.call("s__act", json!({}))).await.expect("a result");
    at_once("the pages", mesh.api.get("/services")).await.ok();
    assert!(waiting.iter().all(|call| !call.is_finished()), "the calls wait all the while");
    hangs.signal(Signal::CONT);
    for call in waiting {
        let answer = call.await.expect("an answer").answer().await;
        assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_instance_hangs_is_listed_at_its_own_address_before_long() {
    let mesh = Mesh::plain().await;
    let hangs = Everything::start(&["--era", "legacy"]);
    mesh.api.join("hung", hangs.port).await;
    let url = format!("{}/servers/hung/mcp", mesh.http);
    let connected = Client::legacy(&url).await;
    hangs.signal(Signal::STOP);
    for era in ERAS {
        let start = Instant::now();
        let client = Client::of(era, &url).await;
        assert!(client.tools().await.iter().any(|name| name == "whoami"));
        assert!(start.elapsed() < Duration::from_secs(5), "{era:?}: {:?}", start.elapsed());
    }
    let start = Instant::now();
    assert!(connected.tools().await.iter().any(|name| name == "whoami"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    hangs.signal(Signal::CONT);
    connected.tool_text("whoami", json!({})).await;
}
