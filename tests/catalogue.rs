//! What is offered: by whom, to whom, and for how long it is remembered.

mod support;

use support::*;

/// Sends one request to `/mcp` and gives back its result, or its error.
async fn rpc(mesh: &Mesh, method: &str, params: Value) -> Result<Value, Value> {
    Client::modern(&mesh.mcp).ask(method, params).await
}

async fn listed(mesh: &Mesh) -> Vec<String> {
    let result = rpc(mesh, "tools/list", json!({})).await.expect("a list");
    let tools = result["tools"].as_array().expect("tools");
    tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
}

async fn until_listed(mesh: &Mesh, tool: &str) {
    eventually(&format!("`{tool}` is listed"), SOON, || async {
        listed(mesh).await.iter().any(|name| name == tool).then_some(())
    })
    .await;
}

/// Calls one of the proxy's own tools: what it answers, and whether that is an error.
async fn own(mesh: &Mesh, tool: &str, arguments: Value) -> (Value, bool) {
    let result = rpc(mesh, "tools/call", json!({"name": tool, "arguments": arguments})).await;
    let mut result = result.expect("own tools always have a result");
    let text = result["content"][0]["text"].as_str().expect("a text");
    let same: Value = serde_json::from_str(text).expect("the text is JSON");
    assert_eq!(same, result["structuredContent"], "text and structure say the same");
    (result["structuredContent"].take(), result["isError"] == true)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fell_silent_stays_listed_until_it_is_deregistered() {
    let config = "[lease]\nsuspect_after = \"1s\"\nttl = \"2s\"\n";
    let mut mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    let spec = json!({"instance_name": "silent", "port": upstream.port, "tools": []});
    let lease = mesh.api.post("/register", &spec).await.json();
    until_listed(&mesh, "silent__act").await;
    eventually("its lease runs out", 2 * SOON, || async {
        (mesh.api.stats().await["total_services"] == 0).then_some(())
    })
    .await;
    drop(upstream);
    for again in [false, true] {
        if again {
            mesh.kill();
            mesh.restart().await;
        }
        assert!(listed(&mesh).await.iter().any(|name| name == "silent__act"), "restarted: {again}");
        let call = json!({"name": "silent__act", "arguments": {}});
        let error = rpc(&mesh, "tools/call", call).await.expect_err("nobody can answer");
        assert_eq!(error["data"]["code"], "no_instance_available", "{error}");
        let detail = error["data"]["detail"].as_str().expect("a detail");
        assert!(detail.contains("`silent`") && detail.contains("no more heartbeats"), "{detail}");
        let problem = mesh.api.get("/services/silent").await.problem(404, "unknown_service");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("heartbeats")), "{problem}");
    }
    let leave = json!({"instance_name": "silent", "lease_token": lease["lease_token"]});
    mesh.api.post("/deregister", &leave).await.ok();
    assert!(!listed(&mesh).await.iter().any(|name| name == "silent__act"));
    mesh.kill();
    mesh.restart().await;
    assert!(!listed(&mesh).await.iter().any(|name| name == "silent__act"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_leaves_takes_along_only_what_no_other_offers() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let join = |name: &str, tools: Value| {
        let spec = json!({"instance_name": name, "service": "s", "port": upstream.port, "tools": tools});
        let api = mesh.api.clone();
        async move { assert_eq!(api.post("/register", &spec).await.status, 201) }
    };
    join("s1", json!(["both", "one"])).await;
    join("s2", json!(["both", "two"])).await;
    let of_service = || async {
        let names = listed(&mesh).await.into_iter().filter(|name| name.starts_with("s__"));
        names.collect::<Vec<String>>()
    };
    assert_eq!(of_service().await, ["s__both", "s__one", "s__two"]);
    mesh.api.post("/deregister", &json!({"instance_name": "s1"})).await.ok();
    assert_eq!(of_service().await, ["s__both", "s__two"]);
    mesh.api.post("/deregister", &json!({"instance_name": "s2"})).await.ok();
    assert!(of_service().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_resources_are_asked_for_page_by_page() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let info = eventually("all is known", SOON, || async {
        let info = mesh.api.get("/services/s").await.json();
        (info["resources"].as_array()?.len() == 2).then_some(info)
    })
    .await;
    assert_eq!(info["prompts"][0]["name"], "greet");
    assert_eq!(info["resources"][1]["uri"], "raw:///second");
    assert_eq!(info["resource_templates"], json!([]), "the server does not know the method");
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_services_are_probed_filtered_and_belong_to_the_configuration() {
    let upstream = RawUpstream::plain().await;
    let (port, closed) = (upstream.port, raw_upstream::closed_port().await);
    let config = format!(
        "[services.fixed]\nurls = [\"http://127.0.0.1:{port}\", \"http://127.0.0.1:{closed}/mcp\"]\n\
         tools = {{ deny = [\"verb*\"] }}\n\
         [services.child]\ncommand = \"no-such-program\"\nargs = [\"x\"]\n\
         [lease]\nsuspect_after = \"1s\"\nttl = \"2s\"\n"
    );
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    until_listed(&mesh, "fixed__act").await;
    assert!(!listed(&mesh).await.iter().any(|name| name == "fixed__verbatim"));
    mesh.api.call("fixed", "verbatim", json!({})).await.problem(403, "tool_hidden");
    assert_eq!(upstream.calls(), 0);

    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    mesh.api.call("fixed", "act", json!({})).await.ok();
    let info = mesh.api.service("fixed").await;
    let instance = |name: &str| {
        let instances = info["instances"].as_array().expect("instances").iter();
        instances.clone().find(|i| i["instance_name"] == name).expect("the instance").clone()
    };
    assert_eq!(
        (&instance("fixed-1")["state"], &instance("fixed-1")["lease"]),
        (&json!("healthy"), &json!("none"))
    );
    assert_eq!(instance("fixed-2")["state"], "starting", "{info}");
    assert_eq!(mesh.api.instance("child").await["url"], "stdio: no-such-program x");
    mesh.api.call("child", "act", json!({})).await.problem(503, "no_instance_available");

    let spec = json!({"instance_name": "fixed-1", "port": port, "tools": []});
    mesh.api.post("/register", &spec).await.problem(409, "name_taken");
    mesh.api.post("/deregister", &json!({"instance_name": "fixed-1"})).await.problem(409, "name_taken");
    let spec = json!({"instance_name": "third", "service": "fixed", "port": port, "tools": []});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    assert_eq!(mesh.api.service("fixed").await["instances"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxys_own_tools_answer_as_its_pages_do() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let names = listed(&mesh).await;
    let own_names = [
        "list_services",
        "get_service_info",
        "get_service_status",
        "call_service",
        "register_service",
        "deregister_service",
        "heartbeat",
        "find_tools",
    ];
    assert_eq!(names, own_names);

    let spec = json!({"instance_name": "s", "port": upstream.port, "tools": []});
    let (lease, failed) = own(&mesh, "register_service", spec).await;
    assert!(!failed && lease["status"] == "registered", "{lease}");
    until_listed(&mesh, "s__act").await;
    let (beat, failed) = own(&mesh, "heartbeat", json!({"instance_name": "s"})).await;
    assert!(!failed && beat["epoch"] == 1, "{beat}");

    let (list, _) = own(&mesh, "list_services", json!({})).await;
    assert_eq!(list["services"][0]["name"], "s", "{list}");
    let (info, _) = own(&mesh, "get_service_info", json!({"service_name": "s"})).await;
    assert_eq!(info["instances"][0]["instance_name"], "s", "{info}");
    let (status, _) = own(&mesh, "get_service_status", json!({"service_name": "s"})).await;
    assert_eq!(status["available"], true, "{status}");

    let call = json!({"target_instance": "s", "tool_name": "act", "arguments": {"n": 1}});
    let (done, failed) = own(&mesh, "call_service", call).await;
    assert!(!failed && done["service"] == "s" && done["call_id"].is_string(), "{done}");
    assert_eq!(upstream.calls(), 1);
    upstream.now(raw_upstream::How::ToolError);
    let call = json!({"target_instance": "s", "tool_name": "act"});
    let (problem, failed) = own(&mesh, "call_service", call).await;
    assert!(failed && problem["code"] == "tool_error", "{problem}");

    for (tool, arguments, code) in [
        ("get_service_info", json!({"service_name": "nobody"}), "unknown_service"),
        ("get_service_info", json!({}), "invalid_arguments"),
        ("list_services", json!({"status": "tired"}), "invalid_filter"),
        ("call_service", json!({"target_instance": "nobody", "tool_name": "x"}), "unknown_service"),
        ("deregister_service", json!({"instance_name": "s", "lease_token": "0"}), "wrong_lease_token"),
        ("register_service", json!({"instance_name": "x y", "port": 1}), "invalid_registration"),
    ] {
        let (problem, failed) = own(&mesh, tool, arguments).await;
        assert!(failed && problem["code"] == code, "{tool}: {problem}");
    }
    let (gone, failed) = own(&mesh, "deregister_service", json!({"instance_name": "s"})).await;
    assert!(!failed && gone["status"] == "deregistered", "{gone}");
    assert_eq!(listed(&mesh).await, own_names);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_found_by_words_and_called_by_the_names_found() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let tool = json!({"name": "openTicket", "description": "Files a complaint.",
                      "inputSchema": {"type": "object", "properties": {"customer": {}}}});
    let spec = json!({"instance_name": "desk", "port": upstream.port, "tools": [tool, "act"]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    for query in ["ticket", "file complaints", "CUSTOMER\" OR (", "open_ticket"] {
        let (found, failed) = own(&mesh, "find_tools", json!({"query": query, "limit": 1})).await;
        assert!(!failed, "{found}");
        assert_eq!(found["tools"][0]["name"], "desk__openTicket", "{query}: {found}");
        assert_eq!(found["tools"].as_array().map(Vec::len), Some(1));
        assert!(found["tools"][0]["inputSchema"]["properties"]["customer"].is_object());
    }
    let (none, failed) = own(&mesh, "find_tools", json!({"query": "zebra"})).await;
    assert!(!failed && none["tools"] == json!([]), "{none}");
    mesh.api.post("/deregister", &json!({"instance_name": "desk"})).await.ok();
    let (none, _) = own(&mesh, "find_tools", json!({"query": "ticket"})).await;
    assert_eq!(none["tools"], json!([]));
}
