//! One file as a tree in which every value knows its place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::clients;
use super::flaw::{Flaw, Place};
use super::raw::text::keep_written;
use super::words::in_words;

pub(super) type Value<'f> = Spanned<DeValue<'f>>;

/// Larger files are no configurations.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is said of one section or entry, at most.
const FLAWS_MAX: usize = 20;
/// Where the cause of one flaw is looked for: so many keys, and so deep.
const CULPRITS_MAX: usize = 64;
const DEPTH_MAX: usize = 3;

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

    /// What `value` says, as a `T`, and what of it is wrong: settings that there are not, and values of another kind.
    /// `None` when nothing is left without those.
    pub(super) fn understand<T: DeserializeOwned>(
        &self,
        key: &str,
        mut value: Value<'_>,
    ) -> (Option<T>, Vec<Flaw>) {
        let whole = value.span();
        let written = self.written(key, &value);
        let mut filled = Vec::new();
        filled_in(&value, &written, &mut filled);
        let mut flaws = Vec::new();
        let understood = loop {
            let mut entry = value.clone();
            keep_written(&mut entry, &written);
            let error = match T::deserialize(ValueDeserializer::from(entry)) {
                Ok(understood) => break Some(understood),
                // In the words for what stands there.
                Err(error) => misread::<T>(&value).unwrap_or(error),
            };
            let span = error.span().filter(|span| !span.is_empty()).unwrap_or_else(|| whole.clone());
            let message = filled.iter().fold(error.message().to_owned(), |message, (text, written)| {
                let message = message.replace(&format!("{text:?}"), &format!("{written:?}"));
                message.replace(&format!("`{text}`"), &format!("`{written}`"))
            });
            flaws.push((span.start, self.flaw(key, Some(span), in_words(&message))));
            if flaws.len() == FLAWS_MAX || !take_out_culprit::<T>(&mut value, &error) {
                break None;
            }
        };
        flaws.sort_by_key(|(at, _)| *at);
        (understood, flaws.into_iter().map(|(_, flaw)| flaw).collect())
    }

    /// The value of `key` before anything was filled in.
    fn written<'v>(&self, key: &str, value: &Value<'v>) -> Value<'v> {
        if self.is_json() {
            // Its values do not know their own places. What was read once is read again alike.
            let servers = clients::of_json(self).map(|servers| servers.services).unwrap_or_default();
            let is_it = |name: &Spanned<String>| Some(&**name.get_ref()) == key.strip_prefix("services.");
            if let Some((_, written)) = servers.into_iter().find(|(name, _)| is_it(name)) {
                return written;
            }
        }
        let mut written = value.clone();
        self.take_out(&mut written);
        written
    }

    /// Puts what the file says in place of all text.
    fn take_out(&self, value: &mut Value<'_>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => {
                // A place outside of the text, or one that is no literal, shows nothing of what was filled in.
                let literal = self.text.get(span).unwrap_or_default();
                let parsed = DeValue::parse(literal).ok();
                let parsed = parsed.as_ref().and_then(|parsed| parsed.get_ref().as_str());
                *text = Cow::Owned(parsed.unwrap_or(literal).to_owned());
            }
            DeValue::Array(items) => items.iter_mut().for_each(|item| self.take_out(item)),
            DeValue::Table(table) => table.iter_mut().for_each(|(_, item)| self.take_out(item)),
            _ => {}
        }
    }

    /// Where the line of a place is, for people.
    pub(super) fn at(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.path.display(), Place::of(&self.text, span).line)
    }
}

fn misread<T: DeserializeOwned>(value: &Value<'_>) -> Option<toml::de::Error> {
    T::deserialize(ValueDeserializer::from(value.clone())).err()
}

/// Takes out of a table what the error is about, as deep as it stands; says whether that was found.
fn take_out_culprit<T: DeserializeOwned>(value: &mut Value<'_>, error: &toml::de::Error) -> bool {
    let Some(at) = error.span() else { return false };
    let mut ways = Vec::new();
    ways_to(&at, value, &mut Vec::new(), &mut ways);
    for way in ways.into_iter().take(CULPRITS_MAX) {
        let mut without = value.clone();
        remove(&mut without, &way);
        // What stands in JSON does not know its own place, so that others are found there, too.
        let is_other =
            |left: toml::de::Error| left.span() != Some(at.clone()) || left.message() != error.message();
        if misread::<T>(&without).is_none_or(is_other) {
            *value = without;
            return true;
        }
    }
    false
}

/// The keys under which something stands at that place, the deepest first.
fn ways_to(at: &Range<usize>, value: &Value<'_>, way: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (key, inner) in value.get_ref().as_table().into_iter().flatten() {
        let (key_at, inner_at) = (key.span(), inner.span());
        let is_there = |span: &Range<usize>| span.start <= at.start && at.end <= span.end;
        if !is_there(&key_at) && !is_there(&inner_at) {
            continue;
        }
        way.push(key.get_ref().to_string());
        if way.len() < DEPTH_MAX {
            ways_to(at, inner, way, found);
        }
        found.push(way.clone());
        way.pop();
    }
}

fn remove(value: &mut Value<'_>, way: &[String]) {
    let DeValue::Table(table) = value.get_mut() else { return };
    match way {
        [key] => drop(table.remove(key.as_str())),
        [key, rest @ ..] => table.get_mut(key.as_str()).into_iter().for_each(|inner| remove(inner, rest)),
        [] => {}
    }
}

/// All text in which something was filled in, with what is written there.
fn filled_in(value: &Value<'_>, written: &Value<'_>, found: &mut Vec<(String, String)>) {
    match (value.get_ref(), written.get_ref()) {
        (DeValue::String(text), DeValue::String(written)) if text != written => {
            found.push((text.to_string(), written.to_string()));
        }
        (DeValue::Array(items), DeValue::Array(written)) => {
            items.iter().zip(written.iter()).for_each(|(item, written)| filled_in(item, written, found));
        }
        (DeValue::Table(table), DeValue::Table(written)) => {
            for (item, written) in table.iter().filter_map(|(key, item)| Some((item, written.get(key)?))) {
                filled_in(item, written, found);
            }
        }
        _ => {}
    }
}

/// Where the keys of a table stand.
pub(super) fn places(value: &Value<'_>) -> BTreeMap<String, Range<usize>> {
    let table = value.get_ref().as_table().into_iter().flatten();
    table.map(|(key, _)| (key.get_ref().to_string(), key.span())).collect()
}
