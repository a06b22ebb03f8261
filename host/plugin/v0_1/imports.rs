//! What a plugin may ask of the host.

use std::time::Duration;

use super::bindings::meshwright::plugin::{arguments, kv, live, log, types};
use crate::plugin::clock;
use crate::plugin::host_state::HostState;

impl types::Host for HostState {}

impl log::Host for HostState {
    fn emit(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        self.shared.log(level, &message);
    }
}

impl kv::Host for HostState {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.shared.kv.get(&key, clock::now()).map(|value| value.to_vec())
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_s: u32) -> Result<(), String> {
        self.shared.kv.set(&key, &value, ttl(ttl_s), clock::now()).map_err(|error| error.to_string())
    }

    fn add(&mut self, key: String, delta: i64, ttl_s: u32) -> Result<i64, String> {
        self.shared.kv.add(&key, delta, ttl(ttl_s), clock::now()).map_err(|error| error.to_string())
    }
}

impl arguments::Host for HostState {
    fn at(&mut self, pointer: String) -> Option<String> {
        self.argument(&pointer)
    }
}

fn ttl(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

impl live::Host for HostState {
    fn in_flight(&mut self, pool: u32, slot: u32) -> u32 {
        self.live_member(pool, slot).map_or(0, |member| member.live.in_flight())
    }

    fn ewma_us(&mut self, pool: u32, slot: u32) -> u32 {
        self.live_member(pool, slot).map_or(0, |member| member.live.ewma_us())
    }
}
