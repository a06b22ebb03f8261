//! Text that people are shown as it stands in the file: what was filled in may be secret.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::file::Value;

/// Keys of entries with such a text, or with a list of them.
const SINGLE: [&str; 3] = ["command", "cwd", "url"];
const LISTS: [&str; 5] = ["args", "urls", "depends_on", "services", "grants"];
/// The only key of the table in which a text travels with what stands in the file.
const FILLED: &str = "$__meshwright_filled";

/// A text, and how it is written where something was filled in.
pub(super) struct RawText {
    value: String,
    written: Option<String>,
}

impl RawText {
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// What may be shown.
    pub(super) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.value)
    }

    pub(super) const fn is_filled(&self) -> bool {
        self.written.is_some()
    }
}

impl fmt::Debug for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

impl JsonSchema for RawText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text)
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = RawText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RawText, E> {
        Ok(RawText { value: text.to_owned(), written: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawText, A::Error> {
        if map.next_key::<String>()?.as_deref() != Some(FILLED) {
            return Err(Error::invalid_type(Unexpected::Map, &self));
        }
        let (value, written) = map.next_value::<(String, String)>()?;
        Ok(RawText { value, written: Some(written) })
    }
}

/// Has the texts of an entry travel with how they are `written`, where that is something else.
pub(in crate::config) fn keep_written(entry: &mut Value<'_>, written: &Value<'_>) {
    let (DeValue::Table(entry), DeValue::Table(written)) = (entry.get_mut(), written.get_ref()) else {
        return;
    };
    for (key, value) in entry.iter_mut() {
        let key = &**key.get_ref();
        let Some(written) = written.get(key) else { continue };
        if SINGLE.contains(&key) {
            pair(value, written);
        } else if LISTS.contains(&key)
            && let (DeValue::Array(items), DeValue::Array(written)) = (value.get_mut(), written.get_ref())
        {
            items.iter_mut().zip(written.iter()).for_each(|(item, written)| pair(item, written));
        }
    }
}

fn pair(value: &mut Value<'_>, written: &Value<'_>) {
    let (Some(text), Some(written)) = (value.get_ref().as_str(), written.get_ref().as_str()) else { return };
    if text == written {
        return;
    }
    let span = value.span();
    let mut texts = DeArray::new();
    for text in [text, written] {
        texts.push(Spanned::new(span.clone(), DeValue::String(Cow::Owned(text.to_owned()))));
    }
    let mut table = DeTable::new();
    table
        .insert(Spanned::new(span.clone(), Cow::Borrowed(FILLED)), Spanned::new(span, DeValue::Array(texts)));
    *value.get_mut() = DeValue::Table(table);
}
