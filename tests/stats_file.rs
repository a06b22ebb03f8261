//! The file that a desktop monitor reads every two seconds: its shape, its freshness and its wholeness.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

fn read(path: &Path) -> Option<Value> {
    let bytes = fs::read(path).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("torn: {error}: {bytes:?}")))
}

/// `2026-02-06T10:30:45.123456+00:00`, with or without the fraction, and never `Z`: what Python 3.7's
/// `datetime.fromisoformat` takes.
fn is_iso_with_offset(text: &str) -> bool {
    let Some((date_time, offset)) = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)) else {
        return false;
    };
    let shaped = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    let seconds = shaped(date_time, "0000-00-00T00:00:00");
    let fraction = ["0000-00-00T00:00:00.000", "0000-00-00T00:00:00.000000"];
    (seconds || fraction.iter().any(|shape| shaped(date_time, shape)))
        && (shaped(offset, "+00:00") || shaped(offset, "-00:00"))
}

#[track_caller]
fn assert_shape(stats: &Value) {
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let mut top = keys(stats);
    top.sort();
    assert_eq!(top, ["last_updated", "services", "total_messages", "total_services"], "{stats}");
    assert!(stats["total_services"].is_u64() && stats["total_messages"].is_u64(), "{stats}");
    assert!(is_iso_with_offset(stats["last_updated"].as_str().expect("a time")), "{stats}");
    for service in stats["services"].as_array().expect("a list") {
        let mut members = keys(service);
        members.sort();
        assert_eq!(members, ["message_count", "name", "registered_at"], "{stats}");
        assert!(is_iso_with_offset(service["registered_at"].as_str().expect("a time")), "{stats}");
        assert!(service["message_count"].is_u64() && service["name"].is_string(), "{stats}");
    }
    assert_eq!(stats["total_services"], stats["services"].as_array().expect("a list").len(), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mesh_has_a_file_with_an_empty_list() {
    let mesh = Mesh::plain().await;
    let path = mesh.stats_file();
    let stats = eventually("the file is there", SOON, || async { read(&path) }).await;
    assert_shape(&stats);
    assert_eq!((&stats["total_services"], &stats["total_messages"]), (&json!(0), &json!(0)));
    assert_eq!(stats["services"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_and_leaving_are_written_at_once() {
    let mesh = Mesh::plain().await;
    let path = mesh.stats_file();
    let upstream = RawUpstream::plain().await;
    for (name, total) in [("ee_monitor", 1), ("another", 2)] {
        let spec = json!({"instance_name": name, "port": upstream.port, "tools": ["act"]});
        assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
        let stats = eventually("it is in the file", Duration::from_millis(250), || async {
            read(&path).filter(|stats| stats["total_services"] == total)
        })
        .await;
        assert_shape(&stats);
        let services = stats["services"].as_array().expect("a list");
        let entry = services.iter().find(|service| service["name"] == name).expect("the service");
        assert_eq!(entry["message_count"], 0);
    }
    mesh.api.post("/deregister", &json!({"instance_name": "another"})).await.ok();
    let stats = eventually("it is out of the file", Duration::from_millis(250), || async {
        read(&path).filter(|stats| stats["total_services"] == 1)
    })
    .await;
    assert_shape(&stats);
    assert_eq!(stats["services"][0]["name"], "ee_monitor");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_service_are_one_entry() {
    let mesh = Mesh::plain().await;
    let path = mesh.stats_file();
    let upstreams = [RawUpstream::plain().await, RawUpstream::plain().await];
    for (number, upstream) in upstreams.iter().enumerate() {
        let spec = json!({"instance_name": format!("w-{number}"), "service": "w", "port": upstream.port, "tools": ["act"]});
        assert_eq!(mesh.api.post("/register", &spec).await.status, 201);
    }
    let stats = eventually("both joined", SOON, || async {
        read(&path).filter(|stats| stats["total_services"] == 1)
    })
    .await;
    assert_eq!(stats["services"][0]["name"], "w");
    let registered_at = stats["services"][0]["registered_at"].clone();
    mesh.api.post("/deregister", &json!({"instance_name": "w-0"})).await.ok();
    mesh.api.call("w", "act", json!({})).await.ok();
    let stats = eventually("the call is counted", SOON, || async {
        read(&path).filter(|stats| stats["total_messages"] == 1)
    })
    .await;
    assert_eq!(stats["total_services"], 1, "one instance is left");
    assert_eq!(stats["services"][0]["registered_at"], registered_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_calls_flow_the_file_is_whole_and_at_most_250_ms_behind() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("busy", upstream.port).await;
    let path = mesh.stats_file();
    let stop = Arc::new(AtomicBool::new(false));
    // A thread of its own, every 2 ms: each read must parse.
    let reader = std::thread::spawn({
        let (path, stop) = (path.clone(), Arc::clone(&stop));
        move || {
            let (mut reads, mut highest, mut changes) = (0_u32, 0, 0_u32);
            while !stop.load(Ordering::Relaxed) {
                let stats = read(&path).expect("the file never disappears");
                assert_shape(&stats);
                let total = stats["total_messages"].as_u64().expect("a number");
                assert!(total >= highest, "the total fell from {highest} to {total}");
                changes += u32::from(total > highest);
                highest = total;
                reads += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            (reads, changes)
        }
    });
    let start = Instant::now();
    let mut worst = Duration::ZERO;
    let mut done = 0_u64;
    while start.elapsed() < Duration::from_secs(4) {
        for _ in 0..25 {
            mesh.api.call("busy", "act", json!({})).await.ok();
            done += 1;
        }
        let answered = Instant::now();
        // Calls go on while the file catches up with what was answered before.
        let flowing = async {
            loop {
                mesh.api.call("busy", "act_read_only", json!({})).await.ok();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let caught_up = eventually("the file caught up", Duration::from_secs(2), || async {
            read(&path).filter(|stats| stats["total_messages"].as_u64() >= Some(done)).map(|_| ())
        });
        tokio::select! { () = caught_up => {}, () = flowing => {} }
        worst = worst.max(answered.elapsed());
        done = mesh.api.stats().await["total_messages"].as_u64().expect("a number");
    }
    stop.store(true, Ordering::Relaxed);
    let (reads, changes) = reader.join().expect("no read was torn");
    assert!(reads > 300 && changes >= 8, "{reads} reads saw {changes} changes");
    // 250 ms are promised; what comes on top is this test's own polling on a busy machine.
    assert!(worst <= Duration::from_millis(350), "the file was {worst:?} behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_survive_a_clean_restart_and_a_service_that_left_keeps_its_own() {
    let mut mesh = Mesh::plain().await;
    let path = mesh.stats_file();
    let upstream = RawUpstream::plain().await;
    for name in ["stays", "leaves"] {
        mesh.api.join(name, upstream.port).await;
    }
    for _ in 0..7 {
        mesh.api.call("stays", "act", json!({})).await.ok();
    }
    for _ in 0..3 {
        mesh.api.call("leaves", "act", json!({})).await.ok();
    }
    mesh.api.post("/deregister", &json!({"instance_name": "leaves"})).await.ok();
    assert!(mesh.terminate().await.success());
    let stats = read(&path).expect("written at shutdown");
    assert_shape(&stats);
    assert_eq!((&stats["total_services"], &stats["total_messages"]), (&json!(1), &json!(10)), "{stats}");
    let registered_at = stats["services"][0]["registered_at"].clone();

    fs::remove_file(&path).expect("remove the view; the database is the truth");
    mesh.restart().await;
    let stats = eventually("the file is there again", SOON, || async { read(&path) }).await;
    assert_eq!((&stats["total_services"], &stats["total_messages"]), (&json!(1), &json!(10)), "{stats}");
    assert_eq!(
        stats["services"][0],
        json!({"name": "stays", "registered_at": registered_at, "message_count": 7})
    );
    mesh.api.join("leaves", upstream.port).await;
    assert_eq!(mesh.api.service("leaves").await["message_count"], 3);
    let stats = mesh.api.stats().await;
    assert_eq!(stats["total_messages"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_lose_at_most_half_a_second_to_sigkill_and_never_count_twice() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let mut least = 0;
    for _ in 0..3 {
        for _ in 0..100 {
            mesh.api.call("s", "act_read_only", json!({})).await.ok();
        }
        let settled = mesh.api.stats().await["total_messages"].as_u64().expect("a number");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let late = Instant::now();
        let mut calls_late = 0;
        while late.elapsed() < Duration::from_millis(100) {
            mesh.api.call("s", "act_read_only", json!({})).await.ok();
            calls_late += 1;
        }
        mesh.kill();
        mesh.restart().await;
        let total = mesh.api.stats().await["total_messages"].as_u64().expect("a number");
        assert!(total >= settled, "{settled} were older than 500 ms, {total} are left");
        assert!(total <= settled + calls_late, "{total} is more than the {} calls", settled + calls_late);
        assert!(total >= least);
        least = total;
        eventually("it is routed to again", SOON, || async {
            (mesh.api.instance("s").await["lease"] == "active").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_file_is_set_aside_and_never_fatal() {
    let home = support::mesh::home("");
    let path = home.path().join("stats.json");
    fs::write(&path, b"{\"total_services\": 2, \"total_mess").expect("write half a file");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    let stats = eventually("a good file is there", SOON, || async {
        let bytes = fs::read(&path).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    })
    .await;
    assert_shape(&stats);
    let aside = fs::read_dir(mesh.home.path()).expect("list").filter_map(Result::ok).find(|entry| {
        entry.path() != path
            && fs::read(entry.path()).is_ok_and(|bytes| bytes == b"{\"total_services\": 2, \"total_mess")
    });
    assert!(aside.is_some(), "the corrupt file was not kept beside the good one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_leaves_no_temporary_files_behind() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    for _ in 0..20 {
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    assert!(mesh.terminate().await.success());
    let names: Vec<_> = fs::read_dir(mesh.home.path())
        .expect("list")
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("stats"))
        .collect();
    assert_eq!(names, ["stats.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_path_disables_the_file() {
    let config = "[stats]\nfile = \"\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    mesh.api.call("s", "act", json!({})).await.ok();
    assert_eq!(mesh.api.stats().await["total_messages"], 1);
    assert!(!mesh.home.path().join(".mm_mesh_stats.json").exists());
    assert!(!mesh.stats_file().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_fails_no_call() {
    let config = "[stats]\nfile = \"/proc/meshwright/stats.json\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    mesh.api.call("s", "act", json!({})).await.ok();
    let log = mesh.log();
    assert!(log.contains("/proc/meshwright/stats.json"), "the log names the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_in_the_home_folder() {
    let home = support::mesh::home("[stats]\n");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    let path = mesh.home.path().join(".mm_mesh_stats.json");
    let stats = eventually("the file is there", SOON, || async { read(&path) }).await;
    assert_shape(&stats);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_view_agrees_with_the_file() {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    for _ in 0..5 {
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    let path = mesh.stats_file();
    let file = eventually("the file caught up", SOON, || async {
        read(&path).filter(|stats| stats["total_messages"] == 5)
    })
    .await;
    let stats = mesh.api.stats().await;
    for member in ["total_services", "total_messages"] {
        assert_eq!(stats[member], file[member]);
    }
    for member in ["name", "registered_at", "message_count"] {
        assert_eq!(stats["services"][0][member], file["services"][0][member], "{member}");
    }
    assert!(is_iso_with_offset(stats["last_updated"].as_str().expect("a time")), "{stats}");
}
