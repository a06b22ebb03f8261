//! What changes by itself is an event, with its reason, and alerters hear of it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::children::{Book, alert, until};
use support::guests::component;
use support::raw_upstream::{How, RawOptions};
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

/// The first event of a kind about a service whose detail begins so.
async fn heard(mesh: &Mesh, kind: &str, (label, of): (&str, &str), begins: &str) -> Value {
    eventually(&format!("`{kind}` of `{of}`: {begins}"), 3 * SOON, || async {
        let alerts = mesh.api.get("/api/v1/alerts").await.ok();
        let items = alerts["items"].as_array().expect("items").clone();
        items.into_iter().find(|alert| {
            let labels = &alert["labels"];
            let detail = labels["detail"].as_str().unwrap_or_default();
            alert["rule"] == kind && labels[label] == of && detail.starts_with(begins)
        })
    })
    .await
}

async fn panics(mesh: &Mesh, number: u8) {
    let line = format!("meshwright_service_panic{{service=\"s\"}} {number}");
    eventually(&line, 3 * SOON, || async {
        mesh.api.get("/metrics").await.text().contains(&line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn breakers_and_panics_are_events_with_reasons_and_a_panic_is_an_alert() {
    let options = RawOptions { sessions: false, ..RawOptions::default() };
    let start = || RawUpstream::start(options);
    let upstreams = [start().await, start().await, start().await];
    let urls = upstreams.each_ref().map(|upstream| format!("http://127.0.0.1:{}/mcp", upstream.port));
    let config = format!("[services.s]\nurls = {urls:?}\n");
    let plugins = vec![("herald.wasm".to_owned(), component("herald"))];
    let mesh = Mesh::start(MeshOptions { config, plugins, ..MeshOptions::default() }).await;
    eventually("all are healthy", SOON, || async {
        (mesh.api.get("/services/s/status").await.ok()["status"] == "healthy").then_some(())
    })
    .await;
    panics(&mesh, 0).await;

    upstreams[..2].iter().for_each(|upstream| upstream.now(How::Status(500)));
    let stop = Arc::new(AtomicBool::new(false));
    let calling = tokio::spawn({
        let (api, stop) = (mesh.api.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                api.call("s", "act_read_only", json!({})).await;
            }
        }
    });
    for instance in ["s-1", "s-2"] {
        let of = ("instance", instance);
        heard(&mesh, "breaker_state", of, "open: ").await;
        heard(&mesh, "breaker_state", of, "half_open: a trial call was sent").await;
        heard(&mesh, "breaker_state", of, "open: the trial call failed; the next trial in ").await;
    }
    panics(&mesh, 1).await;
    heard(&mesh, "service_panic", ("service", "s"), "1 of 3 instances are available").await;
    let service = mesh.api.service("s").await;
    assert_eq!(service["status"], "degraded", "{service}");
    let reason = service["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("1 of 3 instances are available"), "{reason}");
    let raised =
        eventually("an alert is raised", 6 * SOON, || async { alert(&mesh, "service-panic").await }).await;
    assert_eq!((&raised["plugin"], &raised["labels"]), (&json!("meshwright"), &json!({"service": "s"})));

    upstreams.iter().for_each(|upstream| upstream.now(How::Answer));
    for instance in ["s-1", "s-2"] {
        heard(&mesh, "breaker_state", ("instance", instance), "closed: the trial call was answered").await;
    }
    panics(&mesh, 0).await;
    heard(&mesh, "service_panic", ("service", "s"), "over: ").await;
    eventually("the alert is resolved", 6 * SOON, || async {
        alert(&mesh, "service-panic").await.is_none().then_some(())
    })
    .await;
    let shown = mesh.api.service("s").await["instances"][0].clone();
    assert_eq!(shown["breaker_reason"], "the trial call was answered", "{shown}");
    stop.store(true, Ordering::Relaxed);
    calling.await.expect("calls were answered somehow");
}

/// An event about an instance whose detail has these words.
async fn said(mesh: &Mesh, instance: &str, words: &str) -> Value {
    eventually(&format!("of `{instance}`: {words}"), 3 * SOON, || async {
        let alerts = mesh.api.get("/api/v1/alerts").await.ok();
        let items = alerts["items"].as_array().expect("items").clone();
        items.into_iter().find(|alert| {
            let labels = &alert["labels"];
            let detail = labels["detail"].as_str().unwrap_or_default();
            alert["rule"] == "instance_state" && labels["instance"] == instance && detail.contains(words)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_first_probes_and_what_is_needed_are_events_with_reasons() {
    let book = Book::new();
    let (seen, leased) = (RawUpstream::plain().await, RawUpstream::plain().await);
    let url = format!("http://127.0.0.1:{}/mcp", seen.port);
    let needy = book.service("needy", &[], "depends_on = [\"seen\"]");
    let config = format!(
        "[lease]\nsuspect_after = \"1s\"\nttl = \"300s\"\n[health]\nprobe_every = \"1s\"\nprobe_timeout = \"500ms\"\n[services.seen]\nurl = {url:?}\n{needy}"
    );
    let plugins = vec![("herald.wasm".to_owned(), component("herald"))];
    let mesh = Mesh::start(MeshOptions { config, plugins, ..MeshOptions::default() }).await;
    eventually("the herald is in force", 4 * SOON, || async {
        mesh.api.plugin("herald").await.filter(|plugin| plugin["state"] == "loaded").map(drop)
    })
    .await;

    said(&mesh, "seen-1", ": it answered its first probe").await;

    let grant = mesh.api.join("leased", leased.port).await;
    said(&mesh, "leased", "suspect: no heartbeat for ").await;
    let beat = json!({"instance_name": "leased", "lease_token": grant["lease_token"]});
    mesh.api.post("/heartbeat", &beat).await.ok();
    said(&mesh, "leased", "active: a heartbeat came again, after ").await;

    until(&mesh, "needy", "ready").await;
    mesh.api.post("/api/v1/instances/seen-1/drain", &json!({})).await.ok();
    said(&mesh, "needy", "degraded: it needs `seen`, of which no instance is available").await;
    mesh.api.post("/api/v1/instances/seen-1/undrain", &json!({})).await.ok();
    said(&mesh, "needy", "ready: what it needs is back").await;
}
