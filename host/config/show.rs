//! The configuration for people and editors: what is in force, where it comes from, and what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::contents::{Entry, Files};
use super::expand::Sources;
use super::file::places;
use super::flaw::LeftOut;
use super::load::load;
use super::{ChildConfig, Config, ConfigError, Overrides, ServiceConfig};
use crate::mesh::child::Rules;
use crate::mesh::endpoint::Endpoint;
use crate::mesh::ids::Name;

/// Where comments with origins begin.
const COMMENT_COLUMN: usize = 48;

/// The JSON Schema of a configuration file.
pub fn schema() -> serde_json::Value {
    super::raw::schema()
}

/// The configuration in force as TOML. Values of services, profiles and plugins are shown as they are written: what
/// is filled in may be secret; what is left out is a comment. With `origin`, each line says where it comes from.
///
/// # Errors
/// Those of [`Config::load`].
pub fn show(overrides: Overrides, origin: bool) -> Result<String, ConfigError> {
    let files = Files::read(overrides.path().as_deref())?;
    let said = overrides.said_by.clone();
    let config = load(&files, overrides, &Sources::usual())?;
    let contents = files.contents()?;
    let main = &files.files[0];
    let mut at: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for (section, value) in &contents.own {
        at.extend(places(value).into_iter().map(|(key, span)| (format!("{section}.{key}"), span)));
    }
    let startup = at.get("supervisor.startup_timeout").map(|span| ("startup_timeout", main.at(span)));
    let mut page = Page { out: String::new(), origin, usual: startup.into_iter().collect() };
    let mut section = "";
    for (key, value) in settings(&config) {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != section {
            section = of;
            page.line(&format!("[{of}]"), "");
        }
        let whence = said.get(key).cloned().or_else(|| at.get(key).map(|span| main.at(span)));
        page.line(&format!("{name} = {value}"), &whence.unwrap_or_else(|| "default".to_owned()));
    }
    let mut said_above = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in &contents.services {
        // Of several of one name the first counts; the others are named below.
        if !seen.insert(entry.name.get_ref()) {
            continue;
        }
        if let Some(left) = config.left_out.iter().find(|left| is_about(left, entry)) {
            page.left_out(entry, left);
            said_above.push(left);
            continue;
        }
        let service = Name::new(entry.name.get_ref()).ok().and_then(|name| config.services.get(&name));
        // One that is left out has no supervision to show.
        page.entry("services", entry, &service.map(supervision).unwrap_or_default());
    }
    let is_written = |name: &Name| seen.iter().any(|written| *written == name.as_str());
    for (name, service) in config.services.iter().filter(|(name, _)| !is_written(name)) {
        page.discovered(name, service);
    }
    for (section, entries) in [("profiles", &contents.profiles), ("plugins", &contents.plugins)] {
        entries.iter().for_each(|entry| page.entry(section, entry, &[]));
    }
    let others = config.left_out.iter().filter(|left| !said_above.contains(left));
    for flaw in others.flat_map(LeftOut::flaws) {
        page.out.push('\n');
        page.out.push_str(&commented(&format!("left out: {}", flaw.in_a_line())));
    }
    Ok(page.out.trim().to_owned() + "\n")
}

/// Whether it is that entry that is left out, and not another one of its name.
fn is_about(left: &LeftOut, entry: &Entry<'_>) -> bool {
    let key = entry.key("services");
    let of_entry =
        left.flaw.key.strip_prefix(&key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    of_entry && left.service.as_deref() == Some(entry.name.get_ref()) && left.flaw.path == entry.file.path
}

/// Lines that say nothing to the proxy.
pub(super) fn commented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("# {line}\n") }).collect()
}

struct Page {
    out: String,
    origin: bool,
    /// Where it is said what holds for services that say nothing themselves, by key; no place: nowhere.
    usual: BTreeMap<&'static str, String>,
}

impl Page {
    fn line(&mut self, text: &str, whence: &str) {
        if text.starts_with('[') {
            self.out.push('\n');
        }
        let width = if self.origin && !whence.is_empty() { COMMENT_COLUMN } else { 0 };
        write!(self.out, "{text:width$}").expect("text takes text");
        if width > 0 {
            write!(self.out, " # {whence}").expect("text takes text");
        }
        self.out.push('\n');
    }

    /// An entry that is not in force, as a comment.
    fn left_out(&mut self, entry: &Entry<'_>, left: &LeftOut) {
        let mut page = Page { out: String::new(), origin: self.origin, usual: BTreeMap::new() };
        page.entry("services", entry, &[]);
        self.out.push('\n');
        for flaw in left.flaws() {
            self.out.push_str(&commented(&format!("left out: {}", flaw.in_a_line())));
        }
        self.out.push_str(&commented(page.out.trim_start()));
    }

    /// `filled` are keys with their values in force, whether the file has them or not.
    fn entry(&mut self, section: &str, entry: &Entry<'_>, filled: &[(&str, String)]) {
        let name = toml_edit::Key::new(entry.name.get_ref());
        self.line(&format!("[{section}.{name}]"), &entry.file.at(&entry.name.span()));
        // What is no TOML here was none before, either, and is among what is left out.
        let Ok(toml::Value::Table(table)) =
            toml::Value::deserialize(ValueDeserializer::from(entry.value.clone()))
        else {
            return;
        };
        let at = places(&entry.value);
        let origin = |key: &str| at.get(key).map(|span| entry.file.at(span));
        for (key, value) in table.iter().filter(|(key, _)| filled.iter().all(|(other, _)| key != other)) {
            let name = toml_edit::Key::new(key);
            // What stands nowhere has no place to name.
            self.line(&format!("{name} = {value}"), &origin(key).unwrap_or_default());
        }
        for (key, value) in filled {
            self.line(&format!("{key} = {value}"), &origin(key).unwrap_or_else(|| self.usual(key)));
        }
    }

    fn usual(&self, key: &str) -> String {
        self.usual.get(key).cloned().unwrap_or_else(|| "default".to_owned())
    }
}

impl Page {
    /// A service that is a file of the folder of scripts.
    fn discovered(&mut self, name: &Name, service: &ServiceConfig) {
        let Some(Endpoint::Stdio(command)) = service.endpoints.first() else { return };
        self.line(&format!("[services.{}]", toml_edit::Key::new(name.as_str())), "supervisor.scripts");
        let program = toml::Value::String(command.program.to_string());
        self.line(&format!("command = {program}"), &command.program);
        for (key, value) in supervision(service) {
            self.line(&format!("{key} = {value}"), &self.usual(key));
        }
    }
}

/// How the processes of a service are supervised, if it has any.
fn supervision(service: &ServiceConfig) -> Vec<(&'static str, String)> {
    let Some(Endpoint::Stdio(command)) = service.endpoints.first() else { return Vec::new() };
    if command.per_session {
        return vec![("sessions_max", command.sessions_max.to_string())];
    }
    let ChildConfig { instances, required, needs, rules } = &service.child;
    let needs: Vec<&str> = needs.iter().map(Name::as_str).collect();
    let Rules { policy, failures_max, window, startup, start, idle_stop } = *rules;
    let (policy, window) = (policy.as_str(), duration(window));
    let mut lines = vec![
        ("sessions", "\"shared\"".to_owned()),
        ("instances", instances.to_string()),
        ("required", required.to_string()),
        ("depends_on", list(&needs)),
        ("restart", format!("{{ policy = \"{policy}\", max = {failures_max}, window = {window} }}")),
        ("startup_timeout", duration(startup)),
        ("start", format!("\"{}\"", start.as_str())),
    ];
    lines.extend(idle_stop.map(|limit| ("idle_stop", duration(limit))));
    lines
}

fn list<T: serde::Serialize>(items: &[T]) -> String {
    toml::Value::try_from(items).map_or_else(|_| "[]".to_owned(), |list| list.to_string())
}

/// Everything that has a default, in the order of the sections.
pub(super) fn settings(config: &Config) -> Vec<(&'static str, String)> {
    let text = |text: &dyn ToString| toml::Value::String(text.to_string()).to_string();
    let path = |path: &std::path::Path| text(&path.display());
    vec![
        ("server.mcp_addr", text(&config.mcp_addr)),
        ("server.http_addr", text(&config.http_addr)),
        ("server.data_dir", path(&config.data_dir)),
        ("server.plugins_dir", path(&config.plugins_dir)),
        ("server.workers", config.workers.to_string()),
        ("server.allowed_hosts", list(&config.allowed_hosts)),
        ("server.allowed_origins", list(&config.allowed_origins)),
        ("server.body_bytes_max", config.body_bytes_max.to_string()),
        ("server.plugin_probation", duration(config.plugin_probation)),
        ("stats.file", config.stats_file.as_deref().map_or_else(|| "\"\"".to_owned(), path)),
        ("lease.suspect_after", duration(config.lease.suspect_after)),
        ("lease.ttl", duration(config.lease.ttl)),
        ("health.probe_every", duration(config.probes.every)),
        ("health.probe_timeout", duration(config.probes.timeout)),
        ("calls.connect_timeout", duration(config.calls.connect)),
        ("calls.first_byte_timeout", duration(config.calls.first_byte)),
        ("calls.timeout", duration(config.calls.whole)),
        ("calls.drain_timeout", duration(config.calls.drain)),
        ("supervisor.scripts", config.scripts.as_deref().map_or_else(|| "\"\"".to_owned(), path)),
        ("supervisor.startup_timeout", duration(config.startup)),
        ("sessions.idle_timeout", duration(config.sessions.idle_timeout)),
        ("sessions.age_max", duration(config.sessions.age_max)),
        ("sessions.max", config.sessions.max.to_string()),
        ("limits.in_flight", config.limits.in_flight.to_string()),
        ("limits.per_instance", config.limits.per_instance.to_string()),
        ("limits.waiting", config.limits.waiting.to_string()),
        ("limits.wait", duration(config.limits.wait)),
    ]
}

fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1000) { format!("\"{}s\"", ms / 1000) } else { format!("\"{ms}ms\"") }
}
