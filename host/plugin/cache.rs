//! Compiled plugins, kept from run to run. A file is only as good as its signature: whoever can write machine code that
//! we load can run anything, so each file carries an HMAC with a key that only this user can read.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::code::Code;

const KEY_BYTES: usize = 32;
/// Changes with the layout of a file: this, the tag, the code.
const MAGIC: &[u8; 16] = b"meshwright code1";
const TAG_BYTES: usize = 32;
const CODE_AT: usize = MAGIC.len() + TAG_BYTES;
const ENDING: &str = "cwasm";

/// Of all files together; what was not used for longest goes first.
pub const BYTES_MAX: u64 = 512 << 20;

#[derive(Debug, Error)]
pub enum CacheError {
    #[error("cannot use the folder `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot use the key `{path}`")]
    Key { path: PathBuf, source: io::Error },
    #[error("the system gives no randomness")]
    Random(#[source] getrandom::Error),
}

pub struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    bytes_max: u64,
}

impl Cache {
    /// Uses `DATA/cache` and `DATA/cache.key`, which are made when they are not there.
    ///
    /// # Errors
    /// There is no place to write to.
    pub fn open(data: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        let folder = data.join("cache");
        make_folder(&folder).map_err(|source| CacheError::Folder { path: folder.clone(), source })?;
        let key = key(&data.join("cache.key"))?;
        let cache = Self { folder, key, bytes_max };
        cache.remove_unfinished();
        Ok(cache)
    }

    /// What was put under `name`, if that is what lies there. A file that is not is removed.
    pub fn get(&self, name: &str) -> Option<Code> {
        let path = self.path(name);
        let bytes = match self.read(&path) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cached plugin code cannot be read, compiling anew");
                return None;
            }
        };
        if !self.is_ours(name, &bytes) {
            tracing::warn!(file = %path.display(), "cached plugin code is not what was put there, compiling anew");
            self.remove(name);
            return None;
        }
        Some(Code::trusted(bytes, CODE_AT))
    }

    /// Keeps `code` for the next run. A failure costs a compilation later, and nothing now.
    pub fn put(&self, name: &str, code: &Code) {
        if code.bytes().len() as u64 > self.bytes_max {
            return;
        }
        if let Err(error) = self.write(name, code) {
            tracing::warn!(folder = %self.folder.display(), %error, "compiled plugin code cannot be kept");
        }
        self.make_room(name);
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "cached plugin code cannot be removed");
            }
            _ => {}
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension(ENDING)
    }

    /// `None` when nothing is there, or nothing that could be ours.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let about = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            about => about?,
        };
        if !about.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let file = File::open(path)?;
        let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(self.bytes_max)).unwrap_or(0));
        (&file).take(self.bytes_max + CODE_AT as u64 + 1).read_to_end(&mut bytes)?;
        // How long ago it was used decides what goes first; where that cannot be written, age does.
        file.set_modified(SystemTime::now()).ok();
        Ok(Some(bytes))
    }

    fn is_ours(&self, name: &str, file: &[u8]) -> bool {
        let (Some(magic), Some(tag), Some(code)) =
            (file.get(..MAGIC.len()), file.get(MAGIC.len()..CODE_AT), file.get(CODE_AT..))
        else {
            return false;
        };
        magic == MAGIC && self.mac(name, code).verify_slice(tag).is_ok()
    }

    /// Over the name too, so that a file is not good in another's place. Names are all of the same length.
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        mac.update(MAGIC);
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }

    fn write(&self, name: &str, code: &Code) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.folder)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.mac(name, code.bytes()).finalize().into_bytes())?;
        file.write_all(code.bytes())?;
        file.persist(self.path(name)).map_err(|error| error.error)?;
        Ok(())
    }

    fn make_room(&self, kept: &str) {
        let Ok(entries) = self.folder.read_dir() else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
            .filter_map(|path| {
                let about = fs::symlink_metadata(&path).ok()?;
                Some((about.modified().ok()?, about.len(), path))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let kept = self.path(kept);
        for (_, size, path) in files.into_iter().filter(|(_, _, path)| *path != kept) {
            if bytes <= self.bytes_max {
                return;
            }
            if fs::remove_file(&path).is_ok() {
                tracing::debug!(file = %path.display(), "cached plugin code makes room");
                bytes -= size;
            }
        }
    }

    /// What a run that was killed left behind.
    fn remove_unfinished(&self) {
        let Ok(entries) = self.folder.read_dir() else { return };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "tmp") {
                // It is in nobody's way, and is tried again next time.
                fs::remove_file(path).ok();
            }
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Reads the key, or makes one when there is none that only we can know.
fn key(path: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let failed = |source| CacheError::Key { path: path.to_owned(), source };
    match secret(path) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {
            tracing::warn!(key = %path.display(), "the key of the plugin cache may be known to others, making a new one");
            fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(CacheError::Random)?;
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(key)
}

/// `None` when what is there is no secret of ours.
fn secret(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_file() || !is_private(&about) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
    File::open(path)?.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

#[cfg(unix)]
fn is_private(about: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    about.mode() & 0o077 == 0 && about.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn is_private(_: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests;
