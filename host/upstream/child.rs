//! A process's birth, end and last words.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio as Pipe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SendError;
use super::lines::hold_up;
use super::own::OwnProcesses;
use super::rest::Demand;
use super::stdio::{Desk, PATIENCE, Process, end};
use crate::clock;
use crate::mesh::endpoint;
use crate::mesh::flood::Flood;
use crate::mesh::log_ring::{LINE_BYTES_MAX, Line, LogRing, Stream};
use crate::process::{Launcher, Session, StartError, find};

/// Distance of looks at whether what a process started has ended, too.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a peer of a command holds.
#[derive(Debug)]
pub(super) struct Stdio {
    pub command: Arc<endpoint::Command>,
    pub launcher: Launcher,
    pub log: Arc<Log>,
    /// The process that all share; unused where each session gets one.
    pub shared: Shared,
    /// Those of client sessions, where each gets one.
    pub own: OwnProcesses,
}

/// A process that whoever supervises it starts and ends; calls only use it.
#[derive(Debug)]
pub(super) struct Shared {
    pub process: ArcSwapOption<Process>,
    pub standing: watch::Sender<Standing>,
    pub demand: Demand,
}

/// Whether a shared process can be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Why not.
    Down(Arc<str>),
    /// It rests, or is on its way up from there, in which state.
    Resting(Arc<str>),
    Up,
}

impl Stdio {
    pub(super) fn new(command: &Arc<endpoint::Command>, launcher: &Launcher) -> Self {
        let standing = watch::Sender::new(Standing::Down("not started yet".into()));
        Self {
            command: Arc::clone(command),
            launcher: launcher.clone(),
            log: Arc::default(),
            own: OwnProcesses::default(),
            shared: Shared { process: ArcSwapOption::empty(), standing, demand: Demand::default() },
        }
    }

    /// # Errors
    /// The program is not there, or cannot be started; nothing was sent.
    pub(super) async fn start(&self) -> Result<Arc<Process>, SendError> {
        let command = &self.command;
        let failed = |source| SendError::Start { program: command.shown_program().to_owned(), source };
        if let (Some(folder), Some(shown)) = (&command.cwd, command.shown_cwd())
            && !folder.is_dir()
        {
            return Err(failed(StartError::Folder(shown.into_owned())));
        }
        let path = command.env.get("PATH").map(Into::into);
        let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        let found = find(&command.program, &path, command.cwd.as_deref());
        let place = found.map_err(|missing| match &command.written {
            Some(written) => missing.of(&written.program),
            None => missing,
        })?;
        let mut child = Command::new(&*command.program);
        child.args(command.args.iter().map(|arg| &**arg)).envs(&command.env);
        if let Some(folder) = &command.cwd {
            child.current_dir(folder);
        }
        child.stdin(Pipe::piped()).stdout(Pipe::piped()).stderr(Pipe::piped()).kill_on_drop(true);
        let (child, session) =
            self.launcher.launch(child).await.map_err(|error| failed(StartError::of(error, &place)))?;
        tracing::debug!(program = %command.shown_program(), pid = child.id(), "process started");
        let process = Process::new(child, session, command.per_session, &self.log);
        process.map(Arc::new).map_err(|error| failed(error.into()))
    }

    /// # Errors
    /// It does not run now.
    pub(super) fn running(&self) -> Result<Arc<Process>, SendError> {
        match &*self.shared.standing.borrow() {
            Standing::Down(why) | Standing::Resting(why) => Err(SendError::Down(Arc::clone(why))),
            Standing::Up => self
                .shared
                .process
                .load_full()
                .filter(|process| !process.is_gone())
                .ok_or_else(|| SendError::Down("its process has just ended".into())),
        }
    }
}

/// What a process wrote beside the protocol, over all its runs.
#[derive(Debug, Default)]
pub struct Log(Mutex<LogRing>);

impl Log {
    pub(super) fn push(&self, stream: Stream, text: &str) {
        self.ring().push(clock::wall(), stream, text);
    }

    /// See [`LogRing::since`].
    pub fn since(&self, after: u64, limit: usize) -> Vec<Line> {
        self.ring().since(after, limit)
    }

    /// See [`LogRing::written`].
    pub fn written(&self) -> u64 {
        self.ring().written()
    }

    /// See [`LogRing::errors`].
    pub fn errors(&self) -> u64 {
        self.ring().errors()
    }

    /// See [`LogRing::noise`].
    pub fn noise(&self) -> u64 {
        self.ring().noise()
    }

    /// See [`LogRing::last_words`].
    pub fn last_words(&self, after: u64) -> String {
        self.ring().last_words(after, 3, 300)
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, LogRing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit(Option<ExitStatus>);

impl Exit {
    pub fn is_clean(self) -> bool {
        self.0.is_some_and(|status| status.success())
    }

    /// Whether it ended as shells and `env` do that do not find what they are to run.
    pub fn found_no_program(self) -> bool {
        self.0.and_then(|status| status.code()) == Some(127)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "exited with {code}"),
            Some((None, Some(signal))) => write!(f, "was killed by signal {signal}"),
            _ => f.write_str("ended, nobody knows how"),
        }
    }
}

/// How far a process's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// It ended; what it started may be there still.
    Exited(Exit),
    /// Nobody of its session is left.
    Over(Exit),
}

impl Life {
    pub(super) const fn exit(self) -> Option<Exit> {
        match self {
            Self::Running => None,
            Self::Exited(exit) | Self::Over(exit) => Some(exit),
        }
    }
}

/// Waits for a process's end, and sees to it that nothing of what it started stays.
pub(super) async fn await_end(
    mut child: Child,
    session: Session,
    desk: Arc<Desk>,
    lives: watch::Sender<Life>,
) {
    let status = child.wait().await;
    if let Err(error) = &status {
        tracing::warn!(error = %error, "process cannot be waited for");
    }
    let exit = Exit(status.ok());
    end(&desk);
    lives.send_replace(Life::Exited(exit));
    end_rest(session).await;
    lives.send_replace(Life::Over(exit));
}

async fn end_rest(session: Session) {
    if is_empty(session).await {
        return;
    }
    session.signal(Signal::TERM);
    let asked = tokio::time::Instant::now();
    while asked.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
        if is_empty(session).await {
            return;
        }
    }
    session.signal(Signal::KILL);
}

/// Reads a file of each process of the system.
async fn is_empty(session: Session) -> bool {
    tokio::task::spawn_blocking(move || session.is_empty()).await.unwrap_or(true)
}

pub(super) async fn log_errors(errors: impl AsyncRead + Unpin, log: Arc<Log>, said_all: CancellationToken) {
    let _said_all = said_all.drop_guard();
    let mut errors = BufReader::new(errors);
    let (mut line, mut flood) = (Vec::new(), Flood::default());
    loop {
        line.clear();
        match (&mut errors).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => log.push(Stream::Err, String::from_utf8_lossy(&line).trim_end()),
        }
        hold_up(&mut flood, line.len()).await;
    }
}
