//! What lies in the plugins folder: components, and the configuration beside them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::load::{FILE_BYTES_MAX, LoadError};
use super::settings::{Configuration, Origin};

pub type Sha = [u8; 32];

const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// A file that changes under the reader is read again so many times, and then left for the next look.
const READS: usize = 3;
const READ_PAUSE: Duration = Duration::from_millis(10);
/// Everybody may write it.
const OPEN: u32 = 0o002;
/// Of a folder: what lies in it is taken away by its owner only.
const STICKY: u32 = 0o1000;

pub struct Found {
    pub path: PathBuf,
    pub file_name: String,
    pub stem: String,
    pub content: Content,
    /// The file that everybody may write: it, or the configuration beside it.
    pub open: Option<String>,
    pub config: Option<FoundConfig>,
}

pub enum Content {
    /// At most one byte more than a plugin may have.
    Whole {
        bytes: Vec<u8>,
        sha256: Sha,
    },
    Failed(io::ErrorKind),
    /// Somebody is writing it.
    Moving,
}

pub struct FoundConfig {
    pub sha256: Sha,
    /// Or why there is none.
    pub configuration: Result<Configuration, LoadError>,
}

pub fn sha256(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}

/// Everything that could be a plugin, sorted by file name. A folder that does not exist is an empty one.
///
/// # Errors
/// The folder is there and cannot be listed.
pub fn look(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A name that is not Unicode, or has line breaks in it, has no place in logs and answers; nothing writes such
        // names by accident.
        let file_name = path.file_name().and_then(|name| name.to_str());
        let Some(file_name) = file_name.filter(|name| !name.contains(char::is_control)).map(str::to_owned)
        else {
            continue;
        };
        let Some(stem) = file_name.strip_suffix(".wasm").map(str::to_owned) else { continue };
        // `is_file` follows links; a directory or a pipe that is named like a plugin is none.
        if is_temporary(&file_name) || !path.is_file() {
            continue;
        }
        let config = config_beside(&path);
        let beside = path.with_extension("toml");
        let open = [&path, &beside].into_iter().find(|path| is_open(path));
        // Both paths end in a name.
        let open = open.map(|open| open.file_name().unwrap_or_default().to_string_lossy().into_owned());
        found.push(Found { content: content(&path), path, file_name, stem, open, config });
    }
    found.sort_by(|a, b| a.file_name.cmp(&b.file_name));
    Ok(found)
}

/// What is wrong with who may write into the folder, for people.
pub fn complaint(folder: &Path) -> Option<String> {
    let mode = folder.metadata().ok()?.permissions().mode();
    (mode & (OPEN | STICKY) == OPEN).then(|| {
        format!(
            "everybody may put plugins into `{0}`, and take others' away; `chmod o-w {0}` ends that",
            folder.display()
        )
    })
}

/// What is not there is not open.
fn is_open(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & OPEN != 0)
}

/// Whether editors, browsers and copying tools use such a name for what is not finished.
pub fn is_temporary(file_name: &str) -> bool {
    let lower = file_name.to_ascii_lowercase();
    lower.starts_with(['.', '~', '#'])
        || lower.ends_with('~')
        || [".tmp", ".part", ".partial", ".crdownload", ".swp"].iter().any(|end| lower.ends_with(end))
        || [".tmp.wasm", ".part.wasm", "~.wasm"].iter().any(|end| lower.ends_with(end))
}

pub fn content(path: &Path) -> Content {
    for attempt in 0..READS {
        if attempt > 0 {
            thread::sleep(READ_PAUSE);
        }
        match read_unmoved(path) {
            Ok(Some(bytes)) => return Content::Whole { sha256: sha256(&bytes), bytes },
            Ok(None) => {}
            Err(error) => return Content::Failed(error.kind()),
        }
    }
    Content::Moving
}

/// `None` when size or time of change moved while it was read.
fn read_unmoved(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let mut bytes = Vec::new();
    file.by_ref().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    let after = file.metadata()?;
    let unmoved = before.len() == after.len() && before.modified()? == after.modified()?;
    Ok(unmoved.then_some(bytes))
}

/// The configuration of the plugin in `path`, if there is any.
pub fn config_beside(path: &Path) -> Option<FoundConfig> {
    config_at(&path.with_extension("toml"))
}

pub fn config_at(path: &Path) -> Option<FoundConfig> {
    // Opening a pipe would wait for its writer.
    if path.exists() && !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes));
    let json = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(format!("it cannot be read: {}", error.kind())),
        Ok(_) if bytes.len() as u64 > CONFIG_BYTES_MAX => Err("it is larger than 1 MiB".into()),
        Ok(_) => to_json(&bytes),
    };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let sha256 = sha256(&bytes);
    let configuration = match json {
        Err(reason) => Err(LoadError::ConfigurationFile { file: name, reason }),
        Ok(json) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Configuration { json, written_json: None, origin: Origin::File { name, text } })
        }
    };
    Some(FoundConfig { sha256, configuration })
}

/// # Errors
/// Why there is no such object in JSON: a value that JSON does not have.
pub fn table_to_json(table: toml::Table) -> Result<String, String> {
    object(table).map(|object| Value::Object(object).to_string())
}

fn to_json(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message())
    })?;
    table_to_json(table)
}

fn object(table: toml::Table) -> Result<Map<String, Value>, String> {
    table.into_iter().map(|(key, value)| Ok((key, json(value)?))).collect()
}

fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::Number(number.into()),
        toml::Value::Float(number) => Value::Number(
            Number::from_f64(number).ok_or_else(|| format!("`{number}` cannot be expressed in JSON"))?,
        ),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => Value::Object(object(table)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_becomes_the_same_object_in_json() {
        let toml = b"name = \"x\"\n[[rules]]\nshare = 0.5\nsince = 1979-05-27\n";
        assert_eq!(to_json(toml).unwrap(), r#"{"name":"x","rules":[{"share":0.5,"since":"1979-05-27"}]}"#);
        assert!(to_json(b"a = inf").unwrap_err().contains("JSON"));
        assert!(to_json(b"a = 1\nb = \n").unwrap_err().starts_with("line 2"));
    }

    #[test]
    fn unfinished_names_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".a.wasm", "b.wasm.tmp", "c.wasm~", "d.wasm.part", "e.txt", "f.wasm", "h\n.wasm"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join("g.wasm")).unwrap();
        let names: Vec<String> =
            look(folder.path()).unwrap().into_iter().map(|found| found.file_name).collect();
        assert_eq!(names, ["f.wasm"]);
        assert!(look(&folder.path().join("nowhere")).unwrap().is_empty());
    }

    #[test]
    fn what_everybody_may_write_is_found_out_and_a_folder_of_that_kind_is_complained_about() {
        let folder = tempfile::tempdir().unwrap();
        let with_mode = |name: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, b"x = 1").unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        for (name, mode) in
            [("a.wasm", 0o666), ("b.wasm", 0o664), ("b.toml", 0o646), ("c.wasm", 0o664), ("c.toml", 0o640)]
        {
            with_mode(name, mode);
        }
        let open: Vec<Option<String>> =
            look(folder.path()).unwrap().into_iter().map(|found| found.open).collect();
        assert_eq!(open, [Some("a.wasm".to_owned()), Some("b.toml".to_owned()), None]);
        for (mode, is_complained_about) in [(0o775, false), (0o1777, false), (0o777, true), (0o702, true)] {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(complaint(folder.path()).is_some(), is_complained_about, "{mode:o}");
        }
    }
}
