//! A plugin's own settings: checked against its schema before it sees them, changed while it runs, never half.

mod support;

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwright::plugin::{COMPILE_LIMITS, Compiler, Plugins, Settings};
use meshwright::policy::status::PluginState;
use support::guests::misbehaver;
use support::{Mesh, MeshOptions, SOON, Value, eventually, json};

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
    plugins.reload();
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    for (what, words) in schemas {
        let listed = plugins.status().into_iter().find(|plugin| plugin.name == what).expect("listed");
        assert_eq!(listed.state, PluginState::Refused, "{what}");
        assert!(listed.reason.starts_with(words), "{what}: {}", listed.reason);
    }
    let in_force = plugins.status().into_iter().filter(|plugin| plugin.state == PluginState::Loaded).count();
    assert_eq!(in_force, 6, "the other two, and the default plugins");
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
