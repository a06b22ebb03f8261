//! Sessions of clients and those that are opened for them: how they begin and end, what travels in them in either
//! direction, and what remains of them when instances come and go.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::client::Stream;
use support::everything::Everything;
use support::python::lines;
use support::raw_upstream::{Era, Form, How, RawOptions};
use support::*;

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

/// Where `service` is served as it is.
fn own_address(mesh: &Mesh, service: &str) -> String {
    format!("{}/servers/{service}/mcp", mesh.http)
}

async fn configured(config: &str) -> Mesh {
    Mesh::start(MeshOptions { config: config.to_owned(), ..MeshOptions::default() }).await
}

async fn until_listed(mesh: &Mesh, tool: &str) {
    let client = Client::modern(&mesh.mcp);
    eventually(&format!("`{tool}` is listed"), 2 * SOON, || async {
        client.tools().await.iter().any(|name| name == tool).then_some(())
    })
    .await;
}

/// A proxy before an upstream that is called `s`, and its two addresses.
async fn mesh_with(options: RawOptions) -> (Mesh, RawUpstream, [String; 2]) {
    mesh_configured_with("", options).await
}

async fn mesh_configured_with(config: &str, options: RawOptions) -> (Mesh, RawUpstream, [String; 2]) {
    let mesh = configured(config).await;
    let upstream = RawUpstream::start(options).await;
    mesh.api.join("s", upstream.port).await;
    until_listed(&mesh, "s__act").await;
    let urls = [own_address(&mesh, "s"), mesh.mcp.clone()];
    (mesh, upstream, urls)
}

/// What `act` is called there.
fn act(url: &str) -> &'static str {
    if url.contains("/servers/") { "act" } else { "s__act" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_session_is_400_and_one_of_an_unknown_session_404() {
    let (_mesh, upstream, urls) = mesh_with(RawOptions::default()).await;
    for url in &urls {
        let mut client = Client::stranger(url);
        for (session, wanted) in [(None, 400), (Some("0123456789abcdef0123456789abcdef"), 404)] {
            client.session = session.map(str::to_owned);
            assert_eq!(client.open("tools/list", &json!({})).await.status, wanted, "{session:?}");
            assert_eq!(client.notify("notifications/initialized", &json!({})).await, wanted);
            assert_eq!(client.listen().await.status, wanted);
            assert_eq!(client.delete().await, wanted);
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_good_at_its_own_address_only() {
    let (_mesh, _upstream, [own, merged]) = mesh_with(RawOptions::default()).await;
    for (here, there) in [(&own, &merged), (&merged, &own)] {
        let begun = Client::legacy(here).await;
        let mut elsewhere = Client::stranger(there);
        elsewhere.session.clone_from(&begun.session);
        assert_eq!(elsewhere.open("tools/list", &json!({})).await.status, 404);
        assert_eq!(elsewhere.delete().await, 404);
        assert_eq!(begun.open("tools/list", &json!({})).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_ends_a_session_and_those_that_were_opened_for_it() {
    let (_mesh, upstream, urls) = mesh_with(RawOptions::default()).await;
    let before = upstream.session_count();
    for url in &urls {
        let client = Client::legacy(url).await;
        client.call(act(url), json!({})).await.expect("a result");
        assert_eq!(
            upstream.session_count(),
            before + 1,
            "the client has a session of its own at the instance"
        );
        assert_eq!(client.delete().await, 204);
        assert_eq!(client.open("tools/list", &json!({})).await.status, 404);
        assert_eq!(client.delete().await, 404);
        eventually("the inner session is ended", SOON, || async {
            (upstream.session_count() == before).then_some(())
        })
        .await;
    }
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_ends_the_streams_of_a_session() {
    let (mesh, _upstream, _) = mesh_with(RawOptions::default()).await;
    let client = Client::legacy(&mesh.mcp).await;
    let mut stream = client.listen().await;
    assert_eq!(stream.status, 200);
    assert_eq!(client.delete().await, 204);
    while stream.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_its_own_address_a_restarted_instance_makes_clients_begin_anew() {
    let mesh = Mesh::plain().await;
    let mut instance = Everything::start(&["--era", "legacy"]);
    let port = instance.port;
    mesh.api.join("s", port).await;
    let mut client = Client::legacy(&own_address(&mesh, "s")).await;
    let before = client.tool_text("whoami", json!({})).await;
    instance.kill();
    let _again = Everything::start(&["--era", "legacy", "--port", &port.to_string()]);

    let call = json!({"name": "whoami", "arguments": {}});
    assert_eq!(client.open("tools/call", &call).await.status, 404);
    assert_eq!(client.open("tools/call", &call).await.status, 404, "it stays ended");
    let initialized = client.begin().await;
    assert_eq!(initialized["serverInfo"]["name"], "everything", "{initialized}");
    assert_ne!(client.tool_text("whoami", json!({})).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_merged_address_a_restarted_instance_is_not_noticed() {
    let mesh = Mesh::plain().await;
    let mut instance = Everything::start(&["--era", "legacy"]);
    let port = instance.port;
    mesh.api.join("s", port).await;
    until_listed(&mesh, "s__whoami").await;
    let (legacy, modern) = (Client::legacy(&mesh.mcp).await, Client::modern(&mesh.mcp));
    let before = legacy.tool_text("s__whoami", json!({})).await;
    assert_eq!(modern.tool_text("s__whoami", json!({})).await, before);
    instance.kill();
    let _again = Everything::start(&["--era", "legacy", "--port", &port.to_string()]);
    let after = legacy.tool_text("s__whoami", json!({})).await;
    assert_ne!(after, before);
    assert_eq!(modern.tool_text("s__whoami", json!({})).await, after);
}

/// The same without a process: sessions are gone and connections are not, as when a server forgets.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_instance_forgot_is_opened_anew_or_given_up_and_no_call_is_made_twice() {
    let (_mesh, upstream, [own, merged]) = mesh_with(RawOptions::default()).await;
    let (one, many) = (Client::legacy(&own).await, Client::legacy(&merged).await);
    one.call("act", json!({})).await.expect("a result");
    many.call("s__act", json!({})).await.expect("a result");
    let answered = |upstream: &RawUpstream| upstream.calls();
    upstream.forget_sessions();
    let before = answered(&upstream);
    assert_eq!(one.open("tools/call", &json!({"name": "act", "arguments": {}})).await.status, 404);
    assert_eq!(answered(&upstream), before + 1, "refused unread, and not sent again");
    many.call("s__act", json!({})).await.expect("a result");
    assert_eq!(answered(&upstream), before + 3, "refused once, sent once more");
    assert_eq!(one.open("tools/list", &json!({})).await.status, 404);
    upstream.assert_polite();
}

/// Calls `whoami` as a client does that begins anew when it is told to.
async fn whoami(client: &mut Client, tool: &str) -> Option<String> {
    let mut stream = client.open("tools/call", &json!({"name": tool, "arguments": {}})).await;
    if stream.status == 404 {
        client.begin().await;
        stream = client.open("tools/call", &json!({"name": tool, "arguments": {}})).await;
    }
    let answer = stream.answer().await;
    answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_instance_dies_its_clients_go_on_with_the_other() {
    let mesh = Mesh::plain().await;
    let mut instances = Vec::new();
    for name in ["s-1", "s-2"] {
        let instance = Everything::start(&["--era", "legacy", "--name", name]);
        let spec = json!({"instance_name": name, "service": "s", "port": instance.port, "tools": []});
        mesh.api.join_as(spec).await;
        instances.push(instance);
    }
    until_listed(&mesh, "s__whoami").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push((Client::legacy(&own_address(&mesh, "s")).await, "whoami"));
        clients.push((Client::legacy(&mesh.mcp).await, "s__whoami"));
    }
    let mut homes = Vec::new();
    for (client, tool) in &mut clients {
        let home = whoami(client, tool).await.expect("an answer");
        for _ in 0..3 {
            assert_eq!(whoami(client, tool).await.as_deref(), Some(&*home), "a session stays where it is");
        }
        homes.push(home);
    }
    assert!(homes.iter().any(|home| home.starts_with("s-1")), "{homes:?}");
    assert!(homes.iter().any(|home| home.starts_with("s-2")), "{homes:?}");
    instances[0].kill();
    for ((client, tool), home) in clients.iter_mut().zip(&homes) {
        let now = whoami(client, tool).await;
        let now = now.unwrap_or_else(|| panic!("{tool}: stuck at {home}"));
        assert!(now.starts_with("s-2"), "{tool}: was at {home}, is at {now}");
        if home.starts_with("s-2") {
            assert_eq!(now, *home, "bystanders stay where they are");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_say_goodbye_leave_nothing_behind() {
    let (_mesh, upstream, [own, merged]) =
        mesh_configured_with("[sessions]\nidle_timeout = \"1s\"\n", RawOptions::default()).await;
    let before = upstream.session_count();
    let mut clients = Vec::new();
    for _ in 0..500 {
        clients.push(Client::legacy(&own).await);
        let client = Client::legacy(&merged).await;
        client.call("s__act", json!({})).await.expect("a result");
        clients.push(client);
    }
    assert_eq!(upstream.seen("initialize").len() - before, clients.len(), "each had a session of its own");
    eventually("the inner sessions are ended", 2 * SOON, || async {
        (upstream.session_count() == before).then_some(())
    })
    .await;
    for client in &clients {
        assert_eq!(client.open("ping", &json!({})).await.status, 404);
    }
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_stream_is_open_is_not_idle() {
    let config = "[sessions]\nidle_timeout = \"1s\"\n";
    let (_mesh, upstream, [_, merged]) = mesh_configured_with(config, RawOptions::default()).await;
    let before = upstream.session_count();
    let (listening, silent) = (Client::legacy(&merged).await, Client::legacy(&merged).await);
    let _stream = listening.listen().await;
    silent.call("s__act", json!({})).await.expect("a result");
    assert_eq!(upstream.session_count(), before + 1);
    eventually("the silent session ends", SOON, || async {
        (upstream.session_count() == before).then_some(())
    })
    .await;
    assert_eq!(listening.open("ping", &json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_the_session_that_was_idle_longest_makes_room() {
    let (_mesh, upstream, [own, _]) =
        mesh_configured_with("[sessions]\nmax = 3\nage_max = \"1h\"\n", RawOptions::default()).await;
    let before = upstream.session_count();
    let [first, second, third] =
        [Client::legacy(&own).await, Client::legacy(&own).await, Client::legacy(&own).await];
    first.call("act", json!({})).await.expect("a result");
    let fourth = Client::legacy(&own).await;
    assert_eq!(second.open("ping", &json!({})).await.status, 404, "it was idle longest");
    for client in [&first, &third, &fourth] {
        assert_eq!(client.open("ping", &json!({})).await.status, 200);
    }
    eventually("its inner session is ended", SOON, || async {
        (upstream.session_count() == before + 3).then_some(())
    })
    .await;
}

/// Two services that ask their clients, each numbering its questions from nought.
async fn two_that_ask(era: &str) -> (Mesh, [Everything; 2]) {
    let mesh = Mesh::plain().await;
    let instances = [Everything::start(&["--era", era]), Everything::start(&["--era", era])];
    for (name, instance) in ["one", "two"].into_iter().zip(&instances) {
        mesh.api.join(name, instance.port).await;
        until_listed(&mesh, &format!("{name}__test_sampling")).await;
    }
    (mesh, instances)
}

fn everything_can() -> Value {
    json!({"sampling": {}, "elicitation": {}, "roots": {"listChanged": true}})
}

fn sample(text: &str) -> Value {
    json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": text}})
}

/// The text that a question asks about.
fn prompt(question: &Value) -> &Value {
    let content = &question["params"]["messages"][0]["content"];
    &content.get(0).unwrap_or(content)["text"]
}

/// Two clients call a tool of each service at once, under ids that collide; when all questions are there they are
/// answered, the last one first.
async fn ask_and_answer_crosswise(mesh: &Mesh, tool: &str, argument: &str, right: &str) {
    let people = ["ann", "bob"];
    let clients = [
        Client::legacy_that_can(&mesh.mcp, everything_can()).await,
        Client::legacy_that_can(&mesh.mcp, everything_can()).await,
    ];
    let mut open = Vec::new();
    for (client, person) in clients.iter().zip(people) {
        let mut ids = Vec::new();
        for (id, service) in ["1", "2"].into_iter().zip(["one", "two"]) {
            let arguments = json!({argument: format!("{person} to {service}")});
            let call = json!({"name": format!("{service}__{tool}"), "arguments": arguments});
            let mut stream = client.open_as(id, "tools/call", &call).await;
            let question = stream.next_with("sampling/createMessage").await;
            assert_eq!(*prompt(&question), format!("{person} to {service}"), "{question}");
            ids.push(question["id"].clone());
            open.push((client, stream, question, format!("{service} hears {person}")));
        }
        assert_ne!(ids[0], ids[1], "no two questions to one client have the same id");
    }
    for (client, mut stream, question, words) in open.into_iter().rev() {
        client.reply(&question, &sample(&words)).await;
        let answer = stream.answer().await;
        assert_eq!(answer["result"]["content"][0]["text"], format!("{right}{words}"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_find_their_client_and_answers_their_instance_whatever_era_the_instances_speak() {
    for era in ["legacy", "modern", "both"] {
        let (mesh, _instances) = two_that_ask(era).await;
        ask_and_answer_crosswise(&mesh, "test_sampling", "prompt", "LLM response: ").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_processes_find_their_client_where_each_client_has_its_own() {
    let mesh = stdio_mesh(&["one", "two"], "sessions = \"each\"\n").await;
    ask_and_answer_crosswise(&mesh, "ask", "of", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_process_asks_the_client_whose_call_is_under_way() {
    let mesh = stdio_mesh(&["one"], "").await;
    let bystander = Client::legacy_that_can(&mesh.mcp, everything_can()).await;
    bystander.tool_text("one__pid", json!({})).await;
    let client = Client::legacy_that_can(&mesh.mcp, everything_can()).await;
    let call = json!({"name": "one__ask", "arguments": {"of": "ann"}});
    let mut stream = client.open("tools/call", &call).await;
    let question = stream.next_with("sampling/createMessage").await;
    client.reply(&question, &sample("hello")).await;
    assert_eq!(stream.answer().await["result"]["content"][0]["text"], "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_be_asked_for_input_and_for_its_roots_too() {
    for era in ["legacy", "modern"] {
        let (mesh, _instances) = two_that_ask(era).await;
        let client = Client::legacy_that_can(&mesh.mcp, everything_can()).await;
        for (tool, method, result, right) in [
            (
                "test_input_required_result_elicitation",
                "elicitation/create",
                json!({"action": "accept", "content": {"name": "Ann"}}),
                "Hello, Ann!",
            ),
            (
                "test_input_required_result_list_roots",
                "roots/list",
                json!({"roots": [{"uri": "file:///a", "name": "a"}]}),
                "file:///a",
            ),
        ] {
            let call = json!({"name": format!("two__{tool}"), "arguments": {}});
            let mut stream = client.open("tools/call", &call).await;
            let question = stream.next_with(method).await;
            client.reply(&question, &result).await;
            let answer = stream.answer().await;
            let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
            assert!(text.contains(right), "{era}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_is_asked_by_an_answer_and_comes_back_with_what_it_was_asked() {
    for era in ["legacy", "modern", "both"] {
        let (mesh, _instances) = two_that_ask(era).await;
        let mut waiting = Vec::new();
        for person in ["ann", "bob"] {
            let client = Client::modern(&mesh.mcp).that_can(everything_can());
            for service in ["one", "two"] {
                let arguments = json!({"prompt": format!("{person} to {service}")});
                let call = json!({"name": format!("{service}__test_sampling"), "arguments": arguments});
                let asked = client.ask("tools/call", call.clone()).await.expect("a result");
                assert_eq!(asked["resultType"], "input_required", "{era}: {asked}");
                waiting.push((call, asked, format!("{service} hears {person}")));
            }
        }
        let client = Client::modern(&mesh.mcp).that_can(everything_can());
        for (mut call, asked, words) in waiting.into_iter().rev() {
            let (key, question) =
                asked["inputRequests"].as_object().expect("questions").iter().next().expect("one");
            assert_eq!(question["method"], "sampling/createMessage", "{era}: {asked}");
            call["inputResponses"] = json!({key: sample(&words)});
            if !asked["requestState"].is_null() {
                call["requestState"] = asked["requestState"].clone();
            }
            let result = client.ask("tools/call", call).await.expect("a result");
            assert_eq!(result["resultType"], "complete", "{era}: {result}");
            assert_eq!(result["content"][0]["text"], format!("LLM response: {words}"), "{era}");
        }
    }
}

/// A proxy with `tests/fixtures/stdio_server.py` under each of these names; `more` is what is configured besides.
async fn stdio_mesh(names: &[&str], more: &str) -> Mesh {
    let home = mesh::home("");
    let script = repository().join("tests/fixtures/stdio_server.py");
    let services = names.iter().map(|name| {
        let log = home.path().join(format!("{name}.lines"));
        format!("[services.{name}]\ncommand = \"python3\"\nargs = [{script:?}, {log:?}]\n{more}")
    });
    let config = home.path().join("meshwright.toml");
    let text = std::fs::read_to_string(&config).expect("read the configuration");
    let text = text + &services.collect::<String>();
    std::fs::write(&config, text).expect("write the configuration");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    for name in names {
        until_listed(&mesh, &format!("{name}__ask")).await;
    }
    mesh
}

/// The messages that a process of that service got, with this method.
fn heard(mesh: &Mesh, service: &str, method: &str) -> Vec<Value> {
    let all = lines(&mesh.home.path().join(format!("{service}.lines")));
    let all = all.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|message| message["method"] == method).collect()
}

/// Starts a request and leaves it under way.
fn begin(client: &Arc<Client>, id: &'static str, call: Value) -> tokio::task::JoinHandle<Stream> {
    let client = Arc::clone(client);
    tokio::spawn(async move { client.open_as(id, "tools/call", &call).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_cancellation_reaches_the_instance_under_the_requests_id_there() {
    for (form, how) in [(Form::Json, How::Hang), (Form::Sse, How::HangAfterFirst)] {
        let (_mesh, upstream, urls) = mesh_with(RawOptions { form, ..RawOptions::default() }).await;
        upstream.now(how);
        for (number, url) in urls.iter().enumerate() {
            let client = Arc::new(Client::legacy(url).await);
            let under_way = begin(&client, "\"x-7\"", json!({"name": act(url), "arguments": {}}));
            eventually("the call is there", SOON, || async {
                (upstream.calls() == number + 1).then_some(())
            })
            .await;
            let cancel = json!({"requestId": "x-7", "reason": "enough"});
            assert_eq!(client.notify("notifications/cancelled", &cancel).await, 202);
            let seen = eventually("the cancellation is there", SOON, || async {
                upstream.seen("notifications/cancelled").get(number).cloned()
            })
            .await;
            let said: Value = serde_json::from_str(&seen.body).expect("JSON");
            assert_eq!(said["params"], cancel, "{form:?} {url}");
            let call = &upstream.seen("tools/call")[number];
            assert_eq!(seen.header("mcp-session-id"), call.header("mcp-session-id"));
            under_way.abort();
        }
        upstream.assert_polite();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_of_nothing_reaches_nobody() {
    let (_mesh, upstream, urls) = mesh_with(RawOptions::default()).await;
    for url in &urls {
        let client = Client::legacy(url).await;
        client.call(act(url), json!({})).await.expect("a result");
        assert_eq!(client.notify("notifications/cancelled", &json!({"requestId": 1})).await, 202);
        client.call(act(url), json!({})).await.expect("a result");
    }
    assert!(upstream.seen("notifications/cancelled").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clients_of_one_process_only_the_one_that_cancels_is_cancelled() {
    let mesh = stdio_mesh(&["one"], "").await;
    let hang = json!({"name": "one__hang", "arguments": {}});
    let mut clients = Vec::new();
    let mut under_way = Vec::new();
    for number in 1..=2 {
        let client = Arc::new(Client::legacy(&mesh.mcp).await);
        under_way.push(begin(&client, "7", hang.clone()));
        clients.push(client);
        eventually("the call is there", SOON, || async {
            (heard(&mesh, "one", "tools/call").len() == number).then_some(())
        })
        .await;
    }
    let ids: Vec<Value> = heard(&mesh, "one", "tools/call").iter().map(|call| call["id"].clone()).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(clients[1].notify("notifications/cancelled", &json!({"requestId": 7})).await, 202);
    let said = eventually("the cancellation is there", SOON, || async {
        heard(&mesh, "one", "notifications/cancelled").pop()
    })
    .await;
    assert_eq!(said["params"]["requestId"], ids[1]);
    // A modern client cancels by going away.
    let modern = Arc::new(Client::modern(&mesh.mcp));
    let going = begin(&modern, "7", hang);
    let id = eventually("the call is there", SOON, || async {
        Some(heard(&mesh, "one", "tools/call").get(2)?["id"].clone())
    })
    .await;
    going.abort();
    let said = eventually("the cancellation is there", SOON, || async {
        heard(&mesh, "one", "notifications/cancelled").get(1).cloned()
    })
    .await;
    assert_eq!(said["params"]["requestId"], id);
    under_way.into_iter().for_each(|task| task.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_that_closes_its_response_cancels_at_the_instance() {
    for (era, form, how) in [
        (Era::Modern, Form::Json, How::Hang),
        (Era::Modern, Form::Sse, How::HangAfterFirst),
        (Era::Legacy, Form::Json, How::Hang),
        (Era::Legacy, Form::Sse, How::HangAfterFirst),
    ] {
        let (_mesh, upstream, urls) = mesh_with(RawOptions { era, form, ..RawOptions::default() }).await;
        upstream.now(how);
        for (number, url) in urls.iter().enumerate() {
            let client = Arc::new(Client::modern(url));
            // What is told first is the log.
            let meta = json!({"io.modelcontextprotocol/logLevel": "info"});
            let call = json!({"name": act(url), "arguments": {}, "_meta": meta});
            let under_way = begin(&client, "7", call);
            let call = eventually("the call is there", SOON, || async {
                upstream.seen("tools/call").get(number).cloned()
            })
            .await;
            if form == Form::Sse {
                // An answer that has begun; dropping it closes it.
                drop(under_way.await.expect("a stream"));
            } else {
                under_way.abort();
            }
            let what = format!("{era:?} {form:?} {url}: the instance hears of it");
            let wanted = number + 1;
            eventually(&what, SOON, || async {
                match era {
                    Era::Modern => (upstream.abandoned() == wanted as u64).then_some(()),
                    Era::Legacy => (upstream.seen("notifications/cancelled").len() == wanted).then_some(()),
                }
            })
            .await;
            if let Some(said) = upstream.seen("notifications/cancelled").pop() {
                let said: Value = serde_json::from_str(&said.body).expect("JSON");
                let call: Value = serde_json::from_str(&call.body).expect("JSON");
                assert_eq!(said["params"]["requestId"], call["id"], "{era:?} {form:?} {url}");
            }
        }
        upstream.assert_polite();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_instance_hears_that_nobody_waits_any_more_when_time_is_over() {
    for (form, how) in [(Form::Json, How::Hang), (Form::Sse, How::HangAfterFirst)] {
        let options = RawOptions { form, ..RawOptions::default() };
        let (_mesh, upstream, urls) = mesh_configured_with("[calls]\ntimeout = \"1s\"\n", options).await;
        upstream.now(how);
        let mut wanted = 0;
        for url in &urls {
            for client in [Client::legacy(url).await, Client::modern(url)] {
                client.call(act(url), json!({})).await.expect_err("nobody answers");
                wanted += 1;
                let said = eventually("the instance hears of it", SOON, || async {
                    upstream.seen("notifications/cancelled").get(wanted - 1).cloned()
                })
                .await;
                let said: Value = serde_json::from_str(&said.body).expect("JSON");
                let call = upstream.seen("tools/call").pop().expect("it was called");
                let call: Value = serde_json::from_str(&call.body).expect("JSON");
                assert_eq!(said["params"]["requestId"], call["id"], "{form:?} {url}");
            }
        }
        upstream.assert_polite();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_client_that_closes_its_response_cancels_nothing() {
    let (_mesh, upstream, [own, _]) = mesh_with(RawOptions::default()).await;
    upstream.now(How::AnswerAfter(Duration::from_millis(300)));
    let client = Arc::new(Client::legacy(&own).await);
    let under_way = begin(&client, "7", json!({"name": "act", "arguments": {}}));
    eventually("the call is there", SOON, || async { (upstream.calls() == 1).then_some(()) }).await;
    under_way.abort();
    client.call("act", json!({})).await.expect("the session goes on");
    assert!(upstream.seen("notifications/cancelled").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_two_clients_with_one_token_stays_apart_at_a_shared_process() {
    let mesh = stdio_mesh(&["one"], "").await;
    for eras in [[Era::Legacy, Era::Legacy], [Era::Modern, Era::Modern], [Era::Legacy, Era::Modern]] {
        let mut under_way = Vec::new();
        for (era, person) in eras.into_iter().zip(["ann", "bob"]) {
            let client = Arc::new(Client::of(era, &mesh.mcp).await);
            let call = json!({"name": "one__pair", "arguments": {"of": person},
                              "_meta": {"progressToken": "mine"}});
            under_way.push((begin(&client, "1", call), person));
        }
        for (stream, person) in under_way {
            let mut stream = stream.await.expect("an answer");
            for done in 1..=3 {
                let said = stream.next_with("notifications/progress").await;
                assert_eq!(said["params"]["progressToken"], "mine", "{said}");
                assert_eq!(said["params"]["message"], person, "{said}");
                assert_eq!(said["params"]["progress"], done, "{said}");
            }
            assert_eq!(stream.answer().await["result"]["content"][0]["text"], person, "{eras:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_has_a_process_of_its_own_where_that_is_configured_and_it_ends_with_the_session() {
    let mesh = stdio_mesh(&["one"], "sessions = \"each\"\n").await;
    let mut pids = Vec::new();
    for url in [own_address(&mesh, "one"), mesh.mcp.clone()] {
        let tool = if url.contains("/servers/") { "pid" } else { "one__pid" };
        let (first, second) = (Client::legacy(&url).await, Client::legacy(&url).await);
        let pid = first.tool_text(tool, json!({})).await;
        assert_eq!(first.tool_text(tool, json!({})).await, pid);
        let other = second.tool_text(tool, json!({})).await;
        assert_ne!(other, pid);
        assert_eq!(first.delete().await, 204);
        eventually("its process ends", SOON, || async { (!is_running(&pid)).then_some(()) }).await;
        assert!(is_running(&other));
        assert_eq!(second.tool_text(tool, json!({})).await, other);
        pids.push(other);
    }
    assert_ne!(pids[0], pids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_clients_have_a_process_of_their_own_than_may() {
    let mesh = stdio_mesh(&["one"], "sessions = \"each\"\nsessions_max = 2\n").await;
    let clients = [Client::legacy(&mesh.mcp).await, Client::legacy(&mesh.mcp).await];
    for client in &clients {
        client.tool_text("one__pid", json!({})).await;
    }
    let third = Client::legacy(&mesh.mcp).await;
    let error = third.call("one__pid", json!({})).await.expect_err("there are two");
    let data = &error["data"];
    assert_eq!(data["code"], "overloaded", "{error}");
    let said = data["detail"].as_str().unwrap_or_default();
    assert!(said.contains("2 client sessions have a process there already"), "{error}");
    assert!(data["hint"].as_str().is_some_and(|hint| hint.contains("`sessions_max`")), "{error}");
    let alone = Client::legacy(&format!("{}/servers/one/mcp", mesh.http)).await;
    for (client, tool) in [(&third, "one__pid"), (&alone, "pid")] {
        let mut refused = client.open("tools/call", &json!({"name": tool, "arguments": {}})).await;
        let answer = refused.answer().await;
        assert_eq!(refused.status, 503, "{tool}: {answer}");
        assert_eq!(refused.headers.get("retry-after").map(|after| after.as_bytes()), Some(&b"1"[..]));
        assert_eq!(answer["error"]["data"]["retry_after_ms"], 1000, "{tool}: {answer}");
    }
    assert_eq!(Client::modern(&mesh.mcp).call("one__pid", json!({})).await.map(|_| ()), Ok(()));
    assert_eq!(clients[0].delete().await, 204);
    eventually("its place is free", SOON, || async { third.call("one__pid", json!({})).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_sessions_end_when_their_service_is_taken_out() {
    let mesh = stdio_mesh(&["one", "two"], "sessions = \"each\"\n").await;
    let clients = [Client::legacy(&mesh.mcp).await, Client::legacy(&mesh.mcp).await];
    let mut pids = Vec::new();
    for client in &clients {
        pids.push(client.tool_text("one__pid", json!({})).await);
    }
    let stays = clients[0].tool_text("two__pid", json!({})).await;
    assert!(pids.iter().all(|pid| is_running(pid)));
    let file = mesh.home.path().join("meshwright.toml");
    let text = std::fs::read_to_string(&file).expect("read the configuration");
    let (head, rest) = text.split_once("[services.one]").expect("it is there");
    let (_, rest) = rest.split_once("[services.two]").expect("it is there");
    std::fs::write(&file, format!("{head}[services.two]{rest}")).expect("write the configuration");
    eventually("their processes end", 2 * SOON, || async {
        (!pids.iter().any(|pid| is_running(pid))).then_some(())
    })
    .await;
    assert_eq!(clients[0].tool_text("two__pid", json!({})).await, stays);
}

/// A shell that does not heed SIGTERM nor the end of its input, with a child of its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_the_proxys_end_however_stubborn_it_is() {
    for sessions in ["shared", "each"] {
        let home = mesh::home("");
        let script = repository().join("tests/fixtures/stdio_server.py");
        let (log, pids) = (home.path().join("lines"), home.path().join("pids"));
        let words = format!(
            "trap '' TERM HUP; echo $$ >> {pids:?}; sleep 600 & echo $! >> {pids:?}; python3 {script:?} {log:?}; sleep 600"
        );
        let config = home.path().join("meshwright.toml");
        let text = std::fs::read_to_string(&config).expect("read the configuration");
        let text = format!(
            "{text}[services.one]\ncommand = \"sh\"\nargs = [\"-c\", {}]\nsessions = \"{sessions}\"\n",
            serde_json::to_string(&words).expect("JSON")
        );
        std::fs::write(&config, text).expect("write the configuration");
        let mut mesh = Mesh::start_in(home, Vec::new()).await;
        until_listed(&mesh, "one__pid").await;
        let client = Client::legacy(&mesh.mcp).await;
        client.tool_text("one__pid", json!({})).await;
        let pids = lines(&pids);
        assert!(pids.len() >= 2 && pids.iter().all(|pid| is_running(pid)), "{pids:?}");
        assert!(mesh.terminate().await.success());
        eventually(&format!("{sessions}: {pids:?} are gone"), SOON, || async {
            (!pids.iter().any(|pid| is_running(pid))).then_some(())
        })
        .await;
    }
}

fn is_running(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_listen_at_the_merged_address_are_told_when_a_service_comes_or_goes() {
    let (mesh, upstream, [_, merged]) = mesh_with(RawOptions::default()).await;
    let legacy = Client::legacy(&merged).await;
    let mut feed = legacy.listen().await;
    assert_eq!(
        (feed.status, &feed.headers["content-type"]),
        (200, &"text/event-stream".parse().expect("a value"))
    );
    let modern = Client::modern(&merged);
    let wish = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut subscription = modern.open_as("\"sub\"", "subscriptions/listen", &wish).await;
    let first = subscription.next().await.expect("an acknowledgement").json();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(first["params"]["notifications"], wish["notifications"], "{first}");
    let of = |message: &Value| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    assert_eq!(of(&first), "sub");

    let spec = json!({"instance_name": "t", "port": upstream.port, "tools": ["new"]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    // Its prompts are asked for behind its registration.
    for list in ["tools", "prompts"] {
        let method = format!("notifications/{list}/list_changed");
        feed.next_with(&method).await;
        let told = subscription.next_with(&method).await;
        assert_eq!(of(&told), "sub", "{told}");
    }
    mesh.api.post("/deregister", &json!({"instance_name": "t"})).await.ok();
    for list in ["tools", "prompts"] {
        let method = format!("notifications/{list}/list_changed");
        feed.next_with(&method).await;
        subscription.next_with(&method).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_a_result_when_the_proxy_ends() {
    let (mut mesh, _upstream, [_, merged]) = mesh_with(RawOptions::default()).await;
    let modern = Client::modern(&merged);
    let wish = json!({"notifications": {"toolsListChanged": true}});
    let mut subscription = modern.open_as("9", "subscriptions/listen", &wish).await;
    subscription.next().await.expect("an acknowledgement");
    let legacy = Client::legacy(&merged).await;
    let mut feed = legacy.listen().await;
    assert!(mesh.terminate().await.success());
    let end = subscription.answer().await;
    assert_eq!((&end["id"], &end["result"]["resultType"]), (&json!(9), &json!("complete")), "{end}");
    while feed.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_an_instance_tells_reach_both_eras_at_its_own_address() {
    let mesh = Mesh::plain().await;
    let instance = Everything::start(&[]);
    mesh.api.join("s", instance.port).await;
    let url = own_address(&mesh, "s");
    for era in ERAS {
        let client = Client::of(era, &url).await;
        let wish = json!({"notifications": {"promptsListChanged": true}});
        let mut stream = match era {
            Era::Legacy => client.listen().await,
            Era::Modern => client.open_as("5", "subscriptions/listen", &wish).await,
        };
        assert_eq!(stream.status, 200, "{era:?}");
        if era == Era::Modern {
            stream.next_with("notifications/subscriptions/acknowledged").await;
        }
        let told = async { stream.next_with("notifications/prompts/list_changed").await };
        let told = tokio::select! {
            told = told => told,
            // Whoever listens may not be heard of at once.
            () = async {
                loop {
                    client.tool_text("test_trigger_prompt_change", json!({})).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            } => unreachable!(),
        };
        let subscription = &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        assert_eq!(era == Era::Modern, subscription == 5, "{told}");
    }
}
