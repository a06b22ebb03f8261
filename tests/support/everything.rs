//! The server of `tests/fixtures/everything`, built once, as processes of their own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{repository, target_dir};

pub struct Everything {
    /// Where it serves MCP.
    pub url: String,
    pub port: u16,
    child: Child,
}

impl Everything {
    pub fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the server");
        let output = child.stdout.take().expect("it is piped");
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url).expect("the server says where it is");
        let url = url.trim().to_owned();
        let port = url.split([':', '/']).nth(4).and_then(|port| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("no port in {url:?}")), url, child }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server lives");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the server lives");
        self.child.wait().expect("reap the server");
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The executable. cargo builds it into the usual target folder, where it finds what the tests were built from.
pub fn program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()))
            .current_dir(repository())
            .args(["build", "--quiet", "--locked", "-p", "everything-server", "--message-format=json"])
            .arg("--target-dir")
            .arg(target_dir())
            .stdin(Stdio::null())
            .output()
            .expect("run cargo");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
        let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        programs.next_back().expect("cargo names the executable")
    });
    built.clone()
}
