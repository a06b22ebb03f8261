//! Clients as people use them at one address, before servers as people use them: all of them at once.

mod support;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use support::npm::{self, Installed};
use support::python::{PythonInstance, fastmcp_python, python};
use support::*;

fn packages() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let installed = npm::installed("clients");
        // Beside the packages, where Node looks for what they import.
        for script in ["client_v1.mjs", "client_v2.mjs"] {
            let from = repository().join("tests/fixtures/clients").join(script);
            std::fs::copy(from, installed.folder.join(script)).expect("copy the script");
        }
        installed
    })
}

/// `@modelcontextprotocol/server-everything` over streamable HTTP.
struct HttpEverything(Child);

impl HttpEverything {
    fn start(port: u16, log: &Path) -> Self {
        let output = File::create(log).expect("create the log");
        let child = Command::new(&packages().node)
            .arg(packages().modules().join("@modelcontextprotocol/server-everything/dist/index.js"))
            .arg("streamableHttp")
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("start the server");
        Self(child)
    }
}

impl Drop for HttpEverything {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// All of it, for as long as the value lives.
struct Everybody {
    mesh: Mesh,
    _http: HttpEverything,
    _python: PythonInstance,
}

impl Everybody {
    async fn start() -> Self {
        let port = raw_upstream::closed_port().await;
        let home = mesh::home("");
        let (node, modules) = (&packages().node, packages().modules());
        let server = |name: &str| modules.join(format!("@modelcontextprotocol/server-{name}/dist/index.js"));
        let files = home.path().join("files");
        std::fs::create_dir(&files).expect("create a folder");
        std::fs::write(files.join("a.txt"), "written in a file").expect("write a file");
        let config = home.path().join("meshwright.toml");
        let mut text = std::fs::read_to_string(&config).expect("read the configuration");
        text += &format!(
            "[services.everything]\ncommand = {node:?}\nargs = [{:?}]\n\
             [services.remote]\nurl = \"http://127.0.0.1:{port}/mcp\"\n\
             [services.memory]\ncommand = {node:?}\nargs = [{:?}]\nsessions = \"each\"\n\
             env = {{ MEMORY_FILE_PATH = {:?} }}\n\
             [services.files]\ncommand = {node:?}\nargs = [{:?}, {files:?}]\n",
            server("everything"),
            server("memory"),
            home.path().join("memory.json"),
            server("filesystem"),
        );
        std::fs::write(&config, text).expect("write the configuration");
        let http = HttpEverything::start(port, &home.path().join("remote.log"));
        let mesh = Mesh::start_in(home, Vec::new()).await;
        let python = PythonInstance::join(&mesh, "py", "py-1", &[]).await;
        let client = Client::modern(&mesh.mcp);
        eventually("all tools are listed", 6 * SOON, || async {
            let names = client.tools().await;
            Self::NAMES.iter().all(|wanted| names.iter().any(|name| name == wanted)).then_some(())
        })
        .await;
        Self { mesh, _http: http, _python: python }
    }

    /// Some of what each server offers, and of the proxy's own.
    const NAMES: [&str; 6] = [
        "everything__echo",
        "remote__echo",
        "memory__read_graph",
        "files__read_text_file",
        "py__add",
        "find_tools",
    ];

    /// Calls of each server's and of the proxy's own tools, and what their texts have in them.
    fn calls(&self) -> Vec<(&'static str, Value, &'static str)> {
        let file = self.mesh.home.path().join("files/a.txt");
        let entity = json!({"name": "Ann", "entityType": "person", "observations": ["sings"]});
        vec![
            ("everything__echo", json!({"message": "hi ü"}), "Echo: hi ü"),
            ("remote__echo", json!({"message": "hi"}), "Echo: hi"),
            ("memory__create_entities", json!({"entities": [entity]}), ""),
            ("memory__read_graph", json!({}), "Ann"),
            ("files__read_text_file", json!({"path": file}), "written in a file"),
            ("py__add", json!({"a": 2, "b": 40}), "42"),
            ("list_services", json!({}), "remote"),
        ]
    }
}

/// What a command prints; fails when it fails.
fn output(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{shown}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

async fn run(command: Command) -> String {
    tokio::task::spawn_blocking(|| output(command)).await.expect("the command is run")
}

/// A client that lists and makes all calls in one session.
async fn lists_and_calls(everybody: &Everybody, mut command: Command, mode: &str) {
    let shown = format!("{command:?} {mode}");
    let calls = everybody.calls();
    let told: Vec<(&str, &Value)> = calls.iter().map(|(tool, arguments, _)| (*tool, arguments)).collect();
    command.arg(&everybody.mesh.mcp).arg(mode).arg(serde_json::to_string(&told).expect("JSON"));
    let said = run(command).await;
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{shown}: {error}: {said}"));
    for name in Everybody::NAMES {
        let names = said["names"].as_array().expect("names");
        assert!(names.iter().any(|listed| listed == name), "{shown}: no `{name}` in {names:?}");
    }
    for ((tool, _, right), text) in calls.iter().zip(said["texts"].as_array().expect("texts")) {
        let text = text.as_str().unwrap_or_default();
        assert!(text.contains(right), "{shown}: `{tool}` said {text:?}");
    }
}

fn node(script: &str) -> Command {
    let mut command = Command::new(&packages().node);
    command.current_dir(&packages().folder).arg(packages().folder.join(script));
    command
}

async fn inspector(everybody: &Everybody) {
    let inspect = |more: &[&str], era: &str| {
        let mut command =
            node("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
        command
            .env("HOME", everybody.mesh.home.path())
            .args(["--cli", &everybody.mesh.mcp, "--transport", "http", "--protocol-era", era])
            .args(["--format", "json"])
            .args(more);
        command
    };
    for era in ["legacy", "auto", "modern"] {
        let listed = run(inspect(&["--method", "tools/list"], era)).await;
        for name in Everybody::NAMES {
            assert!(
                listed.contains(&format!("\"{name}\"")),
                "inspector, {era}: no `{name}` in {listed:.3000}"
            );
        }
        for (tool, arguments, right) in everybody.calls() {
            // What is no plain value is not for the command line.
            let Some(pairs) = pairs(&arguments) else { continue };
            let mut more = vec!["--method", "tools/call", "--tool-name", tool];
            pairs.iter().for_each(|pair| more.extend(["--tool-arg", pair]));
            let said = run(inspect(&more, era)).await;
            assert!(said.contains(right), "inspector, {era}: `{tool}` said {said}");
        }
    }
}

/// `key=value` of each argument.
fn pairs(arguments: &Value) -> Option<Vec<String>> {
    let members = arguments.as_object()?.iter();
    members
        .map(|(key, value)| match value {
            Value::String(text) => Some(format!("{key}={text}")),
            Value::Number(number) => Some(format!("{key}={number}")),
            _ => None,
        })
        .collect()
}

async fn fastmcp(everybody: &Everybody) {
    let command = |subcommand: &str| {
        let mut command = Command::new(fastmcp_python().with_file_name("fastmcp"));
        command.env("HOME", everybody.mesh.home.path()).arg(subcommand).arg(&everybody.mesh.mcp);
        command
    };
    let mut list = command("list");
    list.arg("--json");
    let listed = run(list).await;
    for name in Everybody::NAMES {
        assert!(listed.contains(&format!("\"{name}\"")), "fastmcp: no `{name}` in {listed:.3000}");
    }
    for (tool, arguments, right) in everybody.calls() {
        let mut call = command("call");
        call.arg(tool).args(["--input-json", &arguments.to_string(), "--json"]);
        let said = run(call).await;
        let said = said.replace("\\u00fc", "ü");
        assert!(said.contains(right), "fastmcp: `{tool}` said {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_lists_and_calls_every_server_at_one_address_while_the_others_do() {
    tokio::task::spawn_blocking(|| (packages(), python(), fastmcp_python())).await.expect("installed");
    let everybody = Everybody::start().await;
    let python_client = || {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/fixtures/clients/client.py"));
        command
    };
    tokio::join!(
        inspector(&everybody),
        fastmcp(&everybody),
        async {
            lists_and_calls(&everybody, python_client(), "auto").await;
            lists_and_calls(&everybody, python_client(), "legacy").await;
        },
        async {
            lists_and_calls(&everybody, node("client_v2.mjs"), "auto").await;
            lists_and_calls(&everybody, node("client_v2.mjs"), "legacy").await;
            lists_and_calls(&everybody, node("client_v1.mjs"), "legacy").await;
        },
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_resources_of_real_servers_arrive() {
    let everybody = Everybody::start().await;
    for service in ["everything", "remote"] {
        let client = Client::legacy(&everybody.mesh.mcp).await;
        let tools = client.tools().await;
        let name = |part: &str| {
            let found = tools.iter().find(|tool| tool.starts_with(service) && tool.contains(part));
            found.unwrap_or_else(|| panic!("no `{part}` of `{service}` in {tools:?}")).clone()
        };
        let call = json!({"name": name("long-running"), "arguments": {"duration": 1, "steps": 3},
                          "_meta": {"progressToken": "far"}});
        let mut stream = client.open("tools/call", &call).await;
        for step in 1..=3 {
            let said = stream.next_with("notifications/progress").await;
            assert_eq!(
                (&said["params"]["progressToken"], &said["params"]["progress"]),
                (&json!("far"), &json!(step))
            );
        }
        let answer = stream.answer().await;
        assert!(answer["result"]["content"][0]["text"].is_string(), "{answer}");
        let resources = client.names("resources", "uri").await;
        assert!(!resources.is_empty());
        let read = client.ask("resources/read", json!({"uri": resources[0]})).await.expect("a resource");
        assert!(read["contents"][0].is_object(), "{read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_the_proxys_end() {
    let mut everybody = Everybody::start().await;
    // Processes of its own for two clients, beside those that all share.
    let clients = [Client::legacy(&everybody.mesh.mcp).await, Client::legacy(&everybody.mesh.mcp).await];
    for client in &clients {
        client.tool_text("memory__read_graph", json!({})).await;
    }
    let children = children(everybody.mesh.pid());
    assert!(children.len() >= 4, "{children:?}");
    let status = everybody.mesh.terminate().await;
    assert!(status.success(), "{status}");
    let left: Vec<_> = children.iter().filter(|pid| is_running(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {children:?} still run");
}

fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

/// Processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("a running process");
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}
