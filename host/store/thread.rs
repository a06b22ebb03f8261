//! The one thread that writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{Command, Persistence, StoreError, index, open, rows};

/// Distance of the copies.
const COPY_EVERY: Duration = Duration::from_secs(3600);
/// Distance of looks at whether a copy is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Shortest distance of two attempts to open a database that failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

pub(super) fn start(
    connection: Connection,
    lock: File,
    folder: PathBuf,
    queue: mpsc::Receiver<Command>,
    persistence: Arc<Persistence>,
) -> std::io::Result<()> {
    let writer = Writer {
        connection: Some(connection),
        _lock: lock,
        folder,
        persistence,
        failed_at: None,
        looked_at: None,
    };
    std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(queue)).map(drop)
}

struct Writer {
    /// `None` after a failure, until the database can be opened again.
    connection: Option<Connection>,
    /// The data folder is this process's for as long as it is open.
    _lock: File,
    folder: PathBuf,
    persistence: Arc<Persistence>,
    failed_at: Option<Instant>,
    /// When it was last looked at whether a copy is due.
    looked_at: Option<Instant>,
}

impl Writer {
    /// Ends when all handles are gone or `Stop` comes. A caller that no longer waits for its answer has gone away:
    /// its oneshot is closed, and there is nobody to tell.
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            match command {
                Command::Commit { changes, done } => {
                    let result = self.write(|connection| rows::commit(connection, &changes));
                    done.send(result).ok();
                }
                Command::Totals { services, instances, memos, reliability, done } => {
                    let result = self.write(|connection| {
                        rows::totals(connection, &services, &instances, &memos, &reliability)
                    });
                    done.send(result).ok();
                }
                Command::Find { query, limit, mut admits, done } => {
                    let found = self.connected().and_then(|connection| {
                        let found = index::find(connection, &query, limit, &mut *admits);
                        found.map_err(|error| StoreError::Read(error.to_string()))
                    });
                    done.send(found).ok();
                    continue;
                }
                Command::Stop { done } => {
                    drop(self.connection.take());
                    done.send(()).ok();
                    return;
                }
            }
            self.copy_when_due();
        }
    }

    fn write(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let result = self
            .connected()
            .and_then(|connection| work(connection).map_err(|error| StoreError::Write(error.to_string())));
        match &result {
            Ok(()) => {
                self.failed_at = None;
                self.persistence.set(None);
            }
            Err(error) => {
                self.connection = None;
                self.failed_at.get_or_insert_with(Instant::now);
                self.persistence.set(Some(error.to_string()));
            }
        }
        result
    }

    fn connected(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            if self.failed_at.is_some_and(|at| at.elapsed() < REOPEN_EVERY) {
                return Err(StoreError::Write(
                    "the database failed a moment ago and is tried again soon".to_owned(),
                ));
            }
            self.failed_at = Some(Instant::now());
            ensure_present(&self.folder)?;
            self.connection = Some(open::reopen(&self.folder)?);
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    fn copy_when_due(&mut self) {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked_at = Some(Instant::now());
        // By the file's own time, so that a proxy that starts again and again does not push the good copies out.
        let age = open::copied_at(&self.folder).and_then(|at| at.elapsed().ok());
        let due = age.is_none_or(|age| age >= COPY_EVERY);
        let Some(connection) = self.connection.as_ref().filter(|_| due) else { return };
        if let Err(error) = open::copy(connection, &self.folder) {
            tracing::warn!(error = %error, "cannot copy the database");
        }
    }
}

fn ensure_present(folder: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder { path: folder.to_owned(), source })
}
