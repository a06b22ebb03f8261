//! Opening the database, and what is done when it is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, schema};

/// Good copies that are kept, newest first.
const COPIES: usize = 3;

pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("meshwright.db")
}

fn copy_path(folder: &Path, age: usize) -> PathBuf {
    folder.join(format!("meshwright.copy{age}.db"))
}

/// How long a proxy that was killed may hold the folder: a child that it was starting has all that it had open.
const HANDOVER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Takes the data folder for this process alone, for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<fs::File, StoreError> {
    let failed = |source| StoreError::Folder { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = fs::File::create(folder.join("meshwright.lock")).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < HANDOVER => std::thread::sleep(LOOK_EVERY),
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// When the newest copy was made.
pub(super) fn copied_at(folder: &Path) -> Option<SystemTime> {
    fs::metadata(copy_path(folder, 0)).and_then(|copy| copy.modified()).ok()
}

/// Opens the database; a damaged one is set aside and the newest good copy, or nothing, takes its place. The
/// second value says so, for people.
pub(super) fn open(folder: &Path) -> Result<(Connection, Option<String>), StoreError> {
    let path = path(folder);
    match connect(&path) {
        Ok(connection) => Ok((connection, None)),
        Err(Refused::Damaged(error)) => {
            tracing::error!(path = %path.display(), error = %error, "database damaged, setting it aside");
            let aside = set_aside(folder, &path)?;
            let restored = restore(folder, &path);
            let connection = connect(&path).map_err(|refused| refused.into_error(&path))?;
            let from = restored.map_or("an empty one takes its place".to_owned(), |copy| {
                format!("the copy `{}` takes its place", copy.display())
            });
            Ok((
                connection,
                Some(format!("the database was damaged and is now `{}`; {from}", aside.display())),
            ))
        }
        Err(refused) => Err(refused.into_error(&path)),
    }
}

enum Refused {
    Damaged(rusqlite::Error),
    Newer(i64),
    Other(rusqlite::Error),
}

impl Refused {
    fn into_error(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Damaged(source) | Self::Other(source) => StoreError::Open { path, source },
            Self::Newer(found) => StoreError::Newer { path, found, known: schema::VERSION },
        }
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            _ => Self::Other(error),
        }
    }
}

fn connect(path: &Path) -> Result<Connection, Refused> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(Refused::Damaged(rusqlite::Error::SqliteFailure(damage, Some(verdict))));
    }
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > schema::VERSION {
        return Err(Refused::Newer(found));
    }
    schema::migrate(&mut connection, found)?;
    Ok(connection)
}

/// Opens the database again after a failed write.
pub(super) fn reopen(folder: &Path) -> Result<Connection, StoreError> {
    let path = path(folder);
    connect(&path).map_err(|refused| refused.into_error(&path))
}

fn set_aside(folder: &Path, path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Folder { path: folder.to_owned(), source };
    let at = crate::clock::wall().as_millis();
    let aside = folder.join(format!("meshwright.damaged-{at}.db"));
    fs::rename(path, &aside).map_err(failed)?;
    for suffix in ["-wal", "-shm"] {
        let side = PathBuf::from(format!("{}{suffix}", path.display()));
        if side.exists() {
            fs::rename(&side, format!("{}{suffix}", aside.display())).map_err(failed)?;
        }
    }
    Ok(aside)
}

fn restore(folder: &Path, path: &Path) -> Option<PathBuf> {
    (0..COPIES).map(|age| copy_path(folder, age)).find(|copy| is_good(copy) && fs::copy(copy, path).is_ok())
}

fn is_good(copy: &Path) -> bool {
    let check = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    copy.is_file() && check().is_ok_and(|verdict| verdict == "ok")
}

/// Writes a new copy and lets the oldest go.
pub(super) fn copy(connection: &Connection, folder: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: folder.to_owned(), source };
    let fresh = folder.join("meshwright.copy.tmp");
    if fresh.exists() {
        fs::remove_file(&fresh).map_err(failed)?;
    }
    let target = fresh.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&target]).map_err(|error| StoreError::Write(error.to_string()))?;
    for age in (1..COPIES).rev() {
        let younger = copy_path(folder, age - 1);
        if younger.exists() {
            fs::rename(younger, copy_path(folder, age)).map_err(failed)?;
        }
    }
    fs::rename(&fresh, copy_path(folder, 0)).map_err(failed)
}
