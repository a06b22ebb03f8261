//! Work on what strangers wrote, in a child process of our own program: what runs without end there, takes all memory
//! or crashes costs nothing but itself.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::instance::panic_text;

/// More than any answer has: the machine code of the largest component is a tenth of it.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// More input takes seconds, and calls go first then. What is smaller is done in a moment, which a machine that is busy
/// with calls must not put off.
#[cfg(unix)]
const LARGE_BYTES: usize = 1 << 20;
#[cfg(unix)]
const NICENESS: i32 = 10;
/// Exit codes of the child; its sentence is on standard output then.
const NOT_TAKEN: u8 = 3;
const PANICKED: u8 = 4;

/// What a child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of all threads together, in whole seconds.
    pub cpu: Duration,
    pub wall: Duration,
    /// Address space.
    pub memory_bytes: u64,
}

#[derive(Debug, Error)]
pub enum ChildError {
    /// In the words of who did the work.
    #[error("{0}")]
    NotTaken(String),
    /// Of CPU time.
    #[error("it takes more than {} s", .0.as_secs())]
    TooLong(Duration),
    /// By the clock on the wall, and less of CPU time: others were busy.
    #[error("it took longer than {} s, as happens on a busy machine", .0.as_secs())]
    Starved(Duration),
    /// By somebody else, as the limits of the child end it in other ways.
    #[error("it was killed, as happens when memory is short")]
    Killed,
    #[error("{0}")]
    Failed(String),
    #[error("it was ended by signal {signal}; it may have wanted more than {} MiB", memory_bytes >> 20)]
    Crashed { signal: i32, memory_bytes: u64 },
    #[error("no process could be started for it")]
    Start(#[source] io::Error),
}

/// Starts `EXECUTABLE ARGS` with `limits`, gives it `input` and waits for its answer. `threads` is how many it may use.
///
/// # Errors
/// The work was refused, was too much or failed.
pub fn ask(
    executable: &Path,
    args: &[&str],
    limits: Limits,
    threads: usize,
    input: &[u8],
) -> Result<Vec<u8>, ChildError> {
    let mut child = start(executable, args, limits, threads).map_err(ChildError::Start)?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = child.stdout.take().expect("it was asked for");
    let (said, heard) = mpsc::sync_channel(1);
    let (in_time, answer) = thread::scope(|scope| {
        // A child that ends before it has read all says why in its own way.
        scope.spawn(move || stdin.write_all(input).ok());
        let reader = scope.spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
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
    let status = child.wait().map_err(ChildError::Start)?;
    if !in_time {
        return Err(ChildError::Starved(limits.wall));
    }
    let answer = answer.map_err(|error| ChildError::Failed(error.to_string()))?;
    judge(status, limits, answer)
}

fn start(executable: &Path, args: &[&str], limits: Limits, threads: usize) -> io::Result<Child> {
    let mut command = Command::new(executable);
    command
        .args(args)
        .args(["--cpu-s", &limits.cpu.as_secs().to_string()])
        .args(["--memory-bytes", &limits.memory_bytes.to_string()])
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // A Ctrl-C is for us to hear: work under way ends well, or with us.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

fn judge(status: ExitStatus, limits: Limits, answer: Vec<u8>) -> Result<Vec<u8>, ChildError> {
    if status.success() {
        return Ok(answer);
    }
    let sentence = || String::from_utf8_lossy(&answer).into_owned();
    if status.code() == Some(NOT_TAKEN.into()) {
        return Err(ChildError::NotTaken(sentence()));
    }
    if status.code() == Some(PANICKED.into()) {
        return Err(ChildError::Failed(sentence()));
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        use rustix::process::Signal;
        return Err(match signal {
            _ if signal == Signal::XCPU.as_raw() => ChildError::TooLong(limits.cpu),
            _ if signal == Signal::KILL.as_raw() => ChildError::Killed,
            _ => ChildError::Crashed { signal, memory_bytes: limits.memory_bytes },
        });
    }
    Err(ChildError::Failed(format!("it ended with {status}")))
}

/// All of the child: limits itself, does `work` on what is on standard input, writes the answer to standard output.
pub fn serve<E: Display>(limits: Limits, work: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> ExitCode {
    limit(limits);
    let mut input = Vec::new();
    let done = catch_unwind(AssertUnwindSafe(|| {
        io::stdin().lock().read_to_end(&mut input).map_err(|error| error.to_string())?;
        #[cfg(unix)]
        if input.len() > LARGE_BYTES {
            // Where that is not allowed, the other limits hold all the same. Threads to come inherit it.
            rustix::process::nice(NICENESS).ok();
        }
        work(&input).map_err(|error| error.to_string())
    }));
    let (code, answer) = match done {
        Ok(Ok(answer)) => (0, answer),
        Ok(Err(words)) => (NOT_TAKEN, words.into_bytes()),
        Err(panic) => (PANICKED, panic_text(&*panic).into_bytes()),
    };
    // Nobody is there to hear of a pipe that is closed.
    let written = io::stdout().lock().write_all(&answer).and_then(|()| io::stdout().flush());
    ExitCode::from(if written.is_ok() { code } else { 1 })
}

/// What the system does not know or allow is left out: the wall clock of whoever started us holds everywhere.
#[cfg(unix)]
fn limit(limits: Limits) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let at_most = |resource, limit: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(hard) }).ok();
    };
    let cpu_s = limits.cpu.as_secs();
    at_most(Resource::Core, 0, 0);
    at_most(Resource::Fsize, 0, 0);
    at_most(Resource::Cpu, cpu_s, cpu_s + 1);
    at_most(Resource::As, limits.memory_bytes, limits.memory_bytes);
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
}

#[cfg(not(unix))]
fn limit(_: Limits) {}
