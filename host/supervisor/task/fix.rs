//! What people can do about a child that is not as it should be.

use std::path::Path;

use super::kept::Kept;
use crate::mesh::child::ChildState;
use crate::mesh::endpoint::{Command, Endpoint};
use crate::mesh::ids::Name;
use crate::process::{Searched, StartError, has_windows_line_ends};
use crate::upstream::{Exit, SendError};

/// What to do about a process that could not be started, and so has said nothing.
pub(super) fn of_start(error: &SendError, service: &Name) -> Option<String> {
    let start = format!("then `meshwright start {service}`");
    let restart = format!("then `meshwright restart {service}`");
    Some(match error {
        SendError::Missing(Searched::Unusable(place)) => format!("`chmod +x {}`; {start}", place.display()),
        SendError::Missing(Searched::Folder(_)) => {
            format!("name a program as `services.{service}.command`, not a folder; {start}")
        }
        SendError::Missing(_) => {
            format!("install the program, or name its whole path as `services.{service}.command`; {start}")
        }
        SendError::Start { program, source } => match source {
            StartError::Folder(_) => {
                format!("create that folder, or name another as `services.{service}.cwd`; {restart}")
            }
            StartError::Interpreter(_) => format!("mend the first line of `{program}`; {restart}"),
            StartError::LineEnds(_) => of_line_ends(program, service),
            StartError::Loader => format!("install a build of `{program}` for this system; {restart}"),
            StartError::System(_) => format!("mend what the system complains of; {restart}"),
        },
        _ => return None,
    })
}

fn of_line_ends(program: &str, service: &Name) -> String {
    format!(
        "give `{program}` the line ends of Unix, as `dos2unix` or `sed -i 's/\\r$//'` does; then \
         `meshwright restart {service}`"
    )
}

impl Kept {
    /// What to do about a script that ended because a program was not found, and has line ends that make it so.
    pub(super) fn fix_of_end(&self, exit: Exit) -> Option<String> {
        let Endpoint::Stdio(command) = &self.instance.spec.endpoint else { return None };
        let is_it = exit.found_no_program() && has_windows_line_ends(&script(command)?);
        is_it.then(|| of_line_ends(command.shown_program(), &self.instance.spec.service))
    }

    pub(super) fn fix(&self) -> Option<String> {
        let service = &self.instance.spec.service;
        match self.machine.state() {
            ChildState::Skipped if self.is_in_a_circle() => {
                Some(format!("mend `services.{service}.depends_on`, which takes effect at once"))
            }
            ChildState::Skipped | ChildState::Backoff | ChildState::Fatal if self.start_fix.is_some() => {
                self.start_fix.clone()
            }
            ChildState::Backoff | ChildState::Fatal => Some(format!(
                "`meshwright logs {service}` shows what it said; then `meshwright restart {service}`"
            )),
            ChildState::Starting | ChildState::Installing => Some(format!(
                "`meshwright logs {service}` shows what it does; if it needs longer, say so as \
                 `services.{service}.startup_timeout`, or for all as `supervisor.startup_timeout`"
            )),
            ChildState::Stopped if self.is_settled() => Some(format!("`meshwright start {service}`")),
            ChildState::Ready => self.lacks.as_ref().map(|_| "bring back what it needs".to_owned()),
            _ => None,
        }
    }
}

/// The file that a command names by its place.
fn script(command: &Command) -> Option<std::path::PathBuf> {
    let program = Path::new(&*command.program);
    let named = command.program.contains('/');
    named.then(|| command.cwd.as_ref().map_or_else(|| program.to_owned(), |folder| folder.join(program)))
}
