//! The configuration of the meter.

use meshwright_sdk::settings::{self, Fields, Issue};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    Service,
    Tool,
    Client,
}

impl Label {
    pub const ALL: [Self; 3] = [Self::Service, Self::Tool, Self::Client];

    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Tool => "tool",
            Self::Client => "client",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What usage is told apart by, in the order of [`Label::ALL`], whatever the order in the configuration.
    pub by: Vec<Label>,
    /// Further label sets are counted together.
    pub series_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { by: vec![Label::Service, Label::Tool], series_max: 500 }
    }
}

impl Settings {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        let default = Self::default();
        settings::read(config_json, |fields| Self {
            by: by(fields).unwrap_or(default.by),
            series_max: fields.integer("series_max", 1..=2_000).unwrap_or(default.series_max),
        })
    }
}

fn by(fields: &mut Fields<'_>) -> Option<Vec<Label>> {
    let words = fields.texts("by")?;
    for (index, word) in words.iter().enumerate() {
        if !Label::ALL.iter().any(|label| label.name() == word) {
            let message = format!("There is no label `{word}`; there are `service`, `tool`, `client`.");
            fields.fault_at("by", index, message);
        } else if words[..index].contains(word) {
            fields.fault_at("by", index, format!("The label `{word}` is given twice."));
        }
    }
    Some(Label::ALL.into_iter().filter(|label| words.iter().any(|word| word == label.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_means_the_defaults() {
        assert_eq!(Settings::read("{}"), Ok(Settings::default()));
    }

    #[test]
    fn the_order_of_labels_in_the_configuration_does_not_matter() {
        let read = Settings::read(r#"{"by": ["client", "service"], "series_max": 7}"#);
        assert_eq!(read, Ok(Settings { by: vec![Label::Service, Label::Client], series_max: 7 }));
        assert_eq!(Settings::read(r#"{"by": []}"#).map(|settings| settings.by), Ok(vec![]));
    }

    #[test]
    fn faults_name_their_place() {
        let issues =
            Settings::read(r#"{"by": ["tool", "session", "tool"], "series_max": 0, "x": 1}"#).unwrap_err();
        let places: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(places, ["/by/1", "/by/2", "/series_max", "/x"]);
    }
}
