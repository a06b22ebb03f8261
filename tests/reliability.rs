//! How reliable instances and services were: counted, shown, and kept across restarts.

mod support;

use std::time::Duration;

use support::raw_upstream::How;
use support::*;

async fn reliability(mesh: &Mesh) -> Value {
    mesh.api.get("/services/s/status").await.ok()["reliability"].clone()
}

fn number(reliability: &Value, key: &str) -> f64 {
    reliability[key].as_f64().unwrap_or_else(|| panic!("no {key}: {reliability}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_service_is_shown_and_outlives_a_restart() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    // It is looked at each second, and counted from the second look on.
    eventually("it was watched", SOON, || async {
        reliability(&mesh).await["watched_s"].as_u64().filter(|s| *s >= 2)
    })
    .await;
    let seen = reliability(&mesh).await;
    assert!(number(&seen, "availability_percent") > 99.0, "{seen}");
    assert!(number(&seen, "availability_day_percent") > 99.0, "{seen}");
    assert!(number(&seen, "probes") >= 1.0 && number(&seen, "probe_success_percent") > 99.0, "{seen}");

    upstream.now(How::Reset);
    for failed in 1..=3 {
        mesh.api.call("s", "act", json!({})).await.problem(502, "outcome_unknown");
        assert_eq!(number(&reliability(&mesh).await, "consecutive_errors"), f64::from(failed));
    }
    upstream.now(How::Answer);
    assert_eq!(mesh.api.call("s", "act", json!({})).await.status, 200);
    let seen = reliability(&mesh).await;
    assert_eq!(number(&seen, "consecutive_errors"), 0.0);
    let latency_us = number(&seen, "ewma_us");
    assert!(latency_us > 0.0, "{seen}");
    upstream.now(How::Reset);
    for _ in 0..5 {
        mesh.api.call("s", "act", json!({})).await.problem(502, "outcome_unknown");
    }
    assert_eq!(number(&reliability(&mesh).await, "breaker_trips"), 1.0);
    upstream.now(How::Answer);

    // While nobody may call it, it is not available.
    mesh.api.post("/api/v1/instances/s/drain", &json!({})).await.ok();
    let down = eventually("that is counted", SOON, || async {
        let seen = reliability(&mesh).await;
        (number(&seen, "availability_percent") < 90.0).then_some(seen)
    })
    .await;
    let scraped = mesh.api.get("/metrics").await;
    for line in [
        r#"meshwright_service_availability_ratio{service="s",window="24h"} 0."#,
        r#"meshwright_instance_availability_ratio{service="s",instance="s",window="ever"} 0."#,
        r#"meshwright_instance_consecutive_errors{service="s",instance="s"} 5"#,
        r#"meshwright_instance_breaker_trips_total{service="s",instance="s"} 1"#,
        r#"meshwright_instance_probes_good_total{service="s",instance="s"} "#,
    ] {
        assert!(scraped.text().contains(line), "{line}: {}", scraped.text());
    }

    assert!(mesh.terminate().await.success());
    tokio::time::sleep(Duration::from_secs(2)).await;
    mesh.restart().await;
    let kept = reliability(&mesh).await;
    assert!(number(&kept, "watched_s") >= number(&down, "watched_s"), "{kept}, before {down}");
    assert!(
        number(&kept, "watched_s") <= number(&down, "watched_s") + 8.0,
        "nobody watched while it was away"
    );
    assert!(number(&kept, "availability_percent") < 90.0, "{kept}");
    assert_eq!(number(&down, "ewma_us"), latency_us, "it does not fade while nobody is answered");
    assert_eq!(number(&kept, "ewma_us"), latency_us, "nor with a restart");
    assert!(number(&kept, "probes") >= number(&down, "probes"), "{kept}");
    assert_eq!((number(&kept, "consecutive_errors"), number(&kept, "breaker_trips")), (5.0, 1.0));
    let listed = mesh.api.get("/services").await.ok();
    assert_eq!(listed["services"][0]["reliability"]["breaker_trips"], 1, "{listed}");
    assert_eq!(mesh.api.instance("s").await["reliability"]["breaker_trips"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_instance_of_the_configuration_outlives_restarts_and_reloads() {
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    let file = |upstream: &RawUpstream| {
        format!("[stats]\nfile = \"\"\n[services.s]\nurl = \"http://127.0.0.1:{}/mcp\"\n", upstream.port)
    };
    let mut mesh = Mesh::start(MeshOptions { config: file(&upstreams[0]), ..MeshOptions::default() }).await;
    let answers = async |mesh: &Mesh| {
        eventually("it answers", SOON, || async {
            (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
        })
        .await;
    };
    for _ in 0..5 {
        answers(&mesh).await;
    }
    eventually("it was probed", SOON, || async {
        reliability(&mesh).await["probes"].as_u64().filter(|probes| *probes >= 1)
    })
    .await;
    let known = async |mesh: &Mesh| {
        let instance = mesh.api.instance("s").await;
        let messages = instance["counts"]["messages"].as_u64().expect("a number");
        (messages, number(&instance["reliability"], "probes"))
    };

    let before = known(&mesh).await;
    assert!(before.0 >= 5, "{before:?}");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    let kept = known(&mesh).await;
    assert!(kept.0 == before.0 && kept.1 >= before.1, "{kept:?}, before {before:?}");

    answers(&mesh).await;
    let before = known(&mesh).await;
    std::fs::write(mesh.home.path().join("meshwright.toml"), file(&upstreams[1])).expect("write");
    mesh.api.post("/api/v1/config/reloads", &json!({})).await.ok();
    let url = format!("http://127.0.0.1:{}/mcp", upstreams[1].port);
    eventually("it is at another place", SOON, || async {
        (mesh.api.instance("s").await["url"] == url.as_str()).then_some(())
    })
    .await;
    let kept = known(&mesh).await;
    assert!(kept.0 == before.0 && kept.1 >= before.1, "{kept:?}, before {before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_instance_that_leaves_the_configuration_is_forgotten() {
    let upstream = RawUpstream::plain().await;
    let service = |name| format!("[services.{name}]\nurl = \"http://127.0.0.1:{}/mcp\"\n", upstream.port);
    let head = "[stats]\nfile = \"\"\n";
    let (both, one) = (head.to_owned() + &service("s") + &service("t"), head.to_owned() + &service("t"));
    let mut mesh = Mesh::start(MeshOptions { config: both.clone(), ..MeshOptions::default() }).await;
    let config = mesh.home.path().join("meshwright.toml");
    let database = mesh.data_dir().join("meshwright.db");
    let messages = async |mesh: &Mesh| mesh.api.instance("s").await["counts"]["messages"].clone();
    let are_kept = |calls: i64| {
        let database = rusqlite::Connection::open(&database).expect("open it");
        let one = |read: &str| database.query_row(read, [], |row| row.get::<_, i64>(0)).expect("read it");
        let counted = one("SELECT coalesce(sum(messages), -1) FROM figures WHERE instance = 's-1'");
        let probed = one("SELECT count(*) FROM reliability WHERE kind = 'instance' AND name = 's-1'");
        if calls < 0 { (counted, probed) == (-1, 0) } else { counted == calls && probed == 1 }
    };
    let until_kept = async |calls: i64| {
        eventually(&format!("{calls} calls are kept, if any"), 2 * SOON, || async {
            are_kept(calls).then_some(())
        })
        .await;
    };
    let call = async |mesh: &Mesh| {
        let before = messages(mesh).await.as_i64().expect("a number");
        eventually("it answers", SOON, || async {
            (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
        })
        .await;
        let after = messages(mesh).await.as_i64().expect("a number");
        assert!(after > before, "{after}, before {before}");
        after
    };

    let calls = call(&mesh).await;
    until_kept(calls).await;
    std::fs::write(&config, &one).expect("write the configuration");
    mesh.api.post("/api/v1/config/reloads", &json!({})).await.ok();
    until_kept(-1).await;
    // It is new whenever it comes back: now, or at a start.
    std::fs::write(&config, &both).expect("write the configuration");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    assert_eq!(messages(&mesh).await, 0);

    let calls = call(&mesh).await;
    until_kept(calls).await;
    std::fs::write(&config, &one).expect("write the configuration");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    until_kept(-1).await;
    std::fs::write(&config, &both).expect("write the configuration");
    mesh.api.post("/api/v1/config/reloads", &json!({})).await.ok();
    let counted = eventually("it is back", SOON, || async {
        mesh.api.get("/services/s").await.json()["instances"][0]["counts"]["messages"].as_i64()
    })
    .await;
    assert_eq!(counted, 0);
}
