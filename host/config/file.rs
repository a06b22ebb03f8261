//! One file as a tree in which every value knows its place.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::flaw::{Flaw, Place};
use crate::spelling::no_such;

pub(super) type Value<'f> = Spanned<DeValue<'f>>;

/// Larger files are no configurations.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file's name and text, to say where something is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub path: PathBuf,
    pub text: String,
}

impl File {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        // Opening a pipe would wait for its writer.
        let about = path.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        if about.len() > FILE_BYTES_MAX {
            let why = format!("it has more than {} MiB", FILE_BYTES_MAX >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let text = std::fs::read_to_string(path)?;
        // Some editors begin a file with it; it says nothing.
        let text = text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned);
        Ok(Self { path: path.to_owned(), text })
    }

    pub(super) fn is_json(&self) -> bool {
        self.path.extension().is_some_and(|end| end == "json" || end == "jsonc")
    }

    /// # Errors
    /// Everything that is wrong with its syntax.
    pub(super) fn toml(&self) -> Result<DeTable<'_>, Vec<Flaw>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Ok(table.into_inner());
        }
        Err(errors.iter().map(|error| self.flaw("", error.span(), error.message())).collect())
    }

    /// Services in a file that cannot be understood as a whole, as far as they can be made out.
    pub(super) fn names_of_services(&self) -> Vec<String> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let services = table.get_ref().get("services").and_then(|services| services.get_ref().as_table());
        services.into_iter().flatten().map(|(name, _)| name.get_ref().to_string()).collect()
    }

    pub(super) fn flaw(&self, key: &str, span: Option<Range<usize>>, message: impl Into<String>) -> Flaw {
        let place = span.map(|span| Place::of(&self.text, &span));
        Flaw { path: self.path.clone(), place, key: key.to_owned(), message: message.into() }
    }

    /// What `value` says, as a `T`.
    ///
    /// # Errors
    /// It is none: a setting that there is not, or a value of another kind.
    pub(super) fn understand<T: DeserializeOwned>(&self, key: &str, value: Value<'_>) -> Result<T, Flaw> {
        let span = value.span();
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let span = error.span().filter(|span| !span.is_empty()).unwrap_or(span);
            self.flaw(key, Some(span), in_words(error.message()))
        })
    }

    /// Where the line of a place is, for people.
    pub(super) fn at(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.path.display(), Place::of(&self.text, span).line)
    }
}

/// Where the keys of a table stand.
pub(super) fn places(value: &Value<'_>) -> BTreeMap<String, Range<usize>> {
    let table = value.get_ref().as_table().into_iter().flatten();
    table.map(|(key, _)| (key.get_ref().to_string(), key.span())).collect()
}

/// Serde's words for what is not known, with what was meant.
fn in_words(message: &str) -> String {
    let what = match message.strip_prefix("unknown ") {
        Some(rest) if rest.starts_with("field `") => "setting",
        Some(rest) if rest.starts_with("variant `") => "value",
        _ => return message.to_owned(),
    };
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match words[..] {
        [word, ref known @ ..] => no_such(what, word, known),
        [] => message.to_owned(),
    }
}
