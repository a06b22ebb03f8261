//! Compiling in a child process of our own program, so that a component that makes the compiler run without end, take
//! all memory or crash costs nothing but itself.

use std::error::Error as StdError;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use wasmtime::Engine;

use super::code::Code;
use super::engine::{self, Purpose};
use super::instance::panic_text;

/// The hidden subcommand that [`compile_plugin`] serves.
pub const SUBCOMMAND: &str = "compile-plugin";

/// More machine code than the largest component yields many times over.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// Exit codes of the child; its sentence is on standard output then.
const NOT_TAKEN: u8 = 3;
const PANICKED: u8 = 4;

/// What a compilation may use. A component of 18 MB takes 20 s of CPU time and 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time of all threads together, in whole seconds.
    pub cpu: Duration,
    pub wall: Duration,
    /// Address space.
    pub memory_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu: Duration::from_secs(120), wall: Duration::from_secs(120), memory_bytes: 4 << 30 }
    }
}

/// Who compiles.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// This process, without limits: for tests of the library, which have no program to start.
    #[default]
    InProcess,
    /// A child for each component: `EXECUTABLE compile-plugin`.
    Child { executable: PathBuf, limits: CompileLimits },
}

#[derive(Debug, Error)]
pub enum CompileError {
    /// With the compiler's own words.
    #[error("{0}")]
    NotTaken(String),
    #[error("compiling it takes more than {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("the compiler failed: {0}")]
    Failed(String),
    #[error("the compiler was ended by signal {signal}; it may have wanted more than {} MiB", memory_bytes >> 20)]
    Crashed { signal: i32, memory_bytes: u64 },
    #[error("what the compiler made does not load: {0}")]
    Mismatch(String),
    #[error("no process could be started to compile it")]
    Start(#[source] io::Error),
}

impl Compiler {
    /// The program that runs, as it was when it was started.
    pub fn own() -> Self {
        // Also when the file was replaced since by another version, whose code would not fit.
        let running = Path::new("/proc/self/exe");
        let executable = if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() };
        match executable {
            Ok(executable) => Self::Child { executable, limits: CompileLimits::default() },
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
            Self::InProcess => engine
                .precompile_component(component)
                .map_err(|error| CompileError::NotTaken(words(error.as_ref()))),
            Self::Child { executable, limits } => {
                compile_elsewhere(executable, *limits, purpose, component, threads)
            }
        };
        code.map(|code| Code::trusted(code, 0))
    }
}

fn compile_elsewhere(
    executable: &Path,
    limits: CompileLimits,
    purpose: Purpose,
    component: &[u8],
    threads: usize,
) -> Result<Vec<u8>, CompileError> {
    let mut child = start(executable, limits, purpose, threads).map_err(CompileError::Start)?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = child.stdout.take().expect("it was asked for");
    let (said, heard) = mpsc::sync_channel(1);
    let (in_time, answer) = thread::scope(|scope| {
        // A child that ends before it has read all says why in its own way.
        scope.spawn(move || stdin.write_all(component).ok());
        let reader = scope.spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(CODE_BYTES_MAX).read_to_end(&mut answer);
            // The other side only goes away after its patience has ended.
            said.send(()).ok();
            read.map(|_| answer)
        });
        let in_time = heard.recv_timeout(limits.wall).is_ok();
        if !in_time {
            // It may have ended just now.
            child.kill().ok();
        }
        let answer = reader.join().unwrap_or_else(|panic| Err(io::Error::other(panic_text(&*panic))));
        (in_time, answer)
    });
    let status = child.wait().map_err(CompileError::Start)?;
    if !in_time {
        return Err(CompileError::TooLong(limits.wall));
    }
    let answer = answer.map_err(|error| CompileError::Failed(error.to_string()))?;
    judge(status, limits, answer)
}

fn start(executable: &Path, limits: CompileLimits, purpose: Purpose, threads: usize) -> io::Result<Child> {
    let mut command = Command::new(executable);
    command
        .arg(SUBCOMMAND)
        .args(["--cpu-s", &limits.cpu.as_secs().to_string()])
        .args(["--memory-bytes", &limits.memory_bytes.to_string()])
        .args((purpose == Purpose::Counting).then_some("--counting"))
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // A Ctrl-C is for us to hear: a compilation under way ends well, or with us.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

fn judge(status: ExitStatus, limits: CompileLimits, answer: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    if status.success() {
        return Ok(answer);
    }
    let sentence = || String::from_utf8_lossy(&answer).into_owned();
    if status.code() == Some(NOT_TAKEN.into()) {
        return Err(CompileError::NotTaken(sentence()));
    }
    if status.code() == Some(PANICKED.into()) {
        return Err(CompileError::Failed(sentence()));
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Err(match signal == rustix::process::Signal::XCPU.as_raw() {
            true => CompileError::TooLong(limits.cpu),
            false => CompileError::Crashed { signal, memory_bytes: limits.memory_bytes },
        });
    }
    Err(CompileError::Failed(format!("it ended with {status}")))
}

/// All of the child: limits itself, compiles the component on standard input, writes machine code to standard output.
pub fn compile_plugin(limits: CompileLimits, counting: bool) -> ExitCode {
    limit(limits.cpu, limits.memory_bytes);
    let purpose = if counting { Purpose::Counting } else { Purpose::Serving };
    let mut component = Vec::new();
    let compiled = catch_unwind(AssertUnwindSafe(|| {
        io::stdin().lock().read_to_end(&mut component).map_err(|error| error.to_string())?;
        let engine = engine::engine(purpose).map_err(|error| words(error.as_ref()))?;
        engine.precompile_component(&component).map_err(|error| words(error.as_ref()))
    }));
    let (code, answer) = match compiled {
        Ok(Ok(code)) => (0, code),
        Ok(Err(words)) => (NOT_TAKEN, words.into_bytes()),
        Err(panic) => (PANICKED, panic_text(&*panic).into_bytes()),
    };
    // Nobody is there to hear of a pipe that is closed.
    let written = io::stdout().lock().write_all(&answer).and_then(|()| io::stdout().flush());
    ExitCode::from(if written.is_ok() { code } else { 1 })
}

/// What the system does not know or allow is left out: the wall clock of whoever started us holds everywhere.
#[cfg(unix)]
fn limit(cpu: Duration, memory_bytes: u64) {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let at_most = |resource, limit: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(hard) }).ok();
    };
    at_most(Resource::Core, 0, 0);
    at_most(Resource::Fsize, 0, 0);
    at_most(Resource::Cpu, cpu.as_secs(), cpu.as_secs() + 1);
    at_most(Resource::As, memory_bytes, memory_bytes);
    // Calls go first, but a machine that is busy with them must not put a new build off for seconds.
    nice(5).ok();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
}

#[cfg(not(unix))]
fn limit(_: Duration, _: u64) {}

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
