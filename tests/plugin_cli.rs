//! `meshwright plugin …`, run as authors run it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::guests::{component, drop_in, misbehaver};
use support::raw_upstream::RawOptions;
use support::{Locked, Mesh, RawUpstream, SOON, Value, eventually, json, repository, target_dir};
use tempfile::TempDir;

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.out.contains(part), "no {part:?} in\n{}\n{}", self.out, self.err);
        }
    }

    #[track_caller]
    fn ended(&self, code: i32) {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// `meshwright plugin ARGS`, away from the configuration of whoever runs the tests.
fn plugin(home: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESHWRIGHT_"))
    {
        command.env_remove(name);
    }
    let output = command
        .env("HOME", home)
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(home)
        .stdin(Stdio::null())
        .arg("plugin")
        .args(args)
        .output()
        .expect("run the command");
    Said {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("write a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn home() -> TempDir {
    tempfile::Builder::new().prefix("meshwright-cli-").tempdir().expect("a temporary folder")
}

/// One of the plugins that are built in, as a file.
fn default_plugin(folder: &Path, name: &str) -> String {
    put(folder, &format!("{name}.wasm"), component(name))
}

fn scenarios(name: &str) -> String {
    let folder = repository().join("plugins").join(name).join("tests");
    let mut entries = fs::read_dir(folder).expect("scenarios of a default plugin");
    let path = entries.next().expect("a file").expect("a file").path();
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn check_says_what_a_good_component_is() {
    let home = home();
    let file = default_plugin(home.path(), "tag-router");
    let said = plugin(home.path(), &["check", &file]);
    said.ended(0);
    said.has(&["✔", "tag-router 0.1.0", "kinds     router", "KiB, compiled in", "for an instance"]);
    said.has(&["budget    1000 µs for 99 of 100 answers of `route`"]);

    let said = plugin(home.path(), &["check", "--json", &file]);
    said.ended(0);
    let report = &said.json()[0];
    assert_eq!((&report["ok"], &report["name"]), (&json!(true), &json!("tag-router")));
    assert_eq!(report["kinds"], json!(["router"]));
    assert!(report["imports"].as_array().is_some_and(|imports| !imports.is_empty()), "{report}");
    for figure in ["size_bytes", "memory_bytes", "compile_ms"] {
        assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{report}");
    }
}

#[test]
fn check_explains_every_way_in_which_a_file_is_bad() {
    let home = home();
    let whole = misbehaver("answer", "bad", "0.1.0");
    let foreign = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "the bytes around must not move");
        replaced(&whole, from.as_bytes(), to.as_bytes())
    };
    let bad: [(&str, Vec<u8>, &str, &str); 13] = [
        ("text", b"this is no component".to_vec(), "the file's shape", "not WebAssembly"),
        ("empty", Vec::new(), "the file's shape", "it is empty"),
        ("half", whole[..whole.len() / 2].to_vec(), "the file's shape", "ends too early"),
        ("module", b"\0asm\x01\0\0\0".to_vec(), "the file's shape", "core module"),
        ("bare", b"\0asm\x0d\0\x01\0".to_vec(), "its exports", "exports nothing of meshwright:plugin"),
        (
            "import",
            foreign("wasi:cli/environment", "wasi:http/types-xxxx"),
            "its imports",
            "forbidden import `wasi:http/types-xxxx",
        ),
        (
            "version",
            foreign("meshwright:plugin/router@0.1.0", "meshwright:plugin/router@0.3.0"),
            "the contract",
            "needs meshwright:plugin/router@0.3.0, this build offers 0.1.0",
        ),
        (
            "self-test",
            misbehaver("self-test-fails", "bad", "1"),
            "`self-test`",
            "the self-test fails on purpose",
        ),
        ("trap", misbehaver("trap-in-metadata", "bad", "1"), "`metadata`", "trapped"),
        ("loop", misbehaver("loop-in-self-test", "bad", "1"), "`self-test`", "took longer than"),
        ("configure", misbehaver("configure-refuses", "bad", "1"), "`configure`", "`/mood`"),
        ("name", misbehaver("answer", "b a d", "1"), "`metadata`", "its name `b a d` cannot be used"),
        ("no-version", misbehaver("answer", "bad", ""), "`metadata`", "`version` is empty"),
    ];
    let files: Vec<String> =
        bad.iter().map(|(name, bytes, ..)| put(home.path(), &format!("{name}.wasm"), bytes)).collect();
    let mut args = vec!["check", "--json"];
    args.extend(files.iter().map(String::as_str));
    let said = plugin(home.path(), &args);
    said.ended(1);
    let reports = said.json();
    for (report, (name, _, step, reason)) in reports.as_array().expect("a list").iter().zip(&bad) {
        assert_eq!(report["ok"], false, "{name}: {report}");
        assert_eq!(report["step"], *step, "{name}: {report}");
        assert!(report["reason"].as_str().is_some_and(|said| said.contains(reason)), "{name}: {report}");
        assert!(report["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{name}: {report}");
    }

    let said = plugin(home.path(), &["check", &files[0], "missing.wasm"]);
    said.ended(1);
    said.has(&[
        "✖",
        "where     the file's shape",
        "do        Give what the build wrote",
        "it cannot be read",
    ]);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut found = false;
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
            found = true;
        }
    }
    assert!(found, "the component does not name {}", String::from_utf8_lossy(from));
    bytes
}

#[test]
fn check_tries_the_configuration_that_is_given_or_lies_beside() {
    let home = home();
    let file = default_plugin(home.path(), "zone-balancer");
    let bad = put(home.path(), "other.toml", "zone = \"eu 1\"\n");
    let said = plugin(home.path(), &["check", &file, "--config", &bad]);
    said.ended(1);
    said.has(&["where     `configure`", "`/zone`"]);
    plugin(home.path(), &["check", &file]).ended(0);

    put(home.path(), "zone-balancer.toml", "zone_penalty = 0\n");
    let said = plugin(home.path(), &["check", &file]);
    said.ended(1);
    said.has(&["`/zone_penalty`"]);

    let said = plugin(home.path(), &["check", &file, "--config", "nowhere.toml"]);
    said.ended(1);
    said.has(&["nowhere.toml", "there is no such file"]);
}

#[test]
fn the_default_plugins_do_what_their_scenarios_say() {
    let home = home();
    for name in ["tag-router", "zone-balancer", "threshold-alerts", "usage-meter"] {
        let file = default_plugin(home.path(), name);
        let said = plugin(home.path(), &["test", &file, &scenarios(name)]);
        said.ended(0);
        said.has(&[" passed, 0 failed", "fuel "]);
    }
}

#[test]
fn test_counts_the_same_instructions_each_time() {
    let home = home();
    let file = default_plugin(home.path(), "zone-balancer");
    let scenarios = scenarios("zone-balancer");
    let first = plugin(home.path(), &["test", &file, &scenarios]);
    let second = plugin(home.path(), &["test", &file, &scenarios]);
    assert_eq!(first.out, second.out);
}

#[test]
fn test_shows_what_is_otherwise_than_expected() {
    let home = home();
    let file = default_plugin(home.path(), "tag-router");
    let wrong = put(
        home.path(),
        "wrong.toml",
        r#"
        config = { rules = [{ name = "frozen", when = { tool = "delete" }, reject = { reason = "frozen" } }] }
        [[case]]
        name = "one answer"
        call = { service = "a", tool = "delete" }
        expect = { verdict = "forward", service = "b", why = "frozen" }
        [[case]]
        name = "a share"
        call = { service = "a", tool = "read" }
        times = 10
        expect = { verdict = "reject", between = [1, 5] }
        [[case]]
        name = "a misspelling"
        config = { rules = [{ name = "frozen", permile = 5, reject = { reason = "frozen" } }] }
        call = { service = "a", tool = "read" }
        expect = { verdict = "pass" }
        [[case]]
        name = "a budget"
        call = { service = "a", tool = "read" }
        fuel_max = 1
        expect = { verdict = "pass" }
        [[case]]
        name = "no balancer"
        pool = { members = [{ instance = "a" }] }
        pick = {}
        expect = { instance = "a" }
        [[case]]
        name = "a good configuration"
        issues = [{ path = "/rules" }]
        [[case]]
        name = "what is right"
        call = { service = "a", tool = "read" }
        expect = { verdict = "pass" }
        "#,
    );
    let said = plugin(home.path(), &["test", &file, &wrong]);
    said.ended(1);
    said.has(&[
        "FAIL one answer",
        "verdict    expected `forward`, got `reject`",
        "service    expected `b`, got nothing",
        "FAIL a share",
        "fits 0 of 10 answers, expected 1 to 5",
        "10 × pass",
        "FAIL a misspelling",
        "its configuration does not fit its `config-schema`: `/rules/0/permile`: there is no setting `permile` here; \
         did you mean `permille`?",
        "FAIL a budget",
        "fuel       at most 1 expected, it took",
        "FAIL no balancer",
        "the component is no balancer (it is: router)",
        "FAIL a good configuration",
        "was to be refused",
        "ok   what is right",
        "1 passed, 6 failed",
    ]);
    assert!(!said.out.contains("why  "), "what is as expected is not shown: {}", said.out);
}

#[test]
fn test_stops_what_does_not_end_and_names_what_traps() {
    let home = home();
    let scenario = put(
        home.path(),
        "one.toml",
        "[[case]]\nname = \"it answers\"\ncall = { service = \"a\" }\nexpect = { verdict = \"pass\" }\n",
    );
    for (doing, reason) in [("loop", "did not end within"), ("trap", "it trapped")] {
        let file = put(home.path(), "bad.wasm", misbehaver(doing, "bad", "0.1.0"));
        let said = plugin(home.path(), &["test", &file, &scenario]);
        said.ended(1);
        said.has(&["FAIL it answers", reason]);
    }
}

#[test]
fn test_says_where_a_scenario_file_is_wrong_and_where_it_looked_for_one() {
    let home = home();
    let file = default_plugin(home.path(), "tag-router");
    let said = plugin(home.path(), &["test", &file]);
    said.ended(1);
    assert!(said.err.contains("no `tests/*.toml`"), "{}", said.err);

    let misspelt = put(home.path(), "misspelt.toml", "[[case]]\nname = \"x\"\ncal = {}\n");
    let said = plugin(home.path(), &["test", &file, &misspelt]);
    said.ended(1);
    assert!(said.err.contains("misspelt.toml") && said.err.contains("`cal`"), "{}", said.err);

    let empty = put(home.path(), "empty.toml", "[[case]]\nname = \"x\"\n");
    let said = plugin(home.path(), &["test", &file, &empty]);
    assert!(said.err.contains("case `x`: it needs one of `call`"), "{}", said.err);
}

#[test]
fn bench_prints_costs_for_small_and_large_meshes() {
    let home = home();
    let file = default_plugin(home.path(), "tag-router");
    let said = plugin(home.path(), &["bench", &file]);
    said.ended(0);
    said.has(&[
        "route",
        "reused route",
        "3 services",
        "100 services",
        "MEDIAN",
        "P99",
        "to make and configure",
    ]);

    for (name, questions) in [
        ("zone-balancer", vec!["compile", "pick", "compile", "pick"]),
        ("threshold-alerts", vec!["evaluate", "evaluate"]),
        ("usage-meter", vec!["on-calls", "collect"]),
    ] {
        let file = default_plugin(home.path(), name);
        let said = plugin(home.path(), &["bench", "--json", &file]);
        said.ended(0);
        let report = said.json();
        let asked: Vec<_> =
            report["answers"].as_array().expect("a list").iter().map(|cost| &cost["question"]).collect();
        assert_eq!(asked, questions, "{report}");
        assert!(report["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
    }

    let file = put(home.path(), "bad.wasm", misbehaver("trap", "bad", "0.1.0"));
    let said = plugin(home.path(), &["bench", &file]);
    said.ended(1);
    said.has(&["faulted while it was measured"]);
}

#[test]
fn new_refuses_to_overwrite_and_names_what_there_is() {
    let home = home();
    plugin(home.path(), &["new", "Night", "--kind", "router"]).ended(2);
    fs::create_dir(home.path().join("taken")).expect("create a folder");
    put(&home.path().join("taken"), "mine.txt", "precious");
    let said = plugin(home.path(), &["new", "taken", "--kind", "router"]);
    said.ended(2);
    assert!(said.err.contains("not empty"), "{}", said.err);
    let entries = fs::read_dir(home.path().join("taken")).expect("list").count();
    assert_eq!(entries, 1, "nothing was written");
    let said = plugin(home.path(), &["new", "elsewhere", "--kind", "prophet"]);
    said.ended(2);
    assert!(said.err.contains("planner"), "{}", said.err);
    let said = plugin(home.path(), &["new", "elsewhere", "--lang", "zig", "--kind", "meter"]);
    said.ended(2);
    let there = [
        "no template for a meter in zig",
        "--lang zig     --kind alerter|balancer|planner|router",
        "--lang rust    --kind alerter|balancer",
    ];
    assert!(there.iter().all(|part| said.err.contains(part)), "{}", said.err);
    assert!(!home.path().join("elsewhere").exists(), "nothing was written");
}

/// Builds the project in `folder` with the versions of crates that this repository uses.
fn build(folder: &Path, name: &str) -> PathBuf {
    let target = target_dir().join("test-projects");
    let _lock = Locked::at(&target_dir().join("test-projects.lock"));
    fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).expect("copy the lock file");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];
        let prefixes = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PKG_", "CARGO_MANIFEST_"];
        if foreign.contains(&&*text) || prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .current_dir(folder)
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .stdin(Stdio::null())
        .output()
        .expect("run cargo");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("warning"), "{}: {said}", folder.display());
    // Beside its project, where an author's target folder is.
    let file = folder.join("target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")));
    fs::create_dir_all(file.parent().expect("a folder")).expect("create the target folder");
    fs::copy(target.join("wasm32-wasip2/release").join(file.file_name().expect("a name")), &file)
        .expect("take the component");
    file
}

#[test]
fn every_rust_template_builds_and_passes_its_scenarios() {
    let home = home();
    for kind in ["balancer", "planner", "alerter", "meter"] {
        let name = format!("my-{kind}");
        plugin(home.path(), &["new", &name, "--lang", "rust", "--kind", kind]).ended(0);
        let folder = home.path().join(&name);
        let readme = fs::read_to_string(folder.join("README.md")).expect("a README");
        assert!(readme.contains("meshwright plugin check") && !readme.contains("{{"), "{readme}");
        let file = build(&folder, &name);
        let file = file.to_str().expect("UTF-8");
        let said = plugin(home.path(), &["check", file]);
        said.ended(0);
        said.has(&[&format!("kinds     {kind}"), &name]);
        plugin(home.path(), &["test", file]).ended(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_router_is_built_checked_tested_and_in_force_in_a_running_proxy() {
    let home = home();
    let project = home.path().join("projects/night-watch");
    let place = project.to_str().expect("UTF-8");
    let said = plugin(home.path(), &["new", "night-watch", "--kind", "router", "--dir", place]);
    said.ended(0);
    let file = build(&project, "night-watch");
    let path = file.to_str().expect("UTF-8");
    plugin(home.path(), &["check", path]).ended(0);
    let said = plugin(home.path(), &["test", path]);
    said.ended(0);
    said.has(&["route.toml", "5 passed, 0 failed"]);

    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    fs::write(mesh.plugins_dir().join("night_watch.toml"), "refuse = [\"act\"]\n")
        .expect("write the configuration");
    drop_in(&mesh.plugins_dir(), "night_watch.wasm", &fs::read(&file).expect("read the component"));
    let refused = eventually("the router refuses", SOON, || async {
        let answer = mesh.api.call("s", "act", json!({})).await;
        (answer.status == 403).then_some(answer)
    })
    .await;
    assert_eq!(refused.json()["code"], "policy_refused");

    let said = plugin(home.path(), &["ls", "--url", &mesh.http]);
    said.ended(0);
    said.has(&["PLUGIN", "night-watch", "tag-router", "loaded"]);
    let listed = plugin(home.path(), &["ls", "--json", "--url", &mesh.http]).json();
    assert!(listed["plugins"].as_array().is_some_and(|plugins| plugins.len() == 5), "{listed}");
}

#[test]
fn ls_says_when_no_proxy_answers() {
    let home = home();
    // A port that nobody has: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let said = plugin(home.path(), &["ls", "--url", &format!("http://{free}")]);
    said.ended(4);
    assert!(said.err.contains("no proxy answers") && said.err.contains("connection refused"), "{}", said.err);
    let said = plugin(home.path(), &["ls", "--url", "ftp://nowhere"]);
    said.ended(1);
    assert!(said.err.contains("no address of a proxy"), "{}", said.err);
}
