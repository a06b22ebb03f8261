//! Other clients' files as text for ours.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::file::File;
use super::flaw::LeftOut;
use super::{ConfigError, clients, env_dir};

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

/// Services as TOML, and what could not be taken over.
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
    let mut text = format!("# from {}\n", path.display());
    for (name, service) in servers.services {
        let service = toml::Value::deserialize(ValueDeserializer::from(service));
        let service = service.map_err(|error| one(file.flaw("", error.span(), error.message())))?;
        let name = toml::Value::String(name.into_inner()).to_string();
        let lines = service.as_table().into_iter().flatten().map(|(key, value)| format!("{key} = {value}\n"));
        text.push_str(&format!("\n[services.{name}]\n{}", lines.collect::<String>()));
    }
    Ok(Imported { text, left_out: servers.left_out })
}

/// Those files of clients that are there and name servers.
pub fn client_files() -> Vec<PathBuf> {
    // Who has no home folder has no files in it.
    let home = env_dir("HOME").into_iter();
    let places = home
        .flat_map(|home| AT_HOME.iter().map(move |file| home.join(file)))
        .chain(HERE.iter().map(PathBuf::from));
    places
        .filter(|path| path.is_file() && import(path).is_ok_and(|found| found.text.contains("[services.")))
        .collect()
}
