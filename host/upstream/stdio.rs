//! Instances that are processes: one message a line on standard input and output.
//!
//! A process may be shared by many clients: whoever sends a request has given it an id that nobody else uses, and
//! gets what is said to that id. What nobody asked for goes to all who listen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{Exit, Life, Log, await_end, log_errors};
use super::reader::{Messages, Reader};
use super::reply::Events;
use super::{SendError, Times, lines};
use crate::clock;
use crate::mcp::envelope;
use crate::mcp::message::{self, Shape};
use crate::mesh::flood::Flood;
use crate::mesh::log_ring::Stream;
use crate::mesh::stall::Stall;
use crate::mesh::time::Mono;
use crate::process::Session;

/// Messages that may wait to be written, and their bytes together: a process that reads nothing holds no more.
const INPUT: usize = 256;
const INPUT_BYTES: u32 = 16 << 20;
/// Notifications that may wait for the slowest listener.
const UNASKED: usize = 256;
/// How long a process has to end when its input is closed, and again when it was asked to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long its last words may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Who waits for what.
#[derive(Debug)]
pub(super) struct Desk {
    /// By request id, its JSON text.
    waiting: Mutex<HashMap<Box<str>, Waiting>>,
    unasked: broadcast::Sender<Bytes>,
    /// The process is one client's: what it asks unasked can be led to that client.
    is_own: bool,
    /// The process has ended, or closed its output.
    gone: CancellationToken,
    /// When it wrote last, as [`Mono`] microseconds.
    wrote_at: AtomicU64,
}

impl Desk {
    /// Whether a question that belongs to no request has somebody to answer it.
    fn has_listener(&self) -> bool {
        self.is_own && self.unasked.receiver_count() > 0
    }
}

#[derive(Debug)]
struct Waiting {
    reader: Arc<Reader>,
    /// The JSON text of the request's progress token.
    token: Option<Box<str>>,
    since: Mono,
    deadline: tokio::time::Instant,
}

/// A message that waits to be written, and the room that it takes until then.
#[derive(Debug)]
struct Line {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Where messages to a process go.
#[derive(Debug)]
enum Input {
    Open(mpsc::Sender<Line>, Arc<Semaphore>),
    /// It is to end, because nobody needs it now.
    Rested,
    Closed,
}

/// A running process. It is killed, and all of its session, when this is dropped.
#[derive(Debug)]
pub struct Process {
    desk: Arc<Desk>,
    pid: Option<u32>,
    session: Session,
    lines: Mutex<Input>,
    life: watch::Receiver<Life>,
    /// All that it wrote to standard error was read.
    said_all: CancellationToken,
    _tasks: JoinSet<()>,
}

/// A request under way: its messages, the answer the last. Dropping it forgets the request.
#[derive(Debug)]
pub(super) struct Call {
    id: Box<str>,
    desk: Arc<Desk>,
    messages: Messages,
}

impl Call {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, SendError>> {
        self.messages.poll_next(cx)
    }

    pub(super) fn set_away(&self, is_away: bool) {
        self.messages.set_away(is_away);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.desk.waiting().remove(&self.id);
    }
}

impl Desk {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a message belongs: with the request that it answers or is about.
    fn owner(&self, shape: &Shape<'_>) -> Option<Arc<Reader>> {
        let mut waiting = self.waiting();
        match shape {
            // The answer is the last message: whoever waits sees the end behind it.
            Shape::Answer { id } => waiting.remove(*id).map(|found| found.reader),
            // A process does not say which request makes it ask: with one under way there is no doubt.
            Shape::Request { .. } if waiting.len() == 1 => {
                let found = waiting.values().next().filter(|found| found.reader.can_be_asked());
                found.map(|found| Arc::clone(&found.reader))
            }
            Shape::Request { .. } => None,
            Shape::Notification { progress_token: Some(token) } => waiting
                .values()
                .find(|waiting| waiting.token.as_deref() == Some(*token))
                .map(|found| Arc::clone(&found.reader)),
            Shape::Notification { .. } => None,
        }
    }

    /// Nobody waits any more for what that reader reads too slowly; its request's id, unless that was answered.
    fn give_up(&self, reader: &Arc<Reader>) -> Option<Box<str>> {
        let mut waiting = self.waiting();
        let id = waiting.iter().find(|(_, waiting)| Arc::ptr_eq(&waiting.reader, reader))?.0.clone();
        waiting.remove(&id);
        Some(id)
    }
}

impl Process {
    /// Takes over a process that was just started; `is_own` as in [`Desk`].
    pub(super) fn new(
        mut child: Child,
        session: Session,
        is_own: bool,
        log: &Arc<Log>,
    ) -> std::io::Result<Self> {
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let (lines, queue) = mpsc::channel(INPUT);
        let desk = Arc::new(Desk {
            waiting: Mutex::default(),
            unasked: broadcast::Sender::new(UNASKED),
            is_own,
            gone: CancellationToken::new(),
            wrote_at: AtomicU64::new(0),
        });
        let (pid, said_all) = (child.id(), CancellationToken::new());
        let (lives, life) = watch::channel(Life::Running);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(input, queue));
        tasks.spawn(log_errors(errors, Arc::clone(log), said_all.clone()));
        // Held only to answer it: closing its input must not wait for its output.
        tasks.spawn(read(output, Arc::clone(&desk), lines.downgrade(), Arc::clone(log)));
        tasks.spawn(await_end(child, session, Arc::clone(&desk), lives));
        let room = Arc::new(Semaphore::new(INPUT_BYTES as usize));
        let lines = Mutex::new(Input::Open(lines, room));
        Ok(Self { desk, pid, session, lines, life, said_all, _tasks: tasks })
    }

    /// Whether it may be at work since `since`: on a request from before whose caller still waits. What is asked later may
    /// have to wait behind that, probes too.
    pub fn is_at_work(&self, since: Mono) -> bool {
        let now = tokio::time::Instant::now();
        self.desk.waiting().values().any(|waiting| waiting.since <= since && now < waiting.deadline)
    }

    /// When it wrote something to its standard output last.
    pub fn wrote_at(&self) -> Mono {
        Mono::from_micros(self.desk.wrote_at.load(Ordering::Relaxed))
    }

    /// Whether it has ended, or closed its output.
    pub fn is_gone(&self) -> bool {
        self.desk.gone.is_cancelled()
    }

    /// Waits until it has ended, or closed its output.
    pub async fn gone(&self) {
        self.desk.gone.cancelled().await;
    }

    pub const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The session that it leads.
    pub const fn session(&self) -> Session {
        self.session
    }

    /// Waits for its end, and a moment for its last words.
    pub async fn ended(&self) -> Exit {
        let exit = self.exited().await;
        // What it started may have its standard error still.
        tokio::time::timeout(LAST_WORDS, self.said_all.cancelled()).await.ok();
        exit
    }

    /// Waits until nobody of its session is left.
    pub async fn over(&self) {
        let mut life = self.life.clone();
        // The sender only goes away with this value's own tasks.
        life.wait_for(|life| matches!(life, Life::Over(_))).await.ok();
    }

    async fn exited(&self) -> Exit {
        let mut life = self.life.clone();
        let ended = life.wait_for(|life| life.exit().is_some()).await;
        ended.ok().and_then(|life| life.exit()).unwrap_or_default()
    }

    /// Sends a request with this id and progress token, both JSON text.
    pub(super) async fn request(
        &self,
        id: &str,
        token: Option<&str>,
        message: &[&[u8]],
        times: &Times,
    ) -> Result<Events, SendError> {
        let now = clock::mono();
        let (reader, messages) = Reader::new();
        let call = Call { id: id.into(), desk: Arc::clone(&self.desk), messages };
        let token = token.map(Into::into);
        let waiting = Waiting { reader, token, since: now, deadline: times.deadline };
        let before = self.desk.waiting().insert(id.into(), waiting);
        if before.is_some() {
            tracing::debug!(id, "a request id was used twice at once");
        }
        self.send(message, times).await?;
        if self.is_gone() {
            return Err(SendError::ProcessEnded);
        }
        Ok(Events::call(call))
    }

    /// Sends what is not answered.
    pub(super) async fn send(&self, message: &[&[u8]], times: &Times) -> Result<(), SendError> {
        let gone = || SendError::NotSent(std::io::ErrorKind::BrokenPipe.into());
        let (lines, room) = match &*self.input() {
            Input::Rested => return Err(SendError::Resting),
            Input::Open(lines, room) if !self.is_gone() => (lines.clone(), Arc::clone(room)),
            Input::Open(..) | Input::Closed => return Err(gone()),
        };
        let bytes = lines::line(message);
        // What is larger than all of it waits until nothing else does.
        let size = u32::try_from(bytes.len()).unwrap_or(INPUT_BYTES).min(INPUT_BYTES);
        let send = async {
            let _room = room.acquire_many_owned(size).await.ok();
            lines.send(Line { bytes, _room }).await
        };
        let sent = tokio::time::timeout_at(times.deadline, send).await;
        sent.map_err(|_| SendError::DeadlinePassed)?.map_err(|_| gone())
    }

    /// What it says unasked, from now on.
    pub(super) fn unasked(&self) -> Events {
        Events::unasked(self.desk.unasked.subscribe())
    }

    /// Closes its input, then asks its session to end, then kills it; returns when nobody of it is left.
    pub async fn stop(&self) {
        {
            let mut input = self.input();
            if matches!(*input, Input::Open(..)) {
                *input = Input::Closed;
            }
        }
        for signal in [Signal::TERM, Signal::KILL] {
            if tokio::time::timeout(PATIENCE, self.exited()).await.is_ok() {
                break;
            }
            self.signal(signal);
        }
        tokio::time::timeout(2 * PATIENCE, self.over()).await.ok();
    }

    /// Closes its input for good, unless `is_used`, as seen while nobody can send.
    pub(super) fn close_unless(&self, is_used: impl Fn() -> bool) -> bool {
        let mut input = self.input();
        let closes = !is_used();
        if closes {
            *input = Input::Rested;
        }
        closes
    }

    fn input(&self) -> std::sync::MutexGuard<'_, Input> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        self.session.signal(signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(*self.life.borrow(), Life::Over(_)) {
            self.signal(Signal::KILL);
        }
    }
}

async fn write(mut input: ChildStdin, mut queue: mpsc::Receiver<Line>) {
    while let Some(line) = queue.recv().await {
        if let Err(error) = input.write_all(&line.bytes).await {
            tracing::debug!(error = %error, "process takes no more input");
            return;
        }
    }
}

async fn read(output: impl AsyncRead + Unpin, desk: Arc<Desk>, lines: mpsc::WeakSender<Line>, log: Arc<Log>) {
    let mut output = BufReader::with_capacity(64 << 10, output);
    let (mut line, mut flood) = (Vec::new(), Flood::default());
    // One for all its readers: those that read nothing do not add up.
    let mut stall = (!desk.is_own).then(|| Stall::new(clock::mono()));
    loop {
        match lines::next_line(&mut output, &mut line, &mut flood).await {
            Ok(lines::Line::Whole) => {}
            Ok(lines::Line::TooLong) => {
                log.push(Stream::Out, "a line of more than 4 MiB, passed over");
                continue;
            }
            Ok(lines::Line::End) | Err(_) => break,
        }
        desk.wrote_at.store(clock::mono().as_micros(), Ordering::Relaxed);
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let Some(shape) = message::shape(text) else {
            log.push(Stream::Out, &String::from_utf8_lossy(text));
            lines::hold_up(&mut flood, text.len()).await;
            continue;
        };
        let message = Bytes::copy_from_slice(text);
        let owner = desk.owner(&shape);
        if owner.is_none() {
            lines::hold_up(&mut flood, text.len()).await;
        }
        match (owner, &shape) {
            (Some(owner), _) => {
                let is_answer = matches!(shape, Shape::Answer { .. });
                if !owner.take(message, is_answer, stall.as_mut()).await
                    && let Some(id) = desk.give_up(&owner)
                {
                    tracing::debug!(id, "a client reads too slowly, its request is given up");
                    tell(&lines, &envelope::cancelled(&id));
                }
            }
            (None, Shape::Answer { .. }) => {}
            (None, Shape::Request { id, method }) if !desk.has_listener() || *method == "ping" => {
                let answer = if *method == "ping" { envelope::pong_to(id) } else { envelope::refusal_to(id) };
                if let Some(lines) = lines.upgrade() {
                    drop(lines.send(Line { bytes: lines::line(&[&answer]), _room: None }).await);
                }
            }
            // Nobody listens: nobody is told.
            (None, _) => drop(desk.unasked.send(message)),
        }
    }
    end(&desk);
}

/// Says to the process what may be lost: one that does not read its input is not waited for.
fn tell(lines: &mpsc::WeakSender<Line>, message: &[u8]) {
    let line = Line { bytes: lines::line(&[message]), _room: None };
    let told = lines.upgrade().is_some_and(|lines| lines.try_send(line).is_ok());
    if !told {
        tracing::debug!("cancellation not passed on, the process takes no more input");
    }
}

/// All who wait see the end.
pub(super) fn end(desk: &Desk) {
    desk.gone.cancel();
    desk.waiting().clear();
}
