//! Compiling, and checking configurations against schemas: both are work on what strangers wrote, which may run without
//! end or take all memory, so both are done by a child with limits.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wasmtime::Engine;

use super::child::{self, ChildError, Limits};
use super::code::Code;
use super::engine::{self, Purpose};
use super::schema::{self, Question, SchemaError};
use super::v0_1::Issue;

/// The hidden subcommands that [`compile_plugin`] and [`check_configuration`] serve.
const COMPILE: &str = "compile-plugin";
const CHECK: &str = "check-configuration";

/// A component of 18 MB takes 20 s of CPU time and 1 GiB.
pub const COMPILE_LIMITS: Limits =
    Limits { cpu: Duration::from_secs(120), wall: Duration::from_secs(120), memory_bytes: 4 << 30 };
/// A check takes milliseconds.
const CHECK_LIMITS: Limits =
    Limits { cpu: Duration::from_secs(2), wall: Duration::from_secs(10), memory_bytes: 1 << 30 };

/// Who compiles.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// This process, without limits: for tests of the library, which have no program to start.
    #[default]
    InProcess,
    /// A child for each component: `EXECUTABLE compile-plugin`.
    Child { executable: PathBuf, limits: Limits },
}

#[derive(Debug, Error)]
pub enum CompileError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("what the compiler made does not load: {0}")]
    Mismatch(String),
}

#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("is not JSON Schema as far as the child can say")]
    Answer(#[source] serde_json::Error),
}

/// What the child says about a configuration.
#[derive(Deserialize, Serialize)]
struct Findings {
    issues: Vec<Issue>,
}

impl Compiler {
    /// The program that runs, as it was when it was started.
    pub fn own() -> Self {
        // Also when the file was replaced since by another version, whose code would not fit.
        let running = Path::new("/proc/self/exe");
        let executable = if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() };
        match executable {
            Ok(executable) => Self::Child { executable, limits: COMPILE_LIMITS },
            Err(error) => {
                tracing::warn!(%error, "the program cannot be found, plugins are compiled without limits");
                Self::InProcess
            }
        }
    }

    pub(super) fn compile(
        &self,
        engine: &Engine,
        purpose: Purpose,
        component: &[u8],
        threads: usize,
    ) -> Result<Code, CompileError> {
        let code = match self {
            Self::InProcess => precompile(engine, component).map_err(ChildError::NotTaken)?,
            Self::Child { executable, limits } => {
                let counting = (purpose == Purpose::Counting).then_some("--counting");
                let args: Vec<&str> = [COMPILE].into_iter().chain(counting).collect();
                child::ask(executable, &args, *limits, threads, component)?
            }
        };
        Ok(Code::trusted(code, 0))
    }

    /// What speaks against a configuration by the schema of its plugin; nothing when it fits.
    pub(super) fn check(&self, question: &Question<'_>) -> Result<Vec<Issue>, CheckError> {
        let Self::Child { executable, .. } = self else { return Ok(schema::issues(question)?) };
        let question = serde_json::to_vec(question).expect("two texts");
        let answer = child::ask(executable, &[CHECK], CHECK_LIMITS, 1, &question)?;
        let findings: Findings = serde_json::from_slice(&answer).map_err(CheckError::Answer)?;
        Ok(findings.issues)
    }
}

fn precompile(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, String> {
    engine.precompile_component(component).map_err(|error| words(error.as_ref()))
}

/// The child that turns a component into machine code.
pub fn compile_plugin(limits: Limits, counting: bool) -> ExitCode {
    let purpose = if counting { Purpose::Counting } else { Purpose::Serving };
    child::serve(limits, |component| {
        let engine = engine::engine(purpose).map_err(|error| words(error.as_ref()))?;
        precompile(&engine, component)
    })
}

/// The child that checks a configuration.
pub fn check_configuration(limits: Limits) -> ExitCode {
    child::serve(limits, |question| {
        let question: Question<'_> = serde_json::from_slice(question).map_err(|error| error.to_string())?;
        let issues = schema::issues(&question).map_err(|error| error.to_string())?;
        Ok::<_, String>(serde_json::to_vec(&Findings { issues }).expect("lists of texts"))
    })
}

/// An error and what led to it.
pub fn words(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
