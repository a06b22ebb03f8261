//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Characters of a line that are shown.
const EXCERPT_MAX: usize = 100;

/// Shown in several lines: the last ones quote the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub path: PathBuf,
    pub place: Option<Place>,
    /// Such as `services.github.command`; empty where the file cannot be read as a whole.
    pub key: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line, or of a long one what is around the place.
    pub excerpt: String,
    /// Where the place begins in the excerpt, in characters, and how many of them are meant.
    pub offset: usize,
    pub length: usize,
}

impl Place {
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let excerpt = text[line_start..line_end].trim_end_matches('\r');
        let column = text[line_start..start].chars().count() + 1;
        let length = text[start..end.min(line_end)].chars().count().max(1);
        // So that the place is in it, with what stands before.
        let left = if column > EXCERPT_MAX / 2 { column - 1 - EXCERPT_MAX / 4 } else { 0 };
        let offset = column - 1 - left;
        Self {
            line: text[..start].matches('\n').count() + 1,
            column,
            excerpt: excerpt.chars().skip(left).take(EXCERPT_MAX).collect(),
            offset,
            length: length.min((EXCERPT_MAX - offset).max(1)),
        }
    }
}

impl Flaw {
    /// Without the quotation.
    pub fn in_a_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!(":{}:{}", place.line, place.column));
        let key = if self.key.is_empty() { String::new() } else { format!("`{}`: ", self.key) };
        format!("{}{}: {key}{}", self.path.display(), place.unwrap_or_default(), self.message)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_a_line())?;
        let Some(place) = &self.place else { return Ok(()) };
        let (number, indent) = (place.line, place.offset);
        write!(f, "\n{number:>6} | {}\n       | {:indent$}{}", place.excerpt, "", "^".repeat(place.length))
    }
}

/// A service, or a file, that is left out, and why; all else is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// `None` for a whole file.
    pub service: Option<String>,
    pub flaw: Flaw,
    /// What else is wrong with it.
    pub more: Vec<Flaw>,
}

impl LeftOut {
    pub(super) const fn of(service: Option<String>, flaw: Flaw) -> Self {
        Self { service, flaw, more: Vec::new() }
    }

    /// `None` when nothing is wrong.
    pub(super) fn with_all(service: Option<String>, flaws: Vec<Flaw>) -> Option<Self> {
        let mut flaws = flaws.into_iter();
        let flaw = flaws.next()?;
        Some(Self { service, flaw, more: flaws.collect() })
    }

    /// All that is wrong with it.
    pub fn flaws(&self) -> impl Iterator<Item = &Flaw> {
        std::iter::once(&self.flaw).chain(&self.more)
    }

    /// Whether it is the same thing that is wrong, wherever it stands in its file by now and whatever else was mended.
    pub fn is_same(&self, other: &Self) -> bool {
        let alike = |one: &Flaw, two: &Flaw| {
            (&one.path, &one.key, &one.message) == (&two.path, &two.key, &two.message)
        };
        self.service == other.service && self.flaws().any(|one| other.flaws().any(|two| alike(one, two)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_quotes_its_line() {
        let text = "[services.a]\ncomänd = \"x\" # no\nargs = []\n";
        let at = text.find("comänd").expect("it is there");
        let place = Place::of(text, &(at..at + "comänd".len()));
        assert_eq!((place.line, place.column, place.length), (2, 1, 6));
        let flaw = Flaw {
            path: "m.toml".into(),
            place: Some(place),
            key: "services.a".into(),
            message: "no".into(),
        };
        let expected = "m.toml:2:1: `services.a`: no\n     2 | comänd = \"x\" # no\n       | ^^^^^^";
        assert_eq!(flaw.to_string(), expected);
        assert_eq!(flaw.in_a_line(), "m.toml:2:1: `services.a`: no");
    }

    #[test]
    fn of_a_long_line_the_place_is_quoted() {
        let text = format!("{{{}\"sse\": 1}}", "\"a\": 2, ".repeat(20_000));
        let at = text.find("sse").expect("it is there");
        let flaw = Flaw {
            path: "m.json".into(),
            place: Some(Place::of(&text, &(at..at + 3))),
            key: String::new(),
            message: "no".into(),
        };
        let shown = flaw.to_string();
        let [_, quoted, carets] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
        let caret = carets.find('^').expect("a caret");
        assert_eq!((&quoted[caret..caret + 3], carets[caret..].len()), ("sse", 3), "{shown}");
        assert!(quoted.len() < 120, "{shown}");
    }

    #[test]
    fn places_at_the_end_and_beyond_are_within_the_text() {
        for (text, span) in [("", 0..0), ("a", 1..1), ("a\n", 2..9), ("ä", 1..1)] {
            let place = Place::of(text, &span);
            assert!(place.length == 1 && place.column <= 2, "{text:?} {span:?}: {place:?}");
        }
    }
}
