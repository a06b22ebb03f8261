//! The protocol: eras, envelopes, SSE frames, tool lists. Works on bytes: what a caller or an instance sent is
//! looked into, never rebuilt.
//!
//! Knows the domain. Must not know sockets, the registry or who calls.

pub mod catalogue;
pub mod envelope;
pub mod era;
pub mod incoming;
pub mod sse;
pub mod tools;
