//! Where strangers knock: hosts and origins, limits, ports, signals, unknown routes.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use support::raw_upstream::How;
use support::{Api, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json, mesh};

const HTTP_ROUTES: &[(Method, &str)] = &[
    (Method::GET, "/"),
    (Method::GET, "/livez"),
    (Method::GET, "/readyz"),
    (Method::GET, "/health"),
    (Method::GET, "/stats"),
    (Method::GET, "/metrics"),
    (Method::GET, "/plugins"),
    (Method::GET, "/services"),
    (Method::GET, "/services/s"),
    (Method::GET, "/services/s/status"),
    (Method::GET, "/api/v1/status"),
    (Method::GET, "/api/v1/alerts"),
    (Method::GET, "/api/v1/calls"),
    (Method::GET, "/api/v1/calls/0000000000000001"),
    (Method::POST, "/api/v1/plugins/watch/rollbacks"),
    (Method::GET, "/api/v1/config"),
    (Method::POST, "/api/v1/config/reloads"),
    (Method::POST, "/api/v1/services"),
    (Method::DELETE, "/api/v1/services/s"),
    (Method::GET, "/nowhere"),
    (Method::GET, "/mcp"),
    (Method::POST, "/mcp"),
    (Method::POST, "/call"),
    (Method::POST, "/register"),
    (Method::POST, "/heartbeat"),
    (Method::POST, "/deregister"),
    (Method::OPTIONS, "/call"),
    (Method::OPTIONS, "/mcp"),
    (Method::DELETE, "/mcp"),
];

const MCP_ROUTES: &[(Method, &str)] = &[
    (Method::GET, "/"),
    (Method::GET, "/mcp"),
    (Method::POST, "/mcp"),
    (Method::DELETE, "/mcp"),
    (Method::OPTIONS, "/mcp"),
    (Method::POST, "/elsewhere"),
];

/// A proxy with a service `s`, whose upstream must stay untouched, and both its ports with their routes.
async fn guarded() -> (Mesh, RawUpstream, Vec<(Api, &'static [(Method, &'static str)])>) {
    let config = "[health]\nprobe_every = \"60s\"\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let mcp = Api::new(mesh.mcp.trim_end_matches("/mcp"));
    let doors = vec![(mesh.api.clone(), HTTP_ROUTES), (mcp, MCP_ROUTES)];
    (mesh, upstream, doors)
}

/// A body with which each route of `POST` would do something.
fn tempting(path: &str) -> Value {
    match path {
        "/call" => json!({"target_instance": "s", "tool_name": "act", "arguments": {}}),
        "/register" => json!({"instance_name": "intruder", "port": 5000, "tools": ["act"]}),
        "/api/v1/services" => json!({"name": "intruder", "url": "http://127.0.0.1:5000/mcp"}),
        "/heartbeat" | "/deregister" => json!({"instance_name": "s"}),
        _ => json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
    }
}

/// Sends every route with one more header and expects 403 from each, and that nothing happened.
async fn all_refused(header: &str, values: &[&str]) {
    let (mesh, upstream, doors) = guarded().await;
    for (api, routes) in &doors {
        for (method, path) in *routes {
            for value in values {
                let mut request = api.request(method.clone(), path).header(header, *value);
                if method == Method::POST {
                    request = request.json(&tempting(path));
                }
                let answer = Api::send(request).await;
                let what = format!("{method} {}{path} with {header}: {value}", api.base);
                assert_eq!(answer.status, 403, "{what}: {}", answer.text());
                assert!(answer.header("access-control-allow-origin").is_none(), "{what}");
                if method != Method::OPTIONS {
                    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
                }
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
    let stats = mesh.api.stats().await;
    assert_eq!((&stats["total_services"], &stats["total_messages"]), (&json!(1), &json!(0)), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_refused_on_every_route_of_both_ports() {
    all_refused(
        "host",
        &["evil.example", "evil.example:6001", "127.0.0.1.evil.example", "localhost.evil.example:80"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_origin_is_refused_on_every_route_of_both_ports() {
    let origins = [
        "http://evil.example",
        "null",
        "https://127.0.0.1.evil.example",
        "file://",
        "http://127.0.0.1:1",
        "",
    ];
    all_refused("origin", &origins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_names_and_origin_are_welcome() {
    let (mesh, _upstream, _) = guarded().await;
    let port = mesh.http.rsplit(':').next().expect("a port").to_owned();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("[::1]:{port}"),
    ] {
        let answer = Api::send(mesh.api.request(Method::GET, "/stats").header("host", &host)).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    for origin in [mesh.http.clone(), format!("http://localhost:{port}")] {
        let answer = Api::send(mesh.api.request(Method::GET, "/stats").header("origin", &origin)).await;
        assert_eq!(answer.status, 200, "{origin}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_hosts_and_origins_are_welcome_and_no_others() {
    let config = "[server]\nallowed_hosts = [\"mesh.lan\"]\nallowed_origins = [\"https://page.lan\"]\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let status = |name: &'static str, value: &'static str| {
        let request = mesh.api.request(Method::GET, "/stats").header(name, value);
        async move { Api::send(request).await.status }
    };
    assert_eq!(status("host", "mesh.lan").await, 200);
    assert_eq!(status("host", "mesh.lan.evil.example").await, 403);
    assert_eq!(status("origin", "https://page.lan").await, 200);
    assert_eq!(status("origin", "http://page.lan").await, 403);
    assert_eq!(status("origin", "https://page.lan.evil.example").await, 403);
}

/// Sends bytes as they are and answers the status line, or nothing when the other side just closed.
fn raw(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
    // The proxy may answer and close before it has read everything.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
        if answer.contains(&b'\n') {
            break;
        }
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn status_of(line: &str) -> u16 {
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_parsers_could_read_differently_are_refused() {
    let (mesh, upstream, _) = guarded().await;
    let body = r#"{"target_instance":"s","tool_name":"act"}"#;
    let head = "POST /call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let cases = [
        // A length beside `Transfer-Encoding` never shows: hyper drops it, as RFC 9112, 6.3 allows, and the proxy
        // frames anew what it sends on. Chunks that do not add up are another matter.
        format!("{head}Transfer-Encoding: chunked\r\n\r\n-{chunked}"),
        format!("{head}Transfer-Encoding: gzip\r\n\r\n{body}"),
        format!("{head}Content-Length: {length}\r\nContent-Length: 4\r\n\r\n{body}"),
        format!("{head}Content-Length: +{length}\r\n\r\n{body}"),
        format!("{head}Host: evil.example\r\nContent-Length: {length}\r\n\r\n{body}"),
        format!(
            "POST /call HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        format!(
            "POST http://evil.example/call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    ];
    let answered = cases.iter().map(|case| (raw(&mesh.http, case.as_bytes()), case));
    let taken: Vec<_> = answered.filter(|(line, _)| ![400, 403, 421].contains(&status_of(line))).collect();
    assert!(taken.is_empty(), "not refused: {taken:#?}");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_the_limits_are_refused_on_both_ports() {
    let (mesh, _upstream, doors) = guarded().await;
    for (api, _) in &doors {
        let long_uri = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(9_000));
        let line = raw(&api.base, long_uri.as_bytes());
        assert!([400, 414, 431].contains(&status_of(&line)), "URI: {line:?}");
        let fields: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
        let line =
            raw(&api.base, format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
        assert!([400, 431].contains(&status_of(&line)), "fields: {line:?}");
        let wide = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "a".repeat(40_000));
        let line = raw(&api.base, wide.as_bytes());
        assert!([400, 431].contains(&status_of(&line)), "bytes: {line:?}");
    }
    assert_eq!(mesh.api.get("/livez").await.status, 200);
}

/// Asks once on a connection.
fn asked(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    ask(&mut stream);
    stream
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send a request");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("an answer");
        assert!(count > 0, "the proxy closed: {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
}

/// How long the proxy waits for the rest of a head.
fn given_up(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").expect("send half a head");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the proxy closes");
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_is_given_up_and_a_silent_connection_is_kept() {
    let (mesh, _upstream, _) = guarded().await;
    let address = mesh.http.clone();
    let silent = {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = asked(&address);
            std::thread::sleep(Duration::from_secs(17));
            ask(&mut stream);
        })
    };
    let first = {
        let stream = TcpStream::connect(address.trim_start_matches("http://")).expect("connect");
        tokio::task::spawn_blocking(|| given_up(stream))
    };
    let later = tokio::task::spawn_blocking(move || {
        let stream = asked(&address);
        std::thread::sleep(Duration::from_secs(1));
        given_up(stream)
    });
    for took in [first.await.expect("no panic"), later.await.expect("no panic")] {
        assert!((9..15).contains(&took.as_secs()), "{took:?}");
    }
    silent.await.expect("the connection was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_problems() {
    let (mesh, _upstream, _) = guarded().await;
    let answer = mesh.api.get("/nowhere").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    assert!(answer.json()["code"].is_string(), "{}", answer.text());
    let answer = mesh.api.get("/call").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_json_names_the_ports_in_use() {
    let (mesh, _upstream, _) = guarded().await;
    let text = std::fs::read_to_string(mesh.data_dir().join("endpoints.json")).expect("read endpoints.json");
    let endpoints: Value = serde_json::from_str(&text).expect("JSON");
    let http = endpoints["http"].as_str().expect("an address");
    let mcp = endpoints["mcp"].as_str().expect("an address");
    assert!(http.starts_with("http://127.0.0.1:") && !http.ends_with(":0"), "{http}");
    assert!(mcp.starts_with("http://127.0.0.1:") && mcp.ends_with("/mcp"), "{mcp}");
    assert_ne!(http, mcp.trim_end_matches("/mcp"));
    let mcp_port = Api::new(mcp.trim_end_matches("/mcp"));
    assert_ne!(Api::send(mcp_port.request(Method::POST, "/mcp").json(&json!({}))).await.status, 403);
    let log = mesh.log();
    assert!(log.contains(http) && log.contains(mcp), "the banner names both");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_open_metrics_under_one_prefix() {
    let (mesh, _upstream, _) = guarded().await;
    mesh.api.call("s", "act", json!({})).await.ok();
    let answer = mesh.api.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").expect("a type");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for of_plugins in ["timed_total", "timed_seconds_total", "duration_p99_seconds"] {
        let line = format!("meshwright_plugin_{of_plugins}{{plugin=\"tag-router\"}}");
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
    for line in text.lines() {
        let name =
            line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").trim_start_matches("# UNIT ");
        assert!(name.starts_with("meshwright_") || line == "# EOF", "{line}");
    }
}

/// Runs the proxy until it ends by itself.
fn run(configuration: &str, args: &[&str]) -> Output {
    let home = mesh::home(configuration);
    let mut command = mesh::command(&home);
    let mut child =
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the proxy");
    let start = Instant::now();
    while child.try_wait().expect("ask for the child's state").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            drop(child.kill());
            panic!("it runs on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("read the output")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const ANY: &str = "127.0.0.1:0";

#[test]
fn a_taken_port_ends_the_start_and_names_port_and_flag() {
    let holder = TcpListener::bind(ANY).expect("bind a port");
    let taken = holder.local_addr().expect("bound").to_string();
    let other = |flag: &str| if flag == "--mcp-addr" { "--http-addr" } else { "--mcp-addr" };
    for flag in ["--mcp-addr", "--http-addr"] {
        let output = run("", &[flag, &taken, other(flag), ANY]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(flag) && said.contains(&taken), "{said}");
        assert!(!said.contains("panicked") && !said.contains(other(flag)), "{said}");
    }
}

#[test]
fn a_wrong_configuration_ends_the_start_and_names_file_and_place() {
    for (configuration, part) in [
        ("[statz]\n", "statz"),
        ("[server]\nworkerz = 1\n", "workerz"),
        ("[server]\nworkers = 0\n", "workers"),
        ("[lease]\nttl = \"soon\"\n", "soon"),
        ("[lease]\nttl = \"1s\"\nsuspect_after = \"2s\"\n", "suspect_after"),
        ("[health]\nprobe_timeout = 3\n", "probe_timeout"),
        ("[calls]\ntimeout = \"11m\"\n", "calls.timeout"),
        ("[calls]\nfirst_byte_timeout = \"0s\"\n", "0s"),
        ("[plugins.x]\non_error = \"explode\"\n", "explode"),
        ("[plugins.\"a b\"]\n", "a b"),
        ("this is not TOML", "meshwright.toml"),
    ] {
        let output = run(configuration, &["--mcp-addr", ANY, "--http-addr", ANY]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{configuration:?}: {said}");
        assert!(said.contains(part) && said.contains("meshwright.toml"), "{configuration:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn an_address_beyond_this_machine_is_refused_while_there_is_no_authentication() {
    for flag in ["--mcp-addr", "--http-addr"] {
        let other = if flag == "--mcp-addr" { "--http-addr" } else { "--mcp-addr" };
        let output = run("", &[flag, "0.0.0.0:0", other, ANY]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("0.0.0.0"), "{said}");
    }
}

#[test]
fn the_command_line_explains_itself() {
    let binary = env!("CARGO_BIN_EXE_meshwright");
    let help = Command::new(binary).args(["serve", "--help"]).output().expect("run it");
    assert!(help.status.success());
    let text = said(&help);
    for flag in ["--config", "--data-dir", "--plugins", "--mcp-addr", "--http-addr", "--workers"] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    for name in ["CONFIG", "DATA_DIR", "PLUGINS", "MCP_ADDR", "HTTP_ADDR"] {
        assert!(text.contains(&format!("MESHWRIGHT_{name}")), "{name}: {text}");
    }
    let version = Command::new(binary).arg("--version").output().expect("run it");
    assert!(said(&version).contains(env!("CARGO_PKG_VERSION")));
    let wrong = Command::new(binary).args(["serve", "--no-such-flag"]).output().expect("run it");
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_proxy_answers_what_is_in_flight_then_exits_0() {
    let (mut mesh, upstream, _) = guarded().await;
    upstream.now(How::AnswerAfter(Duration::from_millis(1_500)));
    let calls = (0..8).map(|n| {
        let api = mesh.api.clone();
        tokio::spawn(async move { api.call("s", "act", json!({"n": n})).await })
    });
    let calls: Vec<_> = calls.collect();
    eventually("all calls are in flight", SOON, || async { (upstream.calls() == 8).then_some(()) }).await;
    mesh.signal(Signal::TERM);
    eventually("it is not ready any more", Duration::from_secs(2), || async {
        (mesh.api.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    for (number, call) in calls.into_iter().enumerate() {
        let answer = call.await.expect("no panic").ok();
        assert_eq!(answer["result"]["structuredContent"], json!({"n": number}));
    }
    // Idle keep-alive connections must not hold it.
    let status = mesh.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", mesh.log());
    mesh.restart().await;
    assert_eq!(mesh.api.stats().await["total_messages"], 8, "a clean stop loses nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlasts_the_drain_does_not_hold_the_proxy() {
    let config = "[calls]\ndrain_timeout = \"1s\"\n";
    let mut mesh = Mesh::start(MeshOptions { config: config.into(), ..MeshOptions::default() }).await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    upstream.now(How::Hang);
    let call = tokio::spawn({
        let api = mesh.api.clone();
        async move { api.try_call("s", "act", json!({})).await }
    });
    eventually("the call is in flight", SOON, || async { (upstream.calls() == 1).then_some(()) }).await;
    mesh.signal(Signal::TERM);
    let status = mesh.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", mesh.log());
    if let Ok(answer) = call.await.expect("no panic") {
        assert_ne!(answer.status, 200, "{}", answer.text());
    }
}

/// Callers that never pause keep their connections busy: the proxy must end them all the same, and count all that
/// it answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_proxy_ends_busy_connections_and_counts_what_it_answered() {
    let (mut mesh, _upstream, _) = guarded().await;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let api = Api::new(&mesh.http);
            tokio::spawn(async move {
                let mut answered = 0_u64;
                // Until the first connection that is refused.
                while let Ok(answer) = api.try_call("s", "act", json!({})).await {
                    answer.ok();
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    eventually("calls flow", SOON, || async {
        (mesh.api.stats().await["total_messages"].as_u64() > Some(50)).then_some(())
    })
    .await;
    mesh.signal(Signal::TERM);
    let status = mesh.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", mesh.log());
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.expect("every answer was good");
    }
    mesh.restart().await;
    assert_eq!(mesh.api.stats().await["total_messages"], answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain() {
    let (mut mesh, upstream, _) = guarded().await;
    upstream.now(How::Hang);
    let call = tokio::spawn({
        let api = mesh.api.clone();
        async move { api.try_call("s", "act", json!({})).await.map(|answer| answer.status) }
    });
    eventually("the call is in flight", SOON, || async { (upstream.calls() == 1).then_some(()) }).await;
    mesh.signal(Signal::TERM);
    eventually("it drains", SOON, || async { (mesh.api.get("/readyz").await.status == 503).then_some(()) })
        .await;
    mesh.signal(Signal::TERM);
    mesh.ended(Duration::from_secs(3)).await;
    assert_ne!(call.await.expect("no panic").ok(), Some(200));
}

/// Starts `serve` without flags and answers what it wrote to `data_dir/endpoints.json`.
async fn started(mut command: Command, data_dir: &Path) -> Value {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = silent.arg("serve").spawn().expect("start the proxy");
    let file = data_dir.join("endpoints.json");
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            if let Some(endpoints) =
                std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
            {
                return Some(endpoints);
            }
            if !matches!(child.try_wait(), Ok(None)) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(child.kill());
    drop(child.wait());
    found.ok().flatten().expect("endpoints.json in the named folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_environment_too() {
    let home = mesh::home("");
    let path = |name: &str| home.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command
        .env("HOME", home.path())
        .env("MESHWRIGHT_CONFIG", path("meshwright.toml"))
        .env("MESHWRIGHT_DATA_DIR", path("elsewhere"))
        .env("MESHWRIGHT_PLUGINS", path("plugins"))
        .env("MESHWRIGHT_MCP_ADDR", ANY)
        .env("MESHWRIGHT_HTTP_ADDR", ANY);
    started(command, &path("elsewhere")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_file_in_the_working_folder() {
    let home = mesh::home(
        "[server]\nmcp_addr = \"127.0.0.1:0\"\nhttp_addr = \"127.0.0.1:0\"\ndata_dir = \"~/kept\"\nplugins_dir = \"~/own\"\nworkers = 1\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command.env("HOME", home.path()).current_dir(home.path());
    for name in ["CONFIG", "DATA_DIR", "PLUGINS", "MCP_ADDR", "HTTP_ADDR", "WORKERS"] {
        command.env_remove(format!("MESHWRIGHT_{name}"));
    }
    let endpoints = started(command, &home.path().join("kept")).await;
    assert!(!endpoints["http"].as_str().expect("an address").ends_with(":6001"), "{endpoints}");
}
