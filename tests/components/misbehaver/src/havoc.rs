//! Ways to misbehave that the optimiser must not see through.

use std::hint::black_box;

use crate::bindings::meshwright::plugin::{kv, log};

pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

pub fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Never comes back: there is no end before the stack's.
#[expect(unconditional_recursion, reason = "this is the point")]
pub fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    recurse(black_box(frame[0].wrapping_add(1))).wrapping_add(black_box(frame)[31])
}

/// Allocates until the memory's end, which aborts.
pub fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
        black_box(&mut hoard);
    }
}

/// 1,000 lines of 8 KiB, where 100 a second of 4 KiB are allowed.
pub fn flood_log() -> String {
    let line = "x".repeat(8 << 10);
    for _ in 0..1000 {
        log::emit(log::Level::Error, &line);
    }
    "1000 lines emitted".into()
}

/// 1,100 keys of 8 KiB, where 1,000 keys and 4 MiB in all are allowed.
pub fn flood_kv() -> String {
    let value = vec![1_u8; 8 << 10];
    let refused = (0..1100).filter(|n| kv::set(&format!("flood/{n}"), &value, 0).is_err()).count();
    format!("{refused} of 1100 writes refused")
}
