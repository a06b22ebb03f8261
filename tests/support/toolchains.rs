//! Plugins built as their authors build them: with the commands of their READMEs and the tool chains of
//! `tests/fixtures/languages`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::guests::without_foreign_variables;
use super::{Locked, npm, python, repository, target_dir};

pub struct Built {
    pub component: Vec<u8>,
    pub took: Duration,
    project: PathBuf,
    /// The third block of the README: it checks and tests the component.
    trial: String,
}

impl Built {
    /// Runs what the README says to check and test the component, and answers what was said.
    pub fn tried(&self) -> String {
        shell(&self.project, &self.trial)
    }
}

/// Builds the example in `folder` of the repository, once for each version of its sources and tools.
pub fn example(name: &str) -> Built {
    let folder = repository().join("examples").join(name);
    let mut files = read_all(&folder);
    // An example finds the contract, and what it has in common with templates, two folders above itself.
    let above = Path::new("../..");
    files.push((above.join("wit/plugin.wit"), read(&repository().join("wit/plugin.wit"))));
    for lang in ["core", "c", "go", "zig"] {
        let shared = above.join(format!("templates/{lang}/shared"));
        let named = shared.to_str().expect("a path in UTF-8");
        if files.iter().any(|(_, text)| text.contains(named)) {
            let found = read_all(&folder.join(&shared)).into_iter();
            files.extend(found.map(|(path, text)| (shared.join(path), text)));
        }
    }
    built(name, &format!("examples/{name}"), files)
}

/// Builds what `plugin new` writes under the name LANG-KIND.
pub fn template(lang: &str, kind: &str) -> Built {
    let name = format!("{lang}-{kind}");
    built(&name, &format!("templates/{name}"), scaffolded(&name, lang, kind))
}

/// Builds a router of `plugin new` with the policy and the scenarios of `tests/fixtures/languages/reach`.
pub fn reaching(lang: &str) -> Built {
    let name = format!("{lang}-reach");
    let mut files = scaffolded(&name, lang, "router");
    for (path, text) in &mut files {
        let other = pins().join("reach").join(path.file_name().expect("a file"));
        if other.exists() {
            *text = read(&other);
        }
    }
    built(&name, &format!("templates/{name}"), files)
}

fn scaffolded(name: &str, lang: &str, kind: &str) -> Vec<(PathBuf, String)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command.args(["plugin", "new", name, "--lang", lang, "--kind", kind, "--dir"]).arg(folder.path());
    let output = command.output().expect("run the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_all(folder.path())
}

fn built(name: &str, place: &str, files: Vec<(PathBuf, String)>) -> Built {
    let place = target_dir().join("languages").join(place);
    let readme = &files.iter().find(|(path, _)| path == Path::new("README.md")).expect("a README").1;
    let blocks = blocks(readme);
    let trial = blocks.get(2).cloned().unwrap_or_default();
    let _lock = Locked::at(&place.with_extension("lock"));
    let (file, stamp) = (place.join(format!("{name}.wasm")), place.join("built"));
    let digest = digest(&files);
    let kept = fs::read_to_string(&stamp).ok();
    let kept =
        kept.and_then(|text| text.strip_prefix(&digest)?.trim().parse().ok()).map(Duration::from_millis);
    let took = kept.unwrap_or_else(|| {
        let tools = Tools::installed();
        drop(fs::remove_dir_all(&place));
        for (path, text) in &files {
            let path = place.join(path);
            fs::create_dir_all(path.parent().expect("a file in a folder")).expect("create the folder");
            fs::write(path, text).expect("write a source");
        }
        std::os::unix::fs::symlink(tools.node_modules, place.join("node_modules"))
            .expect("link the packages");
        let start = Instant::now();
        shell(&place, &blocks[1]);
        let took = start.elapsed();
        fs::write(&stamp, format!("{digest} {}", took.as_millis())).expect("write the stamp");
        took
    });
    let component = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Built { component, took, project: place, trial }
}

/// Runs `commands` where the tools and `meshwright` are found, and answers what they said.
fn shell(folder: &Path, commands: &str) -> String {
    let mut shell = Command::new("sh");
    without_foreign_variables(&mut shell);
    let output = shell
        .current_dir(folder)
        .env("PATH", Tools::installed().path)
        .args(["-euc", commands])
        .stdin(Stdio::null())
        .output()
        .expect("run a shell");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {}\n{commands}\n{said}", folder.display(), output.status);
    said
}

/// The tools that a project in `folder` of the repository wants, as `name==version` and `name@version`.
pub fn tools_of(folder: &str) -> Vec<String> {
    let folder = repository().join(folder);
    let blocks = blocks(&read(&folder.join("README.md")));
    let commands = &blocks[0];
    let mut tools: Vec<_> =
        commands.split_whitespace().filter(|word| word.contains("==")).map(str::to_owned).collect();
    let mut package = folder.join("package.json");
    if !package.exists() && blocks[1].contains("component.mjs") {
        package = repository().join("templates/core/shared/package.json");
    }
    assert_eq!(commands.contains("npm install\n"), package.exists(), "{commands}");
    if package.exists() {
        tools.extend(packages(&package, "devDependencies"));
    }
    tools
}

/// All that the README in `folder` says to run until the component is checked and tested.
pub fn commands_of(folder: &str) -> Vec<String> {
    let blocks = blocks(&read(&repository().join(folder).join("README.md")));
    blocks[..3].concat().lines().map(str::to_owned).collect()
}

/// Every pinned tool, as `name==version` and `name@version`.
pub fn pinned() -> Vec<String> {
    let requirements = read(&pins().join("requirements.txt"));
    let packages = packages(&pins().join("package.json"), "dependencies");
    requirements.lines().map(str::to_owned).chain(packages).collect()
}

fn packages(file: &Path, key: &str) -> Vec<String> {
    let package: serde_json::Value = serde_json::from_str(&read(file)).expect("package.json is JSON");
    let packages = package[key].as_object().expect("packages").iter();
    packages.map(|(name, version)| format!("{name}@{}", version.as_str().expect("a version"))).collect()
}

fn digest(files: &[(PathBuf, String)]) -> String {
    let mut digest = Sha256::new();
    for (path, text) in files {
        digest.update(format!("{} {} {text}", path.display(), text.len()));
    }
    for file in ["package-lock.json", "requirements.txt"] {
        digest.update(read(&pins().join(file)));
    }
    hex::encode(digest.finalize())
}

/// Every source in `folder`, with its path in there.
fn read_all(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    paths.sort();
    let inside = |path: &Path| path.strip_prefix(folder).expect("inside").to_owned();
    paths.iter().map(|path| (inside(path), read(path))).collect()
}

/// What lies there of built things, in a folder that someone has worked in, is no source.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_built = ["node_modules", "package-lock.json", "__pycache__", ".venv"].contains(&&*name);
        if is_built || name.ends_with(".wasm") {
            continue;
        }
        match entry.path() {
            path if path.is_dir() => walk(&path, found),
            path => found.push(path),
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first block of a README installs tools, the second builds, and a template's third tries what was built.
fn blocks(readme: &str) -> Vec<String> {
    let blocks: Vec<_> = readme
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect();
    assert!(blocks.len() >= 2, "tools and build:\n{readme}");
    blocks
}

fn pins() -> PathBuf {
    repository().join("tests/fixtures/languages")
}

struct Tools {
    path: String,
    node_modules: PathBuf,
}

impl Tools {
    fn installed() -> Self {
        let packages = npm::installed_with_native_parts("languages");
        let interpreter = python::languages_python();
        let mut path = String::new();
        for program in [interpreter.as_path(), &packages.node, Path::new(env!("CARGO_BIN_EXE_meshwright"))] {
            match program.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => {
                    write!(path, "{}:", folder.display()).expect("write to text");
                }
                _ => {}
            }
        }
        path.push_str(&std::env::var("PATH").expect("a path"));
        Self { path, node_modules: packages.modules() }
    }
}
