//! Where capsules are kept, and how many: a storm of failures costs no call, no disk and no time of others.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::capsule::{Capsule, Seen};
use super::clock;
use super::fault::Fault;
use super::loaded::Plugin;
use super::repair::Repair;
use crate::mesh::time::Mono;

const FOLDER: &str = "capsules";
const UNFINISHED: &str = ".tmp";
/// The oldest goes first.
const FILES_MAX: usize = 50;
/// Of one generation.
const INPUTS_MAX: usize = 256;
/// Of all plugins together, within a minute.
const A_MINUTE_MAX: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// `capsules` in the data folder.
pub struct Shelf {
    folder: PathBuf,
    recent: Mutex<VecDeque<Mono>>,
}

impl Shelf {
    /// # Errors
    /// The folder can neither be found nor made.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let shelf = Self { folder, recent: Mutex::default() };
        shelf.remove(|name| name.starts_with('.') && name.ends_with(UNFINISHED), 0)?;
        Ok(shelf)
    }

    /// Whether one more is written this minute.
    fn has_room(&self, now: Mono) -> bool {
        let mut recent = lock(&self.recent);
        while recent.front().is_some_and(|at| now.since(*at) >= MINUTE) {
            recent.pop_front();
        }
        let has_room = recent.len() < A_MINUTE_MAX;
        if has_room {
            recent.push_back(now);
        }
        has_room
    }

    /// # Errors
    /// It cannot be written; what was there before still is.
    fn put(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let mut fresh = tempfile::Builder::new().prefix(".").suffix(UNFINISHED).tempfile_in(&self.folder)?;
        fresh.write_all(text)?;
        fresh.persist(self.folder.join(name)).map_err(|error| error.error)?;
        if let Err(error) = self.remove(|name| name.ends_with(".json"), FILES_MAX) {
            tracing::warn!(%error, "old capsules cannot be removed");
        }
        Ok(())
    }

    /// Removes the files that are `meant` but for the last `keep` by name. Another process may do so, too.
    ///
    /// # Errors
    /// That of the first file that is still there.
    fn remove(&self, meant: impl Fn(&str) -> bool, keep: usize) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| meant(name)));
        }
        names.sort_unstable();
        let mut removed = Ok(());
        for name in &names[..names.len().saturating_sub(keep)] {
            let gone = fs::remove_file(self.folder.join(name));
            removed = removed.and(gone.or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }));
        }
        removed
    }
}

/// The capsules of one generation: one for each input on which it failed.
pub struct Capsules {
    /// `None` where there is no place to keep any.
    shelf: Option<Arc<Shelf>>,
    repair: Repair,
    seen: Mutex<HashSet<u64>>,
    pub(super) newest: Mutex<Option<String>>,
}

impl Capsules {
    pub fn new(shelf: Option<Arc<Shelf>>, repair: Repair) -> Self {
        Self { shelf, repair, seen: Mutex::default(), newest: Mutex::default() }
    }

    /// The file of the last one that was written.
    pub fn newest(&self) -> Option<String> {
        lock(&self.newest).clone()
    }

    /// Has a fault of `plugin`, whose capsules these are, written down by another thread, unless one is known of the
    /// same `input`.
    #[cold]
    pub fn note(&self, plugin: &Arc<Plugin>, input: u64, fault: &Fault, seen: impl FnOnce() -> Seen) {
        let Some(shelf) = self.shelf.as_ref().filter(|_| fault.by_guest()) else { return };
        {
            let mut inputs = lock(&self.seen);
            if inputs.contains(&input) || inputs.len() >= INPUTS_MAX || !shelf.has_room(clock::now()) {
                return;
            }
            inputs.insert(input);
        }
        let capsule = Capsule::new(Arc::clone(plugin), seen(), fault, clock::wall());
        if !self.repair.write(capsule, input) {
            lock(&self.seen).remove(&input);
        }
    }

    /// Called by the thread for it only.
    pub fn write(&self, capsule: &Capsule, input: u64) {
        let Some(shelf) = &self.shelf else { return };
        let (plugin, file) = (&capsule.plugin().source.name, capsule.file_name(input));
        let written = capsule.json().map_err(io::Error::from).and_then(|text| shelf.put(&file, &text));
        match written {
            Ok(()) => {
                tracing::info!(%plugin, %file, "capsule written");
                *lock(&self.newest) = Some(file);
            }
            Err(error) => {
                // The next fault of the same input may find room.
                lock(&self.seen).remove(&input);
                tracing::warn!(%plugin, %file, %error, "capsule cannot be written");
            }
        }
    }
}

/// The input of questions that are about a service, or about nothing in particular.
pub fn input(hook: &str, service: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (hook, service).hash(&mut hasher);
    hasher.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn of_two_hundred_the_last_fifty_are_kept_and_only_for_their_owner() {
        let data = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::open(data.path()).expect("a shelf");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&shelf.folder), 0o700);
        (0..200).for_each(|number| shelf.put(&format!("{number:03}.json"), b"{}").expect("written"));
        let entries = fs::read_dir(&shelf.folder).expect("the folder").map(|entry| entry.expect("a file"));
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let wanted: Vec<String> = (150..200).map(|number| format!("{number:03}.json")).collect();
        assert_eq!(names, wanted);
        assert_eq!(mode(&shelf.folder.join("199.json")), 0o600);
    }

    #[test]
    fn what_cannot_be_removed_keeps_nothing_from_being_written() {
        let data = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::open(data.path()).expect("a shelf");
        fs::create_dir(shelf.folder.join("000.json")).expect("a folder in the way");
        (1..60).for_each(|number| shelf.put(&format!("{number:03}.json"), b"{}").expect("written"));
        let names = fs::read_dir(&shelf.folder).expect("the folder").count();
        assert_eq!(names, FILES_MAX + 1, "all older ones are removed but for what is in the way");
    }

    #[test]
    fn a_storm_fills_its_minute_and_no_more() {
        let data = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::open(data.path()).expect("a shelf");
        let taken = |at_s| (0..100).filter(|_| shelf.has_room(Mono::from_secs(at_s))).count();
        assert_eq!([taken(1), taken(60), taken(61)], [A_MINUTE_MAX, 0, A_MINUTE_MAX]);
    }
}
