//! A plugin's configuration: what it is, where somebody wrote it, and where in there an issue lies.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::host_state::{cut, printable};
use super::v0_1::Issue;
use crate::mesh::ids::Name;

const ISSUES_SHOWN: usize = 10;
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Where a configuration was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody wrote one.
    #[default]
    Nowhere,
    /// `[plugins.NAME]` of the proxy's file.
    Proxy(Name),
    /// A file of its own, with its text.
    File { name: String, text: String },
}

/// A configuration as a plugin gets it.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// An object.
    pub json: String,
    /// The same as it was written, where something was filled in: that may be secret.
    pub written_json: Option<String>,
    pub origin: Origin,
}

impl Configuration {
    /// The file that it was written in, if it has one of its own.
    pub fn file(&self) -> Option<&str> {
        match &self.origin {
            Origin::File { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self { json: "{}".to_owned(), written_json: None, origin: Origin::Nowhere }
    }
}

/// What speaks against a configuration, for people: goes on after "it does not accept its configuration".
#[derive(Debug)]
pub struct Complaints {
    pub issues: Vec<Issue>,
    origin: Origin,
}

impl From<Vec<Issue>> for Complaints {
    fn from(issues: Vec<Issue>) -> Self {
        Self { issues, origin: Origin::Nowhere }
    }
}

impl Complaints {
    pub fn about(self, origin: &Origin) -> Self {
        Self { origin: origin.clone(), ..self }
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = "";
        match &self.origin {
            Origin::Nowhere => f.write_str(": ")?,
            Origin::Proxy(name) => write!(f, " in `[plugins.{name}]`: ")?,
            Origin::File { name, text: written } => {
                write!(f, " in `{}`: ", human(name))?;
                text = written;
            }
        }
        if self.issues.is_empty() {
            return f.write_str("it does not say why");
        }
        for (index, (path, message)) in self.issues.iter().take(ISSUES_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            if let Some(line) = line(text, path) {
                write!(f, "line {line}, ")?;
            }
            if !path.is_empty() {
                write!(f, "`{}`: ", human(path))?;
            }
            f.write_str(&human(message))?;
        }
        match self.issues.len().saturating_sub(ISSUES_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

fn human(text: &str) -> String {
    printable(cut(text, MESSAGE_BYTES_MAX))
}

/// The line of TOML in which the place of an RFC 6901 pointer begins, or else of the last one above it that is there.
fn line(text: &str, pointer: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut inside = Some(Inside::Table(table.get_ref()));
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        let Some((start, value)) = inside.and_then(|inside| inside.step(&segment)) else { break };
        at = Some(start);
        inside = Inside::of(value);
    }
    at.map(|start| text[..start].matches('\n').count() + 1)
}

enum Inside<'a> {
    Table(&'a DeTable<'a>),
    List(&'a [Spanned<DeValue<'a>>]),
}

impl<'a> Inside<'a> {
    fn of(value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::Table(table)),
            DeValue::Array(list) => Some(Self::List(list)),
            _ => None,
        }
    }

    /// Where the member begins, and the member.
    fn step(self, segment: &str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        match self {
            Self::Table(table) => {
                let (key, value) = table.iter().find(|(key, _)| *key.get_ref() == segment)?;
                Some((key.span().start, value))
            }
            Self::List(list) => {
                let value = list.get(segment.parse::<usize>().ok()?)?;
                Some((value.span().start, value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a = 1\n\n[[rules]]\nname = \"x\"\n\n[[rules]]\n\"odd/key\" = { deep = [\n  1,\n  2,\n] }\n";

    #[test]
    fn a_pointer_finds_its_line_or_that_of_what_is_around_it() {
        assert_eq!(line(TEXT, "/a"), Some(1));
        assert_eq!(line(TEXT, "/rules/0/name"), Some(4));
        assert_eq!(line(TEXT, "/rules/1"), Some(6));
        assert_eq!(line(TEXT, "/rules/1/odd~1key/deep/1"), Some(9));
        assert_eq!(line(TEXT, "/rules/1/missing"), Some(6));
        assert_eq!(line(TEXT, "/missing"), None);
        assert_eq!(line(TEXT, ""), None);
        assert_eq!(line("", "/a"), None);
    }

    #[test]
    fn complaints_say_where_they_are_about() {
        let complaints = |issues: &[(&str, &str)]| {
            let issues: Vec<Issue> =
                issues.iter().map(|(path, message)| ((*path).into(), (*message).into())).collect();
            Complaints::from(issues)
        };
        assert_eq!(complaints(&[]).to_string(), ": it does not say why");
        let two = [("/rules/0/name", "too short"), ("", "too little")];
        assert_eq!(complaints(&two).to_string(), ": `/rules/0/name`: too short; too little");
        let file = Origin::File { name: "x.toml".into(), text: TEXT.into() };
        let placed = complaints(&two).about(&file).to_string();
        assert_eq!(placed, " in `x.toml`: line 4, `/rules/0/name`: too short; too little");
        let proxy = complaints(&two[1..]).about(&Origin::Proxy(Name::new("x").unwrap())).to_string();
        assert_eq!(proxy, " in `[plugins.x]`: too little");
        assert!(complaints(&[two[1]; 12]).to_string().ends_with("; and 2 more"));
    }
}
