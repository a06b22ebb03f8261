//! Joining, renewing and leaving the mesh over HTTP.

mod support;

use std::time::Duration;

use support::raw_upstream::{RawOptions, closed_port};
use support::{Mesh, MeshOptions, RawUpstream, SOON, eventually, json};

#[tokio::test(flavor = "multi_thread")]
async fn registering_grants_a_lease_and_the_next_call_is_routed() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let answer = mesh
        .api
        .post("/register", &json!({"instance_name": "test_service", "port": upstream.port, "tools": []}))
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    // No waiting in between: what is registered is routable.
    mesh.api.call("test_service", "act", json!({})).await.ok();

    let lease = answer.json();
    assert_eq!(lease["status"], "registered");
    assert_eq!(lease["instance_name"], "test_service");
    assert_eq!(lease["service"], "test_service", "the service defaults to the instance's name");
    assert_eq!(lease["epoch"], 1);
    assert_eq!((&lease["heartbeat_s"], &lease["ttl_s"]), (&json!(30), &json!(120)));
    assert!(!lease["instance_id"].is_null());
    let token = lease["lease_token"].as_str().expect("a token");
    assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_leases_never_share_a_token() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let a = mesh.api.join("a", upstream.port).await;
    let b = mesh.api.join("b", upstream.port).await;
    assert_ne!(a["lease_token"], b["lease_token"]);
    assert_ne!(a["instance_id"], b["instance_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_says_of_itself_is_shown() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api
        .join_as(json!({"instance_name": "worker-1", "service": "workers", "port": upstream.port, "tools": [],
            "tags": ["gpu", "canary"], "zone": "attic", "weight": 250, "pid": 4711, "metadata": {"owner": "Zoë", "n": 1}}))
        .await;
    let instance = mesh.api.instance("workers").await;
    assert_eq!(instance["instance_name"], "worker-1");
    assert_eq!(instance["url"], format!("http://127.0.0.1:{}/mcp", upstream.port));
    assert_eq!(instance["tags"], json!(["gpu", "canary"]), "{instance}");
    assert_eq!(instance["zone"], "attic", "{instance}");
    assert_eq!(instance["weight"], 250, "{instance}");
    assert_eq!(instance["pid"], 4711, "{instance}");
    assert_eq!(instance["metadata"], json!({"owner": "Zoë", "n": 1}), "{instance}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_asked_for_when_none_are_given() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("asked", upstream.port).await;
    let info = mesh.api.service("asked").await;
    let tools = info["tools"].as_array().expect("tools");
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["act", "act_idempotent", "act_read_only", "verbatim"]);
    assert_eq!(tools[0]["inputSchema"]["properties"]["n"]["type"], "number");
    assert_eq!(tools[2]["annotations"]["readOnlyHint"], true);
    upstream.assert_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_may_be_given_as_names_or_whole_objects() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let tool =
        json!({"name": "act", "description": "given", "inputSchema": {"type": "object", "x-own": [1, 2]}});
    let spec = json!({"instance_name": "given", "port": upstream.port, "tools": ["verbatim", tool]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    let info = mesh.api.service("given").await;
    let tools = info["tools"].as_array().expect("tools");
    let find =
        |name: &str| tools.iter().find(|tool| tool["name"] == name).unwrap_or_else(|| panic!("{info}"));
    assert!(find("verbatim")["name"].is_string());
    let shown = find("act");
    assert_eq!(shown["inputSchema"], tool["inputSchema"]);
    assert_eq!(shown["description"], "given");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_endpoint_renews_and_the_epoch_grows() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let first = mesh.api.join("again", upstream.port).await;
    let spec = json!({"instance_name": "again", "port": upstream.port, "tools": []});
    let answer = mesh.api.post("/register", &spec).await;
    let second = answer.ok();
    assert_eq!(second["status"], "renewed");
    assert_eq!(second["epoch"], 2);
    assert_eq!(second["instance_id"], first["instance_id"]);
    assert_eq!(mesh.api.stats().await["total_services"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_cannot_be_taken_from_another_endpoint_while_its_lease_lives() {
    let mesh = Mesh::plain().await;
    let (owner, thief) = (RawUpstream::plain().await, RawUpstream::plain().await);
    mesh.api.join("prize", owner.port).await;
    let spec = json!({"instance_name": "prize", "port": thief.port, "tools": ["act"]});
    let problem = mesh.api.post("/register", &spec).await.problem(409, "name_taken");
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{problem}");
    let with_token =
        json!({"instance_name": "prize", "port": thief.port, "tools": [], "lease_token": "0".repeat(64)});
    mesh.api.post("/register", &with_token).await.problem(403, "wrong_lease_token");

    // Racing does not help.
    let racers = (0..200).map(|_| {
        let (api, spec) = (mesh.api.clone(), spec.clone());
        tokio::spawn(async move { api.post("/register", &spec).await.status })
    });
    for racer in racers.collect::<Vec<_>>() {
        assert_eq!(racer.await.expect("no panic"), 409);
    }
    for _ in 0..20 {
        mesh.api.call("prize", "act", json!({})).await.ok();
    }
    assert_eq!((owner.calls(), thief.calls()), (20, 0));
    assert!(thief.seen("initialize").is_empty(), "the thief was not even asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_the_token_may_move_to_another_endpoint() {
    let mesh = Mesh::plain().await;
    let (old, new) = (RawUpstream::plain().await, RawUpstream::plain().await);
    let lease = mesh.api.join("mover", old.port).await;
    let spec =
        json!({"instance_name": "mover", "port": new.port, "tools": [], "lease_token": lease["lease_token"]});
    let moved = mesh.api.post("/register", &spec).await.ok();
    assert_eq!((&moved["status"], &moved["epoch"]), (&json!("renewed"), &json!(2)));
    for _ in 0..5 {
        mesh.api.call("mover", "act", json!({})).await.ok();
    }
    assert_eq!((old.calls(), new.calls()), (0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_need_a_known_lease_and_no_wrong_token() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let beat = |body| {
        let api = mesh.api.clone();
        async move { api.post("/heartbeat", &body).await }
    };
    let problem = beat(json!({"instance_name": "beating"})).await.problem(410, "lease_gone");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("register")), "{problem}");
    let lease = mesh.api.join("beating", upstream.port).await;
    let token = &lease["lease_token"];
    let good = beat(json!({"instance_name": "beating", "lease_token": token})).await.ok();
    assert_eq!((&good["status"], &good["epoch"]), (&json!("ok"), &json!(1)));
    beat(json!({"instance_name": "beating"})).await.ok();
    let wrong = "f".repeat(64);
    beat(json!({"instance_name": "beating", "lease_token": wrong})).await.problem(403, "wrong_lease_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deregistered_instance_gets_no_call_and_its_service_is_gone() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let leave = |body| {
        let api = mesh.api.clone();
        async move { api.post("/deregister", &body).await }
    };
    leave(json!({"instance_name": "guest"})).await.problem(404, "unknown_instance");
    let lease = mesh.api.join("guest", upstream.port).await;
    let wrong = "f".repeat(64);
    leave(json!({"instance_name": "guest", "lease_token": wrong})).await.problem(403, "wrong_lease_token");
    mesh.api.call("guest", "act", json!({})).await.ok();

    let left = leave(json!({"instance_name": "guest", "lease_token": lease["lease_token"]})).await.ok();
    assert_eq!(left["status"], "deregistered");
    mesh.api.call("guest", "act", json!({})).await.problem(404, "unknown_service");
    assert_eq!(upstream.calls(), 1);
    assert_eq!(mesh.api.stats().await["total_services"], 0);
    leave(json!({"instance_name": "guest"})).await.problem(404, "unknown_instance");
    let token = &lease["lease_token"];
    mesh.api
        .post("/heartbeat", &json!({"instance_name": "guest", "lease_token": token}))
        .await
        .problem(410, "lease_gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_registration_is_refused_with_a_reason_and_changes_nothing() {
    let mesh = Mesh::plain().await;
    let long = "x".repeat(129);
    let wrong = [
        json!({"port": 5000, "tools": []}),
        json!({"instance_name": "", "port": 5000, "tools": []}),
        json!({"instance_name": "a b", "port": 5000, "tools": []}),
        json!({"instance_name": "../../etc", "port": 5000, "tools": []}),
        json!({"instance_name": "line\nbreak", "port": 5000, "tools": []}),
        json!({"instance_name": "\u{202e}evil", "port": 5000, "tools": []}),
        json!({"instance_name": long, "port": 5000, "tools": []}),
        json!({"instance_name": 7, "port": 5000, "tools": []}),
        json!({"instance_name": "a", "tools": []}),
        json!({"instance_name": "a", "port": 0, "tools": []}),
        json!({"instance_name": "a", "port": 65536, "tools": []}),
        json!({"instance_name": "a", "port": -1, "tools": []}),
        json!({"instance_name": "a", "port": "5000", "tools": []}),
        json!({"instance_name": "a", "port": 5000, "tools": "echo"}),
        json!({"instance_name": "a", "port": 5000, "tools": [1]}),
        json!({"instance_name": "a", "port": 5000, "tools": [{"description": "no name"}]}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "service": "a/b"}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "path": "no-slash"}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "host": "ho st"}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "host": "h\r\nx: y"}),
        json!({"instance_name": "a", "url": "ftp://127.0.0.1/mcp", "tools": []}),
        json!({"instance_name": "a", "url": "http://user:secret@127.0.0.1:1/mcp", "tools": []}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "weight": 0}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "weight": -5}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "tags": ["fine", "not fine"]}),
        json!({"instance_name": "a", "port": 5000, "tools": [], "metadata": [1]}),
        json!([1, 2, 3]),
        json!(null),
    ];
    let mut taken = Vec::new();
    for body in wrong {
        let answer = mesh.api.post("/register", &body).await;
        if answer.status == 400 {
            answer.problem(400, "invalid_registration");
        } else {
            taken.push(format!("{} for {body}", answer.status));
        }
    }
    assert!(taken.is_empty(), "not refused: {taken:#?}");
    mesh.api
        .post_text("/register", "{\"instance_name\": \"a\", \"port\"")
        .await
        .problem(400, "invalid_registration");
    assert_eq!(mesh.api.stats().await["total_services"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_stops_beating_is_suspected_then_removed() {
    let config = "[lease]\nsuspect_after = \"1s\"\nttl = \"3s\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let (silent, beating) = (RawUpstream::plain().await, RawUpstream::plain().await);
    let lease = mesh.api.join("silent", silent.port).await;
    assert_eq!(lease["ttl_s"], 3, "the instance is told the configured time");
    let beats = tokio::spawn({
        let api = mesh.api.clone();
        async move {
            loop {
                api.post("/heartbeat", &json!({"instance_name": "beating"})).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    mesh.api.join("beating", beating.port).await;
    eventually("the silent one is suspected", SOON, || async {
        (mesh.api.get("/services/silent").await.json()["instances"][0]["lease"] == "suspect").then_some(())
    })
    .await;
    mesh.api.call("silent", "act", json!({})).await.ok();
    eventually("the silent one is removed", SOON, || async {
        (mesh.api.stats().await["total_services"] == 1).then_some(())
    })
    .await;
    mesh.api.call("silent", "act", json!({})).await.problem(503, "no_instance_available");
    mesh.api.post("/heartbeat", &json!({"instance_name": "silent"})).await.problem(410, "lease_gone");
    mesh.api.call("beating", "act", json!({})).await.ok();

    // The name is free again, also for somebody else.
    mesh.api.join("silent", beating.port).await;
    mesh.api.call("silent", "act", json!({})).await.ok();
    beats.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_registration_survives_sigkill_with_its_lease() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    let spec = json!({"instance_name": "durable-1", "service": "durable", "port": upstream.port, "tools": [],
                      "tags": ["kept"], "zone": "z"});
    let lease = mesh.api.join_as(spec).await;
    let late = RawUpstream::plain().await;
    // Killed right behind the answer: nothing may be left to be written later.
    let spec = json!({"instance_name": "late", "port": late.port, "tools": ["act"]});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    mesh.kill();
    mesh.restart().await;

    for (service, upstream) in [("durable", &upstream), ("late", &late)] {
        eventually(&format!("`{service}` is routed to again"), SOON, || async {
            (mesh.api.call(service, "act", json!({})).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(upstream.calls(), 1);
    }
    let instance = mesh.api.instance("durable").await;
    assert_eq!((&instance["tags"], &instance["zone"]), (&json!(["kept"]), &json!("z")));
    assert_eq!(instance["instance_id"], lease["instance_id"]);
    let beat = json!({"instance_name": "durable-1", "lease_token": lease["lease_token"]});
    assert_eq!(mesh.api.post("/heartbeat", &beat).await.ok()["epoch"], lease["epoch"]);
    let wrong = json!({"instance_name": "durable-1", "lease_token": "0".repeat(64)});
    mesh.api.post("/heartbeat", &wrong).await.problem(403, "wrong_lease_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_instance_that_does_not_answer_is_shown_but_not_routed_to() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("ghost", upstream.port).await;
    let port = upstream.port;
    mesh.kill();
    drop(upstream);
    mesh.restart().await;
    let instance = mesh.api.instance("ghost").await;
    assert_eq!(instance["lease"], "restored", "{instance}");
    let answer = mesh.api.call("ghost", "act", json!({})).await;
    let problem = answer.problem(503, "no_instance_available");
    assert!(answer.header("retry-after").is_some(), "{problem}");

    let back = RawUpstream::start_at(port, RawOptions::default()).await;
    eventually("the instance is probed and routed to", 2 * SOON, || async {
        (mesh.api.call("ghost", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(back.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_does_not_wait_for_an_instance_that_is_not_up_yet() {
    let mesh = Mesh::plain().await;
    let port = closed_port().await;
    let spec = json!({"instance_name": "early", "port": port, "tools": []});
    assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    let answer = mesh.api.call("early", "act", json!({})).await;
    assert!([502, 503].contains(&answer.status), "{}", answer.text());
    let upstream = RawUpstream::start_at(port, RawOptions::default()).await;
    eventually("a call reaches it", 2 * SOON, || async {
        (mesh.api.call("early", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    eventually("its tools are known", 2 * SOON, || async {
        let info = mesh.api.service("early").await;
        (info["tools"].as_array().is_some_and(|tools| tools.len() == 4)).then_some(())
    })
    .await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_listed_filtered_and_reported_one_by_one() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("up", upstream.port).await;
    let listing = mesh.api.get("/services").await.ok();
    let services = listing.as_array().or_else(|| listing["services"].as_array()).expect("a list of services");
    assert_eq!(services.len(), 1, "{listing}");
    assert_eq!(services[0]["name"], "up");
    let status = services[0]["status"].as_str().expect("a status").to_owned();
    let count = |listing: &support::Value| {
        listing.as_array().or_else(|| listing["services"].as_array()).expect("a list").len()
    };
    let same = mesh.api.get(&format!("/services?status={status}")).await.ok();
    assert_eq!(count(&same), 1, "{same}");
    for other in ["degraded", "unavailable"] {
        let none = mesh.api.get(&format!("/services?status={other}")).await.ok();
        assert_eq!(count(&none), 0, "{other}: {none}");
    }
    let report = mesh.api.get("/services/up/status").await.ok();
    assert_eq!(report["service"], "up");
    assert_eq!(report["available"], true);
    for member in ["status", "process_running", "mesh_registration"] {
        assert!(report.get(member).is_some(), "no `{member}`: {report}");
    }
    mesh.api.get("/services?status=tired").await.problem(400, "invalid_filter");
    mesh.api.get("/services/nobody").await.problem(404, "unknown_service");
    mesh.api.get("/services/nobody/status").await.problem(404, "unknown_service");
    let health = mesh.api.get("/health").await.ok();
    assert!(health["status"].is_string(), "{health}");
}

/// A process that is somebody else's; ended with the test.
struct Someones(std::process::Child);

impl Someones {
    fn start() -> Self {
        Self(std::process::Command::new("sleep").arg("600").spawn().expect("start a process"))
    }

    fn end(&mut self) {
        self.0.kill().expect("end it");
        self.0.wait().expect("reap it");
    }
}

impl Drop for Someones {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_of_an_instance_is_watched_and_not_owned() {
    let mesh = Mesh::plain().await;
    let (upstream, leaving) = (RawUpstream::plain().await, RawUpstream::plain().await);
    let (mut replaced, mut gone) = (Someones::start(), Someones::start());
    let spec = |name: &str, port: u16, process: &Someones| {
        let pid = process.0.id();
        json!({"instance_name": name, "port": port, "tools": [], "pid": pid})
    };
    mesh.api.join_as(spec("replaced", upstream.port, &replaced)).await;
    mesh.api.join_as(spec("gone", leaving.port, &gone)).await;
    for name in ["replaced", "gone"] {
        mesh.api.call(name, "act", json!({})).await.ok();
    }
    let ended = async |name: &str| {
        let says = |line: &&str| line.contains("the process of an instance ended") && line.contains(name);
        eventually("its end is seen", SOON, || async { mesh.log().lines().find(says).map(drop) }).await;
    };

    let pid = gone.0.id();
    gone.end();
    ended("gone").await;
    // An answer that was under way when it ended, as it were: it does not make up for the process.
    drop(leaving);
    let seen = eventually("it is known that nobody is there in its place", SOON, || async {
        let seen = mesh.api.instance("gone").await;
        (seen["state"] == "dead").then_some(seen)
    })
    .await;
    assert_eq!(seen["reason"], format!("its process {pid} ended"), "{seen}");

    replaced.end();
    ended("replaced").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = mesh.api.instance("replaced").await;
    assert_eq!(seen["state"], "healthy", "who answers lives, be it as another process: {seen}");

    let mut kept = Someones::start();
    let lease = mesh.api.join_as(spec("kept", upstream.port, &kept)).await;
    let leaving = json!({"instance_name": "kept", "lease_token": lease["lease_token"]});
    mesh.api.post("/deregister", &leaving).await.ok();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(kept.0.try_wait().expect("look at it").is_none(), "it is not the proxy's to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_mesh_has_a_status_that_says_so() {
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    let config = "[lease]\nsuspect_after = \"2s\"\nttl = \"4s\"\n\
                  [services.skipped]\ncommand = \"no-such-program\"\n\
                  [services.wrong]\nurl = \"http://127.0.0.1:1/mcp\"\nconcurrency = \"many\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.to_owned(), ..MeshOptions::default() }).await;
    mesh.api.join("silent", upstreams[0].port).await;
    let grant = mesh.api.join("well", upstreams[1].port).await;
    let beat = json!({"instance_name": "well", "lease_token": grant["lease_token"]});
    let status = async |name: &str| mesh.api.get(&format!("/services/{name}/status")).await.ok();
    eventually("one expires, one is skipped", 2 * SOON, || async {
        mesh.api.post("/heartbeat", &beat).await.ok();
        let (silent, skipped) = (status("silent").await, status("skipped").await);
        let skips = skipped["reason"].as_str().is_some_and(|reason| reason.contains("skipped"));
        (silent["mesh_registration"] == false && skips).then_some(())
    })
    .await;
    mesh.api.post("/heartbeat", &beat).await.ok();
    let report = mesh.api.get("/api/v1/status").await.ok();
    let items = report["items"].as_array().expect("items");
    let names: Vec<&str> = items.iter().filter_map(|item| item["service"].as_str()).collect();
    assert_eq!(names, ["silent", "skipped", "well", "wrong"], "{report}");
    for (item, words) in items.iter().zip(["no more heartbeats", "no-such-program", "", "services.wrong"]) {
        let is_well = item["service"] == "well";
        assert_eq!(
            (&item["available"], &item["mesh_registration"]),
            (&json!(is_well), &json!(is_well)),
            "{item}"
        );
        assert_eq!(item["status"] == "unavailable", !is_well, "{item}");
        assert!(item.get("process_running").is_some(), "{item}");
        assert!(item["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{words}: {item}");
    }
    let wrong = status("wrong").await;
    assert!(wrong["reason"].as_str().is_some_and(|reason| reason.starts_with("left out of")), "{wrong}");
}
