//! Who is measured: the upstream itself, haproxy, and the proxy without and with plugins.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::message::{ECHO, Form};
use super::process::Process;

const START: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The upstream, without anything between.
    Direct,
    Haproxy,
    /// The proxy with all plugins disabled.
    Native,
    /// The proxy with its default plugins and two rules.
    Wasm,
    /// Like `wasm`, with nothing but the router and the balancer.
    Deciders,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Native => "native",
            Self::Wasm => "wasm",
            Self::Deciders => "deciders",
        }
    }

    /// Plugins that must be in force.
    fn plugins(self) -> &'static [&'static str] {
        match self {
            Self::Direct | Self::Haproxy | Self::Native => &[],
            Self::Wasm => &PLUGINS,
            Self::Deciders => &["tag-router", "zone-balancer"],
        }
    }
}

const PLUGINS: [&str; 4] = ["tag-router", "zone-balancer", "threshold-alerts", "usage-meter"];

/// Two rules that are looked at by every call and take none.
const RULES: &str = r#"
[[plugins.tag-router.config.rules]]
name = "frozen"
when = { tool = "delete_*" }
reject = { reason = "deletions are frozen" }

[[plugins.tag-router.config.rules]]
name = "canary"
when = { service = "weather" }
permille = 100
forward = { tag = "canary" }
"#;

pub struct Peer {
    pub kind: Kind,
    pub form: Form,
    pub ports: Vec<u16>,
    /// `None` for the upstream, which is everybody's.
    process: Option<Process>,
}

impl Peer {
    pub fn process<'a>(&'a mut self, upstream: &'a mut Process) -> &'a mut Process {
        self.process.as_mut().unwrap_or(upstream)
    }

    pub fn direct(upstreams: &[u16]) -> Self {
        Self { kind: Kind::Direct, form: Form::Mcp, ports: upstreams.to_vec(), process: None }
    }

    pub fn haproxy(program: &Path, core: usize, upstreams: &[u16], folder: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = folder.join("haproxy.cfg");
        let servers: String = upstreams
            .iter()
            .enumerate()
            .map(|(index, port)| format!("  server s{index} 127.0.0.1:{port}\n"))
            .collect();
        let text = format!(
            "global\n  nbthread 1\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  \
             option http-keep-alive\n  http-reuse always\n\
             frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
             backend b\n  balance roundrobin\n{servers}"
        );
        fs::write(&config, text)?;
        let mut process = Process::start("haproxy", core, program, &folder.join("haproxy.log"), |command| {
            command.arg("-db").arg("-f").arg(&config);
        })?;
        let deadline = Instant::now() + START;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            process.ensure_alive()?;
            ensure!(Instant::now() < deadline, "haproxy does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { kind: Kind::Haproxy, form: Form::Mcp, ports: vec![port], process: Some(process) })
    }

    /// The proxy with one worker and the upstreams as instances of one service, healthy and spoken to in the modern
    /// era.
    pub async fn meshwright(
        kind: Kind,
        core: usize,
        upstreams: &[u16],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let home = folder.join(kind.name());
        fs::create_dir_all(home.join("plugins"))?;
        let mut config = format!("[stats]\nfile = {:?}\n\n", home.join("stats.json"));
        // Nobody sends heartbeats here.
        config.push_str("[lease]\nsuspect_after = \"12h\"\nttl = \"24h\"\n");
        for plugin in PLUGINS.iter().filter(|plugin| !kind.plugins().contains(plugin)) {
            config.push_str(&format!("\n[plugins.{plugin}]\nenabled = false\n"));
        }
        if kind.plugins().contains(&"tag-router") {
            config.push_str(RULES);
        }
        fs::write(home.join("meshwright.toml"), config)?;
        let log = home.join("log");
        let program = Path::new(env!("CARGO_BIN_EXE_meshwright"));
        let mut process =
            Process::start(kind.name(), core, program, &log, |command| arrange(command, &home))?;
        let peer = async {
            let url = until("the proxy's addresses", || async {
                let text = fs::read(home.join("data/endpoints.json")).ok()?;
                let endpoints: Value = serde_json::from_slice(&text).ok()?;
                endpoints["http"].as_str().map(str::to_owned)
            })
            .await?;
            let api = Api { client: reqwest::Client::builder().timeout(START).build()?, url };
            for (index, port) in upstreams.iter().enumerate() {
                let instance =
                    json!({"instance_name": format!("{ECHO}-{index}"), "service": ECHO, "port": port});
                api.register(&instance).await?;
            }
            api.until_healthy(upstreams.len()).await?;
            api.check_plugins(kind.plugins()).await?;
            let port = api.url.rsplit(':').next().and_then(|port| port.parse().ok());
            Ok(Self {
                kind,
                form: Form::Call,
                ports: vec![port.context("a port at the end of the address")?],
                process: None,
            })
        };
        match peer.await {
            Ok(peer) => Ok(Self { process: Some(process), ..peer }),
            Err(error) => {
                let error: anyhow::Error = error;
                let state = process.ensure_alive().err().map_or(String::new(), |ended| format!("{ended}; "));
                let log = fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("{} cannot be measured: {state}its log:\n{log}", kind.name())))
            }
        }
    }

    /// Complaints about plugins that did not decide what they were asked; empty when all is well.
    pub async fn plugin_faults(&self) -> anyhow::Result<Vec<String>> {
        if self.kind.plugins().is_empty() {
            return Ok(Vec::new());
        }
        let api = Api { client: reqwest::Client::new(), url: format!("http://127.0.0.1:{}", self.ports[0]) };
        let all = api.get("/plugins").await?;
        let plugins = all["plugins"].as_array().context("a list of plugins")?;
        let faulty = plugins.iter().filter(|p| p["faults"] != 0 || p["fallbacks"] != 0);
        Ok(faulty
            .map(|p| format!("{}: faults {}, fallbacks {}", p["name"], p["faults"], p["fallbacks"]))
            .collect())
    }
}

/// All state under `home`, deaf to the environment of whoever runs this.
fn arrange(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWRIGHT_"))
    {
        command.env_remove(name);
    }
    command
        .env("HOME", home)
        .env("NO_COLOR", "1")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("RUST_LOG")
        .current_dir(home)
        .arg("serve")
        .arg("--config")
        .arg(home.join("meshwright.toml"))
        .arg("--data-dir")
        .arg(home.join("data"))
        .arg("--plugins")
        .arg(home.join("plugins"))
        .args(["--mcp-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--workers", "1"]);
}

struct Api {
    client: reqwest::Client,
    url: String,
}

impl Api {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    async fn register(&self, instance: &Value) -> anyhow::Result<()> {
        let answer = self.client.post(format!("{}/register", self.url)).json(instance).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "registration: {status}: {}", answer.text().await?);
        Ok(())
    }

    async fn until_healthy(&self, count: usize) -> anyhow::Result<()> {
        until("all instances are healthy, in the modern era", || async {
            let service = self.get(&format!("/services/{ECHO}")).await.ok()?;
            let instances = service["instances"].as_array()?;
            let good = instances
                .iter()
                .filter(|i| i["state"] == "healthy" && i["era"] == "modern" && i["share_permille"] == 1000);
            (good.count() == count && !service["tools"].as_array()?.is_empty()).then_some(())
        })
        .await
    }

    /// Exactly `wanted` are in force.
    async fn check_plugins(&self, wanted: &[&str]) -> anyhow::Result<()> {
        let all = self.get("/plugins").await?;
        let plugins = all["plugins"].as_array().context("a list of plugins")?;
        let loaded: Vec<&str> =
            plugins.iter().filter(|p| p["state"] == "loaded").filter_map(|p| p["name"].as_str()).collect();
        let same = loaded.len() == wanted.len() && wanted.iter().all(|name| loaded.contains(name));
        ensure!(same, "the plugins {loaded:?} are in force, not {wanted:?}");
        Ok(())
    }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> anyhow::Result<T> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not within {START:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where a program is on `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
