//! A plugins folder in which everything happens that can happen to files: calls go on, and what lies there in the
//! end is in force.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::guests::{drop_in, misbehaver, sha256};
use support::{Callers, Mesh, RawUpstream, SOON, Value, eventually, json};

const GROWTH_KIB_MAX: u64 = 64 << 10;

async fn scene() -> (Mesh, RawUpstream) {
    let mesh = Mesh::plain().await;
    let upstream = RawUpstream::plain().await;
    mesh.api.join("s", upstream.port).await;
    (mesh, upstream)
}

fn link(folder: &Path, to: &Path, name: &str) {
    let unfinished = folder.join(".link");
    symlink(to, &unfinished).expect("make a link");
    fs::rename(unfinished, folder.join(name)).expect("swap the link");
}

fn is_of(plugin: &Value, file: &str) -> bool {
    plugin["source"].as_str().is_some_and(|source| source.ends_with(&format!("/{file}")))
}

async fn decides(mesh: &Mesh, why: &str) {
    eventually(&format!("`{why}` decides"), 2 * SOON, || async {
        (mesh.api.call("s", "act", json!({})).await.ok()["why"] == why).then_some(())
    })
    .await;
}

async fn listed(mesh: &Mesh, file: &str) -> Option<Value> {
    let page = mesh.api.get("/plugins").await.ok();
    page["plugins"].as_array().expect("plugins").iter().find(|plugin| is_of(plugin, file)).cloned()
}

/// No call failed, nothing panicked, and memory is given back.
async fn assert_unharmed(mesh: &Mesh, callers: Callers, before_kib: u64) {
    let calls = callers.stop().await;
    assert!(calls > 100, "only {calls} calls");
    let after = eventually("its memory is given back", 2 * SOON, || async {
        let now = mesh.resident_kib();
        (now < before_kib + GROWTH_KIB_MAX).then_some(now)
    })
    .await;
    eprintln!("{calls} calls; {before_kib} KiB, then {after} KiB");
    assert!(!mesh.log().contains("panicked"), "the host panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_swapped_all_the_time_ends_at_what_it_points_to() {
    let (mesh, _upstream) = scene().await;
    let (folder, elsewhere) = (mesh.plugins_dir(), mesh.home.path().join("elsewhere"));
    fs::create_dir(&elsewhere).expect("a folder beside");
    fs::write(elsewhere.join("one"), misbehaver("answer", "linked", "1.0.0")).expect("write");
    fs::write(elsewhere.join("two"), misbehaver("answer", "linked", "2.0.0")).expect("write");
    fs::write(elsewhere.join("broken"), b"no component").expect("write");
    let places = ["one", "two", "broken", "gone", "."].map(|name| elsewhere.join(name));
    let strange = [Path::new("/dev/zero"), Path::new("/proc/self/mem"), Path::new("linked.wasm")];
    link(&folder, &places[0], "linked.wasm");
    decides(&mesh, "linked 1.0.0").await;

    let (callers, before) = (Callers::start(&mesh.api, 2, "s", "act"), mesh.resident_kib());
    let begun = Instant::now();
    let targets = places.iter().map(|place| place.as_path()).chain(strange);
    for target in targets.cycle().take_while(|_| begun.elapsed() < Duration::from_secs(6)) {
        link(&folder, target, "linked.wasm");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    link(&folder, &places[1], "linked.wasm");
    decides(&mesh, "linked 2.0.0").await;
    // What the link points to may change, too.
    drop_in(&elsewhere, "two", &misbehaver("answer", "linked", "3.0.0"));
    link(&folder, &places[1], "linked.wasm");
    decides(&mesh, "linked 3.0.0").await;
    assert_unharmed(&mesh, callers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_harms_nobody_else() {
    let (mesh, _upstream) = scene().await;
    let whole = misbehaver("nothing", "flipped", "1.0.0");
    drop_in(&mesh.plugins_dir(), "a.wasm", &misbehaver("answer", "steady", "1.0.0"));
    decides(&mesh, "steady 1.0.0").await;
    let (callers, before) = (Callers::start(&mesh.api, 2, "s", "act_read_only"), mesh.resident_kib());
    // Spread over all of the file, and dense in its head.
    let places = (0..12).map(|at| at * 3).chain((1..30).map(|at| at * whole.len() / 30));
    let mut kept_out = 0;
    for (round, at) in places.enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        drop_in(&mesh.plugins_dir(), "b.wasm", &bytes);
        let sha = sha256(&bytes);
        let plugin = eventually(&format!("bit {} of byte {at} is noticed", round % 8), 2 * SOON, || async {
            let plugin = listed(&mesh, "b.wasm").await?;
            let is_this = plugin["sha256"] == sha.as_str() || plugin["refused"]["sha256"] == sha.as_str();
            (is_this && plugin["state"] != "building").then_some(plugin)
        })
        .await;
        kept_out += usize::from(plugin["state"] == "refused" || plugin["refused"] != Value::Null);
        // The flipped one may decide, too, if it is asked first and its answer is a good one.
        mesh.api.call("s", "act", json!({})).await.ok();
    }
    eprintln!("{kept_out} of 41 were kept out");
    assert!(kept_out > 10, "a checked format: {kept_out}");
    fs::remove_file(mesh.plugins_dir().join("b.wasm")).expect("take it away");
    decides(&mesh, "steady 1.0.0").await;
    assert_unharmed(&mesh, callers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_slowly_comes_into_force_whole() {
    let (mesh, _upstream) = scene().await;
    let folder = mesh.plugins_dir();
    drop_in(&folder, "grows.wasm", &misbehaver("answer", "grows", "1.0.0"));
    decides(&mesh, "grows 1.0.0").await;
    let (callers, before) = (Callers::start(&mesh.api, 2, "s", "act"), mesh.resident_kib());
    let bytes = misbehaver("answer", "grows", "2.0.0");
    for step in 0..=40 {
        fs::write(folder.join("grows.wasm"), &bytes[..bytes.len() * step / 40]).expect("write in place");
        // Now shorter, now longer than what is taken for the end of the writing.
        tokio::time::sleep(Duration::from_millis(if step % 10 == 9 { 500 } else { 40 })).await;
        let plugin = mesh.api.plugin("grows").await.expect("listed");
        let version = plugin["version"].as_str().expect("a version");
        assert!(version == "1.0.0" || (version == "2.0.0" && step == 40), "step {step}: {plugin}");
    }
    decides(&mesh, "grows 2.0.0").await;
    assert_unharmed(&mesh, callers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_renamings_ends_with_what_lies_there() {
    let (mesh, _upstream) = scene().await;
    let folder = mesh.plugins_dir();
    let names = ["v.wasm", "w.wasm", "x.wasm", "y.wasm.tmp", "z"];
    drop_in(&folder, names[0], &misbehaver("answer", "renamed", "1.0.0"));
    drop_in(&folder, "other.wasm", &misbehaver("nothing", "other", "1.0.0"));
    decides(&mesh, "renamed 1.0.0").await;
    let (callers, before) = (Callers::start(&mesh.api, 2, "s", "act"), mesh.resident_kib());
    let (begun, mut at, mut renamed) = (Instant::now(), 0, 0_u32);
    while begun.elapsed() < Duration::from_secs(8) {
        let to = (at + 1 + renamed as usize % 3) % names.len();
        fs::rename(folder.join(names[at]), folder.join(names[to])).expect("rename");
        at = to;
        renamed += 1;
        if renamed % 50 == 0 {
            // A neighbour that changes its place with it.
            fs::rename(folder.join("other.wasm"), folder.join("swap")).expect("rename");
            tokio::time::sleep(Duration::from_millis(3)).await;
            fs::rename(folder.join("swap"), folder.join("other.wasm")).expect("rename back");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fs::rename(folder.join(names[at]), folder.join("w.wasm")).expect("rename");
    decides(&mesh, "renamed 1.0.0").await;
    eventually("each file is listed once, under its name", SOON, || async {
        let page = mesh.api.get("/plugins").await.ok();
        let from = page["plugins"]
            .as_array()
            .expect("plugins")
            .iter()
            .filter_map(|plugin| plugin["source"].as_str());
        let mut files: Vec<&str> = from.filter_map(|from| from.strip_prefix(folder.to_str()?)).collect();
        files.sort_unstable();
        (files == ["/other.wasm", "/w.wasm"]).then_some(())
    })
    .await;
    eprintln!("{renamed} renamings");
    assert_unharmed(&mesh, callers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn things_that_are_no_plugins_keep_nobody_waiting() {
    let (mesh, _upstream) = scene().await;
    let folder = mesh.plugins_dir();
    let (callers, before) = (Callers::start(&mesh.api, 2, "s", "act"), mesh.resident_kib());
    let pipe = |name: &str| {
        mknodat(CWD, folder.join(name), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("make a pipe");
    };
    pipe("pipe.wasm");
    pipe("good.toml");
    fs::create_dir(folder.join("folder.wasm")).expect("make a folder");
    symlink("loop.wasm", folder.join("loop.wasm")).expect("make a loop");
    symlink("/dev/urandom", folder.join("endless.wasm")).expect("link to a device");
    let huge = File::create(folder.join("huge.wasm")).expect("create");
    huge.set_len(1 << 40).expect("a hole of 1 TiB");
    let settings = File::create(folder.join("vast.toml")).expect("create");
    settings.set_len(1 << 40).expect("a hole of 1 TiB");
    fs::write(folder.join("vast.wasm"), misbehaver("answer", "vast", "1.0.0")).expect("write");
    fs::write(folder.join(OsStr::from_bytes(b"\xff\xfe.wasm")), b"x").expect("a name that is no text");
    fs::write(folder.join(format!("{}.wasm", "n".repeat(250))), b"x").expect("a long name");
    fs::write(folder.join("line\nbreak \x1b[31m.wasm"), b"x").expect("a name with controls");
    fs::write(folder.join("empty.wasm"), b"").expect("write");
    drop_in(&folder, "good.wasm", &misbehaver("answer", "good", "1.0.0"));
    decides(&mesh, "good 1.0.0").await;

    for (file, words) in [("huge.wasm", "64 MiB"), ("vast.wasm", "1 MiB"), ("empty.wasm", "empty")] {
        let plugin = eventually(&format!("{file:?} is refused"), SOON, || async {
            listed(&mesh, file).await.filter(|plugin| plugin["state"] == "refused")
        })
        .await;
        assert!(plugin["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{plugin}");
    }
    let log = mesh.log();
    assert!(!log.contains('\x1b') && !log.contains("line\nbreak"), "a file's name forges no line of the log");
    assert_unharmed(&mesh, callers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_may_write_is_not_loaded_and_a_folder_of_that_kind_is_complained_about() {
    let (mesh, _upstream) = scene().await;
    let folder = mesh.plugins_dir();
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("change who may write it");
    };
    let file = folder.join("open.wasm");
    drop_in(&folder, "open.wasm", &misbehaver("answer", "open", "1.0.0"));
    decides(&mesh, "open 1.0.0").await;
    let unfinished = folder.join(".open.tmp");
    fs::write(&unfinished, misbehaver("answer", "open", "1.1.0")).expect("write the plugin");
    chmod(&unfinished, 0o666);
    fs::rename(&unfinished, &file).expect("rename the plugin");
    let why = "everybody may write `open.wasm`, so it is not loaded";
    let plugin = eventually("it is refused", SOON, || async {
        listed(&mesh, "open.wasm").await.filter(|plugin| plugin["refused"].is_object())
    })
    .await;
    assert!(plugin["refused"]["reason"].as_str().is_some_and(|reason| reason.starts_with(why)), "{plugin}");
    decides(&mesh, "open 1.0.0").await;
    let reasons = async || mesh.api.get("/health").await.ok()["reasons"].to_string();
    assert!(reasons().await.contains(why), "{}", reasons().await);
    chmod(&file, 0o664);
    decides(&mesh, "open 1.1.0").await;
    fs::write(file.with_extension("toml"), "").expect("write its configuration");
    chmod(&file.with_extension("toml"), 0o646);
    eventually("it is refused for its configuration", SOON, || async {
        reasons().await.contains("everybody may write `open.toml`").then_some(())
    })
    .await;
    fs::remove_file(file.with_extension("toml")).expect("take it away");

    let complaint = "everybody may put plugins into `";
    for (mode, is_complained_about) in [(0o777, true), (0o1777, false), (0o757, true), (0o755, false)] {
        chmod(&folder, mode);
        eventually(&format!("{mode:o}: {is_complained_about}"), 4 * SOON, || async {
            (reasons().await.contains(complaint) == is_complained_about).then_some(())
        })
        .await;
        decides(&mesh, "open 1.1.0").await;
    }
    assert_eq!(mesh.log().matches(complaint).count(), 2, "each time once");
}
