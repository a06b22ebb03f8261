//! What a list of all tools costs, out of the catalogue.

use serde_json::{Value, json};

use super::generator::Generator;
use super::message::{Era, Question};
use super::peer::{Peer, Setting};
use super::process::Process;
use super::report::{self, Samples};

const SERVICES: usize = 100;
const TOOLS: usize = 50;
/// Nobody listens there: services that are down stay on offer.
const NOBODY: u16 = 9;

pub async fn measure(
    setting: &Setting<'_>,
    generator: &Generator<'_>,
    upstream: &mut Process,
    rounds: usize,
) -> anyhow::Result<String> {
    let (mut peer, api) = Peer::empty(setting).await?;
    for service in 0..SERVICES {
        let name = format!("service-{service:02}");
        let tools: Vec<Value> = (0..TOOLS).map(tool).collect();
        api.register(&json!({"instance_name": name, "port": NOBODY, "tools": tools})).await?;
    }
    let list = first_page(&peer).await?;
    let page: Value = serde_json::from_str(&list)?;
    let tools = page["result"]["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = tools.last().and_then(|tool| tool["name"].as_str());
    let last = last.ok_or_else(|| anyhow::anyhow!("no tools in {list}"))?;
    anyhow::ensure!(tools.len() >= SERVICES * TOOLS, "only {} tools on the page", tools.len());
    let mut samples = Samples::new([peer.kind].into_iter());
    for _ in 0..rounds {
        samples.add(0, generator.measure(&mut peer, upstream, Question::List, last, 1).await?);
    }
    Ok(report::listing(&samples, tools.len(), list.len()))
}

async fn first_page(peer: &Peer) -> anyhow::Result<String> {
    debug_assert!(matches!(peer.target.era, Era::Modern), "the proxy speaks it");
    let headers = peer.target.headers(peer.target.ports[0], Question::List);
    let body = peer.target.body(Question::List, 0, "");
    let answer = reqwest::Client::new().post(peer.target.url()).headers(headers).body(body).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

/// A declaration as servers make them: a sentence, two parameters, annotations.
fn tool(number: usize) -> Value {
    json!({
        "name": format!("tool_{number:02}"),
        "description": format!("Does the thing number {number} to what it is given, and says how it went."),
        "inputSchema": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "What it is done to"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100}
            },
            "required": ["path"]
        },
        "annotations": {"readOnlyHint": true}
    })
}
