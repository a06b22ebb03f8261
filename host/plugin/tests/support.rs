use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::mesh::allowance::Allowance;
use crate::mesh::ids::{CallId, Name, PoolId, Slot};
use crate::mesh::observe::Event;
use crate::mesh::pool::{Catalog, CatalogService, Live, Member, Pool};
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::CallFacts;
use crate::plugin::{PluginConfig, Plugins, Recorder, Settings};
use crate::policy::status::PluginStatus;
use crate::policy::{Ask, PolicySet};

const MARKER_BYTES: usize = 64;

/// Longer than anything takes to compile.
pub const SETTLED: Duration = Duration::from_secs(300);

/// The component of `tests/guest` with that behaviour.
pub fn guest(behaviour: &str) -> Vec<u8> {
    const MARK: &[u8] = b"@@CONTRARIAN@@n";
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = BUILT.get_or_init(build_guest).clone();
    let at =
        bytes.windows(MARK.len()).position(|window| window == MARK).expect("the marker is in the component");
    let marker = format!("{:MARKER_BYTES$}", format!("@@CONTRARIAN@@{behaviour}"));
    bytes[at..at + MARKER_BYTES].copy_from_slice(marker.as_bytes());
    bytes
}

fn build_guest() -> Vec<u8> {
    const TARGET: &str = "wasm32-wasip2";
    // Not the folder of the cargo that runs the tests, which may hold its lock.
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(3).unwrap().join("test-components");
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let foreign = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];
        let prefixes = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PKG_", "CARGO_MANIFEST_"];
        let text = name.to_string_lossy();
        if foreign.contains(&&*text) || prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/host/plugin/tests/guest"))
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "--target-dir"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(folder.join(TARGET).join("release/contrarian.wasm")).unwrap()
}

/// A component of other bytes that does the same: an empty custom section is added.
pub fn altered(mut component: Vec<u8>, tag: u8) -> Vec<u8> {
    component.extend([0, 2, 1, tag]);
    component
}

/// `component` with every `from` replaced by `to`, which is as long.
pub fn patched(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = component.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    assert!(at > 0, "{from} is not there");
    bytes
}

/// The component with that behaviour and that line in its metadata.
pub fn budgeted(behaviour: &str, line: &str) -> Vec<u8> {
    const ELSE: &str = "summary = \"a test\"\nauthors = [\"me\"]\n";
    let line = format!("{line:<width$}\n", width = ELSE.len() - 1);
    patched(&guest(behaviour), ELSE, &line)
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A folder with plugins in it, and the room that reads it.
pub struct Bench {
    pub folder: TempDir,
    pub plugins: Plugins,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(2, &[])
    }

    pub fn with(workers: usize, embedded: &'static [(&'static str, &'static [u8])]) -> Self {
        Self::of_settings(Settings { workers, ..Settings::default() }, embedded)
    }

    pub fn of_settings(settings: Settings, embedded: &'static [(&'static str, &'static [u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = Arc::clone(&events);
        let settings = Settings { folder: Some(folder.path().into()), ..settings };
        let sink = Arc::new(move |event| sink.lock().unwrap().push(event));
        Self { folder, plugins: Plugins::with_embedded(settings, sink, embedded).unwrap(), events }
    }

    /// With one worker, and a folder for what is kept.
    pub fn kept_in(data: &Path) -> Self {
        let data = Some(data.to_owned());
        Self::of_settings(Settings { workers: 1, data, ..Settings::default() }, &[])
    }

    /// With calls that new builds are asked about.
    pub fn recorded(recorder: Recorder) -> Self {
        Self::of_settings(Settings { workers: 2, recorder: Some(recorder), ..Settings::default() }, &[])
    }

    /// Where builds that take the place of others are on probation.
    pub fn tried(probation: Duration) -> Self {
        Self::tried_over(probation, &[])
    }

    pub fn tried_over(probation: Duration, embedded: &'static [(&'static str, &'static [u8])]) -> Self {
        Self::of_settings(Settings { workers: 2, probation, ..Settings::default() }, embedded)
    }

    /// With one file, `guest.wasm`, already in force.
    pub fn of(behaviour: &str) -> (Self, PolicySet) {
        let bench = Self::new();
        bench.put("guest.wasm", &guest(behaviour));
        let (set, changed) = bench.plugins.reload(SETTLED);
        assert!(changed, "{:?}", bench.plugins.status());
        (bench, set)
    }

    pub fn put(&self, file: &str, bytes: &[u8]) {
        // Renamed into place, as careful people do.
        let temporary = self.folder.path().join(format!(".{file}.tmp"));
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, self.path(file)).unwrap();
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).unwrap();
    }

    pub fn path(&self, file: &str) -> std::path::PathBuf {
        Path::join(self.folder.path(), file)
    }

    pub fn only(&self) -> PluginStatus {
        let mut all = self.plugins.status();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub fn kinds_of_events(&self) -> Vec<&'static str> {
        self.events.lock().unwrap().iter().map(|event| event.kind).collect()
    }
}

pub fn config(json: &str) -> PluginConfig {
    PluginConfig {
        enabled: true,
        order: None,
        refuse_on_fault: false,
        grants: Vec::new(),
        limits: Allowance::default(),
        config_json: json.into(),
        written_json: None,
    }
}

pub fn facts() -> CallFacts<'static> {
    CallFacts {
        id: CallId(1),
        arrived: Wall::from_millis(1_700_000_000_000),
        now: Mono::from_secs(0),
        random: 7,
        affinity: 9,
        service: "docs",
        tool: "search",
        method: "tools/call",
        client: "alice",
        size: 120,
        time_left: Duration::from_secs(60),
        arguments: b"{}",
    }
}

pub fn catalog(version: u64, services: usize) -> Arc<Catalog> {
    let services = (0..services)
        .map(|i| CatalogService {
            name: name(&format!("docs-{i}")),
            tags: vec![name("prod")],
            tools: vec!["search".into()],
            instances: 2,
            healthy: 2,
        })
        .collect();
    Arc::new(Catalog { version, services })
}

pub fn pool(id: u32, version: u64, members: u32) -> Pool {
    let members = (0..members)
        .map(|i| Member {
            slot: Slot(i),
            instance: name(&format!("docs-{i}")),
            node: name("node"),
            zone: None,
            weight: 100,
            tags: [].into(),
            live: Arc::new(Live::default()),
        })
        .collect();
    let loads_version = Arc::new(AtomicU64::new(1));
    Pool { id: PoolId(id), version, service: name("docs"), members, loads_version }
}

pub fn ask() -> Ask {
    Ask { affinity: 1, random: 2, excluded: 0, now: Mono::from_secs(0) }
}

/// Waits for what another thread does; the time only bounds a failing test.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}
