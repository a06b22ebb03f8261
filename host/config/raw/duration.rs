//! Durations as people write them.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Error, Visitor};

/// A duration with its unit, such as `"500ms"`, `"30s"`, `"2m"`.
#[derive(Debug)]
pub(super) struct RawDuration(pub Duration);

impl JsonSchema for RawDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A number with its unit, such as `500ms`, `30s`, `2m`.",
            "examples": ["500ms", "30s", "2m"],
        })
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = RawDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RawDuration, E> {
        let parsed = text.parse::<jiff::SignedDuration>().map_err(|_| {
            E::custom(format!(
                "`{text}` is not a duration; write a number with its unit, such as \"500ms\", \"30s\" or \"2m\""
            ))
        })?;
        match Duration::try_from(parsed) {
            Ok(duration) if !duration.is_zero() => Ok(RawDuration(duration)),
            _ => Err(E::custom(format!("`{text}` is too short; it must be more than 0"))),
        }
    }
}

pub(super) fn or(value: Option<RawDuration>, default: Duration) -> Duration {
    value.map_or(default, |raw| raw.0)
}
