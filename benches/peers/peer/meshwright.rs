//! The proxy itself, with one worker.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Kind, Peer, START, Setting, UPSTREAM_ARGS, until};
use crate::message::{ECHO, Target};
use crate::process::Process;

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

/// Plugins that must be in force.
fn plugins(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Wasm => &PLUGINS,
        Kind::Deciders => &PLUGINS[..2],
        _ => &[],
    }
}

/// With the upstreams as instances of one service, or with one instance on standard input and output; healthy, spoken
/// to in the modern era, and asked at the address that is that service's own.
pub(super) async fn start(kind: Kind, setting: &Setting<'_>) -> anyhow::Result<Peer> {
    let program = match kind {
        Kind::Base => setting.base.context("`--base` does not say which build")?,
        _ => Path::new(env!("CARGO_BIN_EXE_meshwright")),
    };
    let services = match kind {
        Kind::Stdio => format!("\n[services.{ECHO}]\ncommand = {:?}\nargs = {UPSTREAM_ARGS:?}\n", setting.me),
        _ => String::new(),
    };
    let (process, api) = serve(kind.name(), program, plugins(kind), &services, setting).await?;
    let registered = if kind == Kind::Stdio { &[] } else { setting.upstreams };
    for (index, port) in registered.iter().enumerate() {
        let instance = json!({"instance_name": format!("{ECHO}-{index}"), "service": ECHO, "port": port});
        api.register(&instance).await?;
    }
    api.until_healthy(registered.len().max(1)).await?;
    api.check_plugins(plugins(kind)).await?;
    let target = Target { path: format!("/servers/{ECHO}/mcp"), ..Target::upstream(&[api.port]) };
    Ok(Peer { kind, target, process: Some(process) })
}

/// Asked at the address of all services.
pub(super) async fn empty(setting: &Setting<'_>) -> anyhow::Result<(Peer, Api)> {
    let program = Path::new(env!("CARGO_BIN_EXE_meshwright"));
    let (process, api) = serve("listing", program, &[], "", setting).await?;
    let target = Target::upstream(&[api.port]);
    Ok((Peer { kind: Kind::Native, target, process: Some(process) }, api))
}

/// Complaints about plugins that did not decide what they were asked.
pub(super) async fn plugin_faults(port: u16) -> anyhow::Result<Vec<String>> {
    let all = Api::at(port)?.get("/plugins").await?;
    let plugins = all["plugins"].as_array().context("a list of plugins")?;
    let faulty = plugins.iter().filter(|p| p["faults"] != 0 || p["fallbacks"] != 0);
    Ok(faulty
        .map(|p| format!("{}: faults {}, fallbacks {}", p["name"], p["faults"], p["fallbacks"]))
        .collect())
}

async fn serve(
    name: &'static str,
    program: &Path,
    plugins: &[&str],
    services: &str,
    setting: &Setting<'_>,
) -> anyhow::Result<(Process, Api)> {
    let home = setting.folder.join(name);
    fs::create_dir_all(home.join("plugins"))?;
    let mut config = format!("[stats]\nfile = {:?}\n\n", home.join("stats.json"));
    // Nobody sends heartbeats here.
    config.push_str("[lease]\nsuspect_after = \"12h\"\nttl = \"24h\"\n");
    for plugin in PLUGINS.iter().filter(|plugin| !plugins.contains(plugin)) {
        config.push_str(&format!("\n[plugins.{plugin}]\nenabled = false\n"));
    }
    if plugins.contains(&"tag-router") {
        config.push_str(RULES);
    }
    config.push_str(services);
    fs::write(home.join("meshwright.toml"), config)?;
    let log = home.join("log");
    let mut process = Process::start(name, setting.core, program, &log, |command| arrange(command, &home))?;
    let port = until("the proxy's addresses", || async {
        let text = fs::read(home.join("data/endpoints.json")).ok()?;
        let endpoints: Value = serde_json::from_slice(&text).ok()?;
        endpoints["http"].as_str()?.rsplit(':').next()?.parse().ok()
    })
    .await;
    match process.ensure_alive().and(port).and_then(Api::at) {
        Ok(api) => Ok((process, api)),
        Err(error) => {
            let log = fs::read_to_string(&log).unwrap_or_default();
            Err(error.context(format!("{name} cannot be measured; its log:\n{log}")))
        }
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

/// The proxy's HTTP interface.
pub struct Api {
    client: reqwest::Client,
    port: u16,
}

impl Api {
    fn at(port: u16) -> anyhow::Result<Self> {
        Ok(Self { client: reqwest::Client::builder().timeout(START).build()?, port })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.client.get(self.url(path)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    pub async fn register(&self, instance: &Value) -> anyhow::Result<()> {
        let answer = self.client.post(self.url("/register")).json(instance).send().await?;
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
