//! More calls than instances can take: as many as they can are answered, the rest is told so at once.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::raw_upstream::{How, RawOptions};
use support::{Api, Mesh, MeshOptions, RawUpstream, SOON, eventually, json};

/// How long each call takes, and how many an instance takes at once.
const WORK: Duration = Duration::from_millis(40);
const CONCURRENCY: usize = 4;
/// What a refusal may take.
const REFUSED: Duration = Duration::from_millis(50);

async fn scene(more: &str) -> (Mesh, [RawUpstream; 2]) {
    let options = RawOptions { sessions: false, ..RawOptions::default() };
    let upstreams = [RawUpstream::start(options).await, RawUpstream::start(options).await];
    let urls = upstreams.each_ref().map(|upstream| format!("http://127.0.0.1:{}/mcp", upstream.port));
    let config = format!("[services.s]\nurls = {urls:?}\nconcurrency = {CONCURRENCY}\n{more}");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("both instances answer", SOON, || async {
        let status = mesh.api.get("/services/s").await.ok();
        let healthy = status["instances"].as_array()?.iter().filter(|one| one["state"] == "healthy").count();
        (healthy == 2).then_some(())
    })
    .await;
    upstreams.iter().for_each(|upstream| upstream.now(How::AnswerAfter(WORK)));
    (mesh, upstreams)
}

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Refused after they had waited.
    in_vain: AtomicU64,
    /// Refused after more than 50 ms, for whatever reason.
    slow: AtomicU64,
}

async fn call(api: Api, seen: Arc<Seen>) {
    let began = Instant::now();
    let answer = api.call("s", "act", json!({})).await;
    if answer.status == 200 {
        seen.answered.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let problem = answer.problem(503, "overloaded");
    assert!(answer.header("retry-after").is_some(), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("at once")), "{problem}");
    seen.refused.fetch_add(1, Ordering::Relaxed);
    let in_vain = problem["detail"].as_str().is_some_and(|detail| detail.contains("in vain"));
    seen.in_vain.fetch_add(u64::from(in_vain), Ordering::Relaxed);
    seen.slow.fetch_add(u64::from(began.elapsed() > REFUSED), Ordering::Relaxed);
}

/// Calls so often, whatever becomes of the calls before; what was answered and refused from the second second on.
async fn press(mesh: &Mesh, per_s: f64, seconds: u64) -> [u64; 4] {
    let seen = Arc::<Seen>::default();
    let counts = || [&seen.answered, &seen.refused, &seen.in_vain, &seen.slow];
    let read = || counts().map(|count| count.load(Ordering::Relaxed));
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
    let (began, mut calls, mut first) = (Instant::now(), tokio::task::JoinSet::new(), None);
    while began.elapsed() < Duration::from_secs(seconds + 1) {
        pace.tick().await;
        calls.spawn(call(mesh.api.clone(), Arc::clone(&seen)));
        if began.elapsed() > Duration::from_secs(1) {
            first.get_or_insert_with(read);
        }
    }
    let (first, last) = (first.unwrap_or_default(), read());
    while let Some(ended) = calls.join_next().await {
        ended.expect("only answers and refusals");
    }
    std::array::from_fn(|at| last[at] - first[at])
}

#[tokio::test(flavor = "multi_thread")]
async fn at_three_times_the_capacity_answers_go_on_and_refusals_come_at_once() {
    const SECONDS: u64 = 5;
    let (mesh, _upstreams) = scene("").await;
    let capacity = 2.0 * CONCURRENCY as f64 / WORK.as_secs_f64();
    let [peak, ..] = press(&mesh, capacity, SECONDS).await;
    let [pressed, refused, in_vain, slow] = press(&mesh, 3.0 * capacity, SECONDS).await;
    eprintln!(
        "in {SECONDS} s {peak} answers at capacity, {pressed} at three times; {refused} refused, {in_vain} in vain, {slow} after 50 ms"
    );
    assert!(pressed * 10 >= peak * 9, "{pressed} answers, {peak} before");
    assert!(refused > peak, "three times as many calls as places: {refused} refused");
    assert!(in_vain * 20 <= refused, "{in_vain} of {refused} were let wait and then refused");
    assert!(slow * 4 <= refused, "{slow} of {refused} refusals took over 50 ms");
    // The callers run on the same processors, and wait for these; the proxy's own clock says what it took.
    let newest = mesh.api.get("/api/v1/calls?limit=1000&service=s").await.ok();
    let refusals = newest["items"].as_array().expect("calls").iter().filter(|call| call["status"] == 503);
    let mut took: Vec<u64> = refusals.map(|call| call["latency_us"].as_u64().expect("a latency")).collect();
    took.sort_unstable();
    assert!(took.len() >= 100, "{} refusals are recorded", took.len());
    let [half, most] = [took[took.len() / 2], took[took.len() * 99 / 100]].map(Duration::from_micros);
    eprintln!("refused by the proxy after {half:?} in the median and {most:?} in the 99th percentile");
    assert!(most < REFUSED, "one in a hundred refusals took the proxy {most:?} or more");
    let scraped = mesh.api.get("/metrics").await;
    let shed = scraped
        .text()
        .lines()
        .find(|line| line.starts_with("meshwright_service_shed_total{service=\"s\"}"))
        .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(shed.is_some_and(|shed| shed >= refused as f64), "{shed:?} are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_instance_gets_more_than_it_takes_and_who_waits_is_served() {
    let (mesh, upstreams) = scene("").await;
    let places = 2 * CONCURRENCY;
    let calls = (0..3 * places).map(|_| mesh.api.call("s", "act", json!({})));
    let watched = async {
        let mut most = [0; 2];
        for _ in 0..20 {
            let service = mesh.api.get("/services/s").await.ok();
            for (most, instance) in most.iter_mut().zip(service["instances"].as_array().expect("instances")) {
                *most = (*most).max(instance["in_flight"].as_u64().expect("calls in flight"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most
    };
    let (answers, most) = tokio::join!(futures_util::future::join_all(calls), watched);
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(most.iter().all(|most| *most <= CONCURRENCY as u64), "at once: {most:?}");
    assert_eq!(upstreams[0].calls() + upstreams[1].calls(), 3 * places);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_in_order_however_long_it_takes() {
    const CALLS: usize = 10;
    let (mesh, upstreams) = scene("[limits]\nwait = \"5s\"\n").await;
    let begin = |how: How| {
        upstreams.iter().for_each(|upstream| upstream.now(how.clone()));
        let api = mesh.api.clone();
        async move { api.call("s", "act", json!({})).await.status }
    };
    let mut calls = tokio::task::JoinSet::new();
    // All places are taken, and one of them is free again soon.
    for taken in 1..=2 * CONCURRENCY {
        let work = if taken == 1 { 50 * WORK } else { SOON };
        let held = begin(How::AnswerAfter(work));
        calls.spawn(async move { (0, held.await) });
        let begun = || async { (upstreams[0].calls() + upstreams[1].calls() == taken).then_some(()) };
        eventually("the call is under way", SOON, begun).await;
    }
    for index in 1..=CALLS {
        let waits = begin(How::AnswerAfter(WORK));
        calls.spawn(async move { (index, waits.await) });
        let expected = format!("meshwright_service_waiting{{service=\"s\"}} {index}");
        let stands = || async { mesh.api.get("/metrics").await.text().contains(&expected).then_some(()) };
        eventually("it stands in the line", SOON, stands).await;
    }
    for expected in 0..=CALLS {
        let ended = calls.join_next().await.expect("a call").expect("it ends");
        assert_eq!(ended, (expected, 200));
    }
}
