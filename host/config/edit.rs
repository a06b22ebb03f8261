//! Changes of the main file by program: what people wrote there, their comments too, stays as it is.

use std::fs::File as OpenFile;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::contents::Files;
use super::expand::Sources;
use super::file::File;
use super::flaw::LeftOut;
use super::load::load;
use super::{Config, ConfigError, Flaw, Overrides, config_home};
use crate::mesh::ids::Name;

#[derive(Debug, Error)]
pub enum EditError {
    #[error("there is no home folder to write a configuration file in; name one with --config")]
    NoHome,
    #[error("nothing is written into a file that is wrong already: {}", .0.in_a_line())]
    Broken(Flaw),
    #[error("the file would be wrong then: {0}")]
    Wrong(String),
    #[error("`{name}` is in {place} already")]
    Taken { name: String, place: String },
    #[error("no service is called `{0}` in the configuration")]
    NotThere(String),
    #[error("`{name}` is in {place}, which is not written by program")]
    Elsewhere { name: String, place: String },
    #[error("`{}` cannot be written", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Writes a service into the main file, which is made when there is none. `settings` are those of `[services.NAME]`.
/// Answers with the file.
///
/// # Errors
/// There is a service of that name, or the configuration would be wrong.
pub fn add_service(
    overrides: &Overrides,
    name: &str,
    settings: &Map<String, Value>,
) -> Result<PathBuf, EditError> {
    Name::new(name).map_err(|error| EditError::Wrong(format!("`{name}`: {error}")))?;
    let main = Main::open(overrides)?;
    if let Some(place) = main.place_of(name)? {
        return Err(EditError::Taken { name: name.to_owned(), place });
    }
    main.change(|services| {
        let mut table = Table::new();
        let (first, rest): (Vec<_>, Vec<_>) =
            settings.iter().partition(|(key, _)| matches!(key.as_str(), "command" | "url" | "urls"));
        for (key, value) in first.into_iter().chain(rest) {
            table.insert(key, Item::Value(value_of(value)));
        }
        services.insert(name, Item::Table(table));
    })
}

/// Takes a service out of the main file. Answers with the file.
///
/// # Errors
/// It is not there, or the configuration would be wrong.
pub fn remove_service(overrides: &Overrides, name: &str) -> Result<PathBuf, EditError> {
    let main = Main::open(overrides)?;
    let place = main.place_of(name)?.ok_or_else(|| EditError::NotThere(name.to_owned()))?;
    if !main.has(name) {
        return Err(EditError::Elsewhere { name: name.to_owned(), place });
    }
    main.change(|services| {
        services.remove(name);
    })
}

/// The main file, locked against other programs that would change it.
struct Main {
    overrides: Overrides,
    file: File,
    document: DocumentMut,
    /// What is left out of it now.
    left_out: Vec<LeftOut>,
    _lock: OpenFile,
}

impl Main {
    fn open(overrides: &Overrides) -> Result<Self, EditError> {
        let path = match overrides.path() {
            Some(path) => path,
            None => user_file().ok_or(EditError::NoHome)?,
        };
        let lock = lock(&path).map_err(|source| EditError::Write { path: path.clone(), source })?;
        let overrides = Overrides { file: Some(path.clone()), ..overrides.clone() };
        let file = File::read(&path).map_err(|source| ConfigError::Read { path, source })?;
        let before = check(&file, &overrides).map_err(|error| match error {
            ConfigError::Wrong(mut flaws) if !flaws.is_empty() => EditError::Broken(flaws.swap_remove(0)),
            other => EditError::Config(other),
        })?;
        let document = file.text.parse().map_err(|error: toml_edit::TomlError| {
            EditError::Broken(file.flaw("", error.span(), error.message()))
        })?;
        Ok(Self { overrides, file, document, left_out: before.left_out, _lock: lock })
    }

    fn has(&self, name: &str) -> bool {
        self.document.get("services").and_then(|item| item.get(name)).is_some()
    }

    /// Where a service of that name is, in any of the files.
    fn place_of(&self, name: &str) -> Result<Option<String>, EditError> {
        let files = Files::around(File { path: self.file.path.clone(), text: self.file.text.clone() })?;
        let contents = files.contents()?;
        let found = contents.services.iter().find(|entry| entry.name.get_ref() == name);
        Ok(found.map(|entry| entry.file.at(&entry.name.span())))
    }

    fn change(mut self, change: impl FnOnce(&mut dyn TableLike)) -> Result<PathBuf, EditError> {
        let mut implicit = Table::new();
        implicit.set_implicit(true);
        let services = self.document.entry("services").or_insert(Item::Table(implicit));
        let wrong = || EditError::Wrong("`services` is no table".to_owned());
        change(services.as_table_like_mut().ok_or_else(wrong)?);
        let fresh = File { path: self.file.path.clone(), text: self.document.to_string() };
        let after = check(&fresh, &self.overrides).map_err(|error| match error {
            ConfigError::Wrong(flaws) => EditError::Wrong(super::list(&flaws)),
            other => EditError::Config(other),
        })?;
        let is_new = |left: &&LeftOut| !self.left_out.iter().any(|known| known.is_same(left));
        if let Some(left) = after.left_out.iter().find(is_new) {
            let Flaw { key, message, .. } = &left.flaw;
            return Err(EditError::Wrong(format!("`{key}`: {message}")));
        }
        replace(&fresh).map_err(|source| EditError::Write { path: fresh.path.clone(), source })?;
        Ok(std::path::absolute(&fresh.path).unwrap_or(fresh.path))
    }
}

fn check(file: &File, overrides: &Overrides) -> Result<Config, ConfigError> {
    let files = Files::around(File { path: file.path.clone(), text: file.text.clone() })?;
    load(&files, overrides.clone(), &Sources::usual())
}

/// The file that is made where there is none.
pub fn user_file() -> Option<PathBuf> {
    config_home().map(|folder| folder.join("meshwright/meshwright.toml"))
}

/// Locks a file, and makes an empty one where there is none. A file that was replaced meanwhile is locked anew.
fn lock(path: &Path) -> io::Result<OpenFile> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    loop {
        let file = OpenFile::options().create(true).append(true).open(path)?;
        file.lock()?;
        let (own, now) = (file.metadata()?, std::fs::metadata(path)?);
        if (own.dev(), own.ino()) == (now.dev(), now.ino()) {
            return Ok(file);
        }
    }
}

/// Puts the new text in the file's place as a whole, with the old one's owner and permissions: the proxy may run as
/// somebody else than who changes its configuration.
fn replace(fresh: &File) -> io::Result<()> {
    let path = std::fs::canonicalize(&fresh.path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".meshwright-").tempfile_in(folder)?;
    file.write_all(fresh.text.as_bytes())?;
    let (old, made) = (std::fs::metadata(&path)?, file.as_file().metadata()?);
    if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
        fchown(file.as_file(), Some(old.uid()), Some(old.gid())).map_err(|error| {
            let (user, group) = (old.uid(), old.gid());
            let why = format!("it would not belong to user {user} and group {group} any more ({error}); run this as that user");
            io::Error::new(error.kind(), why)
        })?;
    }
    file.as_file().set_permissions(old.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// TOML has no `null`: a setting that is none is wrong, and said to be so by its kind.
fn value_of(value: &Value) -> toml_edit::Value {
    match value {
        Value::Null => toml_edit::Value::InlineTable(toml_edit::InlineTable::new()),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(value_of).collect::<toml_edit::Array>().into(),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.as_str(), value_of(value)));
            members.collect::<toml_edit::InlineTable>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn with(text: &str) -> Self {
            let place = Self(tempfile::tempdir().expect("a folder"));
            std::fs::write(place.file(), text).expect("write");
            place
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("meshwright.toml")
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.file()).expect("read")
        }

        fn overrides(&self) -> Overrides {
            Overrides { file: Some(self.file()), data_dir: Some("/nowhere".into()), ..Overrides::default() }
        }

        fn add(&self, name: &str, settings: Value) -> Result<PathBuf, EditError> {
            let settings = settings.as_object().expect("an object").clone();
            add_service(&self.overrides(), name, &settings)
        }
    }

    const WRITTEN: &str =
        "# mine\n[services.a]   # the first\nurl = \"http://a\"  # here\n\n[profiles.p] # last\n";

    #[test]
    fn what_is_added_and_taken_out_leaves_every_comment_where_it_was() {
        let place = Place::with(WRITTEN);
        let settings =
            json!({"command": "x", "args": ["-y", "it's"], "tools": {"deny": ["d_*"]}, "instances": 2});
        place.add("b", settings).expect("it is good");
        let text = place.text();
        assert!(text.contains("[services.b]\n") && text.contains("tools = { deny = [\"d_*\"] }\n"), "{text}");
        for line in WRITTEN.lines() {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let config = Config::load(place.overrides()).expect("it is good");
        assert_eq!((config.left_out.len(), config.instances.len()), (0, 3));
        remove_service(&place.overrides(), "b").expect("it is there");
        assert_eq!(place.text(), WRITTEN);
        remove_service(&place.overrides(), "a").expect("it is there");
        assert!(place.text().ends_with("[profiles.p] # last\n") && !place.text().contains("services"));
    }

    #[test]
    fn what_would_be_wrong_is_not_written() {
        let place = Place::with(WRITTEN);
        for (name, settings, why) in [
            ("a", json!({"url": "http://b"}), "meshwright.toml:2 already"),
            ("b", json!({"comand": "x"}), "did you mean `command`?"),
            ("b", json!({"url": null}), "`services.b`"),
            ("b", json!({"command": "x", "url": "http://b"}), "either a `command` or a `url`"),
            ("b c", json!({"url": "http://b"}), "`b c`"),
        ] {
            let error = place.add(name, settings).expect_err("it is wrong").to_string();
            assert!(error.contains(why), "{why} in {error}");
        }
        let absent = remove_service(&place.overrides(), "z").expect_err("it is not there");
        assert!(matches!(absent, EditError::NotThere(_)), "{absent}");
        assert_eq!(place.text(), WRITTEN);

        let broken = Place::with("[services\n");
        assert!(matches!(broken.add("b", json!({"url": "http://b"})), Err(EditError::Broken(_))));
        assert_eq!(broken.text(), "[services\n");
    }

    #[test]
    fn services_of_included_files_are_seen_and_left_alone() {
        let place = Place::with("include = [\"more.toml\"]\n");
        std::fs::write(place.0.path().join("more.toml"), "[services.a]\nurl = \"http://a\"\n")
            .expect("write");
        let taken = place.add("a", json!({"url": "http://b"})).expect_err("it is taken");
        assert!(taken.to_string().contains("more.toml:1"), "{taken}");
        let elsewhere = remove_service(&place.overrides(), "a").expect_err("it is elsewhere");
        assert!(matches!(elsewhere, EditError::Elsewhere { .. }), "{elsewhere}");
    }

    /// One that is not the usual one of files made here: anybody's for root, else one of the groups that we are in.
    fn another_owner(now: (u32, u32)) -> Option<(u32, u32)> {
        if rustix::process::geteuid().is_root() {
            return Some((12_345, 54_321));
        }
        let groups = rustix::process::getgroups().expect("our groups");
        let other = groups.into_iter().map(rustix::process::Gid::as_raw).find(|gid| *gid != now.1);
        other.map(|gid| (now.0, gid))
    }

    #[test]
    fn the_file_stays_its_owners() {
        let place = Place::with(WRITTEN);
        let owner = || std::fs::metadata(place.file()).map(|about| (about.uid(), about.gid())).expect("it");
        let wanted = another_owner(owner()).unwrap_or_else(owner);
        std::os::unix::fs::chown(place.file(), Some(wanted.0), Some(wanted.1)).expect("chown");
        place.add("b", json!({"url": "http://b"})).expect("it is good");
        assert!(place.text().contains("http://b"));
        assert_eq!(owner(), wanted);
    }

    #[test]
    fn two_at_once_both_get_in() {
        let place = Place::with("");
        std::thread::scope(|scope| {
            for at in 0..8 {
                let place = &place;
                scope.spawn(move || {
                    place.add(&format!("s{at}"), json!({"url": "http://h"})).expect("it is good")
                });
            }
        });
        assert_eq!(Config::load(place.overrides()).expect("it is good").services.len(), 8);
    }
}
