//! Other clients' files as text for ours.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::contents::Entry;
use super::expand::{Sources, pin_workspace, workspace};
use super::file::File;
use super::flaw::{Flaw, LeftOut};
use super::load::service;
use super::show::commented;
use super::{ConfigError, clients, env_dir};
use crate::mesh::child::Rules;
use crate::mesh::ids::Name;
use crate::mesh::instance::{HttpEndpoint, SpecError};

/// Where clients keep their servers: under the home folder, or where the proxy runs.
const AT_HOME: &[&str] = &[
    ".cursor/mcp.json",
    ".claude.json",
    ".gemini/settings.json",
    ".codex/config.toml",
    ".codeium/windsurf/mcp_config.json",
    ".config/zed/settings.json",
    ".config/Claude/claude_desktop_config.json",
    ".config/Code/User/mcp.json",
    "Library/Application Support/Claude/claude_desktop_config.json",
    "Library/Application Support/Code/User/mcp.json",
];
const HERE: &[&str] = &[".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json"];

/// Services as TOML, those that are wrong as comments, and what could not be taken over.
pub struct Imported {
    pub text: String,
    pub left_out: Vec<LeftOut>,
}

/// # Errors
/// The file cannot be read, or names no servers.
pub fn import(path: &Path) -> Result<Imported, ConfigError> {
    let file = File::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let one = |flaw| ConfigError::Wrong(vec![flaw]);
    let table = if file.is_json() { None } else { Some(file.toml().map_err(ConfigError::Wrong)?) };
    let servers = match &table {
        None => clients::of_json(&file).map_err(one)?,
        Some(table) => match table.get("mcp_servers").and_then(|servers| servers.get_ref().as_table()) {
            Some(servers) => clients::of_table(&file, servers),
            None => return Err(one(file.flaw("", None, "no servers are in it: there is no `mcp_servers`"))),
        },
    };
    let mut imported = Imported { text: format!("# from {}\n", path.display()), left_out: servers.left_out };
    let (sources, mut seen) = (Sources::usual(), BTreeSet::new());
    for (name, value) in servers.services {
        let entry = Entry { file: &file, name, value };
        let lines = lines(&entry, path).map_err(one)?;
        let good: Result<_, Vec<Flaw>> = if seen.insert(entry.name.get_ref().clone()) {
            verdict(&entry, &sources)
        } else {
            Err(vec![file.flaw(&entry.key("services"), Some(entry.name.span()), "that name is taken above")])
        };
        imported.text.push('\n');
        match good {
            Ok(note) => {
                imported.text.extend(note.map(|note| commented(&note)));
                imported.text.push_str(&lines);
            }
            Err(flaws) => {
                let why = flaws.iter().map(|flaw| commented(&format!("left out: {}", flaw.in_a_line())));
                imported.text.extend(why);
                imported.text.push_str(&commented(&lines));
                imported.left_out.extend(LeftOut::with_all(Some(entry.name.into_inner()), flaws));
            }
        }
    }
    Ok(imported)
}

/// An entry as a table of ours.
fn lines(entry: &Entry<'_>, path: &Path) -> Result<String, Flaw> {
    let service = toml::Value::deserialize(ValueDeserializer::from(entry.value.clone()));
    let mut service = service.map_err(|error| entry.file.flaw("", error.span(), error.message()))?;
    pin(&mut service, path);
    if let Some(toml::Value::String(cwd)) = service.get_mut("cwd") {
        *cwd = from_workspace(cwd, path);
    }
    let name = toml::Value::String(entry.name.get_ref().clone());
    let lines = service.as_table().into_iter().flatten().map(|(key, value)| format!("{key} = {value}\n"));
    Ok(format!("[services.{name}]\n{}", lines.collect::<String>()))
}

/// Whether the entry is a service; if so, what has yet to be set for it.
fn verdict(entry: &Entry<'_>, sources: &Sources) -> Result<Option<String>, Vec<Flaw>> {
    let Entry { file, name, value } = entry;
    let unfilled = sources.fill_in(&mut value.clone(), &file.path);
    if unfilled.is_empty() {
        return service(entry, sources, Rules::default().startup).map(|_| None);
    }
    // It may be set by the time it is needed. No address is filled in before its scheme.
    let url = value.get_ref().get("url").and_then(|url| url.get_ref().as_str());
    let error = match (Name::new(name.get_ref()), url.map(HttpEndpoint::parse)) {
        (Err(error), _) => error.to_string(),
        (_, Some(Err(error @ SpecError::Tls(_)))) => error.to_string(),
        _ => {
            let why = unfilled.into_iter().map(|(_, why)| format!("not yet: {why}"));
            return Ok(Some(why.collect::<Vec<_>>().join("\n")));
        }
    };
    Err(vec![file.flaw(&entry.key("services"), Some(name.span()), error)])
}

/// What depends on where the file is must not depend on where the text goes.
fn pin(value: &mut toml::Value, file: &Path) {
    match value {
        toml::Value::String(text) => *text = pin_workspace(text, file),
        toml::Value::Array(items) => items.iter_mut().for_each(|item| pin(item, file)),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, item)| pin(item, file)),
        _ => {}
    }
}

/// `cwd` as a client means it; one that begins with what is filled in later stays as it is.
fn from_workspace(cwd: &str, file: &Path) -> String {
    if cwd.starts_with("${") || cwd == "~" || cwd.starts_with("~/") || Path::new(cwd).is_absolute() {
        return cwd.to_owned();
    }
    let folder = workspace(file).to_string_lossy().replace("${", "$${");
    Path::new(&folder).join(cwd.trim_start_matches("./")).to_string_lossy().into_owned()
}

/// Those files of clients that are there and name servers.
pub fn client_files() -> Vec<PathBuf> {
    // Who has no home folder has no files in it.
    let home = env_dir("HOME").into_iter();
    let places = home
        .flat_map(|home| AT_HOME.iter().map(move |file| home.join(file)))
        .chain(HERE.iter().map(PathBuf::from));
    places
        .filter(|path| path.is_file() && import(path).is_ok_and(|found| found.text.contains("\n[services.")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_means_the_same_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = folder.path().join("pro${ject");
        std::fs::create_dir_all(project.join(".vscode")).expect("create");
        let file = project.join(".vscode/mcp.json");
        let json = r#"{"servers": {
            "a": {"command": "${workspaceFolder}/a", "args": ["${X:-${workspaceFolder}}", "$${workspaceFolder}"],
                  "env": {"AT": "${workspaceFolder}"}, "cwd": "./sub"},
            "b": {"command": "b", "cwd": "${workspaceFolder}/x"}, "c": {"command": "c", "cwd": "~/x"},
            "d": {"command": "d", "cwd": "${userHome}"}}}"#;
        std::fs::write(&file, json).expect("write");
        let imported: toml::Table = import(&file).expect("servers").text.parse().expect("TOML");
        let services = &imported["services"];
        let at = folder.path().join("pro$${ject").to_string_lossy().into_owned();
        let a = &services["a"];
        assert_eq!(a["command"].as_str(), Some(&*format!("{at}/a")));
        assert_eq!(a["args"][0].as_str(), Some(&*format!("${{X:-{at}}}")));
        assert_eq!(a["args"][1].as_str(), Some("$${workspaceFolder}"));
        assert_eq!(a["env"]["AT"].as_str(), Some(&*at));
        assert_eq!(a["cwd"].as_str(), Some(&*format!("{at}/sub")));
        let cwd = |name: &str| services[name]["cwd"].as_str().map(ToOwned::to_owned).expect("a folder");
        assert_eq!([cwd("b"), cwd("c"), cwd("d")], [format!("{at}/x"), "~/x".into(), "${userHome}".into()]);
    }

    #[test]
    fn what_a_check_would_refuse_is_a_comment_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mcp.json");
        let json = r#"{"mcpServers": {
            "far": {"url": "https://h/mcp"}, "far too": {"url": "https://h/${NO_SUCH_VARIABLE}"},
            "six": {"comand": "true"}, "x y": {"command": "a"}, "x-y": {"command": "b"},
            "late": {"command": "c", "env": {"T": "${NO_SUCH_VARIABLE}"}}}}"#;
        std::fs::write(&file, json).expect("write");
        let imported = import(&file).expect("servers");
        let text = &imported.text;
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error} in\n{text}"));
        let names: Vec<&String> = table["services"].as_table().expect("services").keys().collect();
        assert_eq!(names, ["late", "x-y"], "{text}");
        for part in [
            "`https` upstreams are not supported",
            "# [services.\"far\"]\n# url = \"https://h/mcp\"\n",
            "# [services.\"far-too\"]\n",
            "that name is taken above",
            "# not yet: `NO_SUCH_VARIABLE` is not set",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        let left: Vec<_> = imported.left_out.iter().filter_map(|left| left.service.as_deref()).collect();
        assert_eq!(left, ["six", "far", "far-too", "x-y"]);
    }
}
