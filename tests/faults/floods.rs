//! Somebody says more than anybody can want to hear: it is not kept, and nobody else notices.

use crate::support::callers::p99;
use crate::support::raw_upstream::How;
use crate::support::{Api, Mesh, RawUpstream, SOON, eventually, json};

const GROWTH_KIB_MAX: u64 = 64 << 10;

async fn until_called(api: &Api, service: &str, tool: &str) {
    eventually(&format!("`{service}` answers"), 2 * SOON, || async {
        (api.call(service, tool, json!({})).await.status == 200).then_some(())
    })
    .await;
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
