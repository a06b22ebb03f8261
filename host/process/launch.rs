//! Starting programs, from one thread: on Linux a child can be told to die with the thread that started it, and
//! this one lives as long as the proxy.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::ledger::Ledger;
use super::mark::{Mark, VARIABLE};
use super::session::Session;

/// Programs that may wait to be started.
const QUEUE: usize = 256;

struct Request {
    command: Command,
    runtime: Handle,
    done: oneshot::Sender<io::Result<(Child, Session)>>,
}

/// The way to the thread that starts programs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    requests: mpsc::Sender<Request>,
}

/// What that thread runs.
pub struct LaunchLoop {
    queue: mpsc::Receiver<Request>,
    ledger: Ledger,
}

impl Launcher {
    pub fn new(ledger: Ledger) -> (Self, LaunchLoop) {
        let (requests, queue) = mpsc::channel(QUEUE);
        (Self { requests }, LaunchLoop { queue, ledger })
    }

    /// Starts a program as the leader of a session of its own, to be waited for on the caller's runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn launch(&self, command: Command) -> io::Result<(Child, Session)> {
        let (done, answer) = oneshot::channel();
        let request = Request { command, runtime: Handle::current(), done };
        let stopping = || io::Error::other("the proxy is stopping");
        self.requests.send(request).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl LaunchLoop {
    /// Ends what the last run left behind, then starts what is asked for. Returns when nobody can ask any more; the
    /// thread must not end before the proxy does.
    pub fn run(mut self) {
        let left = self.ledger.reap();
        if !left.is_empty() {
            tracing::warn!(
                count = left.len(),
                processes = left.join(", "),
                "processes of the last run were still there and were ended"
            );
        }
        while let Some(Request { mut command, runtime, done }) = self.queue.blocking_recv() {
            if done.is_closed() {
                continue;
            }
            self.ledger.tidy();
            let mark = Mark::fresh();
            command.env(VARIABLE, mark.text());
            lead_a_session(&mut command, self.ledger.file(), mark);
            let _runtime = runtime.enter();
            let started = command.spawn().map(|child| {
                let session = Session::of(child.id(), Some(mark));
                (child, session)
            });
            // A child that nobody waits for any more is killed when it is dropped.
            drop(done.send(started));
        }
    }

    /// Ends whatever was started and is still there: the last thing that a run does.
    pub fn reap_all(folder: &std::path::Path) {
        let Some(mut ledger) = started(folder) else { return };
        let left = ledger.reap();
        if !left.is_empty() {
            tracing::warn!(processes = left.join(", "), "processes outlived their stop and were ended");
        }
    }

    /// Kills whatever was started, and what that has started: when nothing is waited for any more.
    pub fn kill_all(folder: &std::path::Path) {
        if let Some(ledger) = started(folder) {
            ledger.kill();
        }
    }
}

/// What was started in this run.
fn started(folder: &std::path::Path) -> Option<Ledger> {
    Ledger::open(folder)
        .inspect_err(|error| tracing::warn!(error = %error, "cannot read which children ran"))
        .ok()
}

#[expect(
    unsafe_code,
    reason = "a child can be told to die with its parent only by itself, before its program runs"
)]
fn lead_a_session(command: &mut Command, ledger: Arc<File>, mark: Mark) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure only makes system calls. It takes no lock and allocates nothing; what
    // it uses was made before.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            die_with_parent(parent)?;
            write_down(&ledger, &mark);
            Ok(())
        });
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(parent: rustix::process::Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The parent may have died before it could be said.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::CHILD.into()) }
}

/// Elsewhere a child hears of it by the end of its input.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: rustix::process::Pid) -> io::Result<()> {
    Ok(())
}

/// The child writes itself down, so that there is no moment in which it runs and is not known. A full disk is no
/// reason not to start.
#[cfg(target_os = "linux")]
fn write_down(ledger: &File, mark: &Mark) {
    use rustix::fs::{Mode, OFlags};
    let Ok(stat) = rustix::fs::open(c"/proc/self/stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    let mut line = [b' '; 1024];
    let digits = mark.bytes();
    let (head, rest) = line.split_at_mut(digits.len() + 1);
    head[..digits.len()].copy_from_slice(digits);
    if let Ok(length) = rustix::io::read(&stat, rest) {
        rustix::io::write(ledger, &line[..digits.len() + 1 + length]).ok();
    }
}

#[cfg(not(target_os = "linux"))]
fn write_down(_: &File, _: &Mark) {}
