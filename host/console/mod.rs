//! Commands that ask a running proxy about its services, or have it do something: `ps`, `logs`, `start`, `stop`,
//! `restart`, `drain`, `undrain`, `doctor`; and those that write services into its configuration: `add`, `rm`.
//!
//! Knows the workshop's way to a running proxy, and how configuration files are changed. Must not know a proxy from
//! within.

mod doctor;
mod drain;
mod logs;
mod processes;
mod services;

use std::process::ExitCode;

pub use doctor::Args as DoctorArgs;
pub use drain::{DrainArgs, UndrainArgs};
pub use logs::Args as LogsArgs;
pub use processes::{OrderArgs, PsArgs};
pub use services::{AddArgs, RmArgs};
use thiserror::Error;

use crate::config::EditError;
use crate::workshop::UNREACHABLE;
use crate::workshop::running::RunningError;
use crate::workshop::text;

/// Something is not as it should be.
const DEGRADED: u8 = 3;
/// There is no such service.
const ABSENT: u8 = 5;

/// Why a command failed.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Running(#[from] RunningError),
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// `meshwright add`.
pub fn add(args: &AddArgs) -> ExitCode {
    exit(services::add(args))
}

/// `meshwright rm`.
pub fn rm(args: &RmArgs) -> ExitCode {
    exit(services::rm(args))
}

/// `meshwright ps`.
pub fn ps(args: &PsArgs) -> ExitCode {
    exit(processes::ps(args))
}

/// `meshwright logs`.
pub fn logs(args: &LogsArgs) -> ExitCode {
    exit(logs::run(args))
}

/// `meshwright start`, `stop` or `restart`, as `word` says.
pub fn order(args: &OrderArgs, word: &str) -> ExitCode {
    exit(processes::order(args, word))
}

/// `meshwright drain`.
pub fn drain(args: &DrainArgs) -> ExitCode {
    exit(drain::drain(args))
}

/// `meshwright undrain`.
pub fn undrain(args: &UndrainArgs) -> ExitCode {
    exit(drain::undrain(args))
}

/// `meshwright doctor`.
pub fn doctor(args: &DoctorArgs) -> ExitCode {
    exit(doctor::run(args))
}

/// Whether all is well; otherwise what kept the proxy from being asked.
fn exit(ended: Result<bool, impl Into<Failed>>) -> ExitCode {
    match ended.map_err(Into::into) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DEGRADED),
        Err(error) => {
            eprintln!("meshwright: {}", text::chain(&error));
            match error {
                Failed::Running(RunningError::Unreachable { .. }) => ExitCode::from(UNREACHABLE),
                Failed::Running(RunningError::NotFound { .. }) | Failed::Edit(EditError::NotThere(_)) => {
                    ExitCode::from(ABSENT)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}
