//! Programs that the proxy starts: from where, as whose, and how nothing of them is left behind; and the end of others.
//!
//! Each leads a session of its own, and has a mark in its environment. On Linux it dies with the proxy, and is written
//! down before its program runs, so that the next start finds what outlived it. Must not know what is said to a program,
//! nor why it is started.

mod foreign;
mod launch;
mod ledger;
mod mark;
mod path;
mod session;
mod start;

pub use foreign::Foreign;
pub use launch::{LaunchLoop, Launcher};
pub use ledger::Ledger;
pub use path::{Searched, find};
pub use session::{Session, installing};
pub use start::{StartError, has_windows_line_ends};
