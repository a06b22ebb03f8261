//! Child processes on one core, and what the kernel knows of them.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks in a second of `/proc/PID/stat`: the kernel's interface says 100 whatever its own clock.
const TICKS_PER_S: f64 = 100.0;

/// A process that is ended with this value.
pub struct Process {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `program` on `core`. `adjust` sets arguments and surroundings; what it prints is read as lines, what
    /// it says to standard error goes to `log`.
    pub fn start(
        name: &'static str,
        core: usize,
        program: &Path,
        log: &Path,
        adjust: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        // `taskset` becomes the program, so the child's number is the program's.
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(core.to_string()).arg(program);
        adjust(&mut command);
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("cannot run `taskset` of util-linux")?;
        let output = child.stdout.take().context("a piped output")?;
        let input = child.stdin.take();
        Ok(Self { name, child, input, lines: lines_of(output) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&mut self, within: Duration) -> anyhow::Result<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                anyhow::bail!("{} said nothing for {within:?}", self.name)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                anyhow::bail!("{} ended with {:?}", self.name, self.child.wait()?)
            }
        }
    }

    /// Writes an empty line to it.
    pub fn nudge(&mut self) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the input is open")?;
        input.write_all(b"\n")?;
        input.flush()?;
        Ok(())
    }

    pub fn ensure_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended with {status}", self.name),
        }
    }

    /// CPU time used so far, user and system, in seconds.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.pid())
    }

    /// The same of the processes that it has started and that still run, all together.
    pub fn children_cpu_s(&self) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // Threads and children may end while they are looked at.
            let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
            sum += pids.filter_map(|pid| cpu_s(pid).ok()).sum::<f64>();
        }
        Ok(sum)
    }

    pub fn rss_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and that is well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks; behind it, the times are the 12th and 13th field.
    let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
    let mut ticks = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (ticks.next(), ticks.next()) else {
        anyhow::bail!("no CPU times in `{stat}`");
    };
    Ok((user + system) as f64 / TICKS_PER_S)
}

/// Read by a thread, so that nobody waits for a line for ever; it ends with the process.
fn lines_of(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        // Lines that nobody reads are dropped, lest the process waits at a full pipe.
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            sender.try_send(line).ok();
        }
    });
    lines
}

/// Seconds that `core` was busy since the machine started.
pub fn core_busy_s(core: usize) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).context("the core's line")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest times are part of user.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    Ok(busy as f64 / TICKS_PER_S)
}

pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
