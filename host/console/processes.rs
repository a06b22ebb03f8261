//! `ps`, `start`, `stop` and `restart`.

use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::workshop::print;
use crate::workshop::running::{Running, RunningError, Where};
use crate::workshop::text;

#[derive(Clone, Debug, clap::Args)]
pub struct PsArgs {
    #[command(flatten)]
    place: Where,
    /// How it is printed
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Debug, clap::Args)]
pub struct OrderArgs {
    /// A service, or one of its instances
    name: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Deserialize)]
pub(super) struct Processes {
    pub items: Vec<Process>,
}

/// The part of `GET /api/v1/processes` that people are shown.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub service: String,
    pub instance: String,
    pub command: String,
    pub state: String,
    pub reason: String,
    pub fix: Option<String>,
    pub pid: Option<u32>,
    pub uptime_s: Option<f64>,
    pub restarts: u64,
    pub next_try_s: Option<f64>,
    pub degraded: bool,
}

impl Process {
    /// Why it is as it is, and when that may change by itself.
    pub(super) fn why(&self) -> String {
        match self.next_try_s {
            Some(next) => format!("{}; next try in {} s", self.reason, next.ceil()),
            None => self.reason.clone(),
        }
    }
}

pub(super) fn ps(args: &PsArgs) -> Result<bool, RunningError> {
    let proxy = Running::at(&args.place);
    let body = proxy.get("/api/v1/processes")?;
    match args.output {
        Output::Json => {
            let raw: &RawValue = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
            print(&format!("{}\n", raw.get()));
        }
        Output::Table => print(&table(&read(&proxy, &body)?)),
    }
    Ok(true)
}

pub(super) fn read(proxy: &Running, body: &[u8]) -> Result<Vec<Process>, RunningError> {
    let processes: Processes = serde_json::from_slice(body).map_err(|error| proxy.foreign(error))?;
    Ok(processes.items)
}

fn table(processes: &[Process]) -> String {
    if processes.is_empty() {
        return "no service has a `command` whose process all clients share\n".to_owned();
    }
    let head = ["INSTANCE", "STATE", "PID", "UPTIME", "RESTARTS", "COMMAND", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for process in processes {
        let command: String = in_a_line(&process.command).chars().take(40).collect();
        rows.push(vec![
            process.instance.clone(),
            if process.degraded { format!("{} (degraded)", process.state) } else { process.state.clone() },
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.uptime_s.map_or_else(|| "-".to_owned(), uptime),
            process.restarts.to_string(),
            command,
            in_a_line(&process.why()),
        ]);
    }
    let table = text::table(&rows);
    let mut lines = table.lines();
    let mut shown: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
    for (line, process) in lines.zip(processes) {
        shown.push(line.to_owned());
        shown.extend(process.fix.as_ref().map(|fix| format!("  → {fix}")));
    }
    shown.join("\n") + "\n"
}

fn in_a_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn uptime(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn order(args: &OrderArgs, word: &str) -> Result<bool, RunningError> {
    let proxy = Running::at(&args.place);
    let nothing = serde_json::Map::new();
    let body = proxy.post(&format!("/api/v1/services/{}/{word}", args.name), &nothing)?;
    for process in read(&proxy, &body)? {
        let colon = if process.reason.is_empty() { "" } else { ": " };
        print(&format!("{} is {}{colon}{}\n", process.instance, process.state, process.why()));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_the_next_try_and_the_fix_stand_with_each_process() {
        let shown = table(&[
            Process {
                instance: "a".into(),
                state: "ready".into(),
                pid: Some(7),
                uptime_s: Some(7300.0),
                ..Process::default()
            },
            Process {
                instance: "b".into(),
                state: "backoff".into(),
                reason: "exited\nwith 1".into(),
                next_try_s: Some(1.2),
                fix: Some("look at it".into()),
                ..Process::default()
            },
        ]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("a         ready    7    2 h"), "{shown}");
        assert!(lines[2].ends_with("exited with 1; next try in 2 s"), "{shown}");
        assert_eq!(lines[3..], ["  → look at it"], "{shown}");
    }
}
