//! One instance goes wrong in every way that an instance can: calls go to the other one, nobody else notices, and it
//! is back soon after it is well.

#[path = "../support/mod.rs"]
mod support;
mod talkers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::callers::p99;
use support::raw_upstream::{How, RawOptions};
use support::{Api, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};
use tokio::sync::Mutex;

/// From the fault to the moment when the instance gets no more than trials.
const EJECTED: Duration = Duration::from_secs(15);
/// From its end to the moment when it gets calls again.
const BACK: Duration = Duration::from_secs(30);

/// Looks at the others' latency, of which one must be as if nothing were wrong: a busy machine slows some of them, and
/// what is in the way slows all.
const LOOKS: usize = 8;

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
    let mut calm = Vec::new();
    for fault in [
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
        let beside = others_notice_nothing(&mesh, &bad, median(&mut calm), &fault).await;
        eventually(&format!("{fault:?}: it is left alone"), EJECTED, || async {
            (calls_in_a_second(&bad).await <= 1).then_some(())
        })
        .await;
        let ejected = began.elapsed();
        bad.now(How::Answer);
        let began = Instant::now();
        eventually(&format!("{fault:?}: it is back"), BACK, || async {
            (calls_in_a_second(&bad).await > 1).then_some(())
        })
        .await;
        let back = began.elapsed();
        eprintln!("{fault:?}: left alone after {ejected:?}, back after {back:?}; others' p99 {beside}");
        callers.stop().await;
    }
}

/// The first look is at the first moments of the fault; each other one is compared with a calm moment right before it.
async fn others_notice_nothing(mesh: &Mesh, bad: &RawUpstream, mut calm: Duration, fault: &How) -> String {
    let mut looks = Vec::new();
    for look in 1..=LOOKS {
        if look > 1 {
            bad.now(How::Answer);
            calm = p99(&mesh.api, "other", "act_read_only").await;
            bad.now(fault.clone());
        }
        let beside = p99(&mesh.api, "other", "act_read_only").await;
        if beside <= calm + Duration::from_millis(2).max(calm / 10) {
            return format!("{calm:?} before, {beside:?} beside at look {look}");
        }
        looks.push((calm, beside));
    }
    panic!("{fault:?}: others' p99 before and beside it: {looks:?}");
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

async fn is_found_out_and_back(fault: How) {
    let _alone = ALONE.lock().await;
    let (mesh, [bad, _good, _other]) = scene().await;
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
    let beside = others_notice_nothing(&mesh, &bad, median(&mut calm), &fault).await;
    eventually(&format!("{fault:?}: it is known to be bad"), EJECTED, || async {
        (state(&mesh).await != "healthy").then_some(())
    })
    .await;
    let found_out = began.elapsed();
    for _ in 0..50 {
        let answer = mesh.api.call("s", "act", json!({})).await;
        assert_eq!(answer.status, 200, "{fault:?}: the other one takes all: {}", answer.text());
    }
    bad.now(How::Answer);
    let began = Instant::now();
    eventually(&format!("{fault:?}: it is known to be well"), BACK, || async {
        (state(&mesh).await == "healthy").then_some(())
    })
    .await;
    let well = began.elapsed();
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
async fn an_instance_that_drips_is_found_out_and_back_when_it_is_well() {
    is_found_out_and_back(How::Drip(Duration::from_millis(40))).await;
}
