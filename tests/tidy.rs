//! Rules of the house that a machine can check: who may name what, how large a file may be, what never appears.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use meshwright::mesh::observe::EVENT_KINDS;

struct Source {
    /// Relative to the repository, such as `host/mesh/ids.rs`.
    path: String,
    /// Without comments and tests.
    code: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        let inside = self.path.trim_start_matches("host/");
        inside.split_once('/').map_or(inside.trim_end_matches(".rs"), |(room, _)| room)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines of code in which `word` appears as a word, with their numbers' text.
    fn lines_with(&self, word: &str) -> Vec<&str> {
        self.code.lines().filter(|line| has_word(line, word)).collect()
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn host() -> Vec<Source> {
    let mut paths = Vec::new();
    walk(&repository().join("host"), "rs", &mut paths);
    assert!(paths.len() > 20, "the host was not found");
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("read a source file");
            let path = path.strip_prefix(repository()).expect("inside").to_string_lossy().replace('\\', "/");
            let without_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = without_tests.lines().map(|line| line.split("//").next().unwrap_or_default());
            let code = code.collect::<Vec<_>>().join("\n");
            Source { path, code, text }
        })
        .collect()
}

/// Fails with every offence at once.
#[track_caller]
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// Where `words` appear in sources that `guilty` picks.
fn appearances(words: &[&str], guilty: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in host().iter().filter(|source| guilty(source)) {
        for word in words {
            let lines = source.lines_with(word).into_iter();
            found.extend(lines.map(|line| format!("{}: `{word}`: {}", source.path, line.trim())));
        }
    }
    found
}

#[test]
fn each_technology_is_named_in_one_room() {
    for (technology, rooms) in [
        ("wasmtime", ["plugin"].as_slice()),
        ("wasmtime_wasi", &["plugin"]),
        ("wasmparser", &["plugin"]),
        ("rusqlite", &["store"]),
        ("axum", &["http"]),
        ("notify", &["watch"]),
        ("prometheus_client", &["telemetry"]),
    ] {
        // The word alone is often a method's or a function's name; a crate is followed by a path.
        let crate_path = format!("{technology}::");
        let uses: Vec<_> = host()
            .iter()
            .filter(|source| !rooms.contains(&source.room()))
            .filter(|source| {
                source.code.lines().any(|line| {
                    line.match_indices(&crate_path).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    })
                })
            })
            .map(|source| format!("{}: `{technology}` belongs to {rooms:?}", source.path))
            .collect();
        none(uses);
    }
}

/// A capsule of an alerter is asked again with what is in the list.
#[test]
fn every_kind_of_event_that_is_sent_is_in_the_list_and_no_other() {
    const BEGINS: [&str; 8] =
        ["breaker_", "child_", "configuration_", "expiry_", "instance_", "plugin_", "service_", "startup"];
    let sources = host();
    let senders = sources.iter().filter(|source| {
        ["app", "plugin", "registry", "supervisor"].contains(&source.room()) && !source.is_test()
    });
    let literals =
        senders.flat_map(|source| source.code.lines()).flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_kind = |text: &&str| {
        BEGINS.iter().any(|begin| text.starts_with(begin))
            && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let sent: BTreeSet<&str> = literals.filter(is_kind).collect();
    assert_eq!(sent, BTreeSet::from(EVENT_KINDS));
    let guide = fs::read_to_string(repository().join("wit/README.md")).expect("read the guide");
    let table = guide.split("\n| kind | |\n").nth(1).expect("a table of events");
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: BTreeSet<&str> =
        rows.flat_map(|row| row.split(", ")).map(|kind| kind.trim_matches('`')).collect();
    assert_eq!(told, BTreeSet::from(EVENT_KINDS), "the guide's table");
}

#[test]
fn the_domain_does_no_io_and_has_no_clock() {
    let foreign = [
        "async",
        "await",
        "Instant::now",
        "SystemTime::now",
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env",
        "tokio",
        "serde_json",
        "hyper",
        "fastrand",
        "getrandom",
        "tracing",
    ];
    none(appearances(&foreign, |source| source.room() == "mesh" && !source.is_test()));
    let outside: Vec<_> = host()
        .iter()
        .filter(|source| source.room() == "mesh")
        .flat_map(|source| {
            let lines =
                source.code.lines().filter(|line| line.contains("crate::") && !line.contains("crate::mesh"));
            lines.map(|line| format!("{}: knows {}", source.path, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    none(outside);
}

#[test]
fn the_data_path_builds_no_json_trees_and_speaks_no_sql() {
    let data_path =
        |source: &Source| matches!(source.room(), "proxy" | "upstream" | "mcp" | "edge") && !source.is_test();
    none(appearances(
        &["serde_json::Value", "json!", "SELECT", "INSERT", "UPDATE", "DELETE FROM"],
        data_path,
    ));
    let imported: Vec<_> = host()
        .iter()
        .filter(|source| data_path(source))
        .flat_map(|source| {
            let lines =
                source.code.lines().filter(|line| line.contains("use serde_json") && has_word(line, "Value"));
            lines.map(|line| format!("{}: {}", source.path, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    none(imported);
}

#[test]
fn only_policy_permits_a_call() {
    let constructed: Vec<_> = host()
        .iter()
        .filter(|source| source.room() != "policy")
        .flat_map(|source| {
            let lines = source.code.lines().filter(|line| {
                line.match_indices("Permitted").any(|(at, word)| {
                    let rest = line[at + word.len()..].trim_start();
                    let rest =
                        rest.strip_prefix("::").map_or(rest, |rest| rest.trim_start_matches(|c| c != '>'));
                    (rest.starts_with('{') || rest.starts_with('('))
                        && !line.contains("->")
                        && !line.contains("fn ")
                })
            });
            lines.map(|line| format!("{}: {}", source.path, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    none(constructed);
    let chain = host().into_iter().find(|source| source.path == "host/policy/chain.rs").expect("the chain");
    let at = chain.code.find("pub struct Permitted").expect("`Permitted` lives in host/policy/chain.rs");
    let body = chain.code[at..].split('}').next().unwrap_or_default();
    let public = body.lines().skip(1).filter(|line| line.trim_start().starts_with("pub ")).count();
    assert_eq!(public, 0, "a public field would let others build it:\n{body}");
}

#[test]
fn tasks_and_threads_start_only_where_they_are_tracked() {
    let places = ["host/app.rs", "host/app/tasks.rs", "host/main.rs"];
    let rooms = ["edge", "plugin", "store"];
    // `spawn_blocking` is awaited where it is called, and so tracked by that task.
    let starts = ["tokio::spawn", "task::spawn", "thread::spawn", "thread::Builder", "Handle::spawn"];
    none(appearances(&starts, |source| {
        !source.is_test() && !places.contains(&source.path.as_str()) && !rooms.contains(&source.room())
    }));
}

#[test]
fn every_channel_is_bounded() {
    let unbounded =
        ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::channel()", "unbounded"];
    none(appearances(&unbounded, |source| !source.is_test()));
}

#[test]
fn files_stay_readable() {
    let long = host().into_iter().filter(|source| !source.is_test()).filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > 450).then(|| format!("{}: {lines} lines, at most 450", source.path))
    });
    none(long.collect());
}

#[test]
fn production_code_never_unwraps_and_leaves_nothing_to_do() {
    none(appearances(&["unwrap()", "todo!", "unimplemented!", "dbg!"], |source| !source.is_test()));
    let marks: Vec<_> = host()
        .iter()
        .flat_map(|source| {
            let marks = ["TODO", "FIXME", "XXX", "HACK"];
            let lines = source.text.lines().filter(|line| marks.iter().any(|mark| has_word(line, mark)));
            lines.map(|line| format!("{}: {}", source.path, line.trim())).collect::<Vec<_>>()
        })
        .collect();
    none(marks);
}

#[test]
fn adapters_do_not_know_one_another() {
    let adapters = ["http", "store", "plugin"];
    for adapter in adapters {
        let others: Vec<_> = adapters
            .iter()
            .filter(|other| **other != adapter)
            .map(|other| format!("crate::{other}"))
            .collect();
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        none(appearances(&others, |source| source.room() == adapter));
    }
}

#[test]
fn each_room_says_what_it_owns() {
    let silent = host()
        .into_iter()
        .filter(|source| source.path.ends_with("/mod.rs") && !source.text.starts_with("//! "));
    none(silent.map(|source| format!("{}: does not open with what it owns", source.path)).collect());
}

#[test]
fn every_setting_is_shown_or_tested() {
    let raw = fs::read_to_string(repository().join("host/config/raw.rs")).expect("read the settings");
    let mut keys = Vec::new();
    for block in raw.split("struct Raw").skip(1) {
        let body = block.split("\n}").next().unwrap_or_default();
        let fields = body.lines().skip(1).filter_map(|line| line.trim().split_once(": ").map(|(key, _)| key));
        let is_key = |key: &&str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        keys.extend(fields.filter(is_key).map(str::to_owned));
    }
    assert!(keys.len() > 10, "the settings were not found: {keys:?}");
    let mut paths = Vec::new();
    for folder in ["tests", "docs", "examples"] {
        walk(&repository().join(folder), "rs", &mut paths);
        walk(&repository().join(folder), "md", &mut paths);
        walk(&repository().join(folder), "toml", &mut paths);
    }
    paths.extend(["README.md", "ARCHITECTURE.md"].map(|name| repository().join(name)));
    let words: String = paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    // Settings stand in strings of tests, often right behind a line break.
    let words = words.replace("\\n", "\n");
    let unknown =
        keys.into_iter().filter(|key| !has_word(&words, key)).map(|key| format!("`{key}` appears nowhere"));
    none(unknown.collect());
}
