//! The one wasmtime engine: its settings, its linker, its clock.

use std::error::Error as StdError;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use thiserror::Error;
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Config, Engine, OptLevel, Strategy, WasmBacktraceDetails};

use super::cache::Cache;
use super::code::CodeMaker;
use super::compiler::{CompileError, Compiler};
use super::host_state::HostState;
use super::{absent, v0_1, wasi};
use crate::policy::status::Made;

/// One epoch: the unit of every deadline in this room.
pub const TICK: Duration = Duration::from_millis(1);

/// Stack that one call of a plugin may use; well under what a data-path worker has.
const WASM_STACK_BYTES: usize = 256 << 10;
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");

#[derive(Debug, Error)]
pub enum EngineError {
    #[error("this machine cannot run WebAssembly")]
    Engine(#[source] Box<dyn StdError + Send + Sync>),
    #[error("what the host offers to plugins could not be linked")]
    Link(#[source] Box<dyn StdError + Send + Sync>),
    #[error("a plugin thread could not be started")]
    Thread(#[source] io::Error),
}

/// Compiles components and binds them to what the host offers.
pub struct Runtime {
    engine: Engine,
    linker: Linker<HostState>,
    code: CodeMaker,
}

/// Why a component cannot be instantiated here.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("it does not fit what the host offers")]
    Link(#[source] Box<dyn StdError + Send + Sync>),
}

/// What an engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Calls end by the clock.
    Serving,
    /// Counts instructions and has no clock: what runs in it ends after the same instruction each time, however busy
    /// the machine is.
    Counting,
}

impl Runtime {
    /// # Errors
    /// The engine is refused by this machine, or no thread can be had.
    pub fn new(purpose: Purpose, compiler: Compiler, cache: Option<Cache>) -> Result<Self, EngineError> {
        let engine = engine(purpose).map_err(|e| EngineError::Engine(e.into_boxed_dyn_error()))?;
        if purpose == Purpose::Serving {
            start_clock(&engine).map_err(EngineError::Thread)?;
        }
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker).map_err(|e| EngineError::Link(e.into_boxed_dyn_error()))?;
        v0_1::link(&mut linker).map_err(|e| EngineError::Link(e.into_boxed_dyn_error()))?;
        let code = CodeMaker::new(&engine, purpose, compiler, cache);
        Ok(Self { engine, linker, code })
    }

    pub fn compiler(&self) -> &Compiler {
        self.code.compiler()
    }

    /// Takes a millisecond when its code was kept, else from 30 ms to 20 s of CPU time, on so many `threads`: never on
    /// a worker.
    ///
    /// # Errors
    /// The component is not valid, cannot be compiled within limits, or wants what the linker does not have.
    pub fn prepare(
        &self,
        component: &[u8],
        threads: usize,
    ) -> Result<(InstancePre<HostState>, Made), RuntimeError> {
        let (component, made) = self.code.make(&self.engine, component, threads)?;
        let pre =
            absent::link(&self.linker, &component).and_then(|linker| linker.instantiate_pre(&component));
        let pre = pre.map_err(|error| RuntimeError::Link(error.into_boxed_dyn_error()))?;
        Ok((pre, made))
    }
}

/// Code that one engine of this build compiled, another for the same purpose takes.
pub fn engine(purpose: Purpose) -> wasmtime::Result<Engine> {
    Engine::new(&config(purpose))
}

fn config(purpose: Purpose) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        .epoch_interruption(purpose == Purpose::Serving)
        .consume_fuel(purpose == Purpose::Counting)
        // On by default since wasmtime 46, and two to three times slower per call.
        .concurrency_support(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_component_model_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.gc_support(false);
    config
}

/// Guests that run now, of all engines of the process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Clocks that sleep until a guest runs.
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
static SLEEPERS: Mutex<Vec<Thread>> = Mutex::new(Vec::new());
/// Ticks without a guest before a clock goes to sleep: a thousand wake-ups a second cost an idle proxy, and the
/// worker beside it, more than anything else it does.
const QUIET_TICKS: u32 = 100;
/// A clock that sleeps looks this often whether its engine is still there.
const ASLEEP_MAX: Duration = Duration::from_secs(1);

/// A guest runs until this is dropped, and the clocks tick.
pub struct Running(());

impl Running {
    pub fn begin() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        // Either this sees the sleeper, or the sleeper sees the guest: both look after they have said so.
        if ASLEEP.load(Ordering::SeqCst) > 0 {
            wake_clocks();
        }
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cold]
fn wake_clocks() {
    for clock in &*SLEEPERS.lock().unwrap_or_else(PoisonError::into_inner) {
        clock.unpark();
    }
}

/// Holds the engine weakly: the thread ends with the last user of the engine.
fn start_clock(engine: &Engine) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("plugin-clock".into()).spawn(move || {
        let mut quiet = 0;
        loop {
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
            quiet = if RUNNING.load(Ordering::Relaxed) > 0 { 0 } else { quiet + 1 };
            if quiet >= QUIET_TICKS {
                sleep_until_a_guest_runs();
                quiet = 0;
            }
        }
    })?;
    Ok(())
}

fn sleep_until_a_guest_runs() {
    let me = thread::current();
    let id = me.id();
    SLEEPERS.lock().unwrap_or_else(PoisonError::into_inner).push(me);
    ASLEEP.fetch_add(1, Ordering::SeqCst);
    if RUNNING.load(Ordering::SeqCst) == 0 {
        thread::park_timeout(ASLEEP_MAX);
    }
    ASLEEP.fetch_sub(1, Ordering::SeqCst);
    SLEEPERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|thread| thread.id() != id);
}
