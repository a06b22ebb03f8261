//! What a proxy costs that is written on the official SDK in the obvious way: messages become values of its types and
//! values become messages, on both sides. Round-robin, nothing else.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::service::{RequestContext, RoleClient, RoleServer, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, ErrorData, ServerHandler};
use tokio::net::TcpListener;

/// Calls under way to one upstream, where the SDK's own limit would be 16.
const REQUESTS_MAX: usize = 1024;

/// Prints its port as a line, then serves until standard input ends.
pub fn main(upstreams: &[u16]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let proxy = TypedProxy { upstreams: connect(upstreams).await?.into(), next: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        tokio::spawn(accept(listener, proxy));
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        Ok(())
    })
}

type Upstream = RunningService<RoleClient, ()>;

/// One client for each upstream; each keeps as many connections as it needs.
async fn connect(upstreams: &[u16]) -> anyhow::Result<Vec<Upstream>> {
    let mut clients = Vec::new();
    for port in upstreams {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(REQUESTS_MAX)
            .build()?;
        let config = StreamableHttpClientTransportConfig::with_uri(format!("http://127.0.0.1:{port}/mcp"))
            .max_concurrent_requests(REQUESTS_MAX);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let modern =
            ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        clients.push(().serve_with_lifecycle(transport, modern).await?);
    }
    Ok(clients)
}

#[derive(Clone)]
struct TypedProxy {
    upstreams: Arc<[Upstream]>,
    next: Arc<AtomicUsize>,
}

impl TypedProxy {
    fn upstream(&self) -> &Upstream {
        &self.upstreams[self.next.fetch_add(1, Ordering::Relaxed) % self.upstreams.len()]
    }
}

impl ServerHandler for TypedProxy {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("typed-proxy", "1"))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(self.upstream().call_tool(request).await.map_err(as_answer)?.into())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.upstream().list_tools(request).await.map_err(as_answer)
    }
}

fn as_answer(error: ServiceError) -> ErrorData {
    match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(other.to_string(), None),
    }
}

async fn accept(listener: TcpListener, proxy: TypedProxy) {
    let mut config =
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    config.sse_keep_alive = None;
    let service: StreamableHttpService<TypedProxy, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(proxy.clone()), Arc::default(), config);
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| async { Ok::<_, Infallible>(service.handle(request).await) });
            // A connection that breaks is the client's to report.
            http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
        });
    }
}
