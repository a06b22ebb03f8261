//! What serde says of a value that it cannot take, in words for people.

use crate::spelling::no_such;

/// What is not known, with what was meant; what is of another kind, with what is expected.
pub(super) fn in_words(message: &str) -> String {
    let kind = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = kind.and_then(|kind| kind.rsplit_once(", expected ")) {
        return format!("expected {}, not {}", expected(wanted), given(found));
    }
    match message {
        // An enum, where a number or a list stands.
        "wanted string or table" => return "expected a string".to_owned(),
        "invalid socket address syntax" => return format!("expected {ADDRESS}"),
        _ => {}
    }
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let starts = |start: &str| message.starts_with(start);
    match words[..] {
        [word] if starts("missing field `") => format!("`{word}` is missing"),
        [word, ref known @ ..] if starts("unknown field `") => no_such("setting", word, known),
        [word, ref known @ ..] if starts("unknown variant `") => no_such("value", word, known),
        _ => message.to_owned(),
    }
}

const ADDRESS: &str = "an address such as \"127.0.0.1:6000\"";

fn expected(wanted: &str) -> &str {
    match wanted {
        "a sequence" => "a list such as `[\"a\", \"b\"]`",
        "a map" => "a table",
        "a boolean" => "`true` or `false`",
        "path string" => "a path such as \"/srv/data\"",
        "socket address" => ADDRESS,
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ if wanted.starts_with("struct ") => "a table",
        _ => wanted,
    }
}

fn given(found: &str) -> String {
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => {
            let number = |kind| found.strip_prefix(kind).map(|number| format!("the number {number}"));
            let text = || found.strip_prefix("string ").map(|text| format!("the string {text}"));
            let flag = || found.strip_prefix("boolean ").map(ToOwned::to_owned);
            let number = number("integer ").or_else(|| number("floating point "));
            number.or_else(text).or_else(flag).unwrap_or_else(|| found.to_owned())
        }
    }
}
