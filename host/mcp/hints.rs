//! What an answer may hold, found in one pass over its bytes. Most answers hold nothing that a proxy must look into,
//! and need not be read as JSON to know that.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

const IS_ERROR: &str = "\"isError\"";
const CONTINUED: [&str; 2] = ["\"requestState\"", "\"taskId\""];
/// An escape may hide a key.
const SUSPECT: [&str; 2] = ["\"error\"", "\\u"];

static WORDS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let [state, task] = CONTINUED;
    let [error, escape] = SUSPECT;
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .build([state, task, error, escape, IS_ERROR])
        .expect("five short words")
});

/// Where both are `false`, the answer can be passed on unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// It may hold what only its instance can continue.
    pub continued: bool,
    /// It may be an error, the protocol's or the tool's own.
    pub failure: bool,
}

impl Hints {
    pub fn of(message: &[u8]) -> Self {
        let mut hints = Self::default();
        for found in WORDS.find_iter(message) {
            match found.pattern().as_usize() {
                0 | 1 => hints.continued = true,
                2 => hints.failure = true,
                // Whatever it spells.
                3 => hints = Self { continued: true, failure: true },
                _ => hints.failure |= !says_false(&message[found.end()..]),
            }
            if hints.continued && hints.failure {
                break;
            }
        }
        hints
    }
}

/// Whether what follows a key is `: false`.
pub(super) fn says_false(behind: &[u8]) -> bool {
    let value = behind.trim_ascii_start().strip_prefix(b":");
    value.is_some_and(|value| value.trim_ascii_start().starts_with(b"false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(message: &str) -> (bool, bool) {
        let Hints { continued, failure } = Hints::of(message.as_bytes());
        (continued, failure)
    }

    #[test]
    fn only_what_cannot_be_told_apart_unread_is_hinted_at() {
        assert_eq!(
            hints(r#"{"id":1,"result":{"content":[{"text":"no isError"}],"isError" : false}}"#),
            (false, false)
        );
        assert_eq!(hints(r#"{"id":1,"result":{"isError":true}}"#), (false, true));
        assert_eq!(hints(r#"{"id":1,"result":{"isError":false,"isError":true}}"#), (false, true));
        assert_eq!(hints(r#"{"id":1,"error":{}}"#), (false, true));
        assert_eq!(hints(r#"{"id":1,"result":{"taskId":"7"}}"#), (true, false));
        assert_eq!(hints(r#"{"id":1,"result":{"requestState":"s","isError":true}}"#), (true, true));
        // Keys may be written with escapes.
        assert_eq!(hints(r#"{"id":1,"result":{"t\u0061skId":"7"}}"#), (true, true));
    }
}
