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
