//! What runs the proxy's own tools: they answer with the documents of the pages.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{Document, Refusal, document};
use super::{Pages, registration, report, services};
use crate::mcp::catalogue::View;
use crate::mcp::own::{OwnCall, OwnTool, OwnTools};
use crate::mesh::ids::Name;
use crate::mesh::offer::Kind;
use crate::registry::{Service, Snapshot};
use crate::upstream::chain;

/// Tools that a search gives back unless told otherwise, and at most.
const FOUND: usize = 10;
const FOUND_MAX: usize = 50;

/// The door to the proxy's own tools, for the MCP endpoint.
pub fn own_tools(pages: Pages) -> OwnTools {
    Arc::new(move |call| {
        let pages = pages.clone();
        Box::pin(async move {
            match run(&pages, &call).await {
                Ok(document) => result(document.body(), !document.status().is_success()),
                Err(refusal) => result(&refusal.body(), true),
            }
        })
    })
}

/// A `CallToolResult`: the document as structure, and as text for clients that know no structure.
fn result(document: &[u8], is_error: bool) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct CallToolResult<'a> {
        content: [Text<'a>; 1],
        structured_content: Option<&'a RawValue>,
        is_error: bool,
    }
    #[derive(Serialize)]
    struct Text<'a> {
        r#type: &'static str,
        text: &'a str,
    }
    let text = std::str::from_utf8(document).unwrap_or_default();
    let result = CallToolResult {
        content: [Text { r#type: "text", text }],
        structured_content: serde_json::from_str(text).ok(),
        is_error,
    };
    serde_json::to_vec(&result).expect("a result can always be written as JSON").into()
}

/// What a caller sees: the world, or the part of it that its profile chooses.
struct Scope {
    snapshot: Arc<Snapshot>,
    /// `None`: the profile is gone, nothing is seen.
    view: Option<Arc<View>>,
    whole: bool,
}

impl Scope {
    fn of(pages: &Pages, call: &OwnCall) -> Self {
        let snapshot = pages.registry.snapshot();
        let view = snapshot.catalogue.view(call.profile.as_deref()).cloned();
        Self { snapshot, view, whole: call.profile.is_none() }
    }

    fn sees(&self, service: &Name) -> bool {
        self.whole || self.view.as_ref().is_some_and(|view| view.services().binary_search(service).is_ok())
    }

    /// A service, or that of an instance.
    fn service(&self, name: &str) -> Result<&Arc<Service>, Refusal> {
        let found = self.snapshot.find(name).map(|found| found.service());
        found
            .filter(|service| self.sees(&service.name))
            .ok_or_else(|| Refusal::unknown_service(name, self.snapshot.departed(name)))
    }

    fn sees_tool(&self, service: &str, tool: &str) -> bool {
        let shown = |view: &Arc<View>| view.shown(Kind::Tool, service, tool).is_some();
        self.whole || self.view.as_ref().is_some_and(shown)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceArguments {
    #[serde(alias = "name", alias = "service", alias = "instance_name")]
    service_name: String,
}

#[derive(Deserialize)]
struct CallTarget {
    target_instance: String,
    tool_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindArguments {
    query: String,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct FoundTools {
    /// Declarations, by the names under which they can be called.
    tools: Vec<Box<RawValue>>,
}

async fn run(pages: &Pages, call: &OwnCall) -> Result<Document, Refusal> {
    let scope = Scope::of(pages, call);
    match call.tool {
        OwnTool::ListServices => {
            let ListArguments { status } = read(call)?;
            services::listing(&scope.snapshot, status.as_deref(), |name| scope.sees(name))
        }
        OwnTool::GetServiceInfo => {
            let ServiceArguments { service_name } = read(call)?;
            Ok(services::info(scope.service(&service_name)?))
        }
        OwnTool::GetServiceStatus => {
            let ServiceArguments { service_name } = read(call)?;
            match scope.service(&service_name) {
                Ok(service) => report::status(pages, &scope.snapshot, service.name.as_str()),
                // What is not there is in no profile.
                Err(_) if scope.whole => report::status(pages, &scope.snapshot, &service_name),
                Err(refusal) => Err(refusal),
            }
        }
        OwnTool::RegisterService => registration::admit(pages, read(call)?).await,
        OwnTool::DeregisterService => registration::release(pages, read(call)?).await,
        OwnTool::Heartbeat => registration::renew(pages, read(call)?).await,
        OwnTool::CallService => forward(pages, &scope, call).await,
        OwnTool::FindTools => find(pages, scope, read(call)?).await,
    }
}

fn read<T: DeserializeOwned>(call: &OwnCall) -> Result<T, Refusal> {
    serde_json::from_slice(object(&call.arguments)).map_err(|error| {
        let detail = format!("the arguments of `{}` are not understood: {error}", call.tool.name());
        let hint = "`tools/list` shows what they are";
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_arguments", detail, hint)
    })
}

/// A caller that gives no arguments gives an empty object.
fn object(arguments: &[u8]) -> &[u8] {
    match arguments.trim_ascii() {
        b"" | b"null" => b"{}",
        given => given,
    }
}

async fn forward(pages: &Pages, scope: &Scope, call: &OwnCall) -> Result<Document, Refusal> {
    let CallTarget { target_instance, tool_name } = read(call)?;
    if !scope.whole {
        let service = scope.service(&target_instance)?;
        if !scope.sees_tool(service.name.as_str(), &tool_name) {
            let detail = format!("there is no tool `{tool_name}` of `{}` here", service.name);
            let hint = "`tools/list` and `find_tools` tell what there is";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_tool", detail, hint));
        }
    }
    let response = pages.proxy.call_with(&call.arguments, &call.client).await;
    let status = response.status();
    // Reply bodies are in memory and cannot fail.
    let Ok(body) = response.into_body().collect().await;
    Ok(Document::new(status, body.to_bytes().into()))
}

async fn find(pages: &Pages, scope: Scope, arguments: FindArguments) -> Result<Document, Refusal> {
    let Some(view) = scope.view else {
        return Ok(document(StatusCode::OK, &FoundTools { tools: Vec::new() }));
    };
    let limit = arguments.limit.unwrap_or(FOUND).clamp(1, FOUND_MAX);
    let seen = Arc::clone(&view);
    let admits = move |service: &str, tool: &str| seen.shown(Kind::Tool, service, tool).is_some();
    let found = (pages.search)(arguments.query, limit, Box::new(admits)).await.map_err(|error| {
        let detail = chain(&error);
        let hint = "tools can be called all the same; `tools/list` and `get_service_info` list them";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "search_unavailable", detail, hint)
    })?;
    let tools = found.into_iter().filter_map(|(service, tool)| {
        let shown = view.shown(Kind::Tool, &service, &tool)?;
        let json = scope.snapshot.catalogue.declaration(Kind::Tool, &service, &tool, &shown)?;
        serde_json::from_slice(&json).ok()
    });
    Ok(document(StatusCode::OK, &FoundTools { tools: tools.collect() }))
}
