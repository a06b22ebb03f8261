//! One instance goes wrong in every way that an instance can: calls go to the other one, nobody else notices, and it
//! is back soon after it is well.

#[path = "../support/mod.rs"]
mod support;
mod talkers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::callers::{Looks, p99};
use support::raw_upstream::{How, RawOptions};
use support::{Api, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};
use tokio::sync::Mutex;

/// From the fault to the moment when the instance gets no more than trials.
const EJECTED: Duration = Duration::from_secs(15);
/// From its end to the moment when it gets calls again.
const BACK: Duration = Duration::from_secs(30);

/// Latencies are compared: one scene at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn scene() -> (Mesh, [RawUpstream; 3]) {
    let options = RawOptions { sessions: false, ..RawOptions::default() };
    let start = || RawUpstream::start(options);
    let upstreams = [start().await, start().await, start().await];
    let [bad, good, other] =
        upstreams.each_ref().map(|upstream| format!("http://127.0.0.1:{}/mcp", upstream.port));
    let config = format!("[services.s]\nurls = [{bad:?}, {good:?}]\n[services.other]\nurl = {other:?}\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("all instances answer", SOON, || async {
        let health = mesh.api.get("/health").await.ok();
        (health["services"]["healthy"] == 2 && (state(&mesh).await == "healthy")).then_some(())
    })
    .await;
    (mesh, upstreams)
}

async fn state(mesh: &Mesh) -> Value {
    mesh.api.service("s").await["instances"][0]["state"].clone()
}

/// Two callers who go on whatever they are answered: what is no answer at all may have been done, and is not sent twice.
struct Pressure {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Pressure {
    fn start(api: &Api) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..2).map(|_| {
            let (api, stop) = (api.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    api.call("s", "act_read_only", json!({})).await;
                }
            })
        });
        Self { tasks: tasks.collect(), stop }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every call was answered somehow");
        }
    }
}

/// Looks ten times a second at what reaches the upstream and how the proxy sees it, whatever else is measured meanwhile.
struct Watcher {
    seen: Arc<std::sync::Mutex<Vec<Sight>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Sight {
    at: Instant,
    calls: usize,
    is_healthy: bool,
}

impl Watcher {
    fn start(mesh: &Mesh, bad: &Arc<RawUpstream>) -> Self {
        let seen = Arc::<std::sync::Mutex<Vec<Sight>>>::default();
        let (api, bad, noted) = (mesh.api.clone(), Arc::clone(bad), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let is_healthy = api.service("s").await["instances"][0]["state"] == "healthy";
                let sight = Sight { at: Instant::now(), calls: bad.calls(), is_healthy };
                noted.lock().expect("nobody panics here").push(sight);
            }
        });
        Self { seen, task }
    }

    /// How long after `since` it began to get no more than trials: one call in a second.
    fn left_alone(&self, since: Instant) -> Option<Duration> {
        let seen = self.seen.lock().expect("nobody panics here");
        let from = seen.partition_point(|sight| sight.at < since);
        let later =
            |sight: &Sight| seen[from..].iter().find(|later| later.at >= sight.at + Duration::from_secs(1));
        let alone = seen[from..]
            .iter()
            .find(|sight| later(sight).is_some_and(|later| later.calls <= sight.calls + 1));
        alone.map(|sight| sight.at - since)
    }

    /// How long after `since` the proxy knew that it is bad.
    fn found_out(&self, since: Instant) -> Option<Duration> {
        let seen = self.seen.lock().expect("nobody panics here");
        seen.iter().find(|sight| sight.at >= since && !sight.is_healthy).map(|sight| sight.at - since)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many calls reach the upstream within a second.
async fn calls_in_a_second(upstream: &RawUpstream) -> usize {
    let before = upstream.calls();
    tokio::time::sleep(Duration::from_secs(1)).await;
    upstream.calls() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_instance_does_it_is_left_alone_soon_and_back_when_it_is_well() {
    let _alone = ALONE.lock().await;
    let (mesh, [bad, _good, _other]) = scene().await;
    let bad = Arc::new(bad);
    let watcher = Watcher::start(&mesh, &bad);
    let mut calm = Vec::new();
    for fault in [
        How::Refuse,
        How::Reset,
        How::Garbage,
        How::NotHttp,
        How::Truncated,
        How::TruncatedSse,
        How::Status(503),
        How::Status(500),
        How::Status(429),
        How::Huge(1 << 30),
        How::HugeChunks(1 << 30),
        How::Chatter,
    ] {
        let callers = Pressure::start(&mesh.api);
        calm.push(p99(&mesh.api, "other", "act_read_only").await);
        bad.now(fault.clone());
        let began = Instant::now();
        let first = (median(&mut calm), p99(&mesh.api, "other", "act_read_only").await);
        let ejected = eventually(&format!("{fault:?}: it is left alone"), 2 * EJECTED, || async {
            watcher.left_alone(began)
        })
        .await;
        assert!(ejected <= EJECTED, "{fault:?}: left alone after {ejected:?}");
        bad.now(How::Answer);
        let began = Instant::now();
        eventually(&format!("{fault:?}: it is back"), BACK, || async {
            (calls_in_a_second(&bad).await > 1).then_some(())
        })
        .await;
        let back = began.elapsed();
        let beside = others_notice_nothing(&mesh, (&bad, &watcher), &fault, first).await;
        eventually(&format!("{fault:?}: it is back again"), BACK, || async {
            (calls_in_a_second(&bad).await > 1).then_some(())
        })
        .await;
        eprintln!("{fault:?}: left alone after {ejected:?}, back after {back:?}; others' p99 {beside}");
        callers.stop().await;
    }
}

/// The first look, before and beside, was at the first moments of the fault, in which the instance still gets calls; each
/// other one begins when it is left alone again. In the end it is well.
async fn others_notice_nothing(
    mesh: &Mesh,
    (bad, watcher): (&RawUpstream, &Watcher),
    fault: &How,
    (mut before, mut beside): (Duration, Duration),
) -> String {
    let mut looks = Looks::default();
    loop {
        bad.now(How::Answer);
        let after = p99(&mesh.api, "other", "act_read_only").await;
        looks.add(before, beside, after);
        if looks.show_nothing() {
            let (calm, beside) = looks.median();
            return format!("{calm:?} before or after, {beside:?} beside");
        }
        before = after;
        bad.now(fault.clone());
        let began = Instant::now();
        eventually(&format!("{fault:?}: it is left alone again"), 2 * EJECTED, || async {
            watcher.left_alone(began)
        })
        .await;
        beside = p99(&mesh.api, "other", "act_read_only").await;
    }
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

async fn is_found_out_and_back(fault: How) {
    let _alone = ALONE.lock().await;
    let (mesh, [bad, _good, _other]) = scene().await;
    let bad = Arc::new(bad);
    let watcher = Watcher::start(&mesh, &bad);
    let mut calm = Vec::new();
    for _ in 0..5 {
        calm.push(p99(&mesh.api, "other", "act_read_only").await);
    }
    bad.now(fault.clone());
    let began = Instant::now();
    // Some calls hang there; the balancer sends the others to the instance that has fewer.
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let api = mesh.api.clone();
            tokio::spawn(async move { api.call("s", "act_read_only", json!({})).await.status })
        })
        .collect();
    let first = (median(&mut calm), p99(&mesh.api, "other", "act_read_only").await);
    let found_out = eventually(&format!("{fault:?}: it is known to be bad"), 2 * EJECTED, || async {
        watcher.found_out(began)
    })
    .await;
    assert!(found_out <= EJECTED, "{fault:?}: found out after {found_out:?}");
    for _ in 0..50 {
        let answer = mesh.api.call("s", "act", json!({})).await;
        assert_eq!(answer.status, 200, "{fault:?}: the other one takes all: {}", answer.text());
    }
    bad.now(How::Answer);
    let began = Instant::now();
    eventually(&format!("{fault:?}: it is known to be well"), BACK, || async {
        // Calls that were refused count for half a minute, unless others succeed.
        if fault == How::Refuse {
            mesh.api.call("s", "act", json!({})).await.ok();
        }
        (state(&mesh).await == "healthy").then_some(())
    })
    .await;
    let well = began.elapsed();
    let beside = others_notice_nothing(&mesh, (&bad, &watcher), &fault, first).await;
    eprintln!("{fault:?}: found out after {found_out:?}, well after {well:?}; others' p99 {beside}");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_hangs_is_found_out_and_back_when_it_is_well() {
    is_found_out_and_back(How::HangAll).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_host_is_gone_is_found_out_and_back_when_it_is_well() {
    is_found_out_and_back(How::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_down_is_found_out_and_back_when_it_is_well() {
    is_found_out_and_back(How::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_drips_is_found_out_and_back_when_it_is_well() {
    is_found_out_and_back(How::Drip(Duration::from_millis(40))).await;
}
