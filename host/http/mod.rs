//! The pages of port 6001: registration, what is known of the mesh, metrics. All that is not a call.
//!
//! The only room that names `axum`. Knows the registry, the proxy and telemetry. Must not know plugins or the
//! store: what it shows of them is handed in.

mod answer;
mod calls;
mod configuration;
mod drains;
mod own_tools;
mod plugins;
mod processes;
mod recorded;
mod registration;
mod reliability;
mod report;
mod rollback;
mod services;
mod status;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tower_service::Service as _;

use crate::body::Body;
use crate::edge::{Port, Surface};
use crate::mesh::time::{Mono, Wall};
use crate::proxy::{MirrorBook, Proxy};
use crate::registry::Registry;
use crate::supervisor::Children;
use crate::telemetry::alerts::{Alerts, PluginList};
use crate::telemetry::journal::Journal;
use crate::telemetry::meters::Readings;
use answer::Refusal;
pub use configuration::{ConfigFile, Configure, Edit, NotEdited};
pub use own_tools::own_tools;
pub use plugins::{NotRuled, Rule};
pub use rollback::RollBack;

/// Why nothing can be written down, when nothing can.
pub type Persistence = Arc<dyn Fn() -> Option<Arc<String>> + Send + Sync>;

/// What is wrong with the plugins folder, if anything is.
pub type PluginsFolder = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What of the configuration is not in force, and why.
pub type Complaints = Arc<dyn Fn() -> Vec<Complaint> + Send + Sync>;

/// See [`Complaints`].
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The service that is left out, if it is one.
    pub service: Option<String>,
    pub what: &'static str,
    /// With the place in the file.
    pub why: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Says of a service's tool whether a search may find it.
pub type Admits = Box<dyn FnMut(&str, &str) -> bool + Send>;

/// Searches the tools of all services: a query, the most hits, and which may be found. A hit is a service and the
/// service's own name for the tool.
pub type Search = Arc<
    dyn Fn(
            String,
            usize,
            Admits,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<(String, String)>, SearchFailed>> + Send>>
        + Send
        + Sync,
>;

#[derive(Debug, Error)]
#[error("tools cannot be searched now")]
pub struct SearchFailed(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What the pages show.
#[derive(Clone)]
pub struct Pages(Arc<Shown>);

/// The parts of [`Pages`].
pub struct Shown {
    pub registry: Registry,
    pub proxy: Arc<Proxy>,
    pub plugins: PluginList,
    pub plugins_folder: PluginsFolder,
    pub rule: Rule,
    pub alerts: Alerts,
    pub readings: Readings,
    pub mirrors: MirrorBook,
    pub journal: Arc<Journal>,
    pub persistence: Persistence,
    pub complaints: Complaints,
    pub config_file: ConfigFile,
    pub configure: Configure,
    pub search: Search,
    pub roll_back: RollBack,
    pub children: Children,
    pub started: Wall,
    pub started_mono: Mono,
    /// Set when the proxy is about to stop.
    pub draining: Arc<AtomicBool>,
    pub body_bytes_max: usize,
    pub lease_ttl: Duration,
}

impl std::ops::Deref for Pages {
    type Target = Shown;

    fn deref(&self) -> &Shown {
        &self.0
    }
}

impl Pages {
    pub fn new(shown: Shown) -> Self {
        Self(Arc::new(shown))
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Answers everything that is not on the data path.
pub fn surface(pages: Pages) -> Surface {
    let limit = pages.body_bytes_max;
    let http = Router::new()
        .route("/", get(status::index))
        .route("/register", post(registration::register))
        .route("/deregister", post(registration::deregister))
        .route("/heartbeat", post(registration::heartbeat))
        .route("/call", get(status::call_is_post))
        .route("/services", get(services::list))
        .route("/services/{name}", get(services::one))
        .route("/services/{name}/status", get(report::one))
        .route("/health", get(status::health))
        .route("/stats", get(status::stats))
        .route("/plugins", get(plugins::list))
        .route("/api/v1/plugins/{name}/grants", post(plugins::grants))
        .route("/api/v1/plugins/{name}/enabled", post(plugins::enabled))
        .route("/api/v1/plugins/{name}/rollbacks", post(rollback::roll_back))
        .route("/api/v1/instances/{instance}/drain", post(drains::drain))
        .route("/api/v1/instances/{instance}/undrain", post(drains::undrain))
        .route("/api/v1/processes", get(processes::list))
        .route("/api/v1/config", get(configuration::show))
        .route("/api/v1/config/reloads", post(configuration::reload))
        .route("/api/v1/status", get(report::all))
        .route("/api/v1/services", post(configuration::add))
        .route("/api/v1/services/{name}", delete(configuration::remove))
        .route("/api/v1/services/{name}/logs", get(processes::logs))
        .route("/api/v1/services/{name}/start", post(processes::start))
        .route("/api/v1/services/{name}/stop", post(processes::stop))
        .route("/api/v1/services/{name}/restart", post(processes::restart))
        .route("/api/v1/alerts", get(status::alerts))
        .route("/api/v1/calls", get(calls::list))
        .route("/api/v1/calls/{call_id}", get(calls::one))
        .route("/metrics", get(status::metrics))
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limit))
        .with_state(pages);
    let mcp: Router = Router::new().fallback(unknown_path);
    Arc::new(move |request: Request<Incoming>, port| {
        let mut router = match port {
            Port::Http => http.clone(),
            Port::Mcp => mcp.clone(),
        };
        Box::pin(async move {
            let Ok(response) = router.call(request.map(axum::body::Body::new)).await;
            finish(response)
        })
    })
}

fn finish(response: Response<axum::body::Body>) -> Response<Body> {
    response.map(|body| Body::Boxed(body.map_err(Into::into).boxed_unsync()))
}

async fn unknown_path(uri: http::Uri) -> Refusal {
    let detail = format!("nothing is at `{}`", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "unknown_path", detail, "`GET /` lists what there is")
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> Refusal {
    let detail = format!("`{}` cannot be asked with {method}", uri.path());
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        detail,
        "the `Allow` header names the methods that it takes",
    )
}
