//! What stands in all files: the main one, what it includes, and what of them cannot be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;
use wildmatch::WildMatch;

use super::expand::Sources;
use super::file::{File, Value};
use super::flaw::{Flaw, LeftOut};
use super::{ConfigError, clients, expand_home};
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
    /// What is wrong with the main file.
    pub flaws: Vec<Flaw>,
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
    /// Why it is not known which files are included.
    pub flaws: Vec<Flaw>,
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
    /// Its syntax is wrong.
    pub(super) fn around(main: File) -> Result<Self, ConfigError> {
        let mut read = Self::default();
        let mut patterns: Vec<Spanned<String>> = Vec::new();
        if let Some(mut include) = main.toml().map_err(ConfigError::Wrong)?.remove("include") {
            let unfilled = Sources::usual().fill_in(&mut include, &main.path);
            read.flaws.extend(unfilled.into_iter().map(|(span, why)| main.flaw("include", Some(span), why)));
            if read.flaws.is_empty() {
                let (understood, mut flaws) = main.understand("include", include);
                // Its flaws say why nothing is understood, and keep the configuration out.
                patterns = understood.unwrap_or_default();
                read.flaws.append(&mut flaws);
            }
        }
        let mut more = Vec::new();
        for pattern in patterns {
            if let Err(why) = read.include(&main, &pattern, &mut more) {
                let flaw = main.flaw("include", Some(pattern.span()), why);
                read.left_out.push(LeftOut::of(None, flaw));
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
            // What vanished meanwhile, or whose name is no text, is not meant by a pattern.
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
                    self.left_out.push(LeftOut::of(None, flaw.clone()));
                    self.unread.push((path, flaw));
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Everything that is wrong with the main file's syntax.
    pub(super) fn contents(&self) -> Result<Contents<'_>, ConfigError> {
        let (left_out, flaws) = (self.left_out.clone(), self.flaws.clone());
        let mut contents = Contents { left_out, flaws, ..Contents::default() };
        for (index, file) in self.files.iter().enumerate() {
            if file.is_json() {
                match clients::of_json(file) {
                    Ok(servers) => contents.add_servers(file, servers),
                    Err(flaw) => contents.left_out.push(LeftOut::of(None, flaw)),
                }
                continue;
            }
            match (file.toml(), index) {
                (Ok(table), _) => contents.add(file, table, index == 0),
                (Err(flaws), 0) => return Err(ConfigError::Wrong(flaws)),
                (Err(flaws), _) => {
                    let first = flaws.first().cloned();
                    let whole = |flaw| LeftOut::of(None, flaw);
                    contents.left_out.extend(flaws.into_iter().map(whole));
                    // What it was to hide is not known.
                    let part = |name| Some(LeftOut::of(Some(name), first.clone()?));
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
            self.left_out.push(LeftOut::of(None, flaw));
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
    pub(super) fn settle(&mut self) {
        let mut left_out = Vec::new();
        keep_first("services", &mut self.services, |name, flaw| {
            left_out.push(LeftOut::of(Some(name), flaw));
        });
        // Without its service: the first one of that name is served.
        self.left_out.extend(left_out.into_iter().map(|left| LeftOut { service: None, ..left }));
        let (left_out, flaws) = (&mut self.left_out, &mut self.flaws);
        keep_first("profiles", &mut self.profiles, |_, flaw| left_out.push(LeftOut::of(None, flaw)));
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
