//! Builds that were rolled back, so that the next start does not try them again.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::Sha;
use crate::mesh::ids::Name;

const FOLDER: &str = "plugins-bad";
/// Of one plugin; the oldest goes first.
const BUILDS_MAX: usize = 16;

/// A build with the configuration that it failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBuild {
    pub component: Sha,
    pub config: Sha,
    pub reason: String,
}

/// As it lies in `NAME.json`, in a list.
#[derive(Serialize, Deserialize)]
struct Note {
    sha256: String,
    config_sha256: String,
    reason: String,
}

/// `plugins-bad` in the data folder.
pub struct Bad(PathBuf);

impl Bad {
    /// # Errors
    /// The folder can neither be found nor made.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// What earlier runs rolled back. What cannot be read is passed over.
    pub fn all(&self) -> Vec<(Name, BadBuild)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            Name::new(file.strip_suffix(".json")?).ok()
        });
        let of = |name: Name| self.of(&name).into_iter().map(move |build| (name.clone(), build));
        names.flat_map(of).collect()
    }

    fn of(&self, name: &Name) -> Vec<BadBuild> {
        let text = fs::read(self.path(name)).unwrap_or_default();
        let notes: Vec<Note> = serde_json::from_slice(&text).unwrap_or_default();
        let build = |note: Note| {
            let (component, config) = (sha(&note.sha256)?, sha(&note.config_sha256)?);
            Some(BadBuild { component, config, reason: note.reason })
        };
        notes.into_iter().filter_map(build).collect()
    }

    /// # Errors
    /// Nothing can be written.
    pub fn remember(&self, name: &Name, bad: BadBuild) -> io::Result<()> {
        let mut builds = self.of(name);
        builds.retain(|build| (build.component, build.config) != (bad.component, bad.config));
        builds.push(bad);
        let newest = &builds[builds.len().saturating_sub(BUILDS_MAX)..];
        let notes: Vec<Note> = newest
            .iter()
            .map(|build| Note {
                sha256: hex::encode(build.component),
                config_sha256: hex::encode(build.config),
                reason: build.reason.clone(),
            })
            .collect();
        let mut fresh = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.0)?;
        fresh.write_all(&serde_json::to_vec(&notes).map_err(io::Error::other)?)?;
        fresh.as_file().sync_all()?;
        fresh.persist(self.path(name)).map_err(|error| error.error)?;
        Ok(())
    }

    pub fn forget(&self, name: &Name) {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(plugin = %name, error = %error, "what was rolled back cannot be forgotten");
            }
            _ => {}
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }
}

fn sha(digits: &str) -> Option<Sha> {
    hex::decode(digits).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_builds_of_each_plugin_are_remembered_until_it_is_forgotten() {
        let data = tempfile::tempdir().expect("a folder");
        let name = |text| Name::new(text).expect("a name");
        let build =
            |tag: u8| BadBuild { component: [tag; 32], config: [0; 32], reason: format!("bad {tag}") };
        let bad = Bad::open(data.path()).expect("a folder");
        (0..20).for_each(|tag| bad.remember(&name("a"), build(tag)).expect("written"));
        bad.remember(&name("a"), build(10)).expect("written");
        bad.remember(&name("b"), build(1)).expect("written");
        fs::write(bad.0.join("c.json"), "[{").expect("written");
        let again = Bad::open(data.path()).expect("a folder");
        let mut all = again.all();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let tags: Vec<u8> = all.iter().map(|(_, build)| build.component[0]).collect();
        assert_eq!(tags, [4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 10, 1]);
        assert_eq!(all[16], (name("b"), build(1)));
        again.forget(&name("a"));
        assert_eq!(again.all(), [(name("b"), build(1))]);
    }
}
