//! Where a program is.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where a program was looked for in vain.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Searched {
    #[error("there is no program `{}`", .0.display())]
    Place(PathBuf),
    #[error("no program `{program}` in PATH, which is `{path}`")]
    Path { program: String, path: String },
    #[error("`{}` may not be executed", .0.display())]
    Unusable(PathBuf),
    #[error("`{}` is a folder, no program", .0.display())]
    Folder(PathBuf),
}

impl Searched {
    /// The same of a program that people read as `shown`.
    #[must_use]
    pub fn of(self, shown: &str) -> Self {
        match self {
            Self::Place(_) => Self::Place(shown.into()),
            Self::Path { path, .. } => Self::Path { program: shown.to_owned(), path },
            Self::Unusable(_) => Self::Unusable(shown.into()),
            Self::Folder(_) => Self::Folder(shown.into()),
        }
    }
}

/// Looks a program up as the operating system will: a name in `path`, anything with a slash as it is, from `folder`.
///
/// # Errors
/// It is not there.
pub fn find(program: &str, path: &OsStr, folder: Option<&Path>) -> Result<PathBuf, Searched> {
    if program.contains('/') {
        let place = folder.map_or_else(|| PathBuf::from(program), |folder| folder.join(program));
        return match usable(&place) {
            Some(true) => Ok(place),
            Some(false) => Err(Searched::Unusable(place)),
            None if place.is_dir() => Err(Searched::Folder(place)),
            None => Err(Searched::Place(place)),
        };
    }
    let places = std::env::split_paths(path).map(|folder| folder.join(program));
    let mut unusable = None;
    for place in places {
        match usable(&place) {
            Some(true) => return Ok(place),
            Some(false) => unusable = unusable.or(Some(place)),
            None => {}
        }
    }
    let nowhere =
        || Searched::Path { program: program.to_owned(), path: path.to_string_lossy().into_owned() };
    Err(unusable.map_or_else(nowhere, Searched::Unusable))
}

/// Whether a file may be executed; `None` where there is none.
fn usable(place: &Path) -> Option<bool> {
    let about = std::fs::metadata(place).ok().filter(std::fs::Metadata::is_file)?;
    Some(about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_in_path_and_places_are_not() {
        let path = OsStr::new("/nowhere:/usr/bin:/bin");
        assert!(find("sh", path, None).is_ok_and(|place| place.ends_with("sh")));
        assert!(find("/bin/sh", OsStr::new(""), None).is_ok());
        assert_eq!(find("./sh", path, Some(Path::new("/nowhere"))).ok(), None);
        let missing = find("no-such-program", path, None).expect_err("it is not there");
        assert_eq!(
            missing.to_string(),
            "no program `no-such-program` in PATH, which is `/nowhere:/usr/bin:/bin`"
        );
        assert_eq!(find("/etc/passwd", path, None), Err(Searched::Unusable("/etc/passwd".into())));
        assert_eq!(find("/etc", path, None), Err(Searched::Folder("/etc".into())));
        assert_eq!(find("/etc/no", path, None), Err(Searched::Place("/etc/no".into())));
    }
}
