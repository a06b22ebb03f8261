//! What changed files make of the configuration in force: a wrong change of an included file holds up that file alone.

use std::path::Path;
use std::sync::Arc;

use super::contents::Files;
use super::expand::Sources;
use super::file::File;
use super::flaw::{Flaw, LeftOut};
use super::load::load;
use super::{Config, ConfigError, Overrides};

/// The text of the files that a configuration was read from.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<[File]>);

/// Configurations are compared by what they mean.
impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Written {
    pub(super) fn of(files: &Files) -> Self {
        Self(files.files.iter().cloned().collect())
    }

    pub(super) fn files(&self) -> Files {
        Files { files: self.0.to_vec(), ..Files::default() }
    }

    fn file(&self, path: &Path) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }
}

/// A configuration that can come into force.
#[derive(Debug)]
pub struct Reloaded {
    pub config: Config,
    /// Why included files stay in force as they were.
    pub held_back: Vec<Flaw>,
}

impl Config {
    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Config::load`], and whatever would leave something out that is in force now, by a change of the main file or
    /// of what is filled in.
    pub fn reloaded(&self, overrides: Overrides) -> Result<Reloaded, ConfigError> {
        let sources = Sources::usual();
        let mut files = Files::read(overrides.path().as_deref())?;
        let mut held_back = files.take_back_unread(&self.written);
        loop {
            let config = load(&files, overrides.clone(), &sources)?;
            let is_fresh = |left: &&LeftOut| {
                !self.left_out.iter().any(|known| known.is_same(left)) && !config.is_script(left)
            };
            let fresh: Vec<&LeftOut> = config.left_out.iter().filter(is_fresh).collect();
            // What is taken back may clash with what another file says now, so there may be several rounds.
            let before = held_back.len();
            for left in &fresh {
                if files.take_back(&left.flaw.path, &self.written) {
                    held_back.push(left.flaw.clone());
                }
            }
            if held_back.len() > before {
                continue;
            }
            match fresh.iter().find(|left| self.written.file(&left.flaw.path).is_some()) {
                // Its file is as it was, so it is another one that it does not go with.
                Some(left) if files.take_all_back(&self.written) => held_back.push(left.flaw.clone()),
                Some(left) => return Err(ConfigError::Wrong(left.flaws().cloned().collect())),
                // What is new and wrong is left out, as it would be at the start.
                None => return Ok(Reloaded { config, held_back }),
            }
        }
    }
}

impl Files {
    /// Has files that cannot be read any more as they were; answers what was said of them.
    fn take_back_unread(&mut self, written: &Written) -> Vec<Flaw> {
        let mut held_back = Vec::new();
        for (path, flaw) in std::mem::take(&mut self.unread) {
            if let Some(old) = written.file(&path) {
                self.files.push(old.clone());
                self.left_out.retain(|left| left.flaw != flaw);
                held_back.push(flaw);
            }
        }
        held_back
    }

    /// Has all included files as they were that are there; says whether one has another text now.
    fn take_all_back(&mut self, written: &Written) -> bool {
        let paths: Vec<_> = self.files.iter().map(|file| file.path.clone()).collect();
        let taken = paths.iter().filter(|path| self.take_back(path, written));
        taken.count() > 0
    }

    /// Has an included file as it was; says whether that is another text.
    fn take_back(&mut self, path: &Path, written: &Written) -> bool {
        let Some(old) = written.file(path).filter(|_| self.files[0].path != path) else { return false };
        let changed = self.files.iter_mut().find(|file| file.path == path && file.text != old.text);
        changed.map(|file| file.text.clone_from(&old.text)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ids::Name;

    struct Place(tempfile::TempDir);

    impl Place {
        fn with(files: &[(&str, &str)]) -> Self {
            let place = Self(tempfile::tempdir().expect("a folder"));
            files.iter().for_each(|(name, text)| place.write(name, text));
            place
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).expect("write");
        }

        fn overrides(&self) -> Overrides {
            let file = Some(self.0.path().join("main.toml"));
            Overrides { file, data_dir: Some("/nowhere".into()), ..Overrides::default() }
        }

        fn load(&self) -> Config {
            Config::load(self.overrides()).expect("a configuration")
        }
    }

    fn service(name: &str) -> String {
        format!("[services.{name}]\nurl = \"http://127.0.0.1:1/mcp\"\n")
    }

    fn served(config: &Config) -> Vec<&str> {
        config.instances.iter().map(|instance| instance.service.as_str()).collect()
    }

    const MAIN: &str = "include = [\"inc-*.toml\"]\n";

    #[test]
    fn a_file_that_is_half_written_stays_as_it_was_and_holds_nothing_else_up() {
        let place =
            Place::with(&[("main.toml", MAIN), ("inc-a.toml", "[services.x"), ("inc-b.toml", &service("b"))]);
        let before = place.load();
        assert_eq!(served(&before), ["b"]);
        place.write("inc-b.toml", "[services.b");
        place.write("main.toml", &format!("{MAIN}{}", service("m")));
        let after = before.reloaded(place.overrides()).expect("the rest is good");
        assert_eq!(served(&after.config), ["m", "b"]);
        assert_eq!(after.held_back.len(), 1, "{:?}", after.held_back);
        assert!(after.held_back[0].path.ends_with("inc-b.toml"));
        place.write("inc-b.toml", &service("c"));
        let later = after.config.reloaded(place.overrides()).expect("all is good");
        assert_eq!((served(&later.config), later.held_back.len()), (vec!["m", "c"], 0));
    }

    #[test]
    fn a_wrong_change_of_the_main_file_changes_nothing() {
        let place = Place::with(&[("main.toml", &service("a"))]);
        let before = place.load();
        place.write("main.toml", &format!("{}[services.b]\ncomand = \"x\"\n", service("a")));
        let error = before.reloaded(place.overrides()).expect_err("it is wrong").to_string();
        assert!(error.contains("did you mean `command`?"), "{error}");
    }

    #[test]
    fn a_new_file_that_is_wrong_is_left_out_as_at_the_start() {
        let place = Place::with(&[("main.toml", MAIN), ("inc-a.toml", &service("a"))]);
        let before = place.load();
        place.write("inc-b.toml", "[services.b]\ncomand = \"x\"\n");
        place.write("inc-c.toml", &service("c"));
        let after = before.reloaded(place.overrides()).expect("the rest is good");
        assert_eq!((served(&after.config), after.config.left_out.len()), (vec!["a", "c"], 1));
    }

    #[test]
    fn two_files_that_clash_are_both_as_they_were() {
        let place =
            Place::with(&[("main.toml", MAIN), ("inc-a.toml", &service("a")), ("inc-b.toml", &service("b"))]);
        let before = place.load();
        place.write("inc-a.toml", &(service("a") + &service("b")));
        place.write("inc-b.toml", &service("c"));
        let moved = before.reloaded(place.overrides()).expect("a service may move");
        assert_eq!(served(&moved.config), ["a", "b", "c"]);
        place.write("inc-b.toml", &(service("b") + &service("c")));
        let after = before.reloaded(place.overrides()).expect("what was good is good");
        let name = Name::new("b").expect("a name");
        assert!(after.config.services.contains_key(&name), "{:?}", served(&after.config));
        assert!(!after.held_back.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_any_more_stays_in_force() {
        let place = Place::with(&[
            ("main.toml", "include = [\"one.toml\", \"two.toml\"]\n"),
            ("one.toml", &service("a")),
            ("two.toml", &service("b")),
        ]);
        let before = place.load();
        std::fs::remove_file(place.0.path().join("one.toml")).expect("take it away");
        place.write("two.toml", &service("c"));
        let after = before.reloaded(place.overrides()).expect("the rest is good");
        let mut served = served(&after.config);
        served.sort_unstable();
        assert_eq!((served, after.held_back.len()), (vec!["a", "c"], 1));
        std::fs::remove_file(place.0.path().join("main.toml")).expect("take it away");
        assert!(after.config.reloaded(place.overrides()).is_err(), "nothing changes");
    }
}
