//! Durations as people write them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

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
        let text = String::deserialize(deserializer)?;
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match parsed {
            Some(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is not a duration; write a number with its unit, such as \"500ms\", \"30s\" or \"2m\""
            ))),
        }
    }
}

pub(super) fn or(value: Option<RawDuration>, default: Duration) -> Duration {
    value.map_or(default, |raw| raw.0)
}
