//! `plugin test`: asks a component what scenario files say, in an engine that counts instructions, and compares; or
//! asks it again what a plugin failed on.

mod ask;
mod capsule;
mod expect;
mod file;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::capsule::CapsuleError;
use self::file::Scenario;
use super::{Verdict, WorkshopError, explain, print, text};
use crate::plugin::{Component, Workbench};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Component (`.wasm`)
    file: PathBuf,
    /// Scenario files [default: `tests/*.toml` in the nearest folder at or above FILE that has some]
    #[arg(value_name = "SCENARIOS.toml")]
    scenarios: Vec<PathBuf>,
    /// Asks instead what the plugin failed on in a proxy: files of `capsules` in its data folder
    #[arg(long = "capsule", value_name = "FILE", num_args = 1.., conflicts_with = "scenarios")]
    capsules: Vec<PathBuf>,
}

#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error(
        "there are no scenarios for `{}`: no `tests/*.toml` in its folder or one above; name files, or see \
         `wit/README.md` for what they look like",
        .0.display()
    )]
    None(PathBuf),
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is no scenario file: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
}

/// What became of one case.
#[derive(Default)]
struct Outcome {
    /// What differs, a line each; none: it passed.
    differences: Vec<String>,
    /// Most instructions that one question took.
    fuel: Option<u64>,
}

impl Outcome {
    fn failed(difference: impl Into<String>) -> Self {
        Self { differences: vec![difference.into()], fuel: None }
    }
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    if !args.capsules.is_empty() {
        return capsule::run(&args.file, &args.capsules);
    }
    let paths = if args.scenarios.is_empty() { find(&args.file)? } else { args.scenarios.clone() };
    let scenarios = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let bench = Workbench::counting()?;
    let Some(component) = load(&bench, &args.file) else { return Ok(Verdict::Bad) };
    let (mut passed, mut failed) = (0, 0);
    for (path, scenario) in paths.iter().zip(&scenarios) {
        let mut out = format!("{}\n", path.display());
        for (name, outcome) in cases(&bench, &component, scenario) {
            if outcome.differences.is_empty() {
                passed += 1;
            } else {
                failed += 1;
            }
            describe(&mut out, name, &outcome);
        }
        print(&out);
    }
    print(&format!("{passed} passed, {failed} failed\n"));
    Ok(Verdict::good_if(failed == 0))
}

/// `None` of a component that no proxy would take; why not is printed.
fn load(bench: &Workbench, file: &Path) -> Option<Component> {
    let loaded = super::read(file).and_then(|bytes| bench.load("under-test", &bytes));
    loaded
        .inspect_err(|error| {
            let (step, advice) = (explain::step(error), explain::advice(error));
            print(&format!(
                "✖ {}\n  where     {step}\n  why       {error}\n  do        {advice}\n",
                file.display()
            ));
        })
        .ok()
}

fn cases<'a>(bench: &Workbench, component: &Component, scenario: &'a Scenario) -> Vec<(&'a str, Outcome)> {
    scenario
        .cases
        .iter()
        .map(|case| {
            let mut outcome = ask::case(bench, component, case).unwrap_or_else(Outcome::failed);
            if let (Some(fuel), Some(fuel_max)) = (outcome.fuel, case.fuel_max)
                && fuel > fuel_max
            {
                let (fuel, fuel_max) = (text::thousands(fuel), text::thousands(fuel_max));
                outcome.differences.push(format!("fuel       at most {fuel_max} expected, it took {fuel}"));
            }
            (case.name.as_str(), outcome)
        })
        .collect()
}

fn describe(out: &mut String, name: &str, outcome: &Outcome) {
    let mark = if outcome.differences.is_empty() { "ok  " } else { "FAIL" };
    let fuel = outcome.fuel.map_or_else(String::new, |fuel| format!("fuel {}", text::thousands(fuel)));
    // Writing to a string cannot fail.
    writeln!(out, "{}", format!("  {mark} {name:<60} {fuel}").trim_end()).ok();
    for difference in &outcome.differences {
        writeln!(out, "         {difference}").ok();
    }
}

/// `tests/*.toml` of the nearest folder that has some: for a component under `target/`, those of its project.
fn find(component: &Path) -> Result<Vec<PathBuf>, ScenarioError> {
    let whole = std::path::absolute(component).unwrap_or_else(|_| component.to_owned());
    for folder in whole.ancestors().skip(1) {
        let Ok(entries) = folder.join("tests").read_dir() else { continue };
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    Err(ScenarioError::None(component.to_owned()))
}

fn read(path: &Path) -> Result<Scenario, ScenarioError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
    Scenario::parse(&text).map_err(|reason| ScenarioError::Parse { path: path.to_owned(), reason })
}
