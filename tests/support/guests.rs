//! Components, built once, and copies of the misbehaver that do as they are told.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::{Locked, repository, target_dir};

const TARGET: &str = "wasm32-wasip2";

/// Builds a guest crate of this workspace and answers the component.
pub fn component(package: &str) -> Vec<u8> {
    built(&repository(), &["--profile", "plugin", "-p", package], &format!("plugin/{package}"))
}

/// The component of every kind that the unit tests of `host/plugin` use, with one of the behaviours in its source.
pub fn contrarian(behaviour: &str) -> Vec<u8> {
    const MARK: &[u8] = b"@@CONTRARIAN@@n";
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let folder = repository().join("host/plugin/tests/guest");
    let mut wasm = BUILT.get_or_init(|| built(&folder, &["--release"], "release/contrarian")).clone();
    let marker = format!("{:64}", format!("@@CONTRARIAN@@{behaviour}"));
    let at =
        wasm.windows(MARK.len()).position(|window| window == MARK).expect("the marker is in the component");
    wasm[at..at + marker.len()].copy_from_slice(marker.as_bytes());
    wasm
}

fn built(workspace: &Path, args: &[&str], file: &str) -> Vec<u8> {
    // A folder of its own: the cargo that runs the tests may hold the lock of the usual one.
    let folder = target_dir().join("test-components");
    let _lock = Locked::at(&target_dir().join("test-components.lock"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    without_foreign_variables(&mut cargo);
    let output = cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--target", TARGET])
        .args(args)
        .arg("--target-dir")
        .arg(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("run cargo");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let file = folder.join(TARGET).join(format!("{}.wasm", file.replace('-', "_")));
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Removes what the native build sets and a component must not inherit.
pub fn without_foreign_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];
        let prefixes = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PKG_", "CARGO_MANIFEST_"];
        if foreign.contains(&&*text) || prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// The misbehaver of `tests/components/misbehaver` with that behaviour, name and version.
pub fn misbehaver(doing: &str, name: &str, version: &str) -> Vec<u8> {
    patched(&format!("name={name};version={version};do={doing}"))
}

/// One that misbehaves for calls of the tool `only`, and passes all others.
pub fn misbehaver_only(doing: &str, name: &str, version: &str, only: &str) -> Vec<u8> {
    patched(&format!("name={name};version={version};do={doing};only={only}"))
}

fn patched(text: &str) -> Vec<u8> {
    const MARK: &[u8] = b"@@MISBEHAVE@@";
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut wasm = BUILT.get_or_init(|| component("misbehaver")).clone();
    let mut places = wasm.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let (at, _) = places.next().expect("the marker is in the component");
    assert!(places.next().is_none(), "the marker is there once");
    let marker = format!("{:128}", format!("@@MISBEHAVE@@{text};"));
    assert_eq!(marker.len(), 128, "115 bytes are all there is: {text}");
    wasm[at..at + 128].copy_from_slice(marker.as_bytes());
    wasm
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Puts a plugin into the folder as careful tools do: under another name first.
pub fn drop_in(folder: &Path, file: &str, bytes: &[u8]) {
    let unfinished = folder.join(format!(".{file}.tmp"));
    fs::write(&unfinished, bytes).expect("write the plugin");
    fs::rename(unfinished, folder.join(file)).expect("rename the plugin");
}
