//! When the tools are open, in UTC.

use meshwright_sdk::settings::{self, Fields, Issue};
use wildmatch::WildMatch;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

pub struct Hours {
    /// The tools that are closed at times; with none, every call passes.
    tools: Vec<WildMatch>,
    /// By day of the week, Monday first.
    open_days: [bool; 7],
    /// Minutes of the day; at `closes` the tools are closed again.
    opens: u64,
    closes: u64,
}

impl Default for Hours {
    fn default() -> Self {
        let open_days = [true, true, true, true, true, false, false];
        Self { tools: Vec::new(), open_days, opens: 8 * 60, closes: 18 * 60 }
    }
}

impl Hours {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        let default = Self::default();
        settings::read(config_json, |fields| {
            let tools = fields.texts("tools").unwrap_or_default();
            let hours = Self {
                tools: tools.iter().map(|tool| WildMatch::new(tool)).collect(),
                open_days: days(fields).unwrap_or(default.open_days),
                opens: time(fields, "opens").unwrap_or(default.opens),
                closes: time(fields, "closes").unwrap_or(default.closes),
            };
            if hours.opens >= hours.closes {
                fields.fault_here("The tools must open before they close.");
            }
            hours
        })
    }

    /// How long a call of `tool` at `now_ms` has to wait; `None` when it need not.
    pub fn closed_ms(&self, tool: &str, now_ms: u64) -> Option<u32> {
        if !self.tools.iter().any(|pattern| pattern.matches(tool)) {
            return None;
        }
        let today = now_ms / MINUTE_MS / DAY_MINUTES;
        let minute = now_ms / MINUTE_MS % DAY_MINUTES;
        if self.is_open_on(today) && (self.opens..self.closes).contains(&minute) {
            return None;
        }
        // Some day is an open one, so that one of the next seven opens.
        let opens_ms = (today..=today + 7)
            .filter(|day| self.is_open_on(*day))
            .map(|day| (day * DAY_MINUTES + self.opens) * MINUTE_MS)
            .find(|opens_ms| *opens_ms > now_ms)?;
        u32::try_from(opens_ms - now_ms).ok()
    }

    fn is_open_on(&self, day: u64) -> bool {
        // The first of January 1970 was a Thursday.
        self.open_days[((day + 3) % 7) as usize]
    }
}

fn days(fields: &mut Fields<'_>) -> Option<[bool; 7]> {
    let names = fields.texts("days")?;
    if names.is_empty() {
        fields.fault("days", "At least one day is needed, or the tools would never open.");
    }
    for (index, name) in names.iter().enumerate() {
        if !DAYS.contains(&name.as_str()) {
            fields.fault_at("days", index, format!("There is no day `{name}`; write `mon` to `sun`."));
        }
    }
    Some(DAYS.map(|day| names.iter().any(|name| name == day)))
}

/// `HH:MM`, up to `24:00`, in minutes of the day.
fn time(fields: &mut Fields<'_>, key: &'static str) -> Option<u64> {
    let text = fields.text(key)?;
    let minutes = text.split_once(':').and_then(|(hour, minute)| {
        let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let (hour, minute) = (two_digits(hour).then_some(hour)?, two_digits(minute).then_some(minute)?);
        let (hour, minute): (u64, u64) = (hour.parse().ok()?, minute.parse().ok()?);
        (minute < 60 && hour * 60 + minute <= DAY_MINUTES).then_some(hour * 60 + minute)
    });
    if minutes.is_none() {
        fields.fault(key, format!("`{text}` is not a time of the day; write it as `08:30`, in UTC."));
    }
    minutes
}

/// # Errors
/// The first wait that is wrong.
pub fn self_test() -> Result<(), String> {
    let hours = Hours::read(r#"{"tools": "delete_*"}"#)
        .map_err(|issues| format!("a valid configuration is refused: {}", issues[0].message))?;
    // 2026-01-02 was a Friday.
    const FRIDAY_MS: u64 = 1_767_312_000_000;
    let hour_ms = 60 * MINUTE_MS;
    let weekend_ms = u32::try_from((6 + 48 + 8) * hour_ms).ok();
    for (tool, at_ms, wait_ms) in [
        ("delete_repo", FRIDAY_MS + 9 * hour_ms, None),
        ("delete_repo", FRIDAY_MS + 18 * hour_ms, weekend_ms),
        ("get_repo", FRIDAY_MS + 18 * hour_ms, None),
    ] {
        let found = hours.closed_ms(tool, at_ms);
        if found != wait_ms {
            return Err(format!("`{tool}` at {at_ms} has to wait {found:?} ms instead of {wait_ms:?} ms"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
