//! The opening of a legacy session, as a client does it.

use anyhow::{Context as _, ensure};
use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::message::{ECHO, LEGACY};

pub(super) struct Session {
    /// `None` from servers that do without.
    pub id: Option<String>,
    /// The name of the upstreams' tool here.
    pub tool: String,
}

pub(super) async fn open(url: &str) -> anyhow::Result<Session> {
    let client = Client::builder().timeout(super::START).build()?;
    let hello = json!({
        "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "peers", "version": "1"}
    });
    let (id, _) = ask(&client, url, None, "initialize", Some(0), &hello).await?;
    ask(&client, url, id.as_deref(), "notifications/initialized", None, &json!({})).await?;
    let (_, list) = ask(&client, url, id.as_deref(), "tools/list", Some(1), &json!({})).await?;
    let tools = list["result"]["tools"].as_array().context("a list of tools")?;
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    let tool = names.iter().find(|name| name.ends_with(ECHO));
    let tool = tool.with_context(|| format!("no `{ECHO}` among its tools: {names:?}"))?;
    Ok(Session { id, tool: (*tool).to_owned() })
}

/// The session that the answer names, and the answer's message.
async fn ask(
    client: &Client,
    url: &str,
    session: Option<&str>,
    method: &str,
    id: Option<u32>,
    params: &Value,
) -> anyhow::Result<(Option<String>, Value)> {
    let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    if let Some(id) = id {
        message["id"] = id.into();
    }
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .header("mcp-protocol-version", LEGACY);
    if let Some(session) = session {
        request = request.header("mcp-session-id", session);
    }
    let answer = request.body(message.to_string()).send().await?;
    let status = answer.status();
    let named =
        answer.headers().get("mcp-session-id").map(|id| id.to_str().map(str::to_owned)).transpose()?;
    let text = answer.text().await?;
    ensure!(status.is_success(), "`{method}`: {status}: {text}");
    // Either a message, or an event stream whose last event is the message.
    let body = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
    let message = if body.trim().is_empty() { Value::Null } else { serde_json::from_str(body)? };
    Ok((named, message))
}
