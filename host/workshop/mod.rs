//! Tools for the authors of plugins and those who run them, behind `meshwright plugin`, and `meshwright why`. They
//! print what they find on standard output and answer with an exit code.
//!
//! Knows the plugin room's workbench, the policies' traits and the domain. Must not know a running proxy from
//! within: `ls`, `allow`, `enable`, `disable`, `replay`, `rollback` and `why` ask one over HTTP, all others work without one.

mod bench;
mod check;
pub mod configuration;
mod explain;
mod listing;
mod replay;
mod rollback;
mod ruling;
pub(crate) mod running;
mod scaffold;
mod scenario;
pub(crate) mod text;
mod why;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use thiserror::Error;

pub use self::why::Args as WhyArgs;
use crate::plugin::{EngineError, LoadError, read_component};

#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Loads components as a proxy would and says what keeps them out
    Check(check::Args),
    /// Asks a component what scenario files ask, and compares the answers; or again what it failed on
    Test(scenario::Args),
    /// Measures what a component's decisions cost
    Bench(bench::Args),
    /// Writes a project that builds a plugin
    New(scaffold::Args),
    /// Asks a router about the calls that a running proxy has recorded, and says what would change
    Replay(replay::Args),
    /// Has a running proxy put the build before back, while the newest one is on probation
    Rollback(rollback::Args),
    /// Lists the plugins of a running proxy
    Ls(listing::Args),
    /// Gives a plugin of a running proxy what its new build asks for
    Allow(ruling::AllowArgs),
    /// Switches a plugin of a running proxy on
    Enable(ruling::SwitchArgs),
    /// Switches a plugin of a running proxy off
    Disable(ruling::SwitchArgs),
}

/// How a tool ended, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// What was looked at is not as it should be; the tool has printed why.
    Bad,
}

impl Verdict {
    fn good_if(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

#[derive(Debug, Error)]
enum WorkshopError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Scenarios(#[from] scenario::ScenarioError),
    #[error(transparent)]
    Capsule(#[from] scenario::CapsuleError),
    #[error(transparent)]
    Scaffold(#[from] scaffold::ScaffoldError),
    #[error(transparent)]
    Replay(#[from] replay::ReplayError),
    #[error(transparent)]
    Running(#[from] running::RunningError),
    #[error(transparent)]
    Ruling(#[from] ruling::RulingError),
}

/// No proxy answers.
pub(crate) const UNREACHABLE: u8 = 4;
/// It knows no call or plugin of that name.
const NOT_FOUND: u8 = 5;
/// The command does not fit what is there.
const USAGE: u8 = 2;

pub fn run(tool: Tool) -> ExitCode {
    let ended = match tool {
        Tool::Check(args) => check::run(&args),
        Tool::Test(args) => scenario::run(&args),
        Tool::Bench(args) => bench::run(&args),
        Tool::New(args) => scaffold::run(&args),
        Tool::Replay(args) => replay::run(&args),
        Tool::Rollback(args) => rollback::run(&args),
        Tool::Ls(args) => listing::run(&args),
        Tool::Allow(args) => ruling::allow(&args),
        Tool::Enable(args) => ruling::switch(&args, true),
        Tool::Disable(args) => ruling::switch(&args, false),
    };
    exit(ended)
}

/// `meshwright why`.
pub fn explain_call(args: &WhyArgs) -> ExitCode {
    exit(why::run(args))
}

fn exit(ended: Result<Verdict, WorkshopError>) -> ExitCode {
    match ended {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("meshwright: {}", text::chain(&error));
            match error {
                WorkshopError::Running(running::RunningError::Unreachable { .. }) => {
                    ExitCode::from(UNREACHABLE)
                }
                WorkshopError::Running(running::RunningError::NotFound { .. })
                | WorkshopError::Ruling(ruling::RulingError::Unknown(_)) => ExitCode::from(NOT_FOUND),
                WorkshopError::Scaffold(_)
                | WorkshopError::Capsule(_)
                | WorkshopError::Replay(_)
                | WorkshopError::Ruling(ruling::RulingError::NobodyToAsk) => ExitCode::from(USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Larger components take seconds to compile, and silence looks like a hang.
const LARGE_BYTES: usize = 1 << 20;

/// What is to be compiled next.
fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let component = read_component(file)?;
    if component.len() >= LARGE_BYTES {
        eprintln!("compiling {}, {}", file.display(), text::bytes(component.len()));
    }
    Ok(component)
}

/// Whoever closed standard output does not want the rest.
pub(crate) fn print(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

fn print_json(value: &impl serde::Serialize) {
    let mut text = serde_json::to_string_pretty(value).expect("views have string keys and finite numbers");
    text.push('\n');
    print(&text);
}
