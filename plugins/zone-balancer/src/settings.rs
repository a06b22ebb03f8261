//! The configuration of the balancer.

use meshwright_sdk::settings::{self, Issue};

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The zone this proxy is in; without one, all zones are alike.
    pub zone: Option<String>,
    /// How many times dearer a member of another zone is.
    pub zone_penalty: f64,
    /// The latency that a failed call is charged, in milliseconds, unless the real one is higher.
    pub failure_penalty_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { zone: None, zone_penalty: 2.0, failure_penalty_ms: 5_000 }
    }
}

impl Settings {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        let default = Self::default();
        settings::read(config_json, |fields| Self {
            // An empty text is the way to switch the preference off where a template always gives the setting.
            zone: fields.name_or_empty("zone").filter(|zone| !zone.is_empty()),
            zone_penalty: fields.number("zone_penalty", 1.0..=100.0).unwrap_or(default.zone_penalty),
            failure_penalty_ms: fields
                .integer("failure_penalty_ms", 0..=600_000)
                .unwrap_or(default.failure_penalty_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_means_the_defaults() {
        assert_eq!(Settings::read("{}"), Ok(Settings::default()));
        assert_eq!(Settings::read(r#"{"zone": ""}"#), Ok(Settings::default()));
    }

    #[test]
    fn settings_are_read() {
        let read = Settings::read(r#"{"zone": "eu-1", "zone_penalty": 3, "failure_penalty_ms": 0}"#);
        let expected = Settings { zone: Some("eu-1".into()), zone_penalty: 3.0, failure_penalty_ms: 0 };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn faults_name_their_place() {
        let issues = Settings::read(r#"{"zone": "eu 1", "zone_penalty": 0.5, "zones": []}"#).unwrap_err();
        let places: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(places, ["/zone", "/zone_penalty", "/zones"]);
        assert_eq!(issues[1].message, "This must be a number from 1 to 100, not 0.5.");
    }
}
