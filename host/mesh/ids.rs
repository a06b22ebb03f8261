//! Names that have been checked.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest name of a service, an instance, a tag or a zone, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("the name has {0} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error(
        "`{0}` is not allowed in a name; use letters, digits, `_`, `-`, `.` and start with a letter, digit or `_`"
    )]
    Character(char),
}

/// The name of a service, an instance, a tag, a zone, a node or a plugin: letters, digits, `_`, `-`, `.`, starting
/// with a letter, digit or `_`, at most 128 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// # Errors
    /// Says what is wrong with `text`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let first = text.chars().next().ok_or(NameError::Empty)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return Err(NameError::Character(first));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
            Some(bad) => Err(NameError::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// A call's number, unique on this host; shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Position of an instance in its pool. Never given to another instance while the pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A service's pool of instances, numbered for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_foreign_characters_are_refused() {
        assert!(Name::new("ee_monitor").is_ok());
        assert!(Name::new("a.b-c").is_ok());
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("../x"), Err(NameError::Character('.')));
        assert_eq!(Name::new("a/b"), Err(NameError::Character('/')));
        assert_eq!(Name::new(&"a".repeat(129)), Err(NameError::TooLong(129)));
    }
}
