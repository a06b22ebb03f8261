//! The marker that tests overwrite in the built file.

use std::sync::LazyLock;

const BYTES: usize = 128;
/// Length of the prefix. Its text stands nowhere else in the code: tests find the marker by it, so that the built
/// file must not contain it twice.
const PREFIX_BYTES: usize = 13;

/// Found by its prefix, padded with spaces.
#[used]
static MARKER: [u8; BYTES] = padded(b"@@MISBEHAVE@@name=misbehaver;version=0.1.0;do=nothing;");

const fn padded(text: &[u8]) -> [u8; BYTES] {
    let mut bytes = [b' '; BYTES];
    let mut index = 0;
    while index < text.len() {
        bytes[index] = text[index];
        index += 1;
    }
    bytes
}

macro_rules! behaviours {
    ($($behaviour:ident = $word:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Behaviour { $($behaviour,)* }

        impl Behaviour {
            const ALL: &[(&str, Self)] = &[$(($word, Self::$behaviour),)*];
        }
    };
}

behaviours! {
    Nothing = "nothing",
    TrapInMetadata = "trap-in-metadata",
    Schema = "schema",
    SchemaBroken = "schema-broken",
    SchemaEndless = "schema-endless",
    SchemaExplodes = "schema-explodes",
    SelfTestFails = "self-test-fails",
    TrapInSelfTest = "trap-in-self-test",
    LoopInSelfTest = "loop-in-self-test",
    ConfigureRefuses = "configure-refuses",
    TrapInConfigure = "trap-in-configure",
    LoopInConfigure = "loop-in-configure",
    Loop = "loop",
    Trap = "trap",
    TrapOrAnswer = "trap-or-answer",
    Recurse = "recurse",
    Allocate = "allocate",
    BigWhy = "big-why",
    UnknownService = "unknown-service",
    BadName = "bad-name",
    LogFlood = "log-flood",
    KvFlood = "kv-flood",
    Remember = "remember",
    Answer = "answer",
    Asks = "asks",
    AsksForTheMoon = "asks-for-the-moon",
    Reject = "reject",
    LoopInPick = "loop-in-pick",
    TrapInPick = "trap-in-pick",
    AllocateInPick = "allocate-in-pick",
    NonsenseSlot = "nonsense-slot",
    PickFirst = "pick-first",
}

#[derive(Debug, PartialEq, Eq)]
pub struct Marker {
    pub name: String,
    pub version: String,
    /// `None` when there is no behaviour of that name.
    pub behaviour: Option<Behaviour>,
    /// The only tool for which `route` misbehaves.
    pub only: Option<String>,
}

impl Marker {
    pub fn read() -> &'static Self {
        static READ: LazyLock<Marker> = LazyLock::new(|| {
            let pointer = &raw const MARKER;
            // SAFETY: `pointer` is a static's own. Volatile, since the compiler would otherwise put the text from the
            // source in place of the bytes that the test wrote.
            #[allow(unsafe_code)]
            let bytes = unsafe { core::ptr::read_volatile(pointer) };
            Marker::parse(&String::from_utf8_lossy(&bytes))
        });
        &READ
    }

    fn parse(text: &str) -> Self {
        let text = text.get(PREFIX_BYTES..).unwrap_or_default();
        let value = |key: &str| {
            let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.filter(|(found, _)| *found == key).map(|(_, value)| value).next()
        };
        let word = value("do").unwrap_or_default();
        Self {
            name: value("name").unwrap_or("misbehaver").into(),
            version: value("version").unwrap_or("0.1.0").into(),
            behaviour: Behaviour::ALL
                .iter()
                .find(|(known, _)| *known == word)
                .map(|(_, behaviour)| *behaviour),
            only: value("only").map(ToOwned::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unpatched_marker_does_nothing() {
        let expected = Marker {
            name: "misbehaver".into(),
            version: "0.1.0".into(),
            behaviour: Some(Behaviour::Nothing),
            only: None,
        };
        assert_eq!(Marker::read(), &expected);
    }

    #[test]
    fn a_patched_marker_is_understood() {
        let text = format!("{:<128}", "@@MISBEHAVE@@name=a-b;version=2.0.1;do=loop;only=get_issue");
        let expected = Marker {
            name: "a-b".into(),
            version: "2.0.1".into(),
            behaviour: Some(Behaviour::Loop),
            only: Some("get_issue".into()),
        };
        assert_eq!(Marker::parse(&text), expected);
    }

    #[test]
    fn a_misspelt_behaviour_is_none() {
        assert_eq!(Marker::parse("@@MISBEHAVE@@do=lop;").behaviour, None);
    }

    #[test]
    fn the_readme_lists_every_behaviour() {
        let readme = include_str!("../README.md");
        for (word, _) in Behaviour::ALL {
            assert!(readme.contains(&format!("| `{word}` |")), "{word}");
        }
    }
}
