//! The proxy stands still, or the clock of the machine is set: nothing ends that was well.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::children::Book;
use crate::support::{
    Client, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json, repository, target_dir,
};

/// Longer than a lease, a call, and an idle connection of a client's.
const STOPPED: Duration = Duration::from_secs(130);
const DAY_S: i64 = 24 * 3600;

struct Scene {
    mesh: Mesh,
    _upstream: RawUpstream,
    client: Client,
    book: Book,
}

/// An instance that registered and says nothing more, a child that has just begun to start, and a client's session.
async fn scene(env: Vec<(String, String)>) -> Scene {
    let book = Book::new();
    let config = book.service("slow", &["slow"], "");
    let mesh = Mesh::start(MeshOptions { config, env, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    let body = json!({"instance_name": "quiet", "port": upstream.port, "tools": []});
    assert_eq!(mesh.api.post("/register", &body).await.status, 201);
    eventually("it is introspected", SOON, || async {
        let instance = mesh.api.instance("quiet").await;
        (instance["state"] == "healthy").then_some(())
    })
    .await;
    let client = Client::legacy(&format!("{}/servers/quiet/mcp", mesh.http)).await;
    Scene { mesh, _upstream: upstream, client, book }
}

impl Scene {
    /// Whether everything is as it was.
    async fn is_well(&self, when: &str) {
        let answer = self.mesh.api.call("quiet", "act", json!({})).await;
        assert_eq!(answer.status, 200, "{when}: {}", answer.text());
        let instance = self.mesh.api.instance("quiet").await;
        assert_eq!(
            (&instance["state"], &instance["lease"]),
            (&json!("healthy"), &json!("active")),
            "{when}: {instance}"
        );
        let alerts = self.mesh.api.get("/api/v1/alerts").await.ok();
        assert_eq!(firing(&alerts), Vec::<&Value>::new(), "{when}");
        assert_eq!(self.client.tools().await.len(), 4, "{when}");
    }

    /// The child that was starting came up, at its first attempt.
    async fn child_came_up(&self) {
        let process = eventually("the child is ready", 2 * SOON, || async {
            let listing = self.mesh.api.get("/api/v1/processes").await.ok();
            let process = listing["items"][0].clone();
            (process["state"] == "ready").then_some(process)
        })
        .await;
        assert_eq!((&process["restarts"], self.book.pids("slow").len()), (&json!(0), 1), "{process}");
    }
}

fn firing(alerts: &Value) -> Vec<&Value> {
    let items = alerts["items"].as_array().expect("items");
    items.iter().filter(|alert| alert["state"] == "firing").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_stood_still_ends_nothing() {
    let scene = scene(Vec::new()).await;
    scene.is_well("before").await;
    scene.mesh.signal(Signal::STOP);
    tokio::time::sleep(STOPPED).await;
    scene.mesh.signal(Signal::CONT);
    scene.is_well("at once").await;
    // Everything that looks each second or each ten has looked.
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.is_well("later").await;
    scene.child_came_up().await;
}

/// A library that adds seconds to the wall clock, as many as stand in a file.
fn shim() -> PathBuf {
    let (source, built) =
        (repository().join("tests/fixtures/wall_clock.c"), target_dir().join("wall_clock.so"));
    let built_now = built.with_extension(format!("{}.so", std::process::id()));
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&built_now).arg(source).status();
    assert!(status.expect("there is a C compiler, as for SQLite").success());
    std::fs::rename(built_now, &built).expect("put it in its place");
    built
}

fn set(offset: &Path, seconds: i64) {
    // In place: the file is mapped into the proxy.
    let file =
        File::options().create(true).truncate(false).write(true).open(offset).expect("open the offset");
    file.write_all_at(&seconds.to_ne_bytes(), 0).expect("write the offset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let offset = folder.path().join("offset");
    set(&offset, 0);
    let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
    let env = vec![("LD_PRELOAD".to_owned(), text(&shim())), ("WALL_CLOCK_OFFSET".to_owned(), text(&offset))];
    let mut scene = scene(env).await;
    scene.is_well("before").await;
    let began = wall_of(&scene.mesh).await;
    for (days, when) in [(2, "two days later"), (-400, "a year earlier"), (0, "back again")] {
        set(&offset, days * DAY_S);
        // Everything that looks each second or each ten has looked.
        tokio::time::sleep(Duration::from_secs(12)).await;
        scene.is_well(when).await;
        let moved = wall_of(&scene.mesh).await - began;
        assert!((moved - days * DAY_S).abs() < 600, "{when}: its clock moved by {moved} s");
    }
    scene.child_came_up().await;
    // What was kept is taken up again whatever the clock says.
    assert!(scene.mesh.terminate().await.success());
    set(&offset, 2 * DAY_S);
    scene.mesh.restart().await;
    eventually("the instance is back", 2 * SOON, || async {
        let instance = scene.mesh.api.instance("quiet").await;
        (instance["state"] == "healthy").then_some(())
    })
    .await;
}

/// Seconds since 1970, as the proxy sees it.
async fn wall_of(mesh: &Mesh) -> i64 {
    let stats = mesh.api.stats().await;
    let at = stats["last_updated"].as_str().expect("a time");
    at.parse::<jiff::Timestamp>().expect("ISO 8601").as_second()
}
