//! What policies may ask of the proxy besides one answer for one call: to be asked less, to plan ahead, and to have
//! calls copied.

mod support;

use std::time::Duration;

use support::raw_upstream::How;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

async fn mesh(config: &str) -> Mesh {
    Mesh::start(MeshOptions { config: config.to_owned(), ..MeshOptions::default() }).await
}

async fn instance(mesh: &Mesh, name: &str, service: &str, zone: &str) -> RawUpstream {
    let upstream = RawUpstream::plain().await;
    let mut spec = json!({"instance_name": name, "service": service, "port": upstream.port, "tools": []});
    if !zone.is_empty() {
        spec["zone"] = json!(zone);
    }
    mesh.api.join_as(spec).await;
    upstream
}

/// `(same, different, failed)` of all copies.
async fn mirrored(mesh: &Mesh) -> (u64, u64, u64) {
    let stats = mesh.api.stats().await;
    let mirrors = stats["mirrors"].as_array().expect("a list").clone();
    let sum = |key: &str| mirrors.iter().map(|mirror: &Value| mirror[key].as_u64().expect("a count")).sum();
    (sum("same"), sum("different"), sum("failed"))
}

const MIRROR: &str = r#"
    [[plugins.tag-router.config.rules]]
    name = "try the next one"
    when = { service = "now" }
    forward = { mirror = { service = "next" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_reading_calls_go_to_the_mirror_and_their_answers_nowhere() {
    let mesh = mesh(MIRROR).await;
    let (now, next) = (instance(&mesh, "a", "now", "").await, instance(&mesh, "b", "next", "").await);
    for n in 0..10 {
        let body = mesh.api.call("now", "act_read_only", json!({"n": n})).await.ok();
        assert_eq!((&body["instance"], &body["why"]), (&json!("a"), &json!("rule `try the next one`")));
        // It may change something: once is enough.
        mesh.api.call("now", "act", json!({"n": n})).await.ok();
    }
    eventually("all copies are compared", SOON, || async {
        (mirrored(&mesh).await == (10, 0, 0)).then_some(())
    })
    .await;
    assert_eq!((now.calls(), next.calls()), (20, 10));
    let copies = next.seen("tools/call");
    assert!(copies.iter().all(|seen| seen.arguments().contains("\"n\"")), "{copies:?}");

    next.now(How::ToolError);
    mesh.api.call("now", "act_read_only", json!({"n": 0})).await.ok();
    eventually("a difference is counted", SOON, || async {
        (mirrored(&mesh).await == (10, 1, 0)).then_some(())
    })
    .await;
    let stats = mesh.api.stats().await;
    let service = |name: &str| {
        let services = stats["services"].as_array().expect("a list");
        services.iter().find(|service| service["name"] == name).expect("it is there")["message_count"].clone()
    };
    assert_eq!((service("now"), service("next")), (json!(21), json!(0)), "nobody called the mirror");
    let metrics = mesh.api.get("/metrics").await;
    let line = r#"meshwright_mirrored_calls_total{service="now",mirror="next",outcome="different"} 1"#;
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

/// Until it is known what both services offer.
async fn listed(mesh: &Mesh) {
    for service in ["now", "next"] {
        eventually(&format!("what `{service}` offers is known"), SOON, || async {
            let tools = mesh.api.service(service).await["tools"].clone();
            tools.as_array().is_some_and(|tools| !tools.is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_may_write_at_the_mirror_is_not_copied_whatever_it_does_at_the_original() {
    let mesh = mesh(&format!("[services.now]\ntools = {{ read_only = [\"act\"] }}\n{MIRROR}")).await;
    let (now, next) = (instance(&mesh, "a", "now", "").await, instance(&mesh, "b", "next", "").await);
    listed(&mesh).await;
    for n in 0..10 {
        mesh.api.call("now", "act", json!({"n": n})).await.ok();
        mesh.api.call("now", "act_read_only", json!({"n": n})).await.ok();
    }
    eventually("all copies are compared", SOON, || async {
        (mirrored(&mesh).await == (10, 0, 0)).then_some(())
    })
    .await;
    assert_eq!((now.calls(), next.calls()), (20, 10));
    let copies = next.seen("tools/call");
    assert!(copies.iter().all(|seen| seen.body.contains("act_read_only")), "{copies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_hidden_at_the_mirror_is_never_copied() {
    let any = MIRROR.replace("service = \"next\" }", "service = \"next\", any_tool = true }");
    let mesh = mesh(&format!("[services.next]\ntools = {{ deny = [\"act_read_only\"] }}\n{any}")).await;
    let (now, next) = (instance(&mesh, "a", "now", "").await, instance(&mesh, "b", "next", "").await);
    listed(&mesh).await;
    for n in 0..10 {
        mesh.api.call("now", "act_read_only", json!({"n": n})).await.ok();
        mesh.api.call("now", "act", json!({"n": n})).await.ok();
    }
    eventually("all copies are compared", SOON, || async {
        (mirrored(&mesh).await == (10, 0, 0)).then_some(())
    })
    .await;
    assert_eq!((now.calls(), next.calls()), (20, 10));
    let copies = next.seen("tools/call");
    assert!(copies.iter().all(|seen| !seen.body.contains("act_read_only")), "{copies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_hangs_or_is_gone_costs_callers_nothing() {
    let mesh = mesh(MIRROR).await;
    let (_now, next) = (instance(&mesh, "a", "now", "").await, instance(&mesh, "b", "next", "").await);
    next.now(How::Hang);
    for n in 0..400 {
        mesh.api.call("now", "act_read_only", json!({"n": n})).await.ok();
    }
    assert!(next.calls() <= 32, "{} copies are under way at once", next.calls());
    eventually("what did not fit is counted", SOON, || async {
        (mesh.api.stats().await["mirrors_dropped"].as_u64()? > 0).then_some(())
    })
    .await;
    mesh.api.post("/deregister", &json!({"instance_name": "b"})).await;
    mesh.api.call("now", "act_read_only", json!({"n": 0})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_picks_are_made_without_asking_the_default_plugins_again() {
    let mesh = mesh("[plugins.zone-balancer.config]\nzone = \"here\"\n").await;
    let (near, far) = (instance(&mesh, "a", "s", "here").await, instance(&mesh, "b", "s", "there").await);
    let asked = |name: &'static str| {
        let api = mesh.api.clone();
        async move {
            let plugin = api.plugin(name).await.expect("a default plugin");
            (plugin["calls"].as_u64().expect("a count"), plugin["reused"].as_u64().expect("a count"))
        }
    };
    eventually("a plan is followed", SOON, || async {
        mesh.api.call("s", "act", json!({})).await.ok();
        (asked("zone-balancer").await.1 > 0).then_some(())
    })
    .await;
    // Both are up for good now, so that nothing changes the catalogue.
    eventually("both are healthy", SOON, || async {
        let service = mesh.api.service("s").await;
        let instances = service["instances"].as_array()?;
        instances.iter().all(|one| one["state"] == "healthy").then_some(())
    })
    .await;
    // A hiccup of the machine makes the own zone dearer for some seconds.
    eventually("the own zone is idle, so it takes 200 calls in a row", 2 * SOON, || async {
        let (calls_before, reused_before) = asked("tag-router").await;
        let (at_home, picks_before) = (near.calls(), asked("zone-balancer").await.1);
        for n in 0..200 {
            mesh.api.call("s", "act", json!({"n": n})).await.ok();
        }
        let (calls, reused) = asked("tag-router").await;
        assert!(reused - reused_before >= 150, "{reused_before} then {reused}");
        assert!(calls - calls_before <= 50, "{calls_before} then {calls}");
        assert!(asked("zone-balancer").await.1 - picks_before >= 190);
        (near.calls() - at_home == 200).then_some(())
    })
    .await;

    // While it is busy, the other zone helps out, once what its first call took has faded (the machine may have been
    // busy then).
    near.now(How::AnswerAfter(Duration::from_millis(200)));
    eventually("the other zone takes three calls of twenty", SOON, || async {
        let before = far.calls();
        let calls = (0..20).map(|n| {
            let api = mesh.api.clone();
            tokio::spawn(async move { api.call("s", "act", json!({"n": n})).await.ok() })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no call failed");
        }
        (far.calls() - before >= 3).then_some(())
    })
    .await;
}
