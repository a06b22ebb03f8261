//! `logs`: what a service's processes wrote.

use std::io::Write as _;
use std::time::Duration;

use serde::Deserialize;

use crate::workshop::running::{Running, RunningError, Where};

/// Distance of looks for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A service, or one of its instances
    name: String,
    /// Goes on with new lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Lines to begin with
    #[arg(short = 'n', long, default_value_t = 200)]
    lines: usize,
    #[command(flatten)]
    place: Where,
}

#[derive(Deserialize)]
struct Lines {
    items: Vec<Line>,
    next_cursor: String,
}

#[derive(Deserialize)]
struct Line {
    instance: String,
    at: String,
    stream: String,
    text: String,
}

pub(super) fn run(args: &Args) -> Result<bool, RunningError> {
    let proxy = Running::at(&args.place);
    let (mut cursor, mut limit) = (String::new(), args.lines);
    loop {
        let path = format!("/api/v1/services/{}/logs?limit={limit}&cursor={cursor}", args.name);
        let body = proxy.get(&path)?;
        let lines: Lines = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
        let text: String = lines.items.iter().map(shown).collect();
        // Whoever closed standard output does not want the rest.
        let is_heard = std::io::stdout().write_all(text.as_bytes()).is_ok();
        if !args.follow || !is_heard {
            return Ok(true);
        }
        cursor = lines.next_cursor;
        limit = 5000;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Control characters would speak to the terminal.
fn shown(line: &Line) -> String {
    let text: String = line.text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
    let time = line.at.get(..23).unwrap_or(&line.at);
    format!("{time} {} {} {text}\n", line.instance, line.stream)
}
