//! URI templates (RFC 6570, levels 1 to 3): whether a URI could have been made from one.
//!
//! Looser than the RFC where servers are: an expression stands for what its operator can make, whatever its
//! variables are called, also when characters are not percent-encoded. Explode and prefix modifiers are let through.

/// Longest URI that is compared: a comparison costs its length times the template's expressions.
const URI_BYTES_MAX: usize = 8 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    literal_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// At least one character, none of `without`.
    Some {
        without: &'static [u8],
    },
    /// Nothing, or `first` and then characters that are none of `without`.
    Maybe {
        first: u8,
        without: &'static [u8],
    },
}

impl Template {
    /// A text that is no template (a brace too many, an operator that RFC 6570 reserves) stands for itself.
    pub(super) fn new(text: &str) -> Self {
        let parts = parse(text).unwrap_or_else(|| vec![Part::Literal(text.into())]);
        let literal = |part: &Part| match part {
            Part::Literal(text) => text.len(),
            Part::Some { .. } | Part::Maybe { .. } => 0,
        };
        let literal_bytes = parts.iter().map(literal).sum();
        Self { parts, literal_bytes }
    }

    /// How much of a matching URI is fixed: of two templates the one with more says more.
    pub(super) const fn literal_bytes(&self) -> usize {
        self.literal_bytes
    }

    /// Takes time proportional to the URI's length times the number of parts, whatever both are.
    pub(super) fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        let fixed = match self.parts.first() {
            Some(Part::Literal(start)) => uri.starts_with(start.as_bytes()),
            _ => true,
        };
        if uri.len() > URI_BYTES_MAX || !fixed {
            return false;
        }
        // How far the parts so far can reach: `reach[n]` says that they can stand for the first n bytes.
        let mut reach = vec![false; uri.len() + 1];
        reach[0] = true;
        for part in &self.parts {
            reach = part.step(&reach, uri);
        }
        reach[uri.len()]
    }
}

impl Part {
    fn step(&self, reach: &[bool], uri: &[u8]) -> Vec<bool> {
        let mut next = vec![false; reach.len()];
        match self {
            Self::Literal(text) => {
                let text = text.as_bytes();
                for (at, _) in reach.iter().enumerate().filter(|(_, reached)| **reached) {
                    if uri[at..].starts_with(text) {
                        next[at + text.len()] = true;
                    }
                }
            }
            Self::Some { without } => {
                let mut inside = false;
                for (at, byte) in uri.iter().enumerate() {
                    inside = (inside || reach[at]) && !without.contains(byte);
                    next[at + 1] = inside;
                }
            }
            Self::Maybe { first, without } => {
                next.copy_from_slice(reach);
                let mut inside = false;
                for (at, byte) in uri.iter().enumerate() {
                    inside = (inside && !without.contains(byte)) || (reach[at] && byte == first);
                    next[at + 1] |= inside;
                }
            }
        }
        next
    }
}

fn parse(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(Part::Literal(rest[..open].into()));
        }
        let close = open + rest[open..].find('}')?;
        let expression = &rest[open + 1..close];
        parts.push(match *expression.as_bytes().first()? {
            b'+' => Part::Some { without: b"" },
            b'#' => Part::Maybe { first: b'#', without: b"" },
            b'.' => Part::Maybe { first: b'.', without: b"/?#" },
            b'/' => Part::Maybe { first: b'/', without: b"?#" },
            b';' => Part::Maybe { first: b';', without: b"/?#" },
            b'?' => Part::Maybe { first: b'?', without: b"#" },
            b'&' => Part::Maybe { first: b'&', without: b"#" },
            // Reserved for later by RFC 6570, section 2.2.
            b'=' | b',' | b'!' | b'@' | b'|' => return None,
            _ => Part::Some { without: b"/" },
        });
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.into()));
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn matches(template: &str, uri: &str) -> bool {
        Template::new(template).matches(uri)
    }

    #[test]
    fn uris_are_told_from_others_by_their_template() {
        let yes = [
            ("file:///{path}", "file:///a.txt"),
            ("file:///{path}", "file:///a%2Fb"),
            ("db://{table}/{id}", "db://users/größe 7"),
            ("repo://{+path}", "repo://a/b/c?d#e"),
            ("repo://{owner}/{repo}/contents{/path*}", "repo://o/r/contents/a/b"),
            ("repo://{owner}/{repo}/contents{/path*}", "repo://o/r/contents"),
            ("s://q{?x,y}", "s://q?x=1&y=2"),
            ("s://q{?x,y}", "s://q"),
            ("s://q?fixed=1{&x}", "s://q?fixed=1&x=2"),
            ("s://{name}{.ext}", "s://a.b.c"),
            ("s://a{#frag}", "s://a#b/c"),
            ("s://a{;x}b", "s://a;x=1b"),
            ("s://{var:3}", "s://abc"),
            ("s://{a}{b}", "s://xy"),
            ("plain", "plain"),
            ("s://{unclosed", "s://{unclosed"),
        ];
        for (template, uri) in yes {
            assert!(matches(template, uri), "{template} should match {uri}");
        }
        let no = [
            ("file:///{path}", "file:///a/b"),
            ("file:///{path}", "file:///"),
            ("file:///{path}", "http:///a"),
            ("db://{table}/{id}", "db://users"),
            ("s://q{?x}", "s://qx"),
            ("s://{a}{b}", "s://x"),
            ("plain", "plainer"),
            ("", "x"),
        ];
        for (template, uri) in no {
            assert!(!matches(template, uri), "{template} should not match {uri}");
        }
    }

    #[test]
    fn hostile_templates_take_no_more_than_length_times_length() {
        let started = Instant::now();
        let template = Template::new(&"{+a}x".repeat(200));
        assert!(!template.matches(&"x".repeat(300).replace("xx", "xa")));
        assert!(!template.matches(&("x".repeat(URI_BYTES_MAX - 1) + "y")));
        assert!(!template.matches(&"x".repeat(URI_BYTES_MAX + 1)));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
