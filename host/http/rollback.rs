//! `POST /api/v1/plugins/{name}/rollbacks`: the build before comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::Pages;
use super::answer::{Refusal, json, read};
use crate::policy::status::RollbackError;

/// Rolls a plugin back, and answers when that is in force.
pub type RollBack =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<(), RollbackError>> + Send>> + Send + Sync>;

#[derive(Serialize)]
struct RolledBack {
    name: String,
    version: String,
    generation: u64,
}

pub(super) async fn roll_back(
    State(pages): State<Pages>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    read::<IgnoredAny>(&headers, &body, "invalid_rollback", "send {}")?;
    (pages.roll_back)(name.clone()).await.map_err(|error| {
        let (status, code, hint) = match error {
            RollbackError::Unknown => {
                (StatusCode::NOT_FOUND, "unknown_plugin", "`GET /plugins` lists what is in force")
            }
            RollbackError::NothingBefore => (
                StatusCode::CONFLICT,
                "nothing_to_roll_back",
                "put the file of the build that you want back into the plugins folder",
            ),
        };
        Refusal::new(status, code, format!("`{name}` is not rolled back: {error}"), hint)
    })?;
    let plugins = (pages.plugins)();
    let now = plugins.into_iter().find(|plugin| plugin.name == name && plugin.generation > 0);
    let (version, generation) = now.map(|plugin| (plugin.version, plugin.generation)).unwrap_or_default();
    Ok(json(StatusCode::OK, &RolledBack { name, version, generation }))
}
