//! The newest build of each plugin of the folder that kept well, with its configuration, for a start at which the
//! folder has only a worse one.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::folder::{self, Content, FoundConfig, Sha, sha256};
use super::settings::{Configuration, Origin};
use crate::mesh::ids::Name;

const FOLDER: &str = "plugins-good";

#[derive(Debug, Error)]
pub enum GoodError {
    #[error("`{file}` is not the build that kept well any more")]
    Changed { file: String },
    #[error("it cannot be kept")]
    Write(#[from] io::Error),
}

/// Beside the component, as `NAME.json`.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Where it lay in the plugins folder.
    file: String,
    sha256: String,
    /// That it kept well with, unless values were filled in.
    #[serde(default)]
    config: Option<NotedConfig>,
}

#[derive(Serialize, Deserialize)]
struct NotedConfig {
    /// Of the text that somebody wrote.
    sha256: String,
    json: String,
}

impl NotedConfig {
    fn found(self) -> Option<FoundConfig> {
        // A note that somebody changed is as good as none: the present configuration is taken.
        let sha256 = hex::decode(self.sha256).ok()?.try_into().ok()?;
        let configuration = Configuration { json: self.json, written_json: None, origin: Origin::Nowhere };
        Some(FoundConfig { sha256, configuration: Ok(configuration) })
    }
}

/// What kept well.
pub struct Kept {
    pub bytes: Vec<u8>,
    pub config: Option<FoundConfig>,
}

/// `plugins-good` in the data folder.
pub struct Good(PathBuf);

impl Good {
    /// # Errors
    /// The folder can neither be found nor made.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// Keeps what `file` holds, in the place of an earlier build, and the configuration with its checksum.
    ///
    /// # Errors
    /// The file has changed since, or nothing can be written.
    pub fn keep(
        &self,
        name: &Name,
        file: &Path,
        component: &Sha,
        config: Option<(Sha, String)>,
    ) -> Result<(), GoodError> {
        let stem = file_name(file);
        let bytes = match folder::content(file) {
            Content::Whole { bytes, sha256 } if sha256 == *component => bytes,
            _ => return Err(GoodError::Changed { file: stem }),
        };
        let config = config.map(|(sha, json)| NotedConfig { sha256: hex::encode(sha), json });
        let note = Note { file: stem, sha256: hex::encode(component), config };
        // The component first: a note without it, or with another, leads to nothing.
        self.write(&format!("{name}.wasm"), &bytes)?;
        self.write(&format!("{name}.json"), &serde_json::to_vec(&note).map_err(io::Error::other)?)?;
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut fresh = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.0)?;
        fresh.write_all(bytes)?;
        fresh.as_file().sync_all()?;
        fresh.persist(self.0.join(name)).map_err(|error| error.error)?;
        Ok(())
    }

    /// What kept well under the file's name. What does not fit its note is passed over.
    pub fn find(&self, file: &Path) -> Option<Kept> {
        let wanted = file_name(file);
        let notes = fs::read_dir(&self.0).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        for path in notes.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
            let note = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
            let Some(note) = note.filter(|note| note.file == wanted) else { continue };
            // A note without its component leads to nothing.
            let bytes = fs::read(path.with_extension("wasm")).ok()?;
            let is_whole = hex::encode(sha256(&bytes)) == note.sha256;
            return is_whole.then(|| Kept { bytes, config: note.config.and_then(NotedConfig::found) });
        }
        None
    }

    /// Of a plugin that was taken away.
    pub fn forget(&self, name: &Name) {
        for extension in ["json", "wasm"] {
            match fs::remove_file(self.0.join(format!("{name}.{extension}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(plugin = %name, error = %error, "the last good build cannot be removed");
                }
                _ => {}
            }
        }
    }
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
