//! Globs over names: `*` stands for any text, `?` for any character, everything else for itself.

use wildmatch::WildMatch;

#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Glob(WildMatch),
}

/// Fits when one of its patterns does; without patterns, always.
#[derive(Debug, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    pub fn new(texts: Vec<String>) -> Self {
        if texts.iter().any(|text| text == "*") {
            return Self::default();
        }
        Self(texts.into_iter().map(Pattern::new).collect())
    }

    /// Whether there is a text that does not fit.
    pub fn choose_some(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn fit(&self, text: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.fits(text))
    }
}

impl Pattern {
    fn new(text: String) -> Self {
        let wild = |c: char| c == '*' || c == '?';
        if !text.contains(wild) {
            return Self::Exact(text);
        }
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains(wild) => Self::Prefix(prefix.to_owned()),
            _ => Self::Glob(WildMatch::new(&text)),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Glob(glob) => glob.matches(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(patterns: &[&str], text: &str) -> bool {
        Patterns::new(patterns.iter().map(ToString::to_string).collect()).fit(text)
    }

    #[test]
    fn patterns_fit_whole_names() {
        assert!(fits(&["get_issue"], "get_issue"));
        assert!(!fits(&["get"], "get_issue"));
        assert!(fits(&["get_*"], "get_issue"));
        assert!(!fits(&["get_*"], "forget_it"));
        assert!(fits(&["*_issue"], "get_issue"));
        assert!(fits(&["g?t_*"], "got_it"));
        assert!(!fits(&["g?t"], "goat"));
    }

    #[test]
    fn one_of_several_is_enough_and_none_fits_all() {
        assert!(fits(&["a", "b*"], "bc"));
        assert!(!fits(&["a", "b*"], "c"));
        assert!(fits(&[], "anything"));
        assert!(fits(&["a", "*"], ""));
    }
}
