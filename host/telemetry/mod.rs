//! What is known of the mesh over time: counts on their way to the store and the stats file, series for alerters,
//! calls for meters, alerts, metrics.
//!
//! Knows the domain, the store and the registry's snapshot. Must not decide anything about calls.

pub mod account;
pub mod alerts;
pub mod events;
pub mod journal;
pub mod meters;
pub mod metrics;
pub mod series;
pub mod stats_file;
mod tool_latency;
