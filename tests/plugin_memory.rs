//! What plugins remember: across generations, removal, SIGKILL and restarts, and whatever the disk does.

mod support;

use std::fs;
use std::time::Duration;

use support::guests::{drop_in, misbehaver};
use support::raw_upstream::RawOptions;
use support::{Mesh, RawUpstream, SOON, eventually, json};

const FILE: &str = "memory.wasm";
/// The contract says that the last second may be lost.
const SECOND: Duration = Duration::from_secs(1);

/// What the plugin says about a call: how many there were, ever and in the last 3 s.
async fn call(mesh: &Mesh) -> String {
    let answer = mesh.api.call("s", "act", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["why"].as_str().expect("a word of the plugin").to_owned()
}

async fn in_force(mesh: &Mesh, version: &str) {
    drop_in(&mesh.plugins_dir(), FILE, &misbehaver("remember", "memory", version));
    eventually(&format!("{version} is in force"), SOON, || async {
        mesh.api.plugin("memory").await.filter(|plugin| plugin["version"] == version).map(drop)
    })
    .await;
}

/// Starts the proxy again, and waits until the restored instance has been probed.
async fn again(mesh: &mut Mesh) {
    mesh.restart().await;
    eventually("the instance is back", SOON, || async {
        let service = mesh.api.service("s").await;
        (service["instances"][0]["state"] == "healthy").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_remembers_outlives_generations_removal_sigkill_and_restarts() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    in_force(&mesh, "1.0.0").await;
    assert_eq!(call(&mesh).await, "call 1, 1 of late");
    in_force(&mesh, "1.0.1").await;
    assert_eq!(call(&mesh).await, "call 2, 2 of late");
    tokio::time::sleep(SECOND).await;
    mesh.kill();
    tokio::time::sleep(2 * SECOND).await;
    again(&mut mesh).await;
    assert_eq!(call(&mesh).await, "call 3, 1 of late", "three seconds are over, also while nobody ran");

    // A clean stop loses nothing, not even of the last moment.
    assert_eq!(call(&mesh).await, "call 4, 2 of late");
    assert!(mesh.terminate().await.success());
    fs::remove_file(mesh.plugins_dir().join(FILE)).expect("take it away");
    mesh.restart().await;
    assert_eq!(mesh.api.plugin("memory").await, None);
    assert!(mesh.terminate().await.success());
    again(&mut mesh).await;
    in_force(&mesh, "1.0.2").await;
    assert!(call(&mesh).await.starts_with("call 5, "), "its memory waited for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_costs_only_what_would_have_been_kept() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    in_force(&mesh, "1.0.0").await;
    assert_eq!(call(&mesh).await, "call 1, 1 of late");
    tokio::time::sleep(SECOND).await;

    // Held by another writer for longer than ours waits.
    let database = rusqlite::Connection::open(mesh.data_dir().join("meshwright.db")).expect("open it");
    database.execute_batch("BEGIN IMMEDIATE").expect("hold it");
    assert!(call(&mesh).await.starts_with("call 2, "));
    eventually("the failure shows", 3 * SOON, || async {
        let health = mesh.api.get("/health").await.ok();
        (health["persistence_degraded"] == true).then_some(())
    })
    .await;
    assert!(call(&mesh).await.starts_with("call 3, "), "calls and memories go on");
    database.execute_batch("ROLLBACK").expect("let go of it");
    eventually("what failed is written after all", 3 * SOON, || async {
        let read = "SELECT value FROM memos WHERE plugin = 'memory' AND key = 'calls'";
        let value: Option<Vec<u8>> = database.query_row(read, [], |row| row.get(0)).ok();
        (value.as_deref() == Some(b"3")).then_some(())
    })
    .await;
    mesh.kill();
    again(&mut mesh).await;
    assert!(call(&mesh).await.starts_with("call 4, "));
}
