//! `drain` and `undrain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::workshop::print;
use crate::workshop::running::{Running, RunningError, Where};

#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// An instance, by its name or its `instance_id`
    instance: String,
    /// Why, for those who see it
    #[arg(long, default_value = "")]
    reason: String,
    /// How long sessions of clients that are with it go on [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    sessions: Option<Duration>,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Debug, clap::Args)]
pub struct UndrainArgs {
    /// An instance, by its name or its `instance_id`
    instance: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
struct Order<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_s: Option<u64>,
}

/// The part of an instance that people are shown.
#[derive(Deserialize)]
struct Instance {
    instance_name: String,
    state: String,
    reason: String,
}

fn duration(text: &str) -> Result<Duration, jiff::Error> {
    let span: jiff::SignedDuration = text.parse()?;
    Duration::try_from(span)
}

pub(super) fn drain(args: &DrainArgs) -> Result<bool, RunningError> {
    let sessions_s = args.sessions.map(|time| time.as_secs());
    order(&args.place, &args.instance, "drain", &Order { reason: &args.reason, sessions_s })
}

pub(super) fn undrain(args: &UndrainArgs) -> Result<bool, RunningError> {
    order(&args.place, &args.instance, "undrain", &serde_json::Map::new())
}

fn order(place: &Where, instance: &str, word: &str, body: &impl Serialize) -> Result<bool, RunningError> {
    let proxy = Running::at(place);
    let answer = proxy.post(&format!("/api/v1/instances/{instance}/{word}"), body)?;
    let seen: Instance = serde_json::from_slice(&answer).map_err(|error| proxy.foreign(error))?;
    let colon = if seen.reason.is_empty() { "" } else { ": " };
    print(&format!("{} is {}{colon}{}\n", seen.instance_name, seen.state, seen.reason));
    Ok(true)
}
