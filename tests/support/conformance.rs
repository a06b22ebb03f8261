//! The conformance suites from npm: their installation, a run against a URL, and what came out, check by check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::npm::{self, Installed};

/// What a run may take; the suites give each scenario half a minute.
const WITHIN: Duration = Duration::from_secs(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// 0.2.0-alpha.12, what 2026-07-28 requires.
    Modern,
    /// 0.2.0-alpha.12, what 2025-11-25 requires.
    Legacy,
    /// 0.1.16, all of it; 2025-11-25.
    Old,
}

/// Statuses with their messages by scenario and by the check's id and name; a check may be made several times.
#[derive(Debug)]
pub struct Outcome {
    pub scenarios: BTreeMap<String, BTreeMap<String, Vec<Checked>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    id: String,
    name: String,
    pub status: String,
    #[serde(default)]
    error_message: Option<String>,
}

impl Suite {
    pub fn scenarios(self) -> usize {
        match self {
            Self::Modern => 50,
            Self::Legacy => 33,
            Self::Old => 32,
        }
    }

    fn command(self, url: &str, results: &Path) -> Command {
        let installed = installed();
        let (package, arguments) = match self {
            Self::Modern => ("conformance-0-2", ["--requirements", "2026-07-28"]),
            Self::Legacy => ("conformance-0-2", ["--requirements", "2025-11-25"]),
            Self::Old => ("conformance-0-1", ["--suite", "all"]),
        };
        let mut command = Command::new(&installed.node);
        // The suites write beside what they are told, too.
        command
            .current_dir(results)
            .arg(installed.modules().join(package).join("dist/index.js"))
            .args(["server", "--url", url])
            .args(arguments)
            .arg("-o")
            .arg(results.join("out"));
        command
    }

    /// Runs the suite against `url`. Runs never overlap: some checks wait for less than a second.
    pub fn run(self, url: &str) -> Outcome {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let results = tempfile::tempdir().expect("a temporary folder");
        let log = results.path().join("log");
        let output = File::create(&log).expect("create the log");
        let mut child = self
            .command(url, results.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("run the suite");
        let start = Instant::now();
        // Its status says whether all passed, which the checks say better.
        while child.try_wait().expect("ask for the suite's state").is_none() {
            if start.elapsed() > WITHIN {
                drop(child.kill());
                drop(child.wait());
                panic!("{self:?} against {url} still runs after {WITHIN:?}:\n{}", read(&log));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let outcome = Outcome::read(&results.path().join("out"));
        assert!(!outcome.scenarios.is_empty(), "{self:?} against {url} has no results:\n{}", read(&log));
        outcome
    }
}

impl Outcome {
    /// Each scenario has a folder `server-{scenario}-{time}` with `checks.json`.
    fn read(folder: &Path) -> Self {
        const TIME: &str = "-2026-07-28T00-00-00-000Z";
        let mut scenarios = BTreeMap::new();
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("list the results").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let Some(scenario) = name.strip_prefix("server-") else { continue };
            let scenario = scenario[..scenario.len() - TIME.len()].to_owned();
            let checks = fs::read(path.join("checks.json")).unwrap_or_else(|_| b"[]".to_vec());
            let checks: Vec<Checked> = serde_json::from_slice(&checks).expect("checks.json is JSON");
            let mut by_check: BTreeMap<String, Vec<Checked>> = BTreeMap::new();
            for check in checks {
                by_check.entry(format!("{} {}", check.id, check.name)).or_default().push(check);
            }
            by_check.values_mut().for_each(|checks| checks.sort_by(|a, b| a.status.cmp(&b.status)));
            scenarios.insert(scenario, by_check);
        }
        Self { scenarios }
    }

    fn checks(&self, scenario: &str, check: &str) -> &[Checked] {
        self.scenarios.get(scenario).and_then(|checks| checks.get(check)).map_or(&[], Vec::as_slice)
    }

    /// All scenarios were run, something was checked, and nothing but success was found.
    #[track_caller]
    pub fn assert_passed(&self, suite: Suite) {
        assert_eq!(self.scenarios.len(), suite.scenarios(), "{suite:?}: {:?}", self.scenarios.keys());
        let mut failed = Vec::new();
        for (scenario, checks) in &self.scenarios {
            // Of this one the suite says itself that it has yet to be written.
            let is_empty = scenario == "tasks-status-notifications";
            let all: Vec<_> = checks.values().flatten().collect();
            if !is_empty && !all.iter().any(|checked| checked.status == "SUCCESS") {
                failed.push(format!("{scenario}: no check succeeded"));
            }
            let bad = all.iter().filter(|checked| match checked.status.as_str() {
                "SUCCESS" | "INFO" => false,
                "SKIPPED" => !is_empty,
                _ => true,
            });
            failed.extend(bad.map(|checked| format!("{scenario}: {checked}")));
        }
        assert!(failed.is_empty(), "{suite:?}:\n{}", failed.join("\n"));
    }

    /// Fails with a table of every check that came out otherwise than when asked directly.
    #[track_caller]
    pub fn assert_like(&self, direct: &Self) {
        let mut rows = Vec::new();
        let scenarios: BTreeSet<_> = self.scenarios.keys().chain(direct.scenarios.keys()).collect();
        for scenario in &scenarios {
            let of = |outcome: &Self| -> BTreeSet<String> {
                outcome
                    .scenarios
                    .get(*scenario)
                    .map(|checks| checks.keys().cloned().collect())
                    .unwrap_or_default()
            };
            for check in of(self).union(&of(direct)) {
                let (here, there) = (self.checks(scenario, check), direct.checks(scenario, check));
                let (proxied, asked) = (statuses(here), statuses(there));
                if proxied != asked {
                    let said = here.iter().filter_map(|checked| checked.error_message.as_deref());
                    let said: BTreeSet<&str> = said.collect();
                    let said = said.into_iter().collect::<Vec<_>>().join("; ");
                    rows.push(format!("{scenario} | {check} | {asked} | {proxied} | {said}"));
                }
            }
        }
        let alike = scenarios.iter().filter(|scenario| {
            let start = format!("{scenario} | ");
            !rows.iter().any(|row| row.starts_with(&start))
        });
        assert!(
            rows.is_empty(),
            "{} of {} scenarios are alike; these are not:\nscenario | check | direct | proxied | why\n{}",
            alike.count(),
            scenarios.len(),
            rows.join("\n")
        );
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = self.error_message.as_deref().unwrap_or_default();
        write!(f, "{} {} {}: {why}", self.status, self.id, self.name)
    }
}

fn statuses(checks: &[Checked]) -> String {
    if checks.is_empty() {
        return "-".to_owned();
    }
    checks.iter().map(|checked| checked.status.as_str()).collect::<Vec<_>>().join(",")
}

/// The suites as `tests/fixtures/conformance` pins them.
fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| npm::installed("conformance"))
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}
