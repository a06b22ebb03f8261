//! The domain: names, instances and the machines that judge them. Every machine is a pure function of its state,
//! an event and the time it is given.
//!
//! Knows nobody: no I/O, no async, no clock of its own, no JSON values.

pub mod alert;
pub mod allowance;
pub mod balance;
pub mod breaker;
pub mod child;
pub mod crashes;
pub mod deadline;
pub mod dependency;
pub mod drain;
pub mod endpoint;
pub mod exposure;
pub mod flood;
pub mod health;
pub mod hedge;
pub mod ids;
pub mod instance;
pub mod lease;
pub mod limit;
pub mod log_ring;
pub mod memo;
pub mod observe;
pub mod offer;
pub mod plan;
pub mod pool;
pub mod reliability;
pub mod retry;
pub mod reuse;
pub mod ruling;
pub mod stall;
pub mod stats;
pub mod story;
pub mod time;
pub mod verdict;
