//! The part of WASI 0.2 that plugins may import: clocks, randomness, standard output into the plugin's log, an
//! empty environment, a closed standard input.
//!
//! Calls run inline on data-path workers, and wasmtime-wasi's synchronous functions enter `block_on` of the tokio
//! runtime they find, which panics on a worker. So only its generated traits are used, and none of its
//! implementations: every stream here is always ready, every pollable too, and waiting returns at once. No
//! function blocks, allocates by the guest's word or keeps anything, so there is no table of resources either.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime::{Result, bail};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::bindings::{cli, clocks, io, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError, StreamError, StreamResult};

use super::clock;
use super::host_state::{HostState, Output};

/// Interfaces of `wasi:` 0.2 that are linked below; everything else is refused when a plugin is loaded.
pub const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// What one call may write or ask for at once.
const CHUNK_BYTES_MAX: u64 = 64 << 10;
/// The limit that WASI itself sets for `blocking-write-and-flush`.
const BLOCKING_WRITE_BYTES_MAX: usize = 4096;

pub fn link(linker: &mut Linker<HostState>) -> Result<()> {
    type Host = HasSelf<HostState>;
    fn own(state: &mut HostState) -> &mut HostState {
        state
    }
    io::error::add_to_linker::<_, Host>(linker, own)?;
    poll::add_to_linker::<_, Host>(linker, own)?;
    streams::add_to_linker::<_, Host>(linker, own)?;
    clocks::monotonic_clock::add_to_linker::<_, Host>(linker, own)?;
    clocks::wall_clock::add_to_linker::<_, Host>(linker, own)?;
    random::random::add_to_linker::<_, Host>(linker, own)?;
    random::insecure::add_to_linker::<_, Host>(linker, own)?;
    random::insecure_seed::add_to_linker::<_, Host>(linker, own)?;
    cli::environment::add_to_linker::<_, Host>(linker, own)?;
    cli::exit::add_to_linker::<_, Host>(linker, own)?;
    cli::stdin::add_to_linker::<_, Host>(linker, own)?;
    cli::stdout::add_to_linker::<_, Host>(linker, own)?;
    cli::stderr::add_to_linker::<_, Host>(linker, own)?;
    cli::terminal_input::add_to_linker::<_, Host>(linker, own)?;
    cli::terminal_output::add_to_linker::<_, Host>(linker, own)?;
    cli::terminal_stdin::add_to_linker::<_, Host>(linker, own)?;
    cli::terminal_stdout::add_to_linker::<_, Host>(linker, own)?;
    cli::terminal_stderr::add_to_linker::<_, Host>(linker, own)
}

// Resources are plain numbers: a guest cannot name one that it was not given.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

fn output(stream: &Resource<DynOutputStream>) -> Output {
    if stream.rep() == STDERR { Output::Stderr } else { Output::Stdout }
}

fn always_ready() -> Resource<DynPollable> {
    Resource::new_own(0)
}

impl io::error::Host for HostState {}

impl io::error::HostError for HostState {
    fn to_debug_string(&mut self, _: Resource<IoError>) -> Result<String> {
        Ok(String::new())
    }

    fn drop(&mut self, _: Resource<IoError>) -> Result<()> {
        Ok(())
    }
}

impl poll::Host for HostState {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        if pollables.is_empty() {
            bail!("waiting for nothing would never end");
        }
        Ok((0..).zip(&pollables).map(|(index, _)| index).collect())
    }
}

impl poll::HostPollable for HostState {
    fn ready(&mut self, _: Resource<DynPollable>) -> Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }

    fn drop(&mut self, _: Resource<DynPollable>) -> Result<()> {
        Ok(())
    }
}

impl streams::Host for HostState {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl streams::HostInputStream for HostState {
    fn read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<DynInputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        Ok(always_ready())
    }

    fn drop(&mut self, _: Resource<DynInputStream>) -> Result<()> {
        Ok(())
    }
}

impl streams::HostOutputStream for HostState {
    fn check_write(&mut self, _: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(CHUNK_BYTES_MAX)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if bytes.len() as u64 > CHUNK_BYTES_MAX {
            return Err(StreamError::trap("more was written than `check-write` allowed"));
        }
        HostState::write(self, output(&stream), &bytes);
        Ok(())
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        if bytes.len() > BLOCKING_WRITE_BYTES_MAX {
            return Err(StreamError::trap("`blocking-write-and-flush` takes at most 4096 bytes"));
        }
        HostState::write(self, output(&stream), &bytes);
        Ok(())
    }

    fn flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        Ok(always_ready())
    }

    fn write_zeroes(&mut self, _: Resource<DynOutputStream>, _: u64) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<DynOutputStream>, _: u64) -> StreamResult<()> {
        Ok(())
    }

    fn splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<DynOutputStream>,
        _: Resource<DynInputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _: Resource<DynOutputStream>) -> Result<()> {
        Ok(())
    }
}

impl clocks::monotonic_clock::Host for HostState {
    fn now(&mut self) -> Result<u64> {
        Ok(clock::now().as_micros().saturating_mul(1_000))
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1_000)
    }

    fn subscribe_instant(&mut self, _: u64) -> Result<Resource<DynPollable>> {
        Ok(always_ready())
    }

    fn subscribe_duration(&mut self, _: u64) -> Result<Resource<DynPollable>> {
        Ok(always_ready())
    }
}

impl clocks::wall_clock::Host for HostState {
    fn now(&mut self) -> Result<clocks::wall_clock::Datetime> {
        let millis = u64::try_from(clock::wall().as_millis()).unwrap_or(0);
        Ok(clocks::wall_clock::Datetime {
            seconds: millis / 1_000,
            nanoseconds: (millis % 1_000) as u32 * 1_000_000,
        })
    }

    fn resolution(&mut self) -> Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

fn buffer(len: u64) -> Result<Vec<u8>> {
    if len > CHUNK_BYTES_MAX {
        bail!("at most {CHUNK_BYTES_MAX} random bytes at once");
    }
    Ok(vec![0; len as usize])
}

fn no_entropy(error: getrandom::Error) -> wasmtime::Error {
    wasmtime::format_err!("the system has no randomness: {error}")
}

impl random::random::Host for HostState {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = buffer(len)?;
        getrandom::fill(&mut bytes).map_err(no_entropy)?;
        Ok(bytes)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        getrandom::u64().map_err(no_entropy)
    }
}

impl random::insecure::Host for HostState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = buffer(len)?;
        fastrand::fill(&mut bytes);
        Ok(bytes)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(fastrand::u64(..))
    }
}

impl random::insecure_seed::Host for HostState {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((fastrand::u64(..), fastrand::u64(..)))
    }
}

impl cli::environment::Host for HostState {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl cli::exit::Host for HostState {
    fn exit(&mut self, _: Result<(), ()>) -> Result<()> {
        bail!("it called `exit`")
    }

    fn exit_with_code(&mut self, code: u8) -> Result<()> {
        bail!("it called `exit` with code {code}")
    }
}

impl cli::stdin::Host for HostState {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        Ok(Resource::new_own(0))
    }
}

impl cli::stdout::Host for HostState {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(STDOUT))
    }
}

impl cli::stderr::Host for HostState {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        Ok(Resource::new_own(STDERR))
    }
}

impl cli::terminal_input::Host for HostState {}

impl cli::terminal_input::HostTerminalInput for HostState {
    fn drop(&mut self, _: Resource<cli::terminal_input::TerminalInput>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_output::Host for HostState {}

impl cli::terminal_output::HostTerminalOutput for HostState {
    fn drop(&mut self, _: Resource<cli::terminal_output::TerminalOutput>) -> Result<()> {
        Ok(())
    }
}

impl cli::terminal_stdin::Host for HostState {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<cli::terminal_input::TerminalInput>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for HostState {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for HostState {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<cli::terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}
