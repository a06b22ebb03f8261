//! Wakes somebody when a folder changes. What changed is found out by looking, not from events.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;

#[derive(Debug, Error)]
#[error("the folder cannot be watched")]
pub struct WatchError(#[source] notify::Error);

/// Watches until it is dropped.
pub struct Watcher(#[expect(dead_code, reason = "its life is the watch")] RecommendedWatcher);

impl Watcher {
    /// `wake` is called from the watcher's own thread, often several times for one change.
    ///
    /// # Errors
    /// The folder does not exist, or the system has no more watches to give.
    pub fn start(folder: &Path, wake: impl Fn() + Send + Sync + 'static) -> Result<Self, WatchError> {
        Self::start_for(folder, |_| true, wake)
    }

    /// For the names that `wants`, and the folder itself.
    ///
    /// # Errors
    /// As above.
    pub fn start_for(
        folder: &Path,
        wants: impl Fn(&OsStr) -> bool + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let own = folder.to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = |event: &notify::Event| {
                let wanted = |path: &PathBuf| *path == own || path.file_name().is_none_or(&wants);
                event.paths.is_empty() || event.paths.iter().any(wanted)
            };
            // An error means that events were lost, which is a reason to look.
            if event.map_or(true, |event| is_change(event.kind) && concerns(&event)) {
                wake();
            }
        })
        .map_err(WatchError)?;
        watcher.watch(folder, RecursiveMode::NonRecursive).map_err(WatchError)?;
        Ok(Self(watcher))
    }
}

/// Our own reading is an access too, and must not wake us.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_file_wakes_and_reading_it_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, wakes) = mpsc::channel();
        let _watcher = Watcher::start(folder.path(), move || sender.send(()).unwrap()).unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, b"x").unwrap();
        wakes.recv_timeout(Duration::from_secs(5)).expect("writing wakes");
        while wakes.recv_timeout(Duration::from_millis(200)).is_ok() {}
        std::fs::read(&file).unwrap();
        assert!(wakes.recv_timeout(Duration::from_millis(200)).is_err(), "reading must not wake");
    }

    #[test]
    fn only_what_is_wanted_wakes() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, wakes) = mpsc::channel();
        let wants = |name: &OsStr| name == "a.toml";
        let _watcher = Watcher::start_for(folder.path(), wants, move || sender.send(()).unwrap()).unwrap();
        std::fs::write(folder.path().join("b.log"), b"x").unwrap();
        assert!(wakes.recv_timeout(Duration::from_millis(300)).is_err(), "a file of others must not wake");
        std::fs::write(folder.path().join("new"), b"x").unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("a.toml")).unwrap();
        wakes.recv_timeout(Duration::from_secs(5)).expect("a file that takes its place wakes");
    }
}
