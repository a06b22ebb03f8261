//! What a child has in its environment, and all that it starts unless it is taken out: by this those are found that
//! left its session.

use std::collections::HashMap;

use super::session::Seen;

/// The variable.
pub(super) const VARIABLE: &str = "MESHWRIGHT_CHILD";
/// Hexadecimal digits of a mark.
const DIGITS: usize = 32;

/// Another one for each child that is ever started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; DIGITS]);

impl Mark {
    pub(super) fn fresh() -> Self {
        let mut bytes = [0; DIGITS / 2];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        let mut digits = [0; DIGITS];
        hex::encode_to_slice(bytes, &mut digits).expect("a byte has two digits");
        Self(digits)
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; DIGITS] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(digits))
    }

    pub(super) const fn bytes(&self) -> &[u8; DIGITS] {
        &self.0
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are text")
    }

    /// That of a process, as far as it may be seen.
    pub(super) fn of(pid: i32) -> Option<Self> {
        // Those of other users cannot be read, and are nobody's children here.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |entry: &[u8]| {
            let value = entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            Self::parse(value)
        };
        environment.split(|byte| *byte == 0).find_map(value)
    }

    /// Those of all these processes that have one.
    pub(super) fn of_all(seen: &[Seen]) -> HashMap<i32, Self> {
        seen.iter()
            .filter(|seen| !seen.is_zombie)
            .filter_map(|seen| Some((seen.pid, Self::of(seen.pid)?)))
            .collect()
    }
}
