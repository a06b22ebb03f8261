//! Why a program that is there cannot be started.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use thiserror::Error;

/// So much of a script's first line is looked at, as by Linux.
const FIRST_LINE_MAX: u64 = 256;

#[derive(Debug, Error)]
pub enum StartError {
    #[error("its folder `{0}` does not exist")]
    Folder(String),
    #[error("its interpreter `{0}` is not there")]
    Interpreter(String),
    #[error("its interpreter `{0}` is not there (the file has Windows line ends)")]
    LineEnds(String),
    #[error("it is there, and what loads it is not: it was made for another system")]
    Loader,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl StartError {
    /// The system calls a program not found, too, when what runs it is not there.
    pub fn of(error: io::Error, program: &Path) -> Self {
        let found = (error.kind() == ErrorKind::NotFound).then(|| first_line(program)).flatten();
        match found {
            Some(line) if line.starts_with(b"\x7fELF") => Self::Loader,
            Some(line) => Self::of_script(&line).unwrap_or(Self::System(error)),
            None => Self::System(error),
        }
    }

    fn of_script(first_line: &[u8]) -> Option<Self> {
        let line = first_line.strip_prefix(b"#!")?;
        let shown = String::from_utf8_lossy(line).trim_start().escape_debug().to_string();
        Some(if line.ends_with(b"\r") { Self::LineEnds(shown) } else { Self::Interpreter(shown) })
    }
}

/// Whether it is a script whose interpreter is named with a line end of Windows.
pub fn has_windows_line_ends(program: &Path) -> bool {
    first_line(program).is_some_and(|line| line.starts_with(b"#!") && line.ends_with(b"\r"))
}

/// `None` of a program that cannot be read: then the system's own words are all there is.
fn first_line(program: &Path) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    File::open(program).ok()?.take(FIRST_LINE_MAX).read_to_end(&mut line).ok()?;
    if let Some(end) = memchr::memchr(b'\n', &line) {
        line.truncate(end);
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_a_program_is_named_when_that_is_not_there() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let said = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).expect("write it");
            StartError::of(ErrorKind::NotFound.into(), file.path()).to_string()
        };
        let crlf = "its interpreter `/usr/bin/python3\\r` is not there (the file has Windows line ends)";
        assert_eq!(said(b"#! /usr/bin/python3\r\nprint()\r\n"), crlf);
        assert_eq!(said(b"#!/no/such thing\nx"), "its interpreter `/no/such thing` is not there");
        assert!(said(b"\x7fELF\x02").contains("another system"));
        assert_eq!(said(b"print()\n"), io::Error::from(ErrorKind::NotFound).to_string());
        std::fs::write(file.path(), "#!/no/such\n").expect("write it");
        let denied = StartError::of(ErrorKind::PermissionDenied.into(), file.path());
        assert!(matches!(denied, StartError::System(_)), "{denied}");
    }
}
