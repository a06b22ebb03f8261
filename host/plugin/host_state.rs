//! What the host keeps beside each instance: its limits, its stopwatch, its view of the pool that is asked about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::clock;
use super::engine::TICK;
use super::kv::Kv;
use super::pointer;
use crate::mesh::pool::{Member, Pool};

pub const LOG_LINES_PER_S: u32 = 100;
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;
pub const TABLE_ELEMENTS_MAX: usize = 10_000;
/// An interpreter's component holds about 50 core instances.
const CORE_INSTANCES_MAX: usize = 128;
/// Longer arguments are not handed over.
const ARGUMENT_BYTES_MAX: usize = 64 << 10;
/// Room for arguments that an instance keeps between calls.
const ARGUMENTS_KEPT_BYTES_MAX: usize = 64 << 10;
/// How much of a guest's standard error a fault quotes.
const LAST_WORDS_BYTES_MAX: usize = 512;

/// What all instances of a plugin share, whatever their generation.
pub struct Shared {
    /// The plugin's name, or its file's before the name is known: for log lines.
    pub label: String,
    pub kv: Kv,
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    second: u64,
    lines: u32,
}

impl Shared {
    pub fn new(label: &str) -> Arc<Self> {
        Arc::new(Self { label: label.to_owned(), kv: Kv::default(), gate: Mutex::default() })
    }

    /// Passes a line on to the host's log, unless the plugin had its share of this second.
    pub fn log(&self, level: tracing::Level, message: &str) {
        let second = clock::now().as_micros() / 1_000_000;
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let withheld = if gate.second == second { 0 } else { gate.lines.saturating_sub(LOG_LINES_PER_S) };
        if gate.second != second {
            *gate = Gate { second, lines: 0 };
        }
        gate.lines = gate.lines.saturating_add(1);
        let open = gate.lines <= LOG_LINES_PER_S;
        drop(gate);
        let plugin = self.label.as_str();
        if withheld > 0 {
            tracing::warn!(target: "meshwright::plugin", plugin, withheld, "plugin logs too much");
        }
        if !open {
            return;
        }
        let message = printable(cut(message, LOG_LINE_BYTES_MAX));
        match level {
            tracing::Level::ERROR => tracing::error!(target: "meshwright::plugin", plugin, "{message}"),
            tracing::Level::WARN => tracing::warn!(target: "meshwright::plugin", plugin, "{message}"),
            tracing::Level::INFO => tracing::info!(target: "meshwright::plugin", plugin, "{message}"),
            _ => tracing::debug!(target: "meshwright::plugin", plugin, "{message}"),
        }
    }
}

/// The longest start of `text` that has at most `bytes` bytes.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// `text` without control characters, so that it cannot forge log lines or headers.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The data of a store.
pub struct HostState {
    pub shared: Arc<Shared>,
    pub memory: Memory,
    pub stopwatch: Stopwatch,
    pub stdout: Line,
    pub stderr: Line,
    /// The end of what was written to standard error during this call: a panic message, as a rule.
    last_words: String,
    /// Whether it has read arguments: its standard error may repeat them.
    has_read: bool,
    /// What such a guest wrote to standard error during this call, for the log once the guest has survived it.
    held: Vec<String>,
    /// The pool of the last question, kept so that asking about the same pool costs no reference count.
    pool: Option<Arc<Pool>>,
    asking: bool,
    reading: Reading,
    /// The arguments of the call that is being routed: a copy, since a store borrows from nobody. Its room is kept.
    arguments: Vec<u8>,
}

/// What a guest may know of arguments, and what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// No call is being routed.
    Nothing,
    Allowed,
    Done,
    NotGranted,
    /// It wanted to all the same.
    Overstepped,
}

impl HostState {
    pub fn new(shared: Arc<Shared>, memory_bytes_max: usize) -> Self {
        Self {
            shared,
            memory: Memory { bytes: 0, bytes_max: memory_bytes_max, refused: false },
            stopwatch: Stopwatch::default(),
            stdout: Line::default(),
            stderr: Line::default(),
            last_words: String::new(),
            has_read: false,
            held: Vec::new(),
            pool: None,
            asking: false,
            reading: Reading::Nothing,
            arguments: Vec::new(),
        }
    }

    /// A call is being routed; `None` for its arguments when they are not for this guest.
    pub fn routes(&mut self, arguments: Option<&[u8]>) {
        self.arguments.clear();
        self.reading = match arguments {
            None => Reading::NotGranted,
            Some(text) => {
                self.arguments.extend_from_slice(text);
                Reading::Allowed
            }
        };
    }

    /// The call is routed. What the guest did about its arguments.
    pub fn routed(&mut self) -> Reading {
        if self.arguments.capacity() > ARGUMENTS_KEPT_BYTES_MAX {
            self.arguments = Vec::new();
        }
        std::mem::replace(&mut self.reading, Reading::Nothing)
    }

    /// The argument at that pointer, as text.
    pub fn argument(&mut self, at: &str) -> Option<String> {
        match self.reading {
            Reading::Allowed | Reading::Done => {
                (self.reading, self.has_read) = (Reading::Done, true);
                let text = pointer::at(std::str::from_utf8(&self.arguments).ok()?, at)?;
                (text.len() <= ARGUMENT_BYTES_MAX).then(|| text.to_owned())
            }
            Reading::NotGranted | Reading::Overstepped => {
                self.reading = Reading::Overstepped;
                None
            }
            Reading::Nothing => None,
        }
    }

    /// Forgets what belonged to the call before.
    pub fn begin(&mut self, budget: Duration) {
        self.last_words.clear();
        self.held.clear();
        self.memory.refused = false;
        self.stopwatch = Stopwatch::new(budget);
    }

    /// The guest has survived the call: what it wrote were no last words.
    pub fn survived(&mut self) {
        self.held.drain(..).for_each(|text| self.shared.log(tracing::Level::WARN, &text));
    }

    pub fn ask_about(&mut self, pool: &Arc<Pool>) {
        if !self.pool.as_ref().is_some_and(|known| Arc::ptr_eq(known, pool)) {
            self.pool = Some(Arc::clone(pool));
        }
        self.asking = true;
    }

    pub fn answered(&mut self) {
        self.asking = false;
    }

    /// The member that the guest means, if it is of the pool that it is being asked about.
    pub fn live_member(&self, pool: u32, slot: u32) -> Option<&Member> {
        let asked = self.pool.as_deref().filter(|asked| self.asking && asked.id.0 == pool)?;
        // Slots are numbered from 0, so most members sit at their slot's index.
        match asked.members.get(slot as usize) {
            Some(member) if member.slot.0 == slot => Some(member),
            _ => asked.members.iter().find(|member| member.slot.0 == slot),
        }
    }

    pub fn write(&mut self, to: Output, bytes: &[u8]) {
        let line = match to {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        for &byte in bytes {
            if byte != b'\n' {
                line.0.push(byte);
            }
            if byte == b'\n' || line.0.len() >= LOG_LINE_BYTES_MAX {
                let text = String::from_utf8_lossy(&line.0).trim().to_owned();
                line.0.clear();
                if text.is_empty() {
                    continue;
                }
                match to {
                    Output::Stdout => self.shared.log(tracing::Level::INFO, &text),
                    Output::Stderr => {
                        if !self.has_read {
                            self.shared.log(tracing::Level::WARN, &text);
                        } else if self.held.len() < LOG_LINES_PER_S as usize {
                            self.held.push(text.clone());
                        }
                        // What Rust's runtime adds to every panic helps nobody here.
                        if !text.starts_with("note: run with") && self.last_words.len() < LAST_WORDS_BYTES_MAX
                        {
                            let sep = if self.last_words.is_empty() { "" } else { " / " };
                            self.last_words.push_str(sep);
                            self.last_words.push_str(&printable(cut(&text, LAST_WORDS_BYTES_MAX)));
                        }
                    }
                }
            }
        }
    }

    pub fn last_words(&self) -> Option<&str> {
        (!self.last_words.is_empty()).then_some(cut(&self.last_words, LAST_WORDS_BYTES_MAX))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// A line of output that is not complete yet; never longer than [`LOG_LINE_BYTES_MAX`].
#[derive(Default)]
pub struct Line(Vec<u8>);

/// All linear memories of an instance together.
pub struct Memory {
    pub bytes: usize,
    pub bytes_max: usize,
    /// The guest wanted more than it may have during this call.
    pub refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES_MAX
    }
}

/// Ends a call that used up its time. Epochs measure wall time, and a machine under load may take the thread off
/// its core for longer than a whole budget: so half-way the stopwatch starts to look at the thread's own CPU time,
/// and a guest that was not running gets more, up to [`STARVED_FACTOR`] budgets.
#[derive(Default)]
pub struct Stopwatch {
    budget: Duration,
    mark: Option<(Instant, Duration)>,
    /// The call was ended although the guest hardly ran: nothing to hold against it.
    pub starved: bool,
}

const STARVED_FACTOR: u32 = 10;

impl Stopwatch {
    fn new(budget: Duration) -> Self {
        Self { budget, mark: None, starved: false }
    }

    /// Ticks until the first look.
    pub fn first_ticks(budget: Duration) -> u64 {
        // One more, for the epoch that is already running.
        (ticks(budget) / 2).max(1) + 1
    }

    pub fn look(&mut self) -> UpdateDeadline {
        let Some(cpu) = clock::thread_cpu() else {
            // Without a CPU clock, wall time has to do: the second look ends the call.
            return match self.mark.replace((Instant::now(), Duration::ZERO)) {
                None => UpdateDeadline::Continue((ticks(self.budget) / 2).max(1)),
                Some(_) => UpdateDeadline::Interrupt,
            };
        };
        let Some((since, before)) = self.mark else {
            self.mark = Some((Instant::now(), cpu));
            return UpdateDeadline::Continue((ticks(self.budget) / 2).max(1));
        };
        if cpu.saturating_sub(before) >= self.budget.mul_f64(0.4) {
            return UpdateDeadline::Interrupt;
        }
        if since.elapsed() >= self.budget * STARVED_FACTOR {
            self.starved = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue((ticks(self.budget) / 5).max(1))
    }
}

fn ticks(budget: Duration) -> u64 {
    u64::try_from(budget.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX)
}
