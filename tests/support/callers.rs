//! Callers that go on calling while something happens beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use super::Api;

/// Calls one tool without end; each answer must be good.
pub struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Callers {
    pub fn start(api: &Api, count: usize, service: &'static str, tool: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|_| {
            let (api, stop) = (api.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = api.call(service, tool, json!({})).await;
                    assert_eq!(answer.status, 200, "a fault reached the caller: {}", answer.text());
                    calls += 1;
                }
                calls
            })
        });
        Self { tasks: tasks.collect(), stop }
    }

    /// How many calls there were.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for task in self.tasks {
            calls += task.await.expect("every call was answered well");
        }
        calls
    }
}

/// How many looks there are at most, and before anything is said.
const LOOKS: usize = 21;
const LOOKS_FIRST: usize = 3;

/// What calls of bystanders take beside a fault, and in the calm moments right before and after that: 99th percentiles. A
/// busy machine slows some moments more than others, so each fault is held against the worse of its two calm ones, and
/// several looks are taken: what is in the way slows most.
#[derive(Debug, Default)]
pub struct Looks(Vec<(Duration, Duration)>);

impl Looks {
    pub fn add(&mut self, before: Duration, beside: Duration, after: Duration) {
        self.0.push((before.max(after), beside));
    }

    /// Whether most looks are as if nothing were wrong, once that is clear. One is so when it is slower by 2 ms, or by a
    /// tenth of what is usual, at most. Where it never becomes clear, because of what else the machine does, three quarters
    /// must be bad to blame the fault.
    #[track_caller]
    pub fn show_nothing(&self) -> bool {
        let is_good = |(calm, beside): &&(Duration, Duration)| {
            *beside <= *calm + Duration::from_millis(2).max(*calm / 10)
        };
        let (all, good) = (self.0.len(), self.0.iter().filter(is_good).count());
        let bad = all - good;
        assert!(bad <= LOOKS * 3 / 4, "bystanders before or after and beside it: {:?}", self.0);
        all >= LOOKS_FIRST && good >= bad + 2 || all >= LOOKS
    }

    /// The pair in the middle, by how much slower the second is.
    pub fn median(&self) -> (Duration, Duration) {
        let mut pairs = self.0.clone();
        pairs.sort_by(|one, other| (one.1 + other.0).cmp(&(other.1 + one.0)));
        pairs[pairs.len() / 2]
    }
}

/// 99th percentile of 600 calls.
pub async fn p99(api: &Api, service: &str, tool: &str) -> Duration {
    let mut took = Vec::new();
    for _ in 0..600 {
        let start = Instant::now();
        api.call(service, tool, json!({})).await.ok();
        took.push(start.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}
