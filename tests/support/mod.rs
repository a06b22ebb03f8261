//! What the tests share: a proxy in a process of its own, a client for its HTTP API, upstreams and guests.
//!
//! Everything goes over real sockets; nothing here knows the library.
#![allow(dead_code, unused_imports)] // each file of tests is a crate of its own and uses a part

pub mod api;
pub mod callers;
pub mod children;
pub mod client;
pub mod conformance;
pub mod everything;
pub mod guests;
pub mod mesh;
pub mod npm;
pub mod python;
pub mod raw_upstream;
pub mod toolchains;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use api::{Answer, Api};
pub use callers::Callers;
pub use client::Client;
pub use mesh::{Mesh, MeshOptions};
pub use raw_upstream::RawUpstream;
pub use serde_json::{Value, json};

/// What a thing that should happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);

/// Polls until `probe` has an answer; fails with `what` when `within` has passed.
pub async fn eventually<T, F>(what: &str, within: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where builds and environments that outlive a run are kept.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo puts it under the target folder").to_owned()
}

/// Holds a lock file for as long as it lives: tests of several processes build one thing once.
pub struct Locked(std::fs::File);

impl Locked {
    pub fn at(path: &Path) -> Self {
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("create the folder");
        let file = std::fs::File::create(path).expect("create the lock file");
        file.lock().expect("lock");
        Self(file)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file would unlock it, too; this says so.
        drop(self.0.unlock());
    }
}
