//! What can be read, is in force, and yet will hardly work as it is.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::Entry;
use super::file::Value;
use super::flaw::Flaw;
use super::{Config, ServiceConfig};
use crate::mesh::dependency;
use crate::mesh::ids::Name;
use crate::mesh::instance::{Command, Endpoint};
use crate::spelling::no_such;

impl Config {
    /// What will hardly work as it is, though nothing is left out because of it: what is not there may come yet.
    pub fn warnings(&self) -> Vec<Flaw> {
        let files = self.written.files();
        // What is in force was understood.
        let Ok(mut contents) = files.contents() else { return Vec::new() };
        contents.settle();
        let services = self.services.iter();
        let needs: BTreeMap<Name, Vec<Name>> =
            services.map(|(name, service)| (name.clone(), service.child.needs.clone())).collect();
        let circles = dependency::circles(&needs);
        let mut found = Vec::new();
        for entry in &contents.services {
            let named = |(name, _): &(&Name, &ServiceConfig)| name.as_str() == entry.name.get_ref();
            let Some((name, service)) = self.services.iter().find(named) else { continue };
            if let Some(way) = circles.get(name) {
                found.push(warning(entry, "services", "depends_on", None, &circle(name, way)));
            }
            let lacks = format!("; unless it registers itself, `{name}` starts without it and is degraded");
            self.unknown(entry, "services", "depends_on", &service.child.needs, &lacks, &mut found);
            if let Some(Endpoint::Stdio(command)) = service.endpoints.first() {
                of_command(entry, command, &mut found);
            }
        }
        for entry in &contents.profiles {
            let named = |(name, _): &(&Name, _)| name.as_str() == entry.name.get_ref();
            let Some((_, profile)) = self.profiles.iter().find(named) else { continue };
            let lacks = "; unless it registers itself, nothing of it is shown";
            self.unknown(entry, "profiles", "services", &profile.services, lacks, &mut found);
        }
        found
    }

    /// Names under a key that no service has.
    fn unknown<'n>(
        &self,
        entry: &Entry<'_>,
        section: &str,
        key: &str,
        names: impl IntoIterator<Item = &'n Name>,
        lacks: &str,
        found: &mut Vec<Flaw>,
    ) {
        let known: Vec<&str> = self.services.keys().map(Name::as_str).collect();
        for name in names.into_iter().filter(|name| !self.services.contains_key(*name)) {
            let item = item(entry, key, name.as_str());
            // One that is written otherwise was filled in, and may be secret.
            let shown = if item.is_some() { name.as_str() } else { "${…}" };
            let message = no_such("service", shown, &known) + lacks;
            found.push(warning(entry, section, key, item, &message));
        }
    }
}

/// The text in the list of that key.
fn item<'e>(entry: &'e Entry<'_>, key: &str, text: &str) -> Option<&'e Value<'e>> {
    let list = entry.value.get_ref().get(key)?.get_ref().as_array()?;
    list.iter().find(|item| item.get_ref().as_str() == Some(text))
}

fn circle(name: &Name, way: &str) -> String {
    if way == format!("{name} → {name}") {
        return format!("`{name}` needs itself, so it is skipped; take it out");
    }
    format!(
        "`{name}` needs itself ({way}), so all of these are skipped; take one of them out of the other's list"
    )
}

fn of_command(entry: &Entry<'_>, command: &Command, found: &mut Vec<Flaw>) {
    if let (Some(folder), Some(shown)) = (&command.cwd, command.shown_cwd())
        && !folder.is_dir()
    {
        let message = format!("the folder `{shown}` does not exist; make it, or the service cannot start");
        found.push(warning(entry, "services", "cwd", None, &message));
    }
    let at = command.cwd.as_deref().unwrap_or(Path::new("")).join(&*command.program);
    let shown = command.shown_program();
    if let Some((program, rest)) = shown.split_once(char::is_whitespace)
        && !at.exists()
        && !Path::new(&*command.program).exists()
    {
        let args: Vec<&str> = rest.split_whitespace().collect();
        let message = format!(
            "no program is called `{shown}`; arguments stand apart: `command = {program:?}`, `args = {args:?}`"
        );
        found.push(warning(entry, "services", "command", None, &message));
    }
}

/// At the item, or else at the key.
fn warning(entry: &Entry<'_>, section: &str, key: &str, item: Option<&Value<'_>>, message: &str) -> Flaw {
    let value = entry.value.get_ref();
    let stands = value.as_table().and_then(|table| table.keys().find(|found| found.get_ref() == key));
    let span = item.map(|item| item.span()).or_else(|| stands.map(|key| key.span()));
    let span = span.unwrap_or_else(|| entry.name.span());
    entry.file.flaw(&format!("{}.{key}", entry.key(section)), Some(span), message)
}
