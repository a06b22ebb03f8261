//! What a plugin crashes on is skipped, and can be asked again afterwards.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::guests::{component, contrarian, drop_in, misbehaver, misbehaver_only, sha256};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

const SECRET: &str = "correct-horse-battery";

/// A mesh with the service `s` and the plugin `watch`.
async fn scene(config: &str, watch: Vec<u8>) -> (Mesh, RawUpstream) {
    let plugins =
        vec![("watch.wasm".to_owned(), watch), ("watch.toml".to_owned(), b"mood = \"calm\"\n".to_vec())];
    let mesh = Mesh::start(MeshOptions { config: config.into(), plugins, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    (mesh, upstream)
}

fn cli(mesh: &Mesh, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .env("HOME", mesh.home.path())
        .current_dir(mesh.home.path())
        .stdin(Stdio::null())
        .args(args)
        .output()
        .expect("run the command");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

/// Asks the component what the capsule says.
fn replay(mesh: &Mesh, component: &[u8], capsule: &Path) -> (i32, String, String) {
    fs::write(mesh.home.path().join("new.wasm"), component).expect("write the component");
    cli(mesh, &["plugin", "test", "new.wasm", "--capsule", capsule.to_str().expect("Unicode")])
}

/// The capsule of `plugin`, once it is written.
async fn capsule(mesh: &Mesh, plugin: &str) -> PathBuf {
    let file = eventually("a capsule is written", SOON, || async {
        mesh.api.plugin(plugin).await?["capsule"].as_str().map(str::to_owned)
    })
    .await;
    mesh.data_dir().join("capsules").join(file)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read the capsule")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_on_which_a_router_crashes_is_skipped_and_all_others_are_decided_by_it() {
    let (mesh, upstream) = scene("", misbehaver_only("trap-or-answer", "watch", "1.0.0", "act")).await;
    let mut last = None;
    for _ in 0..50 {
        let body = mesh.api.call("s", "act", json!({})).await.ok();
        assert_eq!(body.get("routed_by"), None, "{body}");
        last = body["call_id"].as_str().map(str::to_owned);
    }
    assert_eq!(upstream.calls(), 50);
    let decided = eventually("the instance that trapped is replaced", SOON, || async {
        let body = mesh.api.call("s", "act_read_only", json!({})).await.ok();
        (body["routed_by"] == "watch 1.0.0 #1").then_some(())
    });
    decided.await;

    let plugin = mesh.api.plugin("watch").await.expect("listed");
    assert_eq!((&plugin["state"], &plugin["faults"]), (&json!("loaded"), &json!(2)), "{plugin}");
    let skipped = plugin["skipped"].as_u64().expect("a number");
    // Calls that came while an instance was replaced were not asked about either.
    assert!((1..=48).contains(&skipped), "{plugin}");
    let (log, metrics) = (mesh.log(), mesh.api.get("/metrics").await);
    assert!(log.contains("plugin is not asked about such calls") && !log.contains("quarantined"), "{log}");
    let wanted = format!("meshwright_plugin_skipped_total{{plugin=\"watch\"}} {skipped}");
    assert!(metrics.text().contains(&wanted), "no {wanted} in\n{}", metrics.text());

    let id = last.expect("the last call has an id");
    let call = mesh.api.get(&format!("/api/v1/calls/{id}")).await.ok();
    let router = &call["routers"][0];
    assert_eq!(
        (&router["plugin"], &router["fate"], &router["verdict"]),
        (&json!("watch"), &json!("skipped"), &Value::Null),
        "{call}"
    );
    let (code, out, err) = cli(&mesh, &["why", &id, "--url", &mesh.http]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("crashed on such calls before and was skipped"), "{out}");

    let file = capsule(&mesh, "watch").await;
    let (code, out, err) = cli(&mesh, &["plugin", "ls", "--url", &mesh.http]);
    assert_eq!(code, 0, "{err}");
    let file = file.file_name().expect("a name").to_str().expect("Unicode");
    assert!(out.contains("SKIPPED") && out.contains(&format!("what it failed on: capsules/{file}")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capsule_fails_again_until_the_build_is_mended() {
    let bad = misbehaver_only("trap", "watch", "1.0.0", "act");
    let (mesh, _upstream) = scene("", bad.clone()).await;
    mesh.api.call("s", "act", json!({ "password": SECRET })).await.ok();
    let file = capsule(&mesh, "watch").await;
    assert_eq!((mode(file.parent().expect("a folder")), mode(&file)), (0o700, 0o600));
    let said = read(&file);
    let text = fs::read_to_string(&file).expect("read the capsule");
    assert!(!text.contains(SECRET) && !text.contains("password"), "{text}");
    let of = json!({"name": "watch", "version": "1.0.0", "sha256": sha256(&bad), "generation": 1});
    assert_eq!((&said["format"], &said["plugin"]), (&json!(1), &of), "{said}");
    assert_eq!((&said["hook"], &said["config"]), (&json!("route"), &json!({"mood": "calm"})), "{said}");
    assert_eq!((&said["call"]["service"], &said["call"]["tool"]), (&json!("s"), &json!("act")), "{said}");
    let service = &said["services"][0];
    assert_eq!((&service["name"], &service["instances"]), (&json!("s"), &json!(1)), "{said}");
    assert!(said["fault"].as_str().is_some_and(|fault| fault.starts_with("it trapped")), "{said}");

    let (code, out, err) = replay(&mesh, &bad, &file);
    assert_eq!(code, 1, "{out}{err}");
    for part in
        ["tools/call `act` of `s`", "✖ the same build still fails: it trapped", "0 answered, 1 failed"]
    {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    let other = misbehaver_only("loop", "watch", "1.0.1", "act");
    let (code, out, err) = replay(&mesh, &other, &file);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("still fails: it took longer than 5 ms"), "{out}");
    let (code, out, err) = replay(&mesh, &misbehaver("answer", "watch", "1.0.2"), &file);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("answers: forward to s (watch 1.0.2)"), "{out}");

    let (code, _, err) = replay(&mesh, &misbehaver("answer", "other", "1.0.2"), &file);
    assert_eq!(code, 2);
    assert!(err.contains("a capsule of the plugin `watch`, and the component is `other`"), "{err}");
    let torn = mesh.home.path().join("torn.json");
    fs::write(&torn, &text[..text.len() / 2]).expect("write half of it");
    let (code, _, err) = replay(&mesh, &bad, &torn);
    assert_eq!(code, 2);
    assert!(err.contains("is no capsule, or not a whole one"), "{err}");
    fs::write(&torn, text.replace("\"format\": 1", "\"format\": 9")).expect("write a later one");
    let (code, _, err) = replay(&mesh, &bad, &torn);
    assert_eq!(code, 2);
    assert!(err.contains("of format 9"), "{err}");
    assert_eq!(replay(&mesh, &bad, Path::new("missing.json")).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pick_leaves_the_pool_that_it_was_asked_about() {
    for (doing, words) in
        [("loop-in-pick", "it took longer than"), ("nonsense-slot", "the slot does not exist")]
    {
        let bad = misbehaver(doing, "watch", "1.0.0");
        let (mesh, _upstream) = scene("", bad.clone()).await;
        mesh.api.call("s", "act", json!({ "password": SECRET })).await.ok();
        let file = capsule(&mesh, "watch").await;
        let said = read(&file);
        let instance = &said["pool"]["members"][0]["instance"];
        assert_eq!((&said["hook"], instance), (&json!("pick"), &json!("s")), "{said}");
        assert!(!said.to_string().contains(SECRET), "{said}");
        let (code, out, err) = replay(&mesh, &bad, &file);
        assert_eq!(code, 1, "{doing}: {out}{err}");
        assert!(out.contains("the same build still fails: ") && out.contains(words), "{doing}: {out}");
        let (code, out, err) = replay(&mesh, &misbehaver("pick-first", "watch", "1.0.1"), &file);
        assert_eq!(code, 0, "{doing}: {out}{err}");
        assert!(out.contains("answers: s (slot"), "{doing}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_beside_calls_leaves_capsules_too() {
    for (hook, answer) in
        [("compile", "no plan"), ("evaluate", "1 alert holds"), ("on-calls", "it takes the calls")]
    {
        let bad = contrarian(&format!("{hook}-trap"));
        let (mesh, _upstream) = scene("", bad.clone()).await;
        mesh.api.call("s", "act", json!({ "password": SECRET })).await.ok();
        let file = capsule(&mesh, "guest").await;
        let said = read(&file);
        assert_eq!(said["hook"], hook, "{said}");
        assert!(!said.to_string().contains(SECRET), "{said}");
        let (code, out, err) = replay(&mesh, &bad, &file);
        assert_eq!(code, 1, "{hook}: {out}{err}");
        assert!(out.contains("the same build still fails: it trapped"), "{hook}: {out}");
        let (code, out, err) = replay(&mesh, &contrarian("nothing"), &file);
        assert_eq!(code, 0, "{hook}: {out}{err}");
        assert!(out.contains(&format!("answers: {answer}")), "{hook}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_repeats_arguments_in_its_last_words_brings_them_nowhere() {
    let reader = component("reader");
    let plugins = vec![("reader.wasm".to_owned(), reader.clone())];
    let config = "[plugins.reader]\ngrants = [\"arguments\"]\n".to_owned();
    let mesh = Mesh::start(MeshOptions { config, plugins, ..MeshOptions::default() }).await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    eventually("such calls are skipped", SOON, || async {
        mesh.api.call("s", "act", json!({ "panic": SECRET })).await.ok();
        mesh.log().contains("plugin is not asked about such calls").then_some(())
    })
    .await;
    let file = capsule(&mesh, "reader").await;
    let text = fs::read_to_string(&file).expect("read the capsule");
    assert!(!text.contains(SECRET), "{text}");
    let (plugin, log) = (mesh.api.plugin("reader").await.expect("listed"), mesh.log());
    assert_eq!(plugin["last_fault"], "it trapped", "{plugin}");
    assert!(log.contains("plugin fault") && !log.contains(SECRET), "{log}");
    assert_eq!(read(&file)["fault"], "it trapped");
    let (code, out, err) = replay(&mesh, &reader, &file);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("it reads arguments, and a capsule has none"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_tried_again_with_the_next_fault() {
    let (mesh, _upstream) = scene("", misbehaver_only("trap", "watch", "1.0.0", "act")).await;
    let folder = mesh.data_dir().join("capsules");
    fs::remove_dir_all(&folder).expect("take the folder away");
    mesh.api.call("s", "act", json!({})).await.ok();
    eventually("it is said that nothing can be written", SOON, || async {
        mesh.log().contains("capsule cannot be written").then_some(())
    })
    .await;
    fs::create_dir(&folder).expect("bring the folder back");
    let file = eventually("the capsule of the same input is written", SOON, || async {
        mesh.api.call("s", "act", json!({})).await.ok();
        mesh.api.plugin("watch").await?["capsule"].as_str().map(str::to_owned)
    });
    assert_eq!(read(&folder.join(file.await))["call"]["tool"], "act");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_input_leaves_one_capsule_and_the_oldest_files_make_room() {
    let (mut mesh, _upstream) = scene("", misbehaver("answer", "watch", "1.0.0")).await;
    let folder = mesh.data_dir().join("capsules");
    for number in 0..60 {
        fs::write(folder.join(format!("20260101T000000.{number:03}Z-x-route-0000.json")), "{}")
            .expect("write");
    }
    let files = || {
        let entries = fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("a file"));
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    };
    assert!(mesh.terminate().await.success());
    drop_in(&mesh.plugins_dir(), "watch.wasm", &misbehaver("trap", "watch", "1.0.1"));
    mesh.restart().await;
    eventually("the instance is routed to again", SOON, || async {
        (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    for _ in 0..20 {
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    let newest = capsule(&mesh, "watch").await;
    let names = files();
    assert_eq!(names.len(), 50, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.contains("watch")).count(), 1, "{names:?}");
    assert_eq!(names.last().map(String::as_str), newest.file_name().and_then(|name| name.to_str()));
}
