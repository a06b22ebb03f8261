//! Reads a plugin's configuration. Every fault is reported, not only the first, each with the JSON pointer of its
//! place; a setting that nobody asked for is a fault, since it is most likely misspelt.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Longest name that the host accepts for a service, an instance or a tag, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What is wrong with one place of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// JSON pointer; empty for the whole.
    pub path: String,
    pub message: String,
}

/// Reads the object in `json` with `build`.
///
/// # Errors
/// Every fault that `build` met, in the order of reading, and every setting that it did not ask for.
pub fn read<T>(json: &str, build: impl FnOnce(&mut Fields<'_>) -> T) -> Result<T, Vec<Issue>> {
    let whole = |message: String| vec![Issue { path: String::new(), message }];
    let value =
        serde_json::from_str(json).map_err(|e| whole(format!("The configuration is not JSON: {e}.")))?;
    let Value::Object(values) = value else {
        return Err(whole(format!("The configuration must be an object, not {}.", kind(&value))));
    };
    let issues = RefCell::new(Vec::new());
    let built = Fields::read(values, String::new(), &issues, build);
    let issues = issues.into_inner();
    if issues.is_empty() { Ok(built) } else { Err(issues) }
}

/// The settings of one object. Each reader answers `None` when the setting is absent or at fault; in the latter
/// case the fault has been noted.
pub struct Fields<'a> {
    values: Map<String, Value>,
    known: Vec<&'static str>,
    path: String,
    issues: &'a RefCell<Vec<Issue>>,
}

impl<'a> Fields<'a> {
    fn read<T>(
        values: Map<String, Value>,
        path: String,
        issues: &'a RefCell<Vec<Issue>>,
        build: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> T {
        let mut fields = Fields { values, known: Vec::new(), path, issues };
        let built = build(&mut fields);
        fields.refuse_unknown();
        built
    }

    fn refuse_unknown(&self) {
        for key in self.values.keys() {
            let message = match self.known.as_slice() {
                [] => format!("There is no setting `{key}` here."),
                known => format!("There is no setting `{key}` here; there are `{}`.", known.join("`, `")),
            };
            self.fault(key, message);
        }
    }

    /// Notes a fault of the setting `key`.
    pub fn fault(&self, key: &str, message: impl Into<String>) {
        note(self.issues, self.place(key), message.into());
    }

    /// Notes a fault of the object as a whole.
    pub fn fault_here(&self, message: impl Into<String>) {
        note(self.issues, self.path.clone(), message.into());
    }

    /// Whether the setting is given and has not been read.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(value) => Some(value),
            other => self.expected(key, "`true` or `false`", &other),
        }
    }

    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(key)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.expected(
                key,
                &format!("a whole number from {} to {}", range.start(), range.end()),
                &value,
            ),
        }
    }

    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.take(key)?;
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None if *range.start() == f64::MIN && *range.end() == f64::MAX => {
                self.expected(key, "a number", &value)
            }
            None => {
                self.expected(key, &format!("a number from {} to {}", range.start(), range.end()), &value)
            }
        }
    }

    /// A text that is not empty.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            other => self.expected(key, "a text that is not empty", &other),
        }
    }

    /// The name of a service, an instance, a tag or a zone, as the host checks it.
    pub fn name(&mut self, key: &'static str) -> Option<String> {
        let text = self.text(key)?;
        self.checked_name(key, text)
    }

    /// Like [`Self::name`], but an empty text is allowed.
    pub fn name_or_empty(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => self.checked_name(key, text),
            other => self.expected(key, "a text", &other),
        }
    }

    fn checked_name(&self, key: &str, text: String) -> Option<String> {
        match name_fault(&text) {
            None => Some(text),
            Some(message) => {
                self.fault(key, message);
                None
            }
        }
    }

    /// One text or a list of them.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let items = match self.take(key)? {
            Value::String(text) => return Some(vec![text]),
            Value::Array(items) => items,
            other => return self.expected(key, "a text or a list of texts", &other),
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.fault_at(key, index, format!("This must be a text, not {}.", kind(&other))),
            }
        }
        Some(texts)
    }

    /// One of the words in `choices`.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(key)?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| value.as_str() == Some(*word)) {
            return Some(*chosen);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        self.expected(key, &format!("one of {}", words.join(", ")), &value)
    }

    pub fn object<T>(&mut self, key: &'static str, build: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        match self.take(key)? {
            Value::Object(values) => Some(Fields::read(values, self.place(key), self.issues, build)),
            other => self.expected(key, "an object", &other),
        }
    }

    /// A list of objects; those for which `build` answers `None` are left out.
    pub fn objects<T>(
        &mut self,
        key: &'static str,
        mut build: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = match self.take(key)? {
            Value::Array(items) => items,
            other => return self.expected(key, "a list of objects", &other),
        };
        let mut built = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::Object(values) => {
                    let path = format!("{}/{index}", self.place(key));
                    built.extend(Fields::read(values, path, self.issues, &mut build));
                }
                other => self.fault_at(key, index, format!("This must be an object, not {}.", kind(&other))),
            }
        }
        Some(built)
    }

    /// What `read` makes of the setting; it must be given.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.fault(key, format!("The setting `{key}` is missing."));
        }
        read(self, key)
    }

    /// Notes a fault of an item of the list `key`.
    pub fn fault_at(&self, key: &str, index: usize, message: impl Into<String>) {
        note(self.issues, format!("{}/{index}", self.place(key)), message.into());
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.values.remove(key)
    }

    fn expected<T>(&self, key: &str, what: &str, found: &Value) -> Option<T> {
        self.fault(key, format!("This must be {what}, not {}.", kind(found)));
        None
    }

    fn place(&self, key: &str) -> String {
        // RFC 6901, section 3.
        format!("{}/{}", self.path, key.replace('~', "~0").replace('/', "~1"))
    }
}

fn note(issues: &RefCell<Vec<Issue>>, path: String, message: String) {
    issues.borrow_mut().push(Issue { path, message });
}

/// Why the host would refuse `name`.
fn name_fault(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("A name has at most {NAME_BYTES_MAX} bytes."));
    }
    (!name.chars().all(allowed) || name.starts_with(['-', '.'])).then(|| {
        "A name consists of letters, digits, `_`, `-` and `.`, and starts with a letter, a digit or `_`."
            .into()
    })
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "an empty text".into(),
        Value::String(text) if text.len() <= 40 => format!("the text `{text}`"),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests;
