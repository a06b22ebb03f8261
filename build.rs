//! Builds the default plugins to components and writes `embedded.rs`, which puts them into the program, and
//! `templates.rs`, which does so with the projects that authors start from.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip2";
const PLUGINS: [&str; 4] = ["tag-router", "zone-balancer", "threshold-alerts", "usage-meter"];

/// What the native build sets and a component must not inherit.
const FOREIGN: [&str; 5] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];
const FOREIGN_PREFIXES: [&str; 3] = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_WASM32_"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch(&root);
    for plugin in PLUGINS {
        let manifest = root.join("plugins").join(plugin).join("Cargo.toml");
        if !manifest.is_file() {
            return Err(format!("the default plugin `{plugin}` is missing: no {}", manifest.display()));
        }
    }
    have_target()?;
    let target_dir = out.join("plugins");
    build(&root, &target_dir)?;
    embed(&out, &target_dir.join(TARGET).join("plugin"))?;
    embed_templates(&root.join("templates"), &out)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set `{name}`"))
}

/// Not the whole of `plugins/`: components are dropped there while the program runs.
fn watch(root: &Path) {
    let own = ["build.rs", "wit/plugin.wit", "Cargo.toml", "Cargo.lock", "plugins/sdk", "templates"]
        .map(PathBuf::from);
    let crates = PLUGINS.map(|plugin| Path::new("plugins").join(plugin));
    for path in own.iter().chain(&crates) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
}

/// Adds the target where rustup can; some machines do not install what `rust-toolchain.toml` lists.
fn have_target() -> Result<(), String> {
    if has_target()? {
        return Ok(());
    }
    println!("cargo::warning=the target {TARGET} is missing, adding it with `rustup target add {TARGET}`");
    let added = Command::new("rustup").args(["target", "add", TARGET]).output();
    match added {
        Ok(output) if output.status.success() && has_target()? => Ok(()),
        Ok(output) => Err(format!(
            "the default plugins need the target {TARGET}, and `rustup target add {TARGET}` failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(_) => Err(format!(
            "the default plugins need the standard library for {TARGET}, and there is no rustup to add it; \
             install it with what provides your Rust, for example the package `rust-std-{TARGET}`"
        )),
    }
}

fn has_target() -> Result<bool, String> {
    let output = Command::new(variable("RUSTC")?)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("rustc could not be run: {error}"))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

/// With a target folder of its own, since the cargo that runs this script holds the lock of the other.
fn build(root: &Path, target_dir: &Path) -> Result<(), String> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(root).args(["build", "--profile", "plugin", "--target", TARGET, "--target-dir"]);
    cargo.arg(target_dir);
    for plugin in PLUGINS {
        cargo.args(["-p", plugin]);
    }
    for (name, _) in env::vars_os() {
        let is_foreign = name.to_str().is_some_and(|name| {
            FOREIGN.contains(&name) || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        });
        if is_foreign {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cargo could not be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("the default plugins could not be built:\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn embed(out: &Path, components: &Path) -> Result<(), String> {
    let mut source = String::from("pub static EMBEDDED: &[(&str, &[u8])] = &[\n");
    for plugin in PLUGINS {
        let component = components.join(plugin.replace('-', "_")).with_extension("wasm");
        if !component.is_file() {
            return Err(format!("building the plugin `{plugin}` left no {}", component.display()));
        }
        writeln!(source, "    ({plugin:?}, include_bytes!({component:?})),")
            .map_err(|error| error.to_string())?;
    }
    source.push_str("];\n");
    fs::write(out.join("embedded.rs"), source)
        .map_err(|error| format!("embedded.rs could not be written: {error}"))
}

/// Each file of `templates/LANG/KIND/` and `templates/LANG/shared/` with its path in there.
fn embed_templates(folder: &Path, out: &Path) -> Result<(), String> {
    let mut source = String::from("pub static TEMPLATES: &[(&str, &str, &str, &[u8])] = &[\n");
    for lang in entries(folder)? {
        for kind in entries(&lang)? {
            let mut unread = vec![kind.clone()];
            while let Some(path) = unread.pop() {
                if path.is_dir() {
                    unread.extend(entries(&path)?);
                    continue;
                }
                let inside = path.strip_prefix(&kind).map_err(|error| error.to_string())?;
                let (lang, kind) = (last(&lang), last(&kind));
                writeln!(source, "    ({lang:?}, {kind:?}, {inside:?}, include_bytes!({path:?})),")
                    .map_err(|error| error.to_string())?;
            }
        }
    }
    source.push_str("];\n");
    fs::write(out.join("templates.rs"), source)
        .map_err(|error| format!("templates.rs could not be written: {error}"))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut entries = read().map_err(|error| format!("{}: {error}", folder.display()))?;
    entries.sort();
    Ok(entries)
}

fn last(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
