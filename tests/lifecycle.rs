//! The proxy's own beginning and end: one at a time in a data folder, found by its commands, and ended without a lost
//! call.

mod support;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use support::children::{Book, contains, kill, text, until_called};
use support::raw_upstream::How;
use support::{Mesh, RawUpstream, SOON, eventually, json};

/// A command that has to find the proxy by the data folder alone.
fn found(mesh: &Mesh, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .env("HOME", mesh.home.path())
        .env("MESHWRIGHT_DATA_DIR", mesh.data_dir())
        .env_remove("MESHWRIGHT_URL")
        .env_remove("MESHWRIGHT_HTTP_ADDR")
        .current_dir(mesh.home.path())
        .stdin(Stdio::null())
        .args(args)
        .output()
        .expect("run the command line")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_proxy_on_a_data_folder_is_refused_and_disturbs_nothing() {
    let mesh = Mesh::plain().await;
    let second = support::mesh::command(&mesh.home)
        .args(["--mcp-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .output()
        .expect("run another one");
    assert_eq!(second.status.code(), Some(1));
    contains(&text(&second), &["another proxy uses the data folder", "--data-dir"]);
    let doctor = found(&mesh, &["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_proxy_while_its_file_is_wrong() {
    let mesh = Mesh::plain().await;
    let path = mesh.home.path().join("meshwright.toml");
    let file = fs::read_to_string(&path).expect("read it") + "x = [\n";
    fs::write(&path, file).expect("write it");
    eventually("the file is known to be wrong", SOON, || async {
        let reasons = mesh.api.get("/health").await.ok()["reasons"].to_string();
        reasons.contains("not in force").then_some(())
    })
    .await;
    let doctor = found(&mesh, &["doctor"]);
    contains(&text(&doctor), &["meshwright.toml:5", "not in force", "config check"]);
    assert_eq!(doctor.status.code(), Some(3));

    let nobody = found(&mesh, &["doctor", "nobody"]);
    contains(&text(&nobody), &["there is no service `nobody`"]);
    assert!(!nobody.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_found_may_be_elsewhere_when_the_file_is_wrong() {
    let home = support::mesh::home("x = [");
    let ps = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .env("HOME", home.path())
        .env("MESHWRIGHT_CONFIG", home.path().join("meshwright.toml"))
        .env("MESHWRIGHT_HTTP_ADDR", "127.0.0.1:1")
        .env_remove("MESHWRIGHT_URL")
        .args(["ps"])
        .output()
        .expect("run the command line");
    contains(&text(&ps), &["no proxy answers at http://127.0.0.1:1", "perhaps it is elsewhere", "toml:4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_that_its_process_ended() {
    let book = Book::new();
    let mesh = support::children::mesh(book.service("child", &["naps"], "")).await;
    let pid = until_called(&mesh, "child").await;
    let api = mesh.api.clone();
    let call = tokio::spawn(async move { api.call("child", "pid", json!({"nap_s": 60})).await });
    eventually("the call is under way", SOON, || async {
        let service = mesh.api.instance("child").await;
        (service["in_flight"] == 1).then_some(())
    })
    .await;
    kill(&pid);
    let problem = call.await.expect("the call ended").problem(502, "outcome_unknown");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("its process ended"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_its_terminal_ends_it_without_a_lost_call() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("slow", upstream.port).await;
    mesh.api.call("slow", "act", json!({})).await.ok();
    upstream.now(How::AnswerAfter(Duration::from_secs(1)));
    let api = mesh.api.clone();
    let call = tokio::spawn(async move { api.call("slow", "act", json!({})).await });
    eventually("the call is under way", SOON, || async { (upstream.calls() == 2).then_some(()) }).await;
    mesh.signal(Signal::HUP);
    assert!(mesh.ended(SOON).await.success());
    call.await.expect("the call ended").ok();
}
