//! A plugin's own settings: checked against its schema before it sees them, changed while it runs, never half.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwright::plugin::{COMPILE_LIMITS, Compiler, LoadError, Plugins, Settings, Workbench};
use meshwright::policy::status::PluginState;
use support::guests::{component, misbehaver};
use support::raw_upstream::RawOptions;
use support::{Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json, repository};

async fn with_plugin(config: &str, beside: Option<&str>) -> Mesh {
    let mut plugins = vec![("moody.wasm".to_owned(), misbehaver("schema", "moody", "1.0.0"))];
    plugins.extend(beside.map(|toml| ("moody.toml".to_owned(), toml.as_bytes().to_vec())));
    Mesh::start(MeshOptions { config: config.to_owned(), plugins, ..MeshOptions::default() }).await
}

async fn moody(mesh: &Mesh) -> Value {
    mesh.api.plugin("moody").await.expect("listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_while_it_runs_and_a_bad_change_leaves_those_before() {
    let mesh = with_plugin("", Some("share = 1\n")).await;
    assert_eq!(moody(&mesh).await["generation"], 1, "{}", moody(&mesh).await);
    let file = mesh.plugins_dir().join("moody.toml");
    fs::write(&file, "share = 2\n").expect("change it");
    eventually("the change is in force", SOON, || async {
        (moody(&mesh).await["generation"] == 2).then_some(())
    })
    .await;

    fs::write(&file, "share = 3\n\nmod = \"calm\"\n").expect("misspell it");
    let listed = eventually("the refusal is listed", SOON, || async {
        Some(moody(&mesh).await).filter(|plugin| !plugin["refused"].is_null())
    })
    .await;
    assert_eq!((&listed["state"], &listed["generation"]), (&json!("loaded"), &json!(2)), "{listed}");
    let expected = "its configuration does not fit its `config-schema` in `moody.toml`: line 3, `/mod`: there is no \
                    setting `mod` here; did you mean `mood`?";
    assert_eq!(listed["refused"]["reason"], expected);
    assert!(mesh.log().contains(expected), "{}", mesh.log());

    fs::write(&file, "share = 3\nmood = \"calm\"\n").expect("mend it");
    let listed = eventually("the mended one is in force", SOON, || async {
        Some(moody(&mesh).await).filter(|plugin| plugin["generation"] == 3)
    })
    .await;
    assert_eq!(listed["refused"], Value::Null, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_over_the_budget_that_the_proxys_file_gives_it_rests_until_it_gets_another() {
    let mesh = with_plugin("[plugins.moody]\nlimits = { route_budget = \"1us\" }\n", None).await;
    assert_eq!(moody(&mesh).await["budget_us"], json!({"route": 1.0, "pick": 1000.0}));
    let upstream = RawUpstream::start(RawOptions { sessions: false, ..RawOptions::default() }).await;
    mesh.api.join("s", upstream.port).await;
    // Some thousands of calls have to be made before it is judged.
    let resting = eventually("it rests", Duration::from_secs(180), || async {
        let calls = (0..64).map(|_| mesh.api.call("s", "act", json!({})));
        for answer in futures_util::future::join_all(calls).await {
            answer.ok();
        }
        Some(moody(&mesh).await).filter(|plugin| plugin["state"] == "quarantined")
    })
    .await;
    let reason = resting["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("over its latency budget: p99 "), "{reason}");
    let health = mesh.api.get("/health").await.ok().to_string();
    assert!(health.contains("plugin `moody` rests: over its latency budget"), "{health}");
    let answer = mesh.api.call("s", "act", json!({})).await.ok();
    assert_eq!(answer.get("routed_by"), None, "calls go on without it: {answer}");

    let file = mesh.home.path().join("meshwright.toml");
    let slow = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, slow.replace("1us", "5ms")).expect("change it");
    let other = eventually("the other budget is in force", SOON, || async {
        Some(moody(&mesh).await).filter(|plugin| plugin["state"] == "loaded")
    })
    .await;
    assert_eq!((&other["generation"], &other["budget_us"]["route"]), (&json!(2), &json!(5000.0)), "{other}");
    assert!(!mesh.api.call("s", "act", json!({})).await.ok()["routed_by"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_in_the_proxys_file_are_checked_too() {
    let config =
        "[plugins.moody]\nconfig = { share = 11 }\n[plugins.zone-balancer]\nconfig = { zoen = \"a\" }\n";
    let mesh = with_plugin(config, None).await;
    let listed = moody(&mesh).await;
    let begin = "its configuration does not fit its `config-schema` in `[plugins.moody]`: `/share`: ";
    let reason = listed["reason"].as_str().expect("a reason");
    assert!(reason.starts_with(begin) && reason.contains("maximum of 10"), "{listed}");
    let listed = mesh.api.plugin("zone-balancer").await.expect("listed");
    assert_eq!(listed["state"], "refused", "{listed}");
    assert!(listed["reason"].as_str().expect("a reason").ends_with("did you mean `zone`?"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_setting_of_a_default_plugin_is_refused_with_its_line_and_the_one_that_was_meant() {
    let names = ["tag-router", "threshold-alerts"];
    let plugins = names.map(|name| (format!("{name}.wasm"), component(name))).to_vec();
    let mesh = Mesh::start(MeshOptions { plugins, ..MeshOptions::default() }).await;
    for (name, config, expected) in [
        (
            "tag-router",
            "[[rules]]\nname = \"canary\"\npermile = 5\nforward = { tag = \"next\" }\n",
            "line 3, `/rules/0/permile`: there is no setting `permile` here; did you mean `permille`?",
        ),
        (
            "threshold-alerts",
            "\n[thresholds]\nlatencys = 3\n",
            "line 3, `/thresholds/latencys`: there is no setting `latencys` here; did you mean `latency_s`?",
        ),
    ] {
        fs::write(mesh.plugins_dir().join(format!("{name}.toml")), config).expect("write settings");
        let listed = eventually(&format!("the settings of `{name}` are refused"), SOON, || async {
            Some(mesh.api.plugin(name).await?).filter(|plugin| !plugin["refused"].is_null())
        })
        .await;
        assert_eq!(listed["state"], "loaded", "{listed}");
        let expected =
            format!("its configuration does not fit its `config-schema` in `{name}.toml`: {expected}");
        assert_eq!(listed["refused"]["reason"], expected);
    }
}

#[test]
fn a_schema_that_is_none_or_without_end_refuses_its_plugin_and_costs_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let schemas = [
        ("broken", "its `config-schema` is not JSON Schema: `/properties/mood/type`: "),
        ("explodes", "its `config-schema` cannot be checked against: it takes more than 2 s"),
    ];
    for (what, _) in schemas {
        let component = misbehaver(&format!("schema-{what}"), what, "1.0.0");
        fs::write(folder.path().join(format!("{what}.wasm")), component).expect("drop it");
    }
    fs::write(folder.path().join("moody.wasm"), misbehaver("schema", "moody", "1.0.0")).expect("drop it");
    // One that refers to itself asks for nothing, and comes to an end.
    fs::write(folder.path().join("endless.wasm"), misbehaver("schema-endless", "endless", "1.0.0"))
        .expect("drop it");
    let settings = Settings {
        folder: Some(folder.path().into()),
        workers: 1,
        compiler: Compiler::Child {
            executable: env!("CARGO_BIN_EXE_meshwright").into(),
            limits: COMPILE_LIMITS,
        },
        ..Settings::default()
    };
    let plugins = Plugins::new(settings, Arc::new(|_| {})).expect("the room");
    let started = Instant::now();
    plugins.reload(Duration::from_secs(300));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    for (what, words) in schemas {
        let listed = plugins.status().into_iter().find(|plugin| plugin.name == what).expect("listed");
        assert_eq!(listed.state, PluginState::Refused, "{what}");
        assert!(listed.reason.starts_with(words), "{what}: {}", listed.reason);
    }
    let in_force = plugins.status().into_iter().filter(|plugin| plugin.state == PluginState::Loaded).count();
    assert_eq!(in_force, 6, "the other two, and the default plugins");
}

/// What the plugin would have taken, as it says itself of what is not.
fn taken(message: &str) -> BTreeSet<String> {
    let listed = message.rsplit_once("there are ").or_else(|| message.rsplit_once("one of "));
    let (_, listed) = listed.unwrap_or_else(|| panic!("lists nothing: {message}"));
    let listed = listed.split(", not ").next().unwrap_or_default();
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The settings of an object that stands `inside` of the schema, or the words that a text may be.
fn allowed(schema: &Value, inside: &str) -> BTreeSet<String> {
    let mut at = schema;
    for segment in inside.split('/').skip(1) {
        at = if segment.parse::<usize>().is_ok() { &at["items"] } else { &at["properties"][segment] };
    }
    match &at["enum"] {
        Value::Array(words) => words.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => at["properties"].as_object().expect("settings").keys().cloned().collect(),
    }
}

#[test]
fn the_schemas_of_the_default_plugins_have_what_these_read() {
    let bench = Workbench::in_process().expect("an engine");
    for (name, wrong, places) in [
        (
            "tag-router",
            json!({"x": 1, "rules": [
                {"x": 1, "when": {"x": 1}, "forward": {"x": 1, "mirror": {"x": 1}}, "reject": {"x": 1}}
            ]}),
            6,
        ),
        ("zone-balancer", json!({"x": 1}), 1),
        (
            "threshold-alerts",
            json!({"x": 1, "disable": ["x"], "thresholds": {"x": 1},
                "rules": [{"x": 1, "aggregate": "x", "severity": "x"}]}),
            6,
        ),
        ("usage-meter", json!({"x": 1, "by": ["x"]}), 2),
    ] {
        let schema = repository().join("plugins").join(name).join("src/config.schema.json");
        let schema: Value = serde_json::from_slice(&fs::read(schema).expect("a schema")).expect("JSON");
        let component = bench.load(name, &component(name)).expect("a good component");
        // Not checked against the schema here: the plugin itself answers.
        let Err(LoadError::Configuration(complaints)) = component.instance(&wrong.to_string()) else {
            panic!("{name} takes what it does not know");
        };
        let mut listed = 0;
        for (path, message) in &complaints.issues {
            let place = path.strip_suffix("/x").unwrap_or(path);
            if place == path && !message.contains("`x`") {
                continue;
            }
            assert_eq!(allowed(&schema, place), taken(message), "{name} {path}: {message}");
            listed += 1;
        }
        assert_eq!(listed, places, "{name}: {:?}", complaints.issues);
    }
}

#[test]
fn check_looks_at_the_settings_that_lie_beside() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("moody.wasm");
    fs::write(&file, misbehaver("schema", "moody", "1.0.0")).expect("write it");
    let check = || -> Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_meshwright"));
        command.args(["plugin", "check"]).arg(&file).output().expect("run it")
    };
    let good = check();
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success() && text.contains("an empty one fits the plugin and its `config-schema`"),
        "{text}"
    );
    fs::write(file.with_extension("toml"), "\nshare = \"much\"\n").expect("write settings");
    let bad = check();
    let text = String::from_utf8_lossy(&bad.stdout).into_owned();
    let why = "in `moody.toml`: line 2, `/share`: this must be of type `integer`, not `\"much\"`";
    assert!(bad.status.code() == Some(1) && text.contains(why), "{text}");
}
