//! One instance goes wrong in every way that an instance can: calls go to the other one, nobody else notices, and it
//! is back soon after it is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::callers::p99;
use crate::support::raw_upstream::{How, RawOptions};
use crate::support::{Api, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

/// From the fault to the moment when the instance gets no more than trials.
const EJECTED: Duration = Duration::from_secs(15);
/// From its end to the moment when it gets calls again.
const BACK: Duration = Duration::from_secs(30);

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
    let (mesh, [bad, _good, _other]) = scene().await;
    let (mut calm, mut beside) = (Vec::new(), Vec::new());
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
        beside.push(p99(&mesh.api, "other", "act_read_only").await);
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
        eprintln!("{fault:?}: left alone after {ejected:?}, back after {:?}", began.elapsed());
        callers.stop().await;
    }
    others_notice_nothing(calm, beside);
}

/// The lower quartiles are compared: a busy machine slows some of the moments, what is in the way slows all.
fn others_notice_nothing(mut calm: Vec<Duration>, mut beside: Vec<Duration>) {
    calm.sort();
    beside.sort();
    eprintln!("others' p99 was {calm:?} before, and beside {beside:?}");
    let (calm, beside) = (calm[calm.len() / 4], beside[beside.len() / 4]);
    assert!(beside <= calm + Duration::from_millis(2).max(calm / 10), "{calm:?} before, {beside:?} beside");
}

async fn is_found_out_and_back(fault: How) {
    let (mesh, [bad, _good, _other]) = scene().await;
    let others = async || {
        let mut p99s = Vec::new();
        for _ in 0..5 {
            p99s.push(p99(&mesh.api, "other", "act_read_only").await);
        }
        p99s
    };
    let calm = others().await;
    bad.now(fault.clone());
    let began = Instant::now();
    // Some calls hang there; the balancer sends the others to the instance that has fewer.
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let api = mesh.api.clone();
            tokio::spawn(async move { api.call("s", "act_read_only", json!({})).await.status })
        })
        .collect();
    let beside = others().await;
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
    eprintln!("{fault:?}: found out after {found_out:?}, well after {:?}", began.elapsed());
    others_notice_nothing(calm, beside);
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
