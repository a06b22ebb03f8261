//! Where plugins' machine code comes from: a child with limits, and a cache that only believes its own signature.

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meshwright::plugin::{COMPILE_LIMITS, Compiler, Limits, Plugins, Settings};
use meshwright::policy::status::{Origin, PluginState, PluginStatus};
use support::guests::{drop_in, misbehaver};
use support::{Callers, Mesh, MeshOptions, RawUpstream, SOON, Value, eventually, json};

/// By plugin name: how its code was made.
async fn codes(mesh: &Mesh) -> Vec<(String, Value)> {
    let listing = mesh.api.get("/plugins").await.ok();
    let plugins = listing["plugins"].as_array().expect("plugins");
    assert!(plugins.iter().all(|plugin| plugin["state"] == "loaded"), "{listing}");
    plugins
        .iter()
        .map(|plugin| {
            assert!(plugin["code_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{plugin}");
            (plugin["name"].as_str().expect("a name").to_owned(), plugin["code"].clone())
        })
        .collect()
}

async fn stop_and_start(mesh: &mut Mesh) -> Duration {
    assert!(mesh.terminate().await.success());
    let started = Instant::now();
    mesh.restart().await;
    started.elapsed()
}

fn cached(mesh: &Mesh) -> Vec<PathBuf> {
    let entries = fs::read_dir(mesh.data_dir().join("cache")).expect("the cache");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_compiles_nothing_and_believes_no_changed_file() {
    let plugins = vec![("good.wasm".to_owned(), misbehaver("answer", "good", "1.0.0"))];
    let started = Instant::now();
    let mut mesh = Mesh::start(MeshOptions { plugins, ..MeshOptions::default() }).await;
    let without = started.elapsed();
    let first = codes(&mesh).await;
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.iter().all(|(_, code)| code == "compiled"), "{first:?}");
    let files = cached(&mesh);
    assert_eq!(files.len(), 5, "{files:?}");

    let with = stop_and_start(&mut mesh).await;
    let second = codes(&mesh).await;
    assert!(second.iter().all(|(_, code)| code == "cached"), "{second:?}");
    eprintln!("a start takes {without:?} without the cache and {with:?} with it");

    // One bit of the code is another, and one file is another's.
    let mut bytes = fs::read(&files[0]).expect("read it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&files[0], bytes).expect("change it");
    fs::copy(&files[2], &files[1]).expect("exchange it");
    stop_and_start(&mut mesh).await;
    let third = codes(&mesh).await;
    let compiled = third.iter().filter(|(_, code)| code == "compiled").count();
    assert_eq!(compiled, 2, "{third:?}");
    assert_eq!(mesh.log().matches("is not what was put there").count(), 2, "{}", mesh.log());
    stop_and_start(&mut mesh).await;
    assert!(codes(&mesh).await.iter().all(|(_, code)| code == "cached"), "what was compiled anew is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_well_where_nothing_can_be_cached() {
    let home = support::mesh::home("");
    fs::create_dir(home.path().join("data")).expect("make the data folder");
    fs::write(home.path().join("data/cache"), b"in the way").expect("put a file there");
    let mesh = Mesh::start_in(home, Vec::new()).await;
    assert!(codes(&mesh).await.iter().all(|(_, code)| code == "compiled"));
    assert!(mesh.log().contains("plugins are compiled at each start"), "{}", mesh.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_in_the_plugins_folder_is_never_loaded() {
    let mut mesh = Mesh::plain().await;
    let code = fs::read(&cached(&mesh)[0]).expect("read some code");
    fs::write(mesh.plugins_dir().join("a.cwasm"), &code).expect("drop it");
    fs::write(mesh.plugins_dir().join("b.wasm"), &code).expect("drop it under another name");
    // Without the header that the cache puts before it.
    fs::write(mesh.plugins_dir().join("c.wasm"), &code[48..]).expect("drop what the compiler made");
    assert!(mesh.terminate().await.success());
    mesh.restart().await;
    assert_eq!(mesh.api.plugin("a").await, None);
    for name in ["b", "c"] {
        let plugin = mesh.api.plugin(name).await.expect("listed");
        assert_eq!((&plugin["state"], &plugin["code"]), (&json!("refused"), &Value::Null), "{plugin}");
        assert_eq!(plugin["reason"], "it is not WebAssembly");
    }
}

/// A good plugin, and beside its code so much more that compiling it takes long.
fn bomb() -> Vec<u8> {
    const FUNCTIONS: u8 = 60;
    let mut body = vec![0];
    for step in 0u32..30_000 {
        let place = |by: u32| u8::try_from((step * by) % 64).expect("under 64");
        // memory[a] = memory[b] * memory[c], which nothing can be folded of.
        body.extend([0x41, place(7), 0x41, place(13), 0x28, 2, place(3), 0x41, place(11), 0x28, 2, place(5)]);
        body.extend([0x6c, 0x36, 2, place(17)]);
    }
    body.push(0x0b);
    let mut code = vec![FUNCTIONS];
    for _ in 0..FUNCTIONS {
        sized(&mut code, &body);
    }
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
    let mut functions = vec![FUNCTIONS];
    functions.extend([0; FUNCTIONS as usize]);
    module.push(3);
    sized(&mut module, &functions);
    module.extend([5, 3, 1, 0, 1, 10]);
    sized(&mut module, &code);
    let mut component = misbehaver("answer", "bomb", "1.0.0");
    component.push(1);
    sized(&mut component, &module);
    component
}

/// Appends the length as unsigned LEB128, and `bytes`.
fn sized(to: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes.len();
    while rest >= 0x80 {
        to.push(u8::try_from(rest & 0x7f).expect("7 bits") | 0x80);
        rest >>= 7;
    }
    to.push(u8::try_from(rest).expect("7 bits"));
    to.extend(bytes);
}

fn listed(plugins: &Plugins, name: &str) -> PluginStatus {
    let found = plugins.status().into_iter().find(|plugin| plugin.name == name);
    found.unwrap_or_else(|| panic!("`{name}` is not listed: {:?}", plugins.status()))
}

#[test]
fn a_compilation_that_wants_too_much_refuses_its_plugin_and_harms_no_other() {
    let usual = COMPILE_LIMITS;
    let limits = [
        (Limits { cpu: Duration::from_secs(1), ..usual }, "longer than 1 s"),
        // Enough for the good one on a machine that others use.
        (Limits { wall: Duration::from_secs(8), ..usual }, "longer than 8 s"),
        (Limits { memory_bytes: 256 << 20, ..usual }, "more than 256 MiB"),
    ];
    for (limits, words) in limits {
        let folder = tempfile::tempdir().expect("a folder");
        let good = misbehaver("answer", "good", "1.0.0");
        fs::write(folder.path().join("bomb.wasm"), bomb()).expect("drop the bomb");
        fs::write(folder.path().join("good.wasm"), &good).expect("drop a good one");
        let settings = Settings {
            folder: Some(folder.path().into()),
            workers: 1,
            compiler: Compiler::Child { executable: env!("CARGO_BIN_EXE_meshwright").into(), limits },
            ..Settings::default()
        };
        let plugins = Plugins::new(settings, Arc::new(|_| {})).expect("the room");
        let started = Instant::now();
        plugins.reload(Duration::from_secs(300));
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        let bomb = listed(&plugins, "bomb");
        assert_eq!(bomb.state, PluginState::Refused);
        assert!(bomb.reason.contains(words), "{limits:?}: {}", bomb.reason);
        let good = listed(&plugins, "good");
        assert_eq!(good.state, PluginState::Loaded, "{}", good.reason);
        assert_eq!(good.made.map(|made| made.origin), Some(Origin::Compiled));
        let again = Instant::now();
        plugins.reload(Duration::from_secs(300));
        assert!(again.elapsed() < Duration::from_millis(900), "what was too much once is not tried again");
    }
}

#[test]
fn a_compiler_that_cannot_be_started_is_said_to_be_so() {
    let (built, patience) = (Arc::new(AtomicUsize::new(0)), Duration::from_secs(300));
    let count = Arc::clone(&built);
    let settings = Settings {
        workers: 1,
        compiler: Compiler::Child { executable: "/nowhere/meshwright".into(), limits: COMPILE_LIMITS },
        built: Some(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..Settings::default()
    };
    let plugins = Plugins::new(settings, Arc::new(|_| {})).expect("the room");
    for _ in 0..3 {
        plugins.reload(patience);
        let refused = listed(&plugins, "tag-router");
        assert_eq!(refused.reason, "no process could be started to compile it: entity not found");
    }
    assert_eq!(
        built.load(Ordering::Relaxed),
        4,
        "each default plugin is tried once, and again after a while"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_to_compile_holds_up_neither_the_start_nor_other_plugins_nor_orders() {
    let mut mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    let callers = Callers::start(&mesh.api, 2, "s", "act");
    drop_in(&mesh.plugins_dir(), "bomb.wasm", &bomb());
    let is_building =
        async |mesh: &Mesh| mesh.api.plugin("bomb").await.filter(|bomb| bomb["state"] == "building");
    eventually("the bomb is being compiled", SOON, || is_building(&mesh)).await;

    drop_in(&mesh.plugins_dir(), "good.wasm", &misbehaver("answer", "good", "1.0.0"));
    eventually("the good one decides meanwhile", SOON, || async {
        (mesh.api.call("s", "act", json!({})).await.ok()["why"] == "good 1.0.0").then_some(())
    })
    .await;
    let off = mesh.api.post("/api/v1/plugins/good/enabled", &json!({"enabled": false})).await.ok();
    assert_eq!(off["state"], "disabled", "{off}");
    is_building(&mesh).await.expect("it is still being compiled");
    assert!(callers.stop().await > 0);

    mesh.terminate().await;
    mesh.restart_at_once().await;
    is_building(&mesh).await.expect("it is compiled again, and the proxy serves");
    assert_eq!(mesh.api.plugin("tag-router").await.expect("a default plugin")["state"], "loaded");
    assert_eq!(mesh.api.plugin("good").await.expect("listed")["state"], "disabled", "its code was kept");
}
