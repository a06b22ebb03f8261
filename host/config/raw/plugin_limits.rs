//! What a plugin may use up: from what the file says to what the program gets.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RawDuration, Wrong, clash, wrong};
use crate::mesh::allowance::Allowance;

/// No component addresses more.
const MEMORY_MIB: RangeInclusive<u32> = 1..=4_095;
/// The host looks once a millisecond whether a plugin is over its time.
const ASK: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
const BACKGROUND: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
const BUDGET: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_secs(1);
/// Unless the file says another.
const ASK_USUAL: Duration = Duration::from_millis(5);

/// What a plugin may use up, where that is not what all plugins may.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table such as `{ memory_mib = 64 }`")]
pub(super) struct RawPluginLimits {
    /// Memory of each of its instances, in MiB: 32 on the call path and 128 elsewhere unless set.
    memory_mib: Option<u32>,
    /// For an answer that a call waits for; `5ms` unless set.
    ask_timeout: Option<RawDuration>,
    /// For an answer that no call waits for; `1s` unless set.
    background_timeout: Option<RawDuration>,
    /// Within which 99 of 100 calls are routed; what the plugin declares, or else `1ms`, unless set.
    route_budget: Option<RawDuration>,
    /// Within which 99 of 100 instances are picked; what the plugin declares, or else `1ms`, unless set.
    pick_budget: Option<RawDuration>,
}

pub(super) fn allowance(raw: RawPluginLimits) -> Result<Allowance, Wrong> {
    if let Some(mib) = raw.memory_mib.filter(|mib| !MEMORY_MIB.contains(mib)) {
        let (least, most) = (MEMORY_MIB.start(), MEMORY_MIB.end());
        let message = format!("{mib} is not between {least} and {most}");
        return Err(wrong("limits.memory_mib", message));
    }
    let ask = within(raw.ask_timeout, "limits.ask_timeout", &ASK)?;
    let route = within(raw.route_budget, "limits.route_budget", &BUDGET)?;
    let pick = within(raw.pick_budget, "limits.pick_budget", &BUDGET)?;
    let longest = ask.unwrap_or(ASK_USUAL);
    let said = [("limits.route_budget", route), ("limits.pick_budget", pick)].into_iter();
    for (key, budget) in said.filter_map(|(key, budget)| Some((key, budget?))) {
        if budget > longest {
            let message =
                format!("{budget:?} is longer than an answer may take at all: `ask_timeout` is {longest:?}");
            return Err(clash(key, message));
        }
    }
    Ok(Allowance {
        memory_bytes_max: raw.memory_mib.map(|mib| (mib as usize) << 20),
        ask,
        background: within(raw.background_timeout, "limits.background_timeout", &BACKGROUND)?,
        route,
        pick,
    })
}

fn within(
    raw: Option<RawDuration>,
    key: &'static str,
    range: &RangeInclusive<Duration>,
) -> Result<Option<Duration>, Wrong> {
    let Some(RawDuration(time)) = raw else { return Ok(None) };
    if range.contains(&time) {
        return Ok(Some(time));
    }
    let (least, most) = (range.start(), range.end());
    Err(wrong(key, format!("{time:?} is not between {least:?} and {most:?}")))
}
