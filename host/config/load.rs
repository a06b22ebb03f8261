//! From files to a [`Config`]: the main file, what it includes, and what is left out of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::DeTable;
use wildmatch::WildMatch;

use super::expand::Sources;
use super::file::{File, Value, places};
use super::flaw::{Flaw, LeftOut};
use super::raw::{self, RawPlugin, RawProfile, RawService, Sections, Unresolved, Wrong, services};
use super::reload::Written;
use super::{Config, ConfigError, Overrides, ServiceConfig, clients, expand_home, scripts};
use crate::mesh::exposure::Exposure;
use crate::mesh::ids::Name;
use crate::spelling::no_such;

/// Sections that files that are included may have, too.
const SHARED: [&str; 3] = ["services", "profiles", "plugins"];
/// Sections of the main file alone.
const OWN: [&str; 9] =
    ["include", "server", "stats", "lease", "health", "calls", "supervisor", "sessions", "limits"];

/// A service, a profile or a plugin as it stands in a file.
pub(super) struct Entry<'f> {
    pub file: &'f File,
    pub name: Spanned<String>,
    pub value: Value<'f>,
}

impl Entry<'_> {
    pub(super) fn key(&self, section: &str) -> String {
        format!("{section}.{}", self.name.get_ref())
    }
}

/// What stands in all files.
#[derive(Default)]
pub(super) struct Contents<'f> {
    /// Sections of the main file.
    pub own: BTreeMap<String, Value<'f>>,
    pub services: Vec<Entry<'f>>,
    pub profiles: Vec<Entry<'f>>,
    pub plugins: Vec<Entry<'f>>,
    pub left_out: Vec<LeftOut>,
    flaws: Vec<Flaw>,
}

/// The files that were read, the main one first.
#[derive(Default)]
pub(super) struct Files {
    pub files: Vec<File>,
    /// In which files may appear that would be read.
    pub folders: Vec<PathBuf>,
    pub left_out: Vec<LeftOut>,
    /// Files that could not be read, and what is said of each.
    pub unread: Vec<(PathBuf, Flaw)>,
}

impl Files {
    /// # Errors
    /// The main file cannot be read or understood.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self { files: vec![File::default()], ..Self::default() });
        };
        let main = File::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::around(main)
    }

    /// With a main file that is read already.
    ///
    /// # Errors
    /// It cannot be understood.
    pub(super) fn around(main: File) -> Result<Self, ConfigError> {
        let mut read = Self::default();
        let patterns: Vec<Spanned<String>> = match main.toml().map_err(ConfigError::Wrong)?.remove("include")
        {
            Some(mut include) => {
                let filled = Sources::usual().fill_in(&mut include, &main.path);
                let flaw = |(span, why)| ConfigError::Wrong(vec![main.flaw("include", Some(span), why)]);
                filled.map_err(flaw)?;
                main.understand("include", include).map_err(|flaw| ConfigError::Wrong(vec![flaw]))?
            }
            None => Vec::new(),
        };
        let mut more = Vec::new();
        for pattern in patterns {
            if let Err(why) = read.include(&main, &pattern, &mut more) {
                let flaw = main.flaw("include", Some(pattern.span()), why);
                read.left_out.push(LeftOut { service: None, flaw });
            }
        }
        read.files.push(main);
        read.files.append(&mut more);
        Ok(read)
    }

    fn include(
        &mut self,
        main: &File,
        pattern: &Spanned<String>,
        into: &mut Vec<File>,
    ) -> Result<(), String> {
        let (span, pattern) = (pattern.span(), pattern.get_ref());
        let beside = main.path.parent().unwrap_or(Path::new(""));
        let path = beside.join(expand_home(Path::new(pattern)));
        let (folder, name) = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(folder), Some(name)) => (folder.to_owned(), name.to_owned()),
            _ => return Err(format!("`{pattern}` names no file")),
        };
        let is_pattern = name.contains(['*', '?']);
        let paths = if is_pattern {
            let matcher = WildMatch::new(&name);
            let listed =
                std::fs::read_dir(&folder).map_err(|error| format!("`{}`: {error}", folder.display()))?;
            let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let mut names: Vec<_> =
                names.filter(|name| matcher.matches(name) && !name.starts_with('.')).collect();
            names.sort();
            names.into_iter().map(|name| folder.join(name)).collect()
        } else {
            vec![path]
        };
        if is_pattern && !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
        for path in paths {
            if path == main.path || into.iter().any(|file| file.path == path) {
                continue;
            }
            match File::read(&path) {
                Ok(file) => into.push(file),
                Err(error) => {
                    let why = format!("`{}` cannot be read: {error}", path.display());
                    let flaw = main.flaw("include", Some(span.clone()), why);
                    self.left_out.push(LeftOut { service: None, flaw: flaw.clone() });
                    self.unread.push((path, flaw));
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Everything that is wrong with the main file's syntax.
    pub(super) fn contents(&self) -> Result<Contents<'_>, ConfigError> {
        let mut contents = Contents { left_out: self.left_out.clone(), ..Contents::default() };
        for (index, file) in self.files.iter().enumerate() {
            if file.is_json() {
                match clients::of_json(file) {
                    Ok(servers) => contents.add_servers(file, servers),
                    Err(flaw) => contents.left_out.push(LeftOut { service: None, flaw }),
                }
                continue;
            }
            match (file.toml(), index) {
                (Ok(table), _) => contents.add(file, table, index == 0),
                (Err(flaws), 0) => return Err(ConfigError::Wrong(flaws)),
                (Err(flaws), _) => {
                    let first = flaws.first().cloned();
                    let whole = |flaw| LeftOut { service: None, flaw };
                    contents.left_out.extend(flaws.into_iter().map(whole));
                    // What it was to hide is not known.
                    let part = |name| Some(LeftOut { service: Some(name), flaw: first.clone()? });
                    contents.left_out.extend(file.names_of_services().into_iter().filter_map(part));
                }
            }
        }
        Ok(contents)
    }
}

impl<'f> Contents<'f> {
    fn add(&mut self, file: &'f File, table: DeTable<'f>, is_main: bool) {
        for (key, value) in table {
            let (span, key) = (key.span(), key.into_inner());
            match &*key {
                "mcp_servers" if !is_main => match value.get_ref().as_table() {
                    Some(servers) => {
                        let servers = clients::of_table(file, servers);
                        self.add_servers(file, servers);
                    }
                    None => self.wrong(file.flaw(&key, Some(span), "it must be a table"), is_main),
                },
                key if SHARED.contains(&key) => self.add_entries(file, key, value, is_main),
                key if is_main && OWN.contains(&key) => {
                    self.own.insert(key.to_owned(), value);
                }
                key => {
                    let known = if is_main { [&OWN[..], &SHARED].concat() } else { SHARED.to_vec() };
                    let message = if OWN.contains(&key) {
                        format!("`{key}` belongs in the main file, not in one that is included")
                    } else {
                        no_such("section", key, &known)
                    };
                    self.wrong(file.flaw("", Some(span), message), is_main);
                }
            }
        }
    }

    /// A flaw of the main file is one of all; what is wrong in another one is left out.
    fn wrong(&mut self, flaw: Flaw, is_main: bool) {
        if is_main {
            self.flaws.push(flaw);
        } else {
            self.left_out.push(LeftOut { service: None, flaw });
        }
    }

    fn add_entries(&mut self, file: &'f File, section: &str, value: Value<'f>, is_main: bool) {
        let span = value.span();
        let toml::de::DeValue::Table(table) = value.into_inner() else {
            return self.wrong(file.flaw(section, Some(span), "it must be a table"), is_main);
        };
        let entries = match section {
            "services" => &mut self.services,
            "profiles" => &mut self.profiles,
            _ => &mut self.plugins,
        };
        for (name, value) in table {
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            entries.push(Entry { file, name, value });
        }
    }

    fn add_servers(&mut self, file: &'f File, servers: clients::Servers<'f>) {
        let entry = |(name, value)| Entry { file, name, value };
        self.services.extend(servers.services.into_iter().map(entry));
        self.left_out.extend(servers.left_out);
    }

    /// Keeps the first of each name; the others are left out. Of a plugin's settings none may be lost: two are wrong.
    fn settle(&mut self) {
        let mut left_out = Vec::new();
        keep_first("services", &mut self.services, |name, flaw| {
            left_out.push(LeftOut { service: Some(name), flaw });
        });
        // Without its service: the first one of that name is served.
        self.left_out.extend(left_out.into_iter().map(|left| LeftOut { service: None, ..left }));
        let (left_out, flaws) = (&mut self.left_out, &mut self.flaws);
        keep_first("profiles", &mut self.profiles, |_, flaw| left_out.push(LeftOut { service: None, flaw }));
        keep_first("plugins", &mut self.plugins, |_, flaw| flaws.push(flaw));
    }
}

fn keep_first(section: &str, entries: &mut Vec<Entry<'_>>, mut refuse: impl FnMut(String, Flaw)) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    entries.retain(|entry| {
        let (name, span) = (entry.name.get_ref(), entry.name.span());
        if let Some(first) = seen.get(name) {
            let message = format!("it is in {first} already");
            refuse(name.clone(), entry.file.flaw(&entry.key(section), Some(span), message));
            return false;
        }
        seen.insert(name.clone(), entry.file.at(&span));
        true
    });
}

/// Where keys stand.
type Places = BTreeMap<String, Range<usize>>;

/// An entry whose variables are filled in, as what its section has.
fn entry<T: DeserializeOwned>(
    section: &str,
    entry: &Entry<'_>,
    sources: &Sources,
) -> Result<(Name, T, Places), Flaw> {
    let (file, key) = (entry.file, entry.key(section));
    let name = Name::new(entry.name.get_ref())
        .map_err(|error| file.flaw(&key, Some(entry.name.span()), error.to_string()))?;
    let mut value = entry.value.clone();
    let places = places(&value);
    sources.fill_in(&mut value, &file.path).map_err(|(span, why)| file.flaw(&key, Some(span), why))?;
    Ok((name, file.understand(&key, value)?, places))
}

/// Where a wrong key of an entry stands; its name, when the key is missing.
fn flaw_of(section: &str, entry: &Entry<'_>, places: &Places, wrong: Wrong) -> Flaw {
    let first = wrong.key.split('.').next().unwrap_or_default();
    let span = places.get(first).cloned().unwrap_or_else(|| entry.name.span());
    entry.file.flaw(&format!("{}.{}", entry.key(section), wrong.key), Some(span), wrong.message)
}

pub(super) fn load(files: &Files, overrides: Overrides, sources: &Sources) -> Result<Config, ConfigError> {
    let main = &files.files[0];
    let mut contents = files.contents()?;
    contents.settle();
    let Contents { mut own, services, profiles, plugins, mut left_out, mut flaws } = contents;
    let own_places: BTreeMap<String, Range<usize>> = own
        .iter()
        .flat_map(|(section, value)| {
            places(value).into_iter().map(move |(key, span)| (format!("{section}.{key}"), span))
        })
        .collect();
    for (section, value) in own.iter_mut() {
        if let Err((span, why)) = sources.fill_in(value, &main.path) {
            flaws.push(main.flaw(section, Some(span), why));
        }
    }
    let sections = Sections {
        server: section(main, &mut own, "server", &mut flaws),
        stats: section(main, &mut own, "stats", &mut flaws),
        lease: section(main, &mut own, "lease", &mut flaws),
        health: section(main, &mut own, "health", &mut flaws),
        calls: section(main, &mut own, "calls", &mut flaws),
        supervisor: section(main, &mut own, "supervisor", &mut flaws),
        sessions: section(main, &mut own, "sessions", &mut flaws),
        limits: section(main, &mut own, "limits", &mut flaws),
    };
    let config = match raw::resolve(sections, overrides) {
        Ok(config) => Some(config),
        Err(Unresolved::NoHome) => return Err(ConfigError::NoHome),
        Err(Unresolved::Wrong(wrong)) => {
            flaws.push(main.flaw(wrong.key, own_places.get(wrong.key).cloned(), wrong.message));
            None
        }
    };
    let mut shown = BTreeMap::new();
    for profile in &profiles {
        let read = entry::<RawProfile>("profiles", profile, sources).and_then(|(name, raw, places)| {
            let profile =
                services::profile(raw).map_err(|wrong| flaw_of("profiles", profile, &places, wrong))?;
            Ok((name, profile))
        });
        match read {
            Ok((name, profile)) => drop(shown.insert(name, profile)),
            Err(flaw) if flaw.path == main.path => flaws.push(flaw),
            Err(flaw) => left_out.push(LeftOut { service: None, flaw }),
        }
    }
    let mut asked = BTreeMap::new();
    for plugin in &plugins {
        let read = entry::<RawPlugin>("plugins", plugin, sources).and_then(|(name, raw, places)| {
            let written = plugin.file.understand(&plugin.key("plugins"), plugin.value.clone())?;
            let flaw = |wrong| flaw_of("plugins", plugin, &places, wrong);
            let plugin = raw::plugin(raw, &written).map_err(flaw)?;
            Ok((name, plugin))
        });
        read.map_or_else(|flaw| flaws.push(flaw), |(name, plugin)| drop(asked.insert(name, plugin)));
    }
    let Some(mut config) = config.filter(|_| flaws.is_empty()) else {
        return Err(ConfigError::Wrong(flaws));
    };
    config.profiles = shown;
    config.plugins = asked;
    add_services(&mut config, &services, sources, &mut left_out);
    config.files = files
        .files
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    config.file = config.files.first().cloned();
    config.folders.clone_from(&files.folders);
    config.written = Written::of(files);
    config.left_out = left_out;
    discover(&mut config, main, own_places.get("supervisor.scripts").cloned());
    Ok(config)
}

fn discover(config: &mut Config, main: &File, at: Option<Range<usize>>) {
    let Some(folder) = config.scripts.take() else { return };
    let beside = main.path.parent().unwrap_or(Path::new(""));
    let folder = std::path::absolute(beside.join(&folder)).unwrap_or(folder);
    if let Err(message) = scripts::discover(config, &folder) {
        let flaw = main.flaw("supervisor.scripts", at, message);
        config.left_out.push(LeftOut { service: None, flaw });
    }
    config.folders.push(folder.clone());
    config.scripts = Some(folder);
}

fn section<T: DeserializeOwned + Default>(
    main: &File,
    own: &mut BTreeMap<String, Value<'_>>,
    key: &str,
    flaws: &mut Vec<Flaw>,
) -> T {
    let Some(value) = own.remove(key) else { return T::default() };
    main.understand(key, value).unwrap_or_else(|flaw| {
        flaws.push(flaw);
        T::default()
    })
}

/// A service as it stands in a file.
///
/// # Errors
/// It is wrong.
pub(super) fn service(
    one: &Entry<'_>,
    sources: &Sources,
    startup: Duration,
) -> Result<(Name, ServiceConfig), Flaw> {
    let (name, raw, places) = entry::<RawService>("services", one, sources)?;
    let service =
        services::service(raw, startup).map_err(|wrong| flaw_of("services", one, &places, wrong))?;
    Ok((name, service))
}

/// One service that is wrong is left out, and shows nothing; all others are served.
fn add_services(config: &mut Config, entries: &[Entry<'_>], sources: &Sources, left_out: &mut Vec<LeftOut>) {
    for one in entries {
        let read = service(one, sources, config.startup).and_then(|(name, service)| {
            let mut instances = Vec::new();
            for index in 0..service.endpoints.len() {
                let misnamed = |message| one.file.flaw(&one.key("services"), Some(one.name.span()), message);
                let instance = services::instance(&name, index, &service.endpoints).map_err(misnamed)?;
                if let Some(other) = config.instances.iter().find(|other| other.name == instance.name) {
                    let (name, service) = (&instance.name, &other.service);
                    return Err(misnamed(format!(
                        "its instance `{name}` has the name of one of `{service}`"
                    )));
                }
                instances.push(instance);
            }
            Ok((name, service, instances))
        });
        match read {
            Ok((name, service, instances)) => {
                config.instances.extend(instances);
                config.services.insert(name, service);
            }
            Err(flaw) => left_out.push(LeftOut { service: Some(one.name.get_ref().clone()), flaw }),
        }
    }
    // What it was to hide is not known: if it registers itself, nothing of it is shown.
    for name in left_out.iter().filter_map(|left| Name::new(left.service.as_deref()?).ok()) {
        let hidden = ServiceConfig { exposure: Exposure::nothing(), ..Default::default() };
        config.services.entry(name).or_insert(hidden);
    }
}
