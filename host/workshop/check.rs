//! `plugin check`: the production loader over files, each failure explained.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Verdict, WorkshopError, explain, print, print_json, read, text};
use crate::plugin::{LoadError, Workbench, read_config};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Components (`.wasm`)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Configuration (TOML) to try them with [default: `NAME.toml` beside `NAME.wasm`, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints a list of objects
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    #[serde(flatten)]
    found: Found,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Plugin(Plugin),
    Failure(Failure),
}

#[derive(Serialize)]
struct Plugin {
    name: String,
    version: String,
    summary: String,
    kinds: Vec<&'static str>,
    imports: Vec<String>,
    /// What somebody has to give it.
    grants: Vec<&'static str>,
    size_bytes: usize,
    compile_ms: f64,
    /// Of one instance, configured.
    memory_bytes: usize,
    budget_us: Budgets,
    /// The file that it was configured with.
    config: Option<String>,
    /// Whether its `config-schema` was there to check it against.
    config_schema: bool,
}

/// What 99 of 100 answers may take in a proxy that says nothing else; none of what it is not asked.
#[derive(Serialize)]
struct Budgets {
    route: Option<f64>,
    pick: Option<f64>,
}

#[derive(Serialize)]
struct Failure {
    /// Where it was found.
    step: &'static str,
    reason: String,
    advice: &'static str,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let bench = Workbench::new()?;
    let reports: Vec<Report> = args
        .files
        .iter()
        .map(|file| {
            let checked = check(&bench, file, args.config.as_deref());
            let ok = checked.is_ok();
            let found = checked.map_or_else(|error| Found::Failure(failure(&error)), Found::Plugin);
            Report { file: file.display().to_string(), ok, found }
        })
        .collect();
    if args.json {
        print_json(&reports);
    } else {
        print(&reports.iter().map(Report::text).collect::<String>());
    }
    Ok(Verdict::good_if(reports.iter().all(|report| report.ok)))
}

fn check(bench: &Workbench, file: &Path, config: Option<&Path>) -> Result<Plugin, LoadError> {
    let bytes = read(file)?;
    let label = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let component = bench.load(&label, &bytes)?;
    let configuration = read_config(file, config)?;
    let in_force = bench.bring_into_force(&component, &configuration)?;
    Ok(Plugin {
        name: component.name().to_string(),
        version: component.version().to_owned(),
        summary: component.summary().to_owned(),
        memory_bytes: in_force.memory_bytes,
        budget_us: Budgets { route: in_force.budget.route_us, pick: in_force.budget.pick_us },
        config: configuration.file().map(str::to_owned),
        config_schema: component.has_config_schema(),
        grants: component.grants().iter().map(|grant| grant.as_str()).collect(),
        size_bytes: component.size_bytes,
        compile_ms: (component.compile_time.as_secs_f64() * 1e4).round() / 10.0,
        kinds: component.kinds,
        imports: component.imports,
    })
}

fn failure(error: &LoadError) -> Failure {
    Failure { step: explain::step(error), reason: error.to_string(), advice: explain::advice(error) }
}

impl Report {
    fn text(&self) -> String {
        let mut out = format!("{} {}\n", if self.ok { "✔" } else { "✖" }, self.file);
        let mut row = |label: &str, text: &str| {
            // Writing to a string cannot fail.
            writeln!(out, "  {label:<9} {text}").ok();
        };
        match &self.found {
            Found::Plugin(plugin) => {
                let dash = if plugin.summary.is_empty() { "" } else { ": " };
                row("plugin", &format!("{} {}{dash}{}", plugin.name, plugin.version, plugin.summary));
                row("kinds", &plugin.kinds.join(", "));
                for (index, import) in plugin.imports.iter().enumerate() {
                    row(if index == 0 { "imports" } else { "" }, import);
                }
                if !plugin.grants.is_empty() {
                    row("grants", &format!("{}; each build waits to be allowed", plugin.grants.join(", ")));
                }
                if plugin.imports.is_empty() {
                    row("imports", "nothing");
                }
                row(
                    "size",
                    &format!("{}, compiled in {:.0} ms", text::bytes(plugin.size_bytes), plugin.compile_ms),
                );
                let by = if plugin.config_schema {
                    "and its `config-schema`"
                } else {
                    "(it has no `config-schema`)"
                };
                let file = plugin.config.as_deref().unwrap_or("an empty one");
                row("config", &format!("{file} fits the plugin {by}"));
                for (question, budget) in [("route", plugin.budget_us.route), ("pick", plugin.budget_us.pick)]
                {
                    if let Some(budget_us) = budget {
                        row(
                            "budget",
                            &format!("{} for 99 of 100 answers of `{question}`", text::micros(budget_us)),
                        );
                    }
                }
                row("memory", &format!("{} for an instance", text::bytes(plugin.memory_bytes)));
            }
            Found::Failure(failure) => {
                row("where", failure.step);
                row("why", &failure.reason);
                row("do", failure.advice);
            }
        }
        out
    }
}
