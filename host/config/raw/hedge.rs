//! When a service's calls are asked elsewhere, too: from what the file says to what the program gets.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RawDuration, Wrong, wrong};
use crate::mesh::hedge::{After, Hedge};

/// Share of the calls, in percent, unless the file says another.
const BUDGET: u32 = 5;
/// No pool is asked for more than half as much again.
const BUDGET_MAX: u32 = 50;

/// Calls that only read and have no answer yet are asked of a second instance; the first answer holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table such as `{ after = \"p95\" }`")]
pub(super) struct RawHedge {
    /// After that time, such as `200ms`, or after that quantile of the service's latencies: `p50` to `p99`.
    after: String,
    /// Share of the calls that may be asked twice, in percent.
    budget_percent: Option<u32>,
}

pub(super) fn hedge(raw: Option<RawHedge>) -> Result<Option<Hedge>, Wrong> {
    let Some(RawHedge { after, budget_percent }) = raw else { return Ok(None) };
    let budget = budget_percent.unwrap_or(BUDGET);
    if !(1..=BUDGET_MAX).contains(&budget) {
        let message = format!("`budget_percent` is {budget}, which is not between 1 and {BUDGET_MAX}");
        return Err(wrong("hedge", message));
    }
    let quantile = after.strip_prefix('p').and_then(|digits| digits.parse::<u32>().ok());
    let time = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&after);
    let after = match (quantile, RawDuration::deserialize(time)) {
        (Some(percent @ 50..=99), _) => After::Quantile(percent * 10),
        (None, Ok(RawDuration(time))) => After::Time(time),
        _ => {
            let message = "`after` must be a time such as \"200ms\", or \"p50\" to \"p99\"";
            return Err(wrong("hedge", message));
        }
    };
    Ok(Some(Hedge { after, budget_permille: budget * 10 }))
}
