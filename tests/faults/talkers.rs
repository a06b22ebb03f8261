//! A child says more than anybody can want to hear: it has to wait, and nobody else notices.

use std::time::Duration;

use rustix::process::Signal;

use super::ALONE;
use super::support::callers::{Looks, p99};
use super::support::children::{Book, mesh, signal, until_called};
use super::support::{Mesh, RawUpstream, SOON, eventually};

const GROWTH_KIB_MAX: u64 = 64 << 10;
/// After so long the burst is over that who floods may have.
const BURST: Duration = Duration::from_secs(5);

/// What the proxy's process used of a processor.
fn cpu_s(mesh: &Mesh) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", mesh.pid())).expect("the proxy runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("its fields").split_whitespace().collect();
    // User and system time, in hundredths on every Linux that there is.
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// The better one of two: what is in the way slows both.
async fn best_p99(mesh: &Mesh) -> Duration {
    let look = || p99(&mesh.api, "other", "act_read_only");
    look().await.min(look().await)
}

async fn is_read_no_faster_than_it_may(habit: &str) {
    let _alone = ALONE.lock().await;
    let book = Book::new();
    let mesh = mesh(book.service("floods", &[habit], "")).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("other", upstream.port).await;
    until_called(&mesh, "floods").await;
    let before = mesh.resident_kib();
    tokio::time::sleep(BURST).await;
    let used = cpu_s(&mesh);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let used = cpu_s(&mesh) - used;
    let mut looks = Looks::default();
    let child = book.pids("floods")[0].to_string();
    signal(&child, Signal::STOP);
    let mut before_it = best_p99(&mesh).await;
    while !looks.show_nothing() {
        signal(&child, Signal::CONT);
        // It may say now what it was too silent for meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let beside = best_p99(&mesh).await;
        signal(&child, Signal::STOP);
        let after_it = best_p99(&mesh).await;
        looks.add(before_it, beside, after_it);
        before_it = after_it;
    }
    signal(&child, Signal::CONT);
    let after = mesh.resident_kib();
    eprintln!(
        "{habit}: {used:.2} s of a processor in 10 s; others' p99 {:?}; {before} KiB, then {after} KiB",
        looks.median()
    );
    assert!(used < 5.0, "{used} s of a processor in 10 s");
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    until_called(&mesh, "floods").await;
    for service in ["floods", "other"] {
        eventually(&format!("{habit}: probes of `{service}` go on"), 2 * SOON, || async {
            (mesh.api.instance(service).await["state"] == "healthy").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_writes_without_end_is_read_no_faster_than_it_may() {
    is_read_no_faster_than_it_may("flood").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_complains_without_end_is_read_no_faster_than_it_may() {
    is_read_no_faster_than_it_may("flood_errors").await;
}
