//! Taking a port, with an error that says who has it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum BindError {
    #[error("{address} is taken{holder}; stop that, or choose another address with {flag} ({variable})")]
    Taken { address: SocketAddr, holder: String, flag: &'static str, variable: &'static str },
    #[error("cannot listen on {address}; choose another address with {flag} ({variable})")]
    Other { address: SocketAddr, flag: &'static str, variable: &'static str, source: std::io::Error },
    #[error(
        "{address} is not a loopback address: without TLS and authentication the proxy listens on loopback only; use 127.0.0.1 with {flag} ({variable})"
    )]
    Exposed { address: SocketAddr, flag: &'static str, variable: &'static str },
}

/// How long a proxy that was killed may hold a port: a child that it was starting has all that it had open.
const HANDOVER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A port that was taken.
#[derive(Debug)]
pub struct Bound {
    pub listener: TcpListener,
    pub address: SocketAddr,
}

/// Listens on `address`; port 0 takes a free one. `flag` and `variable` are what changes the address.
///
/// # Errors
/// The port is taken, cannot be had, or would be reachable from other machines.
pub fn bind(address: SocketAddr, flag: &'static str, variable: &'static str) -> Result<Bound, BindError> {
    if !address.ip().is_loopback() {
        return Err(BindError::Exposed { address, flag, variable });
    }
    let other = |source| BindError::Other { address, flag, variable, source };
    let begun = Instant::now();
    let bound = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < HANDOVER => {
                std::thread::sleep(LOOK_EVERY);
            }
            bound => break bound,
        }
    };
    let listener = bound.map_err(|source| {
        if source.kind() == ErrorKind::AddrInUse {
            let holder = holder(address).map_or(String::new(), |who| format!(" by {who}"));
            BindError::Taken { address, holder, flag, variable }
        } else {
            other(source)
        }
    })?;
    listener.set_nonblocking(true).map_err(other)?;
    let address = listener.local_addr().map_err(other)?;
    Ok(Bound { listener, address })
}

/// The process that listens on `address`, when this user may see it: `name (pid N)`.
fn holder(address: SocketAddr) -> Option<String> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string(table).ok()?;
    // Columns: sl, local address, remote address, state (0A: listening), …, inode as the tenth.
    let inode = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(
        |columns| {
            let listening = columns.get(1)?.ends_with(&port) && *columns.get(3)? == "0A";
            listening.then(|| columns.get(9).copied().map(str::to_owned)).flatten()
        },
    )?;
    let socket = format!("socket:[{inode}]");
    let holds = |process: &Path| {
        let files = std::fs::read_dir(process.join("fd")).ok()?;
        files
            .flatten()
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket))
            .then_some(())
    };
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path())?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("`{}` (pid {pid})", name.trim()))
    })
}
