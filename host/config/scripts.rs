//! Programs in a folder, each of them a service.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::flaw::{Flaw, LeftOut};
use super::raw::services;
use super::{ChildConfig, Config, ServiceConfig};
use crate::mesh::child::Rules;
use crate::mesh::ids::Name;
use crate::mesh::instance::{Command, Endpoint, Stamp};

/// Adds a service for each executable file of the folder: called by its stem, with the program alone, and another one
/// when the file changes. What else the configuration says of a service of that name, beside how it is reached, holds
/// for it.
///
/// # Errors
/// The folder cannot be read, or is not safe to run programs from.
pub(super) fn discover(config: &mut Config, folder: &Path) -> Result<(), String> {
    let about = folder.metadata().map_err(|error| format!("`{}`: {error}", folder.display()))?;
    if others_may_write(&about) {
        return Err(format!("`{}` may be written by everybody, so nothing in it is run", folder.display()));
    }
    let listed = std::fs::read_dir(folder).map_err(|error| format!("`{}`: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| is_script(path)) {
        if let Err(message) = add(config, path) {
            let flaw = Flaw { path: path.clone(), place: None, key: String::new(), message };
            config.left_out.push(LeftOut::of(None, flaw));
        }
    }
    Ok(())
}

/// Hidden files and what editors leave behind are passed over, and so is what nobody may execute.
fn is_script(path: &Path) -> bool {
    // A name that is no text is refused, with the reason, where it becomes a service.
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let hidden = name.starts_with('.') || name.ends_with('~');
    !hidden && path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

fn others_may_write(about: &Metadata) -> bool {
    about.permissions().mode() & 0o002 != 0
}

fn add(config: &mut Config, path: &Path) -> Result<(), String> {
    let stem = path.file_stem().and_then(OsStr::to_str).ok_or("its name is no UTF-8")?;
    let name = Name::new(stem).map_err(|error| error.to_string())?;
    let about = path.metadata().map_err(|error| error.to_string())?;
    if others_may_write(&about) {
        return Err("it may be written by everybody, so it is not run".to_owned());
    }
    let taken = |whose: &str| format!("`{name}` is {whose} already");
    if config.left_out.iter().any(|left| left.service.as_deref() == Some(stem)) {
        return Err(taken("the name of a service that is left out"));
    }
    if config.services.get(&name).is_some_and(|service| !service.endpoints.is_empty()) {
        return Err(taken("the name of a service"));
    }
    if let Some(other) = config.instances.iter().find(|other| other.name == name) {
        return Err(taken(&format!("the name of an instance of `{}`", other.service)));
    }
    let place = std::path::absolute(path).map_err(|error| error.to_string())?;
    let command = Command {
        program: place.display().to_string().into(),
        args: Arc::default(),
        env: BTreeMap::new(),
        cwd: None,
        per_session: false,
        sessions_max: 0,
        written: None,
        // Not every file system knows when a file was written.
        stamp: about.modified().ok().map(|modified| Stamp { modified, length: about.len() }),
    };
    let endpoints = vec![Endpoint::Stdio(Arc::new(command))];
    config.instances.push(services::instance(&name, 0, &endpoints)?);
    let rules = Rules { startup: config.startup, ..Rules::default() };
    let child = ChildConfig { instances: 1, rules, ..ChildConfig::default() };
    // Mostly nothing was said of it elsewhere.
    let said = config.services.remove(&name).unwrap_or_default();
    config.services.insert(name, ServiceConfig { endpoints, child, ..said });
    Ok(())
}
