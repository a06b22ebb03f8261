//! The protocol: eras, envelopes, SSE frames, lists of what is offered. Works on bytes: what a caller or an instance
//! sent is looked into, never rebuilt.
//!
//! Knows the domain. Must not know sockets, the registry or who calls.

pub mod answer;
pub mod catalogue;
pub mod deadline;
pub mod declared;
pub mod envelope;
pub mod era;
pub mod hints;
pub mod message;
pub mod mirrored;
mod object;
pub mod own;
pub mod sse;
pub mod turn;
