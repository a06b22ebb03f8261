//! Somebody says more than anybody can want to hear: it is not kept, and nobody else notices.

use std::time::Duration;

use crate::support::callers::p99;
use crate::support::children::{Book, mesh};
use crate::support::raw_upstream::How;
use crate::support::{Api, Mesh, RawUpstream, SOON, eventually, json};

const GROWTH_KIB_MAX: u64 = 64 << 10;

/// What the proxy's process used of a processor.
fn cpu_s(mesh: &Mesh) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", mesh.pid())).expect("the proxy runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("its fields").split_whitespace().collect();
    // User and system time, in hundredths on every Linux that there is.
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

async fn until_called(api: &Api, service: &str, tool: &str) {
    eventually(&format!("`{service}` answers"), 2 * SOON, || async {
        (api.call(service, tool, json!({})).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_writes_without_end_is_read_no_faster_than_it_may() {
    let book = Book::new();
    let mesh = mesh(book.service("floods", &["flood"], "")).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("other", upstream.port).await;
    until_called(&mesh.api, "floods", "pid").await;
    let before = mesh.resident_kib();
    // The burst that it may have is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = cpu_s(&mesh);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let used = cpu_s(&mesh) - used;
    let p99 = p99(&mesh.api, "other", "act_read_only").await;
    let after = mesh.resident_kib();
    eprintln!("{used:.2} s of a processor in 10 s; others' p99 {p99:?}; {before} KiB, then {after} KiB");
    assert!(used < 5.0, "{used} s of a processor in 10 s");
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    until_called(&mesh.api, "floods", "pid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_are_not_kept() {
    let mesh = Mesh::plain().await;
    let [bad, good] = [RawUpstream::plain().await, RawUpstream::plain().await];
    mesh.api.join("bad", bad.port).await;
    mesh.api.join("good", good.port).await;
    p99(&mesh.api, "good", "act_read_only").await;
    let before = mesh.resident_kib();
    let cases = [
        (How::Huge(1 << 30), "larger than"),
        (How::HugeChunks(1 << 30), "larger than"),
        (How::Chatter, "more than 10000"),
    ];
    for (fault, words) in cases {
        bad.now(fault.clone());
        let abandoned = bad.abandoned();
        let problem = mesh.api.call("bad", "act", json!({})).await.problem(502, "upstream_invalid");
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(words)),
            "{fault:?}: {problem}"
        );
        eventually(&format!("{fault:?}: the rest is not read"), SOON, || async {
            (bad.abandoned() > abandoned).then_some(())
        })
        .await;
        assert_eq!(mesh.api.call("good", "act", json!({})).await.status, 200);
    }
    bad.now(How::Answer);
    until_called(&mesh.api, "bad", "act").await;
    let after = mesh.resident_kib();
    eprintln!("{before} KiB, then {after} KiB");
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
}
