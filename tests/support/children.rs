//! Children that misbehave, and how a proxy sees its own.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Mesh, MeshOptions, SOON, eventually, repository};

/// Where children write their pids.
pub struct Book(TempDir);

impl Book {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn file(&self, service: &str) -> PathBuf {
        self.0.path().join(service)
    }

    /// A service of the chaos child with these habits; `more` is what its table says besides.
    pub fn service(&self, name: &str, habits: &[&str], more: &str) -> String {
        let script = repository().join("tests/fixtures/chaos_child.py");
        let habits: String = habits.iter().map(|habit| format!(", {habit:?}")).collect();
        let file = self.file(name);
        format!("[services.{name}]\ncommand = \"python3\"\nargs = [{script:?}, {file:?}{habits}]\n{more}\n")
    }

    pub fn pids(&self, service: &str) -> Vec<i32> {
        let text = std::fs::read_to_string(self.file(service)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// A test that ends by killing its proxy must not leave processes behind.
impl Drop for Book {
    fn drop(&mut self) {
        let files = std::fs::read_dir(self.0.path()).into_iter().flatten().filter_map(Result::ok);
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let pids: Vec<i32> = names.flat_map(|name| self.pids(&name)).collect();
        for pid in running(&pids).into_iter().filter_map(Pid::from_raw) {
            kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }
}

pub fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

pub fn running(pids: &[i32]) -> Vec<i32> {
    pids.iter().copied().filter(|pid| is_running(*pid)).collect()
}

pub async fn mesh(config: String) -> Mesh {
    Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await
}

pub async fn processes(mesh: &Mesh) -> Vec<Value> {
    let listing = mesh.api.get("/api/v1/processes").await.ok();
    listing["items"].as_array().expect("items").clone()
}

pub async fn process(mesh: &Mesh, instance: &str) -> Value {
    let all = processes(mesh).await;
    let found = all.iter().find(|process| process["instance"] == instance);
    found.unwrap_or_else(|| panic!("no `{instance}` in {all:?}")).clone()
}

pub async fn until(mesh: &Mesh, instance: &str, state: &str) -> Value {
    eventually(&format!("`{instance}` is {state}"), 4 * SOON, || async {
        let process = process(mesh, instance).await;
        (process["state"] == state).then_some(process)
    })
    .await
}

/// Its pid, once it answers and is known to have tools, which is learnt a moment later.
pub async fn until_called(mesh: &Mesh, service: &str) -> String {
    eventually(&format!("`{service}` answers"), 2 * SOON, || async {
        let answer = mesh.api.call(service, "pid", json!({})).await;
        if answer.status != 200 {
            return None;
        }
        let page = mesh.api.get(&format!("/services/{service}")).await;
        // One instance of a service has no page of its own.
        let knows_tools =
            page.status != 200 || page.json()["tools"].as_array().is_some_and(|all| !all.is_empty());
        knows_tools.then(|| answer.tool_text())
    })
    .await
}

/// The command line, asking this proxy.
pub fn cli(mesh: &Mesh, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    let command = command.args(args).args(["--url", &mesh.http]).stdin(Stdio::null());
    command.output().expect("run the command line")
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub async fn until_logged(mesh: &Mesh, words: &str) {
    eventually(&format!("`{words}` is logged"), SOON, || async { mesh.log().contains(words).then_some(()) })
        .await;
}

pub fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

pub fn kill(pid: &str) {
    signal(pid, Signal::KILL);
}

pub fn signal(pid: &str, signal: Signal) {
    let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a pid");
    kill_process(pid, signal).expect("it lives");
}

/// Puts other services in the place of those of the configuration.
pub fn rewrite(mesh: &Mesh, services: &str) {
    let file = mesh.home.path().join("meshwright.toml");
    let text = std::fs::read_to_string(&file).expect("read the configuration");
    let head = text.split("[services.").next().expect("a head").to_owned();
    std::fs::write(&file, head + services).expect("write the configuration");
}

/// The alert of a rule, while there is one.
pub async fn alert(mesh: &Mesh, rule: &str) -> Option<Value> {
    alerts(mesh).await.into_iter().find(|alert| alert["rule"] == rule)
}

pub async fn alerts(mesh: &Mesh) -> Vec<Value> {
    let listing = mesh.api.get("/api/v1/alerts").await.ok();
    listing["items"].as_array().expect("items").clone()
}
