//! Builds what a round needs and has not, several at once.

use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use super::engine::Runtime;
use super::folder::Sha;
use super::load::{self, Build, LoadError};

/// Each may take 1 GiB while it compiles.
const AT_ONCE_MAX: usize = 4;

pub struct Wanted<'a> {
    pub label: &'a str,
    pub sha: Sha,
    pub bytes: &'a [u8],
}

pub fn build_all(runtime: &Runtime, wanted: Vec<Wanted<'_>>) -> Vec<(Sha, Result<Build, LoadError>)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let at_once = wanted.len().min(cores).min(AT_ONCE_MAX);
    let threads = (cores / at_once.max(1)).max(1);
    let build = |wanted: Wanted<'_>| (wanted.sha, load::build(runtime, wanted.label, wanted.bytes, threads));
    if at_once < 2 {
        return wanted.into_iter().map(build).collect();
    }
    let queue = Mutex::new(wanted);
    let next = || queue.lock().ok()?.pop();
    thread::scope(|scope| {
        let takers: Vec<_> = (0..at_once)
            .map(|_| {
                scope.spawn(|| {
                    let mut built = Vec::new();
                    while let Some(wanted) = next() {
                        built.push(build(wanted));
                    }
                    built
                })
            })
            .collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap_or_default()).collect()
    })
}
