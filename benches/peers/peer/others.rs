//! Other people's proxies, each with one thread of work and as lean as its configuration lets it be.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::{Kind, Peer, START, Setting, UPSTREAM_ARGS, find, free_port, session, until};
use crate::message::{Era, Target};
use crate::process::Process;

pub(super) async fn haproxy(setting: &Setting<'_>) -> anyhow::Result<Peer> {
    let program = find("haproxy")?;
    let port = free_port()?;
    let servers: String = setting
        .upstreams
        .iter()
        .enumerate()
        .map(|(index, port)| format!("  server s{index} 127.0.0.1:{port}\n"))
        .collect();
    let config = setting.folder.join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  \
         option http-keep-alive\n  http-reuse always\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
         backend b\n  balance roundrobin\n{servers}"
    );
    fs::write(&config, text)?;
    listening(Kind::Haproxy, setting, &program, port, |command| {
        command.arg("-db").arg("-f").arg(&config);
    })
    .await
}

pub(super) async fn nginx(setting: &Setting<'_>) -> anyhow::Result<Peer> {
    let program = find("nginx")?;
    let port = free_port()?;
    let home = setting.folder.join("nginx");
    fs::create_dir_all(&home)?;
    let servers: String = setting.upstreams.iter().map(|port| format!("server 127.0.0.1:{port}; ")).collect();
    let config = home.join("nginx.conf");
    // A request body of 64 KiB stays in memory as it does elsewhere; nothing is written to files.
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body; proxy_temp_path proxy; \
         fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n  \
         keepalive_requests 1000000000; keepalive_timeout 120s;\n  \
         client_max_body_size 8m; client_body_buffer_size 2m;\n  \
         upstream u {{ {servers}keepalive 512; keepalive_requests 1000000000; }}\n  \
         server {{\n    listen 127.0.0.1:{port}; tcp_nodelay on;\n    \
         location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_buffers 16 128k; proxy_buffer_size 16k; proxy_busy_buffers_size 256k; \
         proxy_max_temp_file_size 0; }}\n  }}\n}}\n"
    );
    fs::write(&config, text)?;
    listening(Kind::Nginx, setting, &program, port, |command| {
        command.arg("-p").arg(&home).arg("-e").arg(home.join("error.log")).arg("-c").arg(&config);
    })
    .await
}

/// This program in another role.
pub(super) fn rmcp(setting: &Setting<'_>) -> anyhow::Result<Peer> {
    let upstreams: Vec<String> = setting.upstreams.iter().map(u16::to_string).collect();
    let log = setting.folder.join("rmcp.log");
    let mut process = Process::start("rmcp", setting.core, setting.me, &log, |command| {
        command.arg("typed-proxy").args(&upstreams);
    })?;
    let port = process.line(START).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let target = Target::upstream(&[port.parse().context("the port")?]);
    Ok(Peer { kind: Kind::Rmcp, target, process: Some(process) })
}

/// It knows the legacy era only, and one upstream by a name.
pub(super) async fn mcp_proxy(kind: Kind, setting: &Setting<'_>) -> anyhow::Result<Peer> {
    let program =
        setting.mcp_proxy.context("`--mcp-proxy` does not say where it is; `benches/run` installs it")?;
    let port = free_port()?;
    let config = setting.folder.join(format!("{}.toml", kind.name()));
    let backend = if kind == Kind::McpProxyStdio {
        format!("transport = \"stdio\"\ncommand = {:?}\nargs = {UPSTREAM_ARGS:?}\n", setting.me)
    } else {
        format!("transport = \"http\"\nurl = \"http://127.0.0.1:{}/mcp\"\n", setting.upstreams[0])
    };
    let text = format!(
        "[proxy]\nname = \"peers\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [observability]\nlog_level = \"warn\"\n\
         [[backends]]\nname = \"up\"\n{backend}"
    );
    fs::write(&config, text)?;
    let mut peer = listening(kind, setting, program, port, |command| {
        command.arg("--config").arg(&config).env("TOKIO_WORKER_THREADS", "1").env_remove("RUST_LOG");
    })
    .await?;
    peer.target.path = "/".to_owned();
    let opened = session::open(&peer.target.url()).await?;
    peer.target.era = Era::Legacy { session: opened.id };
    peer.target.tool = opened.tool;
    Ok(peer)
}

/// A peer that takes what upstreams take, once it listens.
async fn listening(
    kind: Kind,
    setting: &Setting<'_>,
    program: &Path,
    port: u16,
    adjust: impl FnOnce(&mut Command),
) -> anyhow::Result<Peer> {
    let log = setting.folder.join(format!("{}.log", kind.name()));
    let mut process = Process::start(kind.name(), setting.core, program, &log, adjust)?;
    let there =
        until("it listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() });
    let there = there.await;
    process.ensure_alive().and(there).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    Ok(Peer { kind, target: Target::upstream(&[port]), process: Some(process) })
}
