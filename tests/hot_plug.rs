//! Services that come and go while the proxy runs.

mod support;

use std::process::Output;

use support::children::*;
use support::raw_upstream::RawOptions;
use support::*;

/// The command line with what stands before its own arguments, which may end with a command.
fn cli_with(mesh: &Mesh, word: &str, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command.env("HOME", mesh.home.path()).env_remove("XDG_CONFIG_HOME").env_remove("MESHWRIGHT_CONFIG");
    command.args([word, "--url", &mesh.http]).args(args).output().expect("run the command line")
}

fn configuration(mesh: &Mesh) -> String {
    std::fs::read_to_string(mesh.home.path().join("meshwright.toml")).expect("read the configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_added_by_command_survives_a_restart_and_is_taken_out_again() {
    let book = Book::new();
    let mut mesh = mesh("# mine\n".to_owned() + &book.service("stays", &[], "")).await;
    let pid = until_called(&mesh, "stays").await;
    let before = configuration(&mesh);
    let script = repository().join("tests/fixtures/chaos_child.py").display().to_string();
    let file = book.file("extra").display().to_string();
    let add = ["extra", "--env", "MODE=a b", "--", "python3", &script, &file, "fork"];
    let added = cli_with(&mesh, "add", &add);
    assert!(added.status.success(), "{}", text(&added));
    assert!(configuration(&mesh).starts_with(before.trim_end()), "{}", configuration(&mesh));
    contains(
        &configuration(&mesh),
        &["[services.extra]\ncommand = \"python3\"\n", "env = { MODE = \"a b\" }"],
    );
    until_called(&mesh, "extra").await;
    assert_eq!(until_called(&mesh, "stays").await, pid, "who was there is not disturbed");

    let taken = cli_with(&mesh, "add", &add);
    assert_eq!(taken.status.code(), Some(1));
    contains(&text(&taken), &["`extra` is in", "meshwright.toml:"]);
    let wrong = cli_with(&mesh, "add", &["un named", "http://127.0.0.1:9/mcp"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));

    assert!(mesh.terminate().await.success());
    mesh.restart_elsewhere().await;
    until_called(&mesh, "extra").await;
    let removed = cli_with(&mesh, "rm", &["extra"]);
    assert!(removed.status.success(), "{}", text(&removed));
    assert_eq!(mesh.api.call("extra", "pid", json!({})).await.status, 404);
    eventually("nothing of it is left", SOON, || async {
        running(&book.pids("extra")).is_empty().then_some(())
    })
    .await;
    assert_eq!(configuration(&mesh), before);
    assert_eq!(cli_with(&mesh, "rm", &["extra"]).status.code(), Some(5));

    let broken = before.clone() + "[services\n";
    std::fs::write(mesh.home.path().join("meshwright.toml"), &broken).expect("write");
    let refused = cli_with(&mesh, "add", &add);
    assert_eq!(refused.status.code(), Some(1));
    contains(&text(&refused), &["is wrong already"]);
    assert_eq!(configuration(&mesh), broken);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_a_folder_are_services_for_as_long_as_they_are_there() {
    let book = Book::new();
    let home = support::mesh::home("");
    let folder = home.path().join("mcp.d");
    std::fs::create_dir(&folder).expect("make the folder");
    let script = repository().join("tests/fixtures/chaos_child.py").display().to_string();
    let drop_in = |file: &str, name: &str, mode: u32| {
        let path = folder.join(file);
        let fresh = folder.join(".fresh");
        let line = format!("#!/bin/sh\nexec python3 '{script}' '{}'\n", book.file(name).display());
        std::fs::write(&fresh, line).expect("write the script");
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
        std::fs::rename(&fresh, &path).expect("put it there");
        path
    };
    drop_in("first.sh", "first", 0o755);
    drop_in("notes.txt", "notes", 0o644);
    drop_in("fixed.sh", "other", 0o755);
    let config = "[supervisor]\nscripts = \"mcp.d\"\n".to_owned()
        + &book.service("fixed", &[], "")
        + "[services.first]\ntools = { deny = [\"x_*\"] }\n";
    let stats = home.path().join("stats.json");
    std::fs::write(home.path().join("meshwright.toml"), format!("[stats]\nfile = {stats:?}\n{config}"))
        .expect("write the configuration");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    until_called(&mesh, "first").await;
    until_called(&mesh, "fixed").await;
    assert!(book.pids("other").is_empty(), "a name that is taken is not run twice");
    let reasons = mesh.api.get("/health").await.ok()["reasons"].to_string();
    contains(&reasons, &["mcp.d/fixed.sh: `fixed` is the name of a service already"]);

    let pid = until_called(&mesh, "first").await;
    let second = drop_in("second", "second", 0o755);
    until_called(&mesh, "second").await;
    let open = drop_in("open.sh", "open", 0o757);
    eventually("it is refused", SOON, || async {
        let reasons = mesh.api.get("/health").await.ok()["reasons"].to_string();
        reasons.contains("open.sh: it may be written by everybody").then_some(())
    })
    .await;
    std::fs::remove_file(second).expect("remove it");
    std::fs::remove_file(open).expect("remove it");
    eventually("it is gone, and its process", SOON, || async {
        let gone = mesh.api.call("second", "pid", json!({})).await.status == 404;
        (gone && running(&book.pids("second")).is_empty()).then_some(())
    })
    .await;
    assert_eq!(until_called(&mesh, "first").await, pid, "who stays is not disturbed");
    drop_in("first.sh", "edited", 0o755);
    eventually("what it says now is in force", SOON, || async {
        (!running(&book.pids("edited")).is_empty() && running(&book.pids("first")).is_empty()).then_some(())
    })
    .await;
    until_called(&mesh, "first").await;
    assert_eq!((book.pids("open").len(), book.pids("notes").len()), (0, 0));
    let names: Vec<Value> = processes(&mesh).await.iter().map(|one| one["instance"].clone()).collect();
    assert_eq!(names, ["first", "fixed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_by_address_is_added_over_http_and_what_is_run_is_not() {
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    let mesh = mesh("# mine\n".to_owned()).await;
    let before = configuration(&mesh);
    let url = format!("http://127.0.0.1:{}/mcp", upstream.port);
    let post = |body: Value| {
        let api = mesh.api.clone();
        async move { api.post("/api/v1/services", &body).await }
    };
    for (body, status, code) in [
        (json!({"name": "web", "command": "touch", "args": ["x"]}), 403, "command_refused"),
        (json!({"name": "web", "url": url, "env": {"A": "b"}}), 403, "command_refused"),
        (json!({"name": "web", "url": "http://127.0.0.1:9/${secret:token}"}), 403, "reference_refused"),
        (json!({"name": "web", "url": url, "tols": {}}), 400, "invalid_service"),
        (json!({"name": "../web", "url": url}), 400, "invalid_service"),
        (json!({"url": url}), 400, "invalid_service"),
    ] {
        post(body).await.problem(status, code);
    }
    let wish = json!({"name": "web", "url": url, "tools": {"deny": ["act_open"]}});
    let by_page = mesh.api.request(http::Method::POST, "/api/v1/services").json(&wish);
    let answer = Api::send(by_page.header("origin", "http://evil.example")).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let simple = mesh.api.request(http::Method::POST, "/api/v1/services").body(wish.to_string());
    let answer = Api::send(simple.header("content-type", "text/plain")).await;
    assert_eq!(answer.status, 415, "{}", answer.text());
    assert_eq!(configuration(&mesh), before, "nothing of that was written");

    let answer = post(wish.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    contains(answer.text(), &["meshwright.toml"]);
    eventually("it answers", SOON, || async {
        (mesh.api.call("web", "act_read_only", json!({})).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(mesh.api.call("web", "act_open", json!({})).await.status, 403, "it is hidden");
    post(wish).await.problem(409, "name_taken");
    let config = mesh.api.get("/api/v1/config").await.ok();
    assert_eq!(config["complaints"], json!([]), "{config}");

    let delete = || Api::send(mesh.api.request(http::Method::DELETE, "/api/v1/services/web"));
    assert_eq!(delete().await.status, 200);
    assert_eq!(mesh.api.call("web", "act_read_only", json!({})).await.status, 404);
    assert_eq!(configuration(&mesh), before);
    delete().await.problem(404, "unknown_service");
}
