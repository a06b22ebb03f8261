//! MCP clients that come when there is no room.

mod support;

use std::time::Duration;

use support::raw_upstream::{Era, How, RawOptions};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_at_an_mcp_address_is_told_when_to_come_again() {
    let upstream = RawUpstream::start(RawOptions::default()).await;
    let url = format!("http://127.0.0.1:{}/mcp", upstream.port);
    let config = format!("[services.s]\nurl = {url:?}\nconcurrency = 1\n[limits]\nwait = \"10ms\"\n");
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("it answers", SOON, || async {
        (mesh.api.call("s", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    let addresses = [(mesh.mcp.clone(), "s__act"), (format!("{}/servers/s/mcp", mesh.http), "act")];
    let mut clients = Vec::new();
    for (address, tool) in addresses {
        for era in [Era::Legacy, Era::Modern] {
            clients.push((Client::of(era, &address).await, tool));
        }
    }
    upstream.now(How::AnswerAfter(Duration::from_secs(60)));
    let api = mesh.api.clone();
    let occupies = tokio::spawn(async move { api.try_call("s", "act", json!({})).await.is_ok() });
    eventually("it is full", SOON, || async {
        (mesh.api.instance("s").await["in_flight"] == 1).then_some(())
    })
    .await;
    for (client, tool) in clients {
        let mut refused = client.open("tools/call", &json!({"name": tool, "arguments": {}})).await;
        let answer = refused.answer().await;
        assert_eq!(refused.status, 503, "{tool}, {:?}: {answer}", client.era);
        let after = refused.headers.get("retry-after").and_then(|after| after.to_str().ok());
        assert_eq!(after, Some("1"), "{answer}");
        let data = &answer["error"]["data"];
        assert_eq!(
            (&data["code"], &data["retry_after_ms"]),
            (&json!("overloaded"), &json!(1000)),
            "{answer}"
        );
        assert_eq!(answer["id"], 1, "{answer}");
    }
    occupies.abort();
}
