//! The configuration file, from its checking to its change while calls flow.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::guests::misbehaver;
use support::raw_upstream::RawOptions;
use support::{Callers, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWRIGHT_"))
    {
        command.env_remove(name);
    }
    let command = command.args(args).current_dir(folder).env("HOME", folder).env_remove("XDG_CONFIG_HOME");
    command.stdin(Stdio::null()).output().expect("run it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces the configuration as editors do: a new file takes the old one's name.
fn write(mesh: &Mesh, config: &str) {
    let file = mesh.home.path().join("meshwright.toml");
    let fresh = file.with_extension("new");
    let stats = mesh.stats_file();
    fs::write(&fresh, format!("[stats]\nfile = {stats:?}\n\n{config}\n")).expect("write");
    fs::rename(fresh, file).expect("rename");
}

async fn complaints(mesh: &Mesh) -> Vec<String> {
    let health = mesh.api.get("/health").await.ok();
    let reasons = health["reasons"].as_array().expect("reasons").iter();
    let of_configuration =
        |reason: &&str| reason.contains("left out") || reason.contains("changed configuration");
    reasons.filter_map(Value::as_str).filter(of_configuration).map(ToOwned::to_owned).collect()
}

async fn upstream() -> RawUpstream {
    RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await
}

fn url(upstream: &RawUpstream) -> String {
    format!("url = \"http://127.0.0.1:{}/mcp\"\n", upstream.port)
}

async fn answers(mesh: &Mesh, service: &str) {
    eventually(&format!("`{service}` answers"), SOON, || async {
        (mesh.api.call(service, "act_read_only", json!({})).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_left_out_and_named_and_the_rest_is_served() {
    let good = upstream().await;
    let config = format!(
        "include = [\"clients.json\", \"absent.json\"]\n[services.bad]\ncomand = \"x\"\n[services.good]\n{}\
         [services.secretive]\ncommand = \"x\"\nenv = {{ TOKEN = \"${{secret:nobody-has-it}}\" }}\n",
        url(&good)
    );
    // `include` has to stand before the first section.
    let home = support::mesh::home("");
    let stats = home.path().join("stats.json");
    let config = config.replacen("[services.bad]", &format!("[stats]\nfile = {stats:?}\n[services.bad]"), 1);
    fs::write(home.path().join("meshwright.toml"), config).expect("write");
    let client = format!(
        "{{\"mcpServers\": {{\"from json\": {{\"url\": \"http://127.0.0.1:{}/mcp\"}}, \"six\": {{\"comand\": \"true\"}}}}}}",
        good.port
    );
    fs::write(home.path().join("clients.json"), client).expect("write");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    answers(&mesh, "good").await;
    answers(&mesh, "from-json").await;

    let said = complaints(&mesh).await;
    assert_eq!(said.len(), 4, "{said:?}");
    let of = |part: &str| {
        said.iter().find(|said| said.contains(part)).unwrap_or_else(|| panic!("no {part}: {said:?}"))
    };
    assert!(of("services.bad").contains("did you mean `command`?"));
    assert!(of("mcpServers.six").contains("for `comand`, did you mean `command`?"));
    assert!(of("absent.json").contains("meshwright.toml:1:28"));
    assert!(of("nobody-has-it").contains("write it into the file"));
    let log = mesh.log();
    for part in ["✖ bad", "✖ six", "✖ secretive", "✖ a file", "did you mean `command`?"] {
        assert!(log.contains(part), "the banner has no {part:?}:\n{log}");
    }

    let checked = run(mesh.home.path(), &["config", "check"]);
    assert_eq!(checked.status.code(), Some(78));
    let said = text(&checked.stderr);
    assert!(said.contains("^^^^^^") && said.contains("did you mean `command`?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_comes_into_force_without_a_failed_call() {
    let [steady, first, second] = [upstream().await, upstream().await, upstream().await];
    let with = |moving: &RawUpstream, more: &str| {
        format!("[services.steady]\n{}[services.moving]\n{}{more}", url(&steady), url(moving))
    };
    let mesh = Mesh::start(MeshOptions { config: with(&first, ""), ..MeshOptions::default() }).await;
    answers(&mesh, "steady").await;
    answers(&mesh, "moving").await;
    let hellos =
        |upstream: &RawUpstream| upstream.seen("initialize").len() + upstream.seen("server/discover").len();
    let before = hellos(&steady);
    let callers = Callers::start(&mesh.api, 2, "steady", "act");

    write(&mesh, &with(&second, "[services.added]\nurl = \"http://127.0.0.1:9/\"\n"));
    eventually("calls go to the new address", SOON, || async {
        mesh.api.call("moving", "act_read_only", json!({})).await;
        (second.calls() > 0).then_some(())
    })
    .await;
    let gone_by = first.calls();
    for _ in 0..20 {
        mesh.api.call("moving", "act_read_only", json!({})).await.ok();
    }
    assert_eq!(first.calls(), gone_by, "the old address gets nothing any more");
    assert_eq!(mesh.api.get("/services/added").await.status, 200);

    // What is hidden is hidden at once.
    write(&mesh, &with(&second, "tools = { deny = [\"act_read_only\"] }\n"));
    eventually("the tool is hidden", SOON, || async {
        (mesh.api.call("moving", "act_read_only", json!({})).await.status == 403).then_some(())
    })
    .await;
    mesh.api.call("moving", "act", json!({})).await.ok();
    assert_eq!(mesh.api.get("/services/added").await.status, 404, "it is not named any more");
    assert!(callers.stop().await > 50);
    assert_eq!(hellos(&steady), before, "what did not change goes on in its session");
    assert_eq!(complaints(&mesh).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_says_why_until_it_is_right() {
    let upstream = upstream().await;
    let good = format!("[services.s]\n{}", url(&upstream));
    let mesh = Mesh::start(MeshOptions { config: good.clone(), ..MeshOptions::default() }).await;
    answers(&mesh, "s").await;
    for (wrong, part) in [
        ("[services.s]\nurl = \"http://127.0.0.1:9\"\nurl = 1\n", "duplicate key"),
        ("[services.s]\nrul = \"x\"\n", "did you mean `url`?"),
        ("[sevices.s]\n", "did you mean `services`?"),
        ("[calls]\ntimeout = \"1h\"\n", "at most 600 s"),
    ] {
        write(&mesh, wrong);
        let said = eventually(&format!("{part} is said"), SOON, || async {
            complaints(&mesh).await.into_iter().find(|said| said.contains(part))
        })
        .await;
        assert!(said.contains("not in force") && said.contains("meshwright.toml:"), "{said}");
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    // What needs a restart is said.
    write(&mesh, &format!("{good}[calls]\ntimeout = \"61s\"\n"));
    eventually("nothing is wrong any more", SOON, || async {
        complaints(&mesh).await.is_empty().then_some(())
    })
    .await;
    eventually("the log names it", SOON, || async {
        mesh.log().contains("at the next start: calls.timeout").then_some(())
    })
    .await;
    mesh.api.call("s", "act", json!({})).await.ok();
}

/// Well before the files are read anyway.
async fn is_there(mesh: &Mesh, service: &str) {
    eventually(&format!("`{service}` is there"), SOON, || async {
        (mesh.api.get(&format!("/services/{service}")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_links_lead_to_is_followed_when_it_changes_and_when_they_lead_elsewhere() {
    let home = support::mesh::home("");
    let at = |name: &str| home.path().join(name);
    let stats = home.path().join("stats.json");
    let service = |name: &str| format!("[services.{name}]\nurl = \"http://127.0.0.1:9/\"\n");
    let main =
        |name: &str| format!("include = [\"more.toml\"]\n[stats]\nfile = {stats:?}\n{}", service(name));
    for folder in ["one", "two", "inc"] {
        fs::create_dir(at(folder)).expect("create");
    }
    fs::write(at("one/real.toml"), main("a")).expect("write");
    fs::write(at("two/real.toml"), main("c")).expect("write");
    fs::write(at("inc/real.toml"), service("i")).expect("write");
    let link = |target: &str, name: &str| {
        let fresh = at("fresh");
        std::os::unix::fs::symlink(target, &fresh).expect("link");
        fs::rename(fresh, at(name)).expect("rename");
    };
    // A link to a link.
    link("one/real.toml", "between.toml");
    link("between.toml", "meshwright.toml");
    link("inc/real.toml", "more.toml");
    let paths = (at("one/real.toml"), at("two/real.toml"), at("inc/real.toml"));
    let mesh = Mesh::start_in(home, Vec::new()).await;
    is_there(&mesh, "a").await;
    is_there(&mesh, "i").await;
    fs::write(&paths.0, main("b")).expect("write");
    is_there(&mesh, "b").await;
    fs::write(&paths.2, service("j")).expect("write");
    is_there(&mesh, "j").await;
    let fresh = mesh.home.path().join("fresh");
    std::os::unix::fs::symlink("two/real.toml", &fresh).expect("link");
    fs::rename(fresh, mesh.home.path().join("between.toml")).expect("rename");
    is_there(&mesh, "c").await;
    fs::write(&paths.1, main("d")).expect("write");
    is_there(&mesh, "d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_plugin_change_with_the_file() {
    let plugins = vec![("mood.wasm".to_owned(), misbehaver("schema", "mood", "1.0.0"))];
    let config = "[plugins.mood]\nconfig = { mood = \"calm\" }\n";
    let mesh = Mesh::start(MeshOptions { config: config.into(), plugins, ..MeshOptions::default() }).await;
    let generation = |plugin: &Value| plugin["generation"].as_u64().expect("a generation");
    let first = generation(&mesh.api.plugin("mood").await.expect("loaded"));
    write(&mesh, "[plugins.mood]\nconfig = { mood = \"cross\" }\n");
    eventually("another generation", SOON, || async {
        mesh.api.plugin("mood").await.filter(|plugin| generation(plugin) > first)
    })
    .await;
    write(&mesh, "[plugins.mood]\nenabled = false\n");
    eventually("it is off", SOON, || async {
        mesh.api.plugin("mood").await.filter(|plugin| plugin["state"] == "disabled")
    })
    .await;
}

#[test]
fn a_flag_before_a_subcommand_is_told_where_it_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = run(folder.path(), &["--config", "m.toml", "config", "check"]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("tip: flags go after the subcommand"), "{said}");
    let other = run(folder.path(), &["config", "check", "--no-such-flag"]);
    assert!(!other.status.success() && !text(&other.stderr).contains("after the subcommand"), "{other:?}");
}

#[test]
fn the_command_line_checks_shows_describes_and_imports() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("meshwright.toml");
    let none = run(folder.path(), &["config", "check"]);
    assert!(none.status.success() && text(&none.stdout).contains("no configuration file"), "{none:?}");
    fs::write(&file, "[server]\nworkers = 2\n[services.a]\nurl = \"http://h\"\n[profiles.p]\n")
        .expect("write");
    let good = run(folder.path(), &["config", "check"]);
    assert_eq!(text(&good.stdout), "meshwright.toml is good: 1 service, 1 profile\n", "{good:?}");
    fs::write(&file, "[services.a]\ncommand = \"/bin/sh\"\ndepends_on = [\"b\"]\n").expect("write");
    let doubtful = run(folder.path(), &["config", "check"]);
    assert_eq!(
        text(&doubtful.stdout),
        "meshwright.toml is good but for 1 warning: 1 service\n",
        "{doubtful:?}"
    );
    let said = text(&doubtful.stderr);
    assert!(
        doubtful.status.success() && said.contains("meshwright.toml:3:15: `services.a.depends_on`"),
        "{said}"
    );
    fs::write(&file, "[server]\nplugins_dri = 1\nworkers = 0\n[services.a]\ncomand = \"x\"\n")
        .expect("write");
    let wrong = run(folder.path(), &["config", "check"]);
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(78));
    for part in ["did you mean `plugins_dir`?", "`server.workers`", "did you mean `command`?"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    fs::write(&file, "[server]\nworkers = 2\n[services.a]\nurl = \"http://h\"\n[profiles.p]\n")
        .expect("write");
    let shown = run(folder.path(), &["config", "show", "--origin", "--mcp-addr", "127.0.0.1:1"]);
    let shown = text(&shown.stdout);
    for (start, end) in [
        ("workers = 2", "# meshwright.toml:2"),
        ("mcp_addr = \"127.0.0.1:1\"", "# --mcp-addr"),
        ("http_addr = ", "# default"),
        ("[services.a]", "# meshwright.toml:3"),
    ] {
        assert!(
            shown.lines().any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start} in\n{shown}"
        );
    }
    let supervised = "[services.b]\ncommand = \"x\"\nrestart = { max = 3 }\nrequired = true\n[supervisor]\nstartup_timeout = \"90s\"\n";
    fs::write(&file, supervised).expect("write");
    let shown = text(&run(folder.path(), &["config", "show", "--origin"]).stdout);
    for (line, end) in [
        ("command = \"x\"", "# meshwright.toml:2"),
        ("sessions = \"shared\"", "# default"),
        ("instances = 1", "# default"),
        ("required = true", "# meshwright.toml:4"),
        ("depends_on = []", "# default"),
        ("restart = { policy = \"on-failure\", max = 3, window = \"60s\" }", "# meshwright.toml:3"),
        ("startup_timeout = \"90s\"", "# meshwright.toml:6"),
    ] {
        assert!(shown.lines().any(|l| l.starts_with(line) && l.ends_with(end)), "{line} in\n{shown}");
    }
    let schema = run(folder.path(), &["config", "schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert!(schema["properties"]["services"].is_object(), "{schema}");

    let client = folder.path().join("mcp.json");
    fs::write(
        &client,
        "{\"servers\": {\"git hub\": {\"command\": \"npx\", \"args\": [\"-y\", \"g\"]}}} // VS Code",
    )
    .expect("write");
    let imported = run(folder.path(), &["import", "mcp.json"]);
    assert!(imported.status.success(), "{imported:?}");
    fs::write(&file, &imported.stdout).expect("write");
    let again = run(folder.path(), &["config", "check"]);
    assert_eq!(
        text(&again.stdout),
        "meshwright.toml is good: 1 service\n",
        "{again:?}\n{}",
        text(&imported.stdout)
    );
    fs::write(
        &client,
        "{\"mcpServers\": {\"six\": {\"comand\": \"true\"}, \"far\": {\"url\": \"https://h\"}}}",
    )
    .expect("write");
    let refused = run(folder.path(), &["import", "mcp.json"]);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("did you mean `command`?") && said.contains("https"),
        "{said}"
    );
    assert!(!text(&refused.stdout).contains("\n[services."), "{refused:?}");
    fs::write(&client, "{\"x\": 1}").expect("write");
    let nothing = run(folder.path(), &["import", "mcp.json"]);
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("mcpServers"), "{nothing:?}");
}
