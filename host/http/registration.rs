//! `POST /register`, `/heartbeat`, `/deregister`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Pages;
use super::answer::{Document, Refusal, document, read};
use crate::mcp::declared;
use crate::mesh::ids::Name;
use crate::mesh::instance::{HttpEndpoint, InstanceSpec, SpecError, TAGS_MAX, WEIGHT_DEFAULT, WEIGHT_MAX};
use crate::mesh::offer::{Item, Kind};
use crate::upstream::ITEMS_MAX;

const EXAMPLE: &str = r#"send {"instance_name": "weather", "port": 5000}"#;
const LEASE_EXAMPLE: &str = r#"send {"instance_name": "weather"}"#;
/// What instances are told: heartbeat every 30 s.
const HEARTBEAT_S: u64 = 30;

#[derive(Deserialize)]
pub(super) struct RegisterBody {
    instance_name: String,
    port: Option<u16>,
    service: Option<String>,
    host: Option<String>,
    path: Option<String>,
    url: Option<String>,
    pid: Option<u32>,
    #[serde(default)]
    tags: Vec<String>,
    metadata: Option<Box<RawValue>>,
    zone: Option<String>,
    weight: Option<u64>,
    #[serde(default)]
    tools: Vec<Box<RawValue>>,
    lease_token: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct LeaseBody {
    instance_name: String,
    lease_token: Option<String>,
}

#[derive(Serialize)]
struct Registered<'a> {
    status: &'static str,
    instance_name: &'a str,
    service: &'a str,
    instance_id: String,
    lease_token: &'a str,
    epoch: u64,
    heartbeat_s: u64,
    ttl_s: u64,
}

#[derive(Serialize)]
struct Renewed {
    status: &'static str,
    epoch: u64,
    heartbeat_s: u64,
}

#[derive(Serialize)]
struct Deregistered<'a> {
    status: &'static str,
    instance_name: &'a str,
}

pub(super) async fn register(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let body = read(&headers, &body, "invalid_registration", EXAMPLE)?;
    Ok(admit(&pages, body).await?.into_response())
}

/// Takes an instance in, or renews it.
pub(super) async fn admit(pages: &Pages, mut body: RegisterBody) -> Result<Document, Refusal> {
    let token = body.lease_token.take();
    let spec = spec_of(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_registration", error.to_string(), EXAMPLE)
    })?;
    let grant = pages.registry.register(spec, token).await?;
    let (code, status) =
        if grant.renewed { (StatusCode::OK, "renewed") } else { (StatusCode::CREATED, "registered") };
    let ttl_s = pages.lease_ttl.as_secs();
    let answer = Registered {
        status,
        instance_name: grant.instance.as_str(),
        service: grant.service.as_str(),
        instance_id: format!("i-{}", grant.id),
        lease_token: &grant.token,
        epoch: grant.epoch,
        heartbeat_s: HEARTBEAT_S.min((ttl_s / 4).max(1)),
        ttl_s,
    };
    Ok(document(code, &answer))
}

pub(super) async fn heartbeat(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let body = read(&headers, &body, "invalid_lease", LEASE_EXAMPLE)?;
    Ok(renew(&pages, body).await?.into_response())
}

/// Renews a lease.
pub(super) async fn renew(pages: &Pages, body: LeaseBody) -> Result<Document, Refusal> {
    let (name, token) = lease_of(body)?;
    let epoch = pages.registry.heartbeat(name, token).await?;
    let heartbeat_s = HEARTBEAT_S.min((pages.lease_ttl.as_secs() / 4).max(1));
    Ok(document(StatusCode::OK, &Renewed { status: "ok", epoch, heartbeat_s }))
}

pub(super) async fn deregister(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let body = read(&headers, &body, "invalid_lease", LEASE_EXAMPLE)?;
    Ok(release(&pages, body).await?.into_response())
}

/// Lets an instance go.
pub(super) async fn release(pages: &Pages, body: LeaseBody) -> Result<Document, Refusal> {
    let (name, token) = lease_of(body)?;
    pages.registry.deregister(name.clone(), token).await?;
    Ok(document(StatusCode::OK, &Deregistered { status: "deregistered", instance_name: name.as_str() }))
}

fn lease_of(body: LeaseBody) -> Result<(Name, Option<String>), Refusal> {
    let name = Name::new(&body.instance_name).map_err(|error| {
        let detail = format!("`instance_name`: {error}");
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_lease", detail, LEASE_EXAMPLE)
    })?;
    Ok((name, body.lease_token))
}

fn spec_of(body: RegisterBody) -> Result<InstanceSpec, SpecError> {
    let name_of = |field, text: &str| Name::new(text).map_err(|source| SpecError::Name { field, source });
    let name = name_of("instance_name", &body.instance_name)?;
    let service = match &body.service {
        Some(service) => name_of("service", service)?,
        None => name.clone(),
    };
    let endpoint = match (&body.url, body.port) {
        (Some(url), _) => HttpEndpoint::parse(url)?,
        (None, Some(port)) => {
            let host = body.host.as_deref().unwrap_or("127.0.0.1");
            HttpEndpoint::new(host, port, body.path.as_deref().unwrap_or("/mcp"))?
        }
        (None, None) => return Err(SpecError::NoEndpoint),
    };
    if body.tags.len() > TAGS_MAX {
        return Err(SpecError::TooManyTags(body.tags.len()));
    }
    if body.tools.len() > ITEMS_MAX {
        return Err(SpecError::TooManyTools(body.tools.len()));
    }
    let tags: Result<Vec<Name>, SpecError> = body.tags.iter().map(|tag| name_of("tags", tag)).collect();
    let weight = match body.weight {
        None => WEIGHT_DEFAULT,
        Some(weight) => u16::try_from(weight)
            .ok()
            .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
            .ok_or(SpecError::Weight(weight))?,
    };
    let metadata = match &body.metadata {
        None => "{}",
        Some(object) if object.get().starts_with('{') => object.get(),
        Some(_) => return Err(SpecError::Metadata),
    };
    let tools: Result<Vec<Item>, SpecError> = body.tools.iter().map(|tool| tool_of(tool)).collect();
    Ok(InstanceSpec {
        zone: body.zone.as_deref().map(|zone| name_of("zone", zone)).transpose()?,
        tags: tags?.into(),
        metadata: Arc::from(metadata),
        tools: tools?.into(),
        pid: body.pid,
        name,
        service,
        endpoint: endpoint.into(),
        weight,
    })
}

fn tool_of(raw: &RawValue) -> Result<Item, SpecError> {
    if raw.get().starts_with('"') {
        let name: String =
            serde_json::from_str(raw.get()).map_err(|error| SpecError::Tool(error.to_string()))?;
        return Ok(declared::named_tool(&name));
    }
    declared::parse(Kind::Tool, raw.get()).map_err(|error| SpecError::Tool(error.to_string()))
}
