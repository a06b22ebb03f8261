//! `/api/v1/config`, and services that are written into the configuration or taken out of it.
//!
//! Nothing that is run comes from a request: commands, their arguments and variables, and references to the environment
//! and to secrets are written by people, or by `meshwright add`, into the file.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::Pages;
use super::answer::{Refusal, json, read};

/// Keys that say what is run.
const OF_COMMANDS: [&str; 4] = ["command", "args", "env", "cwd"];
const EXAMPLE: &str =
    r#"send {"name": "search", "url": "https://search.example/mcp"}, and other keys of `[services.NAME]`"#;

/// A change of the configuration file.
#[derive(Clone, Debug)]
pub enum Edit {
    Add {
        name: String,
        settings: Map<String, Value>,
    },
    Remove {
        name: String,
    },
    /// What others wrote is read at once.
    Nothing,
}

#[derive(Debug, Error)]
pub enum NotEdited {
    #[error("{0}")]
    Taken(String),
    #[error("{0}")]
    NotThere(String),
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    ByHand(String),
    #[error("{0}")]
    Failed(String),
}

/// Makes a change, and answers when the file was read again.
pub type Configure =
    Arc<dyn Fn(Edit) -> Pin<Box<dyn Future<Output = Result<(), NotEdited>> + Send>> + Send + Sync>;
/// The file that is in force, if there is one.
pub type ConfigFile = Arc<dyn Fn() -> Option<PathBuf> + Send + Sync>;

#[derive(Serialize)]
struct ConfigView {
    file: Option<String>,
    /// What of it is not in force, or of a file that is newer.
    complaints: Vec<ComplaintView>,
}

#[derive(Serialize)]
struct ComplaintView {
    service: Option<String>,
    what: &'static str,
    why: String,
}

#[derive(Deserialize)]
struct NewService {
    name: String,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

#[derive(Serialize)]
struct Edited<'a> {
    name: &'a str,
    file: Option<String>,
}

pub(super) async fn show(State(pages): State<Pages>) -> Response {
    view(&pages)
}

pub(super) async fn reload(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    read::<IgnoredAny>(&headers, &body, "invalid_reload", "send {}")?;
    (pages.configure)(Edit::Nothing).await?;
    Ok(view(&pages))
}

fn view(pages: &Pages) -> Response {
    let complaints = (pages.complaints)().into_iter().map(|complaint| ComplaintView {
        service: complaint.service,
        what: complaint.what,
        why: complaint.why,
    });
    json(StatusCode::OK, &ConfigView { file: file(pages), complaints: complaints.collect() })
}

fn file(pages: &Pages) -> Option<String> {
    (pages.config_file)().map(|file| file.display().to_string())
}

pub(super) async fn add(
    State(pages): State<Pages>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let NewService { name, settings } = read(&headers, &body, "invalid_service", EXAMPLE)?;
    if let Some(key) = OF_COMMANDS.into_iter().find(|key| settings.contains_key(*key)) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "command_refused",
            format!(
                "`{key}` is not taken from a request: what is run comes from the configuration file only"
            ),
            "`meshwright add NAME -- COMMAND` writes it there",
        ));
    }
    if settings.values().any(refers) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "reference_refused",
            "a value of the request refers to the environment or to a secret",
            "write `${…}` into the configuration file",
        ));
    }
    (pages.configure)(Edit::Add { name: name.clone(), settings }).await?;
    Ok(json(StatusCode::CREATED, &Edited { name: &name, file: file(&pages) }))
}

/// Whether something would be filled in.
fn refers(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(items) => items.iter().any(refers),
        Value::Object(members) => members.values().any(refers),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

pub(super) async fn remove(
    State(pages): State<Pages>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    (pages.configure)(Edit::Remove { name: name.clone() }).await?;
    Ok(json(StatusCode::OK, &Edited { name: &name, file: file(&pages) }))
}

impl From<NotEdited> for Refusal {
    fn from(error: NotEdited) -> Self {
        let (status, code, hint) = match &error {
            NotEdited::Taken(_) => {
                (StatusCode::CONFLICT, "name_taken", "take it out first, or choose another name")
            }
            NotEdited::NotThere(_) => {
                (StatusCode::NOT_FOUND, "unknown_service", "`GET /api/v1/config` names the file")
            }
            NotEdited::ByHand(_) => (StatusCode::CONFLICT, "not_editable", "change that file by hand"),
            NotEdited::Wrong(_) => (StatusCode::BAD_REQUEST, "invalid_service", EXAMPLE),
            NotEdited::Failed(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_written",
                "nothing was changed; see whether the proxy may write the file and its folder",
            ),
        };
        Self::new(status, code, error.to_string(), hint)
    }
}
