//! The proxy as its users run it: one process, a configuration file, folders, signals.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Api, SOON, eventually};

#[derive(Default)]
pub struct MeshOptions {
    /// TOML behind `[stats]`.
    pub config: String,
    /// Files that lie in the plugins folder before the start.
    pub plugins: Vec<(String, Vec<u8>)>,
    pub args: Vec<String>,
    /// Of the proxy's process.
    pub env: Vec<(String, String)>,
}

pub struct Mesh {
    pub home: TempDir,
    pub http: String,
    pub mcp: String,
    pub api: Api,
    child: Child,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// The command with all state under `home`, deaf to the environment of whoever runs the tests.
pub fn command(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWRIGHT_"))
    {
        command.env_remove(name);
    }
    command
        .env("HOME", home.path())
        .env("NO_COLOR", "1")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("RUST_LOG")
        .current_dir(home.path())
        .stdin(Stdio::null())
        .arg("serve")
        .arg("--config")
        .arg(home.path().join("meshwright.toml"))
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .arg("--plugins")
        .arg(home.path().join("plugins"));
    command
}

/// A folder with a configuration whose statistics file lies inside.
pub fn home(config: &str) -> TempDir {
    let home = tempfile::Builder::new().prefix("meshwright-").tempdir().expect("a temporary folder");
    fs::create_dir(home.path().join("plugins")).expect("create the plugins folder");
    let stats = home.path().join("stats.json");
    let stats =
        if config.contains("[stats]") { String::new() } else { format!("[stats]\nfile = {stats:?}\n\n") };
    fs::write(home.path().join("meshwright.toml"), format!("{stats}{config}\n"))
        .expect("write the configuration");
    home
}

impl Mesh {
    pub async fn start(options: MeshOptions) -> Self {
        let home = home(&options.config);
        for (name, bytes) in &options.plugins {
            fs::write(home.path().join("plugins").join(name), bytes).expect("write a plugin");
        }
        Self::start_with(home, options.args, options.env).await
    }

    pub async fn plain() -> Self {
        Self::start(MeshOptions::default()).await
    }

    pub async fn start_in(home: TempDir, args: Vec<String>) -> Self {
        Self::start_with(home, args, Vec::new()).await
    }

    async fn start_with(home: TempDir, args: Vec<String>, env: Vec<(String, String)>) -> Self {
        let any = ["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()];
        let child = spawn(&home, &any, &args, &env);
        let (http, mcp, api) = (String::new(), String::new(), Api::new(""));
        let mut mesh = Self { home, http, mcp, api, child, args, env };
        mesh.wait_until_ready().await;
        mesh.wait_for_plugins().await;
        mesh
    }

    async fn wait_until_ready(&mut self) {
        let file = self.data_dir().join("endpoints.json");
        let log = self.log_path();
        let child = &mut self.child;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let endpoints: Value = loop {
            if let Some(status) = child.try_wait().expect("ask for the child's state") {
                panic!("the proxy ended with {status} at its start:\n{}", read(&log));
            }
            if let Some(endpoints) =
                fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
            {
                break endpoints;
            }
            assert!(tokio::time::Instant::now() < deadline, "no endpoints.json after 30 s:\n{}", read(&log));
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.http = endpoints["http"].as_str().expect("an address").to_owned();
        self.mcp = endpoints["mcp"].as_str().expect("an address").to_owned();
        self.api = Api::new(&self.http);
        let api = &self.api;
        eventually("the proxy is ready", SOON, || async {
            let answer = Api::try_send(api.request(http::Method::GET, "/readyz")).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The proxy itself waits only a moment for files whose code was not kept.
    async fn wait_for_plugins(&self) {
        let api = &self.api;
        eventually("the plugins that were there are compiled", 4 * SOON, || async {
            let page = api.get("/plugins").await.ok();
            let plugins = page["plugins"].as_array()?;
            plugins.iter().all(|plugin| plugin["state"] != "building").then_some(())
        })
        .await;
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn plugins_dir(&self) -> PathBuf {
        self.home.path().join("plugins")
    }

    pub fn stats_file(&self) -> PathBuf {
        self.home.path().join("stats.json")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// All that the process printed so far.
    pub fn log(&self) -> String {
        read(&self.log_path())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that the process has of the machine.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the proxy runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the proxy lives");
    }

    /// SIGTERM, then the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(Duration::from_secs(45)).await
    }

    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = tokio::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ask for the child's state") {
                return status;
            }
            assert!(start.elapsed() < within, "the proxy still runs after {within:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL: no chance to write anything.
    pub fn kill(&mut self) {
        self.child.kill().expect("the proxy lives");
        self.child.wait().expect("reap the proxy");
    }

    /// Starts again on the same folders and, so that instances find it, the same ports.
    pub async fn restart(&mut self) {
        self.restart_at_once().await;
        self.wait_for_plugins().await;
    }

    /// Like [`Self::restart`], and waits for no plugin that is compiled.
    pub async fn restart_at_once(&mut self) {
        assert!(self.child.try_wait().expect("ask for the child's state").is_some(), "it has not ended");
        drop(fs::remove_file(self.data_dir().join("endpoints.json")));
        let port = |url: &str| {
            let address = url.trim_start_matches("http://").trim_end_matches("/mcp");
            address.to_owned()
        };
        self.child = spawn(&self.home, &[port(&self.mcp), port(&self.http)], &self.args, &self.env);
        self.wait_until_ready().await;
    }

    /// Starts again on the same folders and other ports: connections of other tests may have taken the old ones.
    pub async fn restart_elsewhere(&mut self) {
        assert!(self.child.try_wait().expect("ask for the child's state").is_some(), "it has not ended");
        drop(fs::remove_file(self.data_dir().join("endpoints.json")));
        let any = ["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()];
        self.child = spawn(&self.home, &any, &self.args, &self.env);
        self.wait_until_ready().await;
        self.wait_for_plugins().await;
    }
}

fn spawn(home: &TempDir, [mcp, http]: &[String; 2], args: &[String], env: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(home.path().join("log")).expect("open the log");
    command(home)
        .args(["--mcp-addr", mcp, "--http-addr", http])
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("start the proxy")
}

fn read(path: &std::path::Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(8_000);
            let tail = (tail..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- log of the proxy ---\n{}", &log[tail..]);
        }
    }
}
