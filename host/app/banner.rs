//! What a person sees at the start.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::config::Config;
use crate::mesh::child::ChildState;
use crate::policy::status::{PluginState, PluginStatus};
use crate::registry::Snapshot;
use crate::supervisor::ChildStatus;

/// Prints the services that were there before, the plugins in force, and the addresses. Nobody waits for it, so a
/// closed standard output is no reason to stop.
pub(super) fn print(
    config: &Config,
    snapshot: &Snapshot,
    children: &[ChildStatus],
    kept: usize,
    plugins: &[PluginStatus],
    http: &str,
    mcp: &str,
) {
    let text = text(config, snapshot, children, kept, plugins, http, mcp);
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        tracing::debug!(error = %error, "banner not printed");
    }
}

fn text(
    config: &Config,
    snapshot: &Snapshot,
    children: &[ChildStatus],
    kept: usize,
    plugins: &[PluginStatus],
    http: &str,
    mcp: &str,
) -> String {
    let mut out = format!("meshwright {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    if kept == 0 && snapshot.service_count() == 0 {
        line("  ○ no services yet: POST /register, or see examples/python-instance".to_owned());
    }
    for service in snapshot.services() {
        let supervised: Vec<&ChildStatus> =
            children.iter().filter(|child| child.service == service.name).collect();
        if !supervised.is_empty() {
            let alike = |one: &&ChildStatus, other: &&ChildStatus| {
                (one.state, &one.reason) == (other.state, &other.reason)
            };
            supervised.chunk_by(alike).for_each(|same| line(children_line(same)));
            continue;
        }
        let count = service.instances.len();
        let plural = if count == 1 { "" } else { "s" };
        let configured = service.instances.iter().any(|instance| instance.configured);
        let whence = if configured { "" } else { " from before" };
        line(format!("  ◌ {:<20} {count} instance{plural}{whence}, probing", service.name.as_str()));
    }
    if children.iter().any(is_on_its_way) {
        let shows = "`meshwright logs NAME` shows what one that starts does";
        line(format!(
            "  → {shows}; `services.NAME.startup_timeout`, or `supervisor.startup_timeout`, gives it longer"
        ));
    }
    for left in &config.left_out {
        let what = left.service.as_deref().unwrap_or("a file");
        line(format!("  ✖ {what:<20} left out: {}", left.flaw.in_a_line()));
    }
    line(String::new());
    for plugin in plugins {
        line(plugin_line(plugin));
    }
    line(String::new());
    line(format!("  Status    {http}/health"));
    line(format!("  MCP       {mcp}"));
    line(format!("  Metrics   {http}/metrics"));
    line(format!("  Plugins   {}  (drop a .wasm here)", config.plugins_dir.display()));
    line(format!("  Data      {}", config.data_dir.display()));
    if let Some(file) = &config.file {
        line(format!("  Config    {}", file.display()));
    }
    line(String::new());
    out
}

/// What is to be done with those is said once for all.
fn is_on_its_way(child: &ChildStatus) -> bool {
    matches!(child.state, ChildState::Starting | ChildState::Installing)
}

/// One line for those of a service that are all alike.
fn children_line(same: &[&ChildStatus]) -> String {
    let Some(child) = same.first() else { return String::new() };
    let mark = match child.state {
        ChildState::Ready if child.lacks => "▲",
        ChildState::Ready => "✔",
        ChildState::Starting | ChildState::Installing | ChildState::Stopping => "◌",
        ChildState::Stopped if child.first.is_none() => "◌",
        ChildState::Backoff | ChildState::Fatal => "✖",
        ChildState::Stopped | ChildState::Skipped | ChildState::Idle => "○",
    };
    let (name, count) = match same.len() {
        1 => (&child.instance, String::new()),
        count => (&child.service, format!("{count} ")),
    };
    let mut text = format!("  {mark} {:<20} {count}{}", name.as_str(), child.state.as_str());
    // Writing to a string cannot fail.
    if !child.reason.is_empty() {
        write!(text, ": {}", child.reason).ok();
    }
    if let Some(fix) = child.fix.as_ref().filter(|_| !is_on_its_way(child)) {
        write!(text, "\n    {:<20} → {fix}", "").ok();
    }
    text
}

fn plugin_line(plugin: &PluginStatus) -> String {
    let mark = match plugin.state {
        PluginState::Loaded => "✔",
        PluginState::Quarantined | PluginState::Pending => "▲",
        PluginState::Refused | PluginState::Missing => "✖",
        PluginState::Building => "◌",
        PluginState::Disabled | PluginState::Shadowed => "○",
    };
    let mut text = format!("  {mark} {:<20} {:<9}", plugin.name, plugin.version);
    let about = match plugin.state {
        PluginState::Loaded => plugin.kinds.join(", "),
        state => format!("{}: {}", state.as_str(), plugin.reason),
    };
    // Writing to a string cannot fail.
    write!(text, " {about}").ok();
    text
}
