//! `why`: one call of a running proxy, explained.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::running::{Running, Where};
use super::{Verdict, WorkshopError, print, text};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The id that the answer carries: 16 hexadecimal digits
    call_id: String,
    #[command(flatten)]
    place: Where,
    /// How it is printed
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The part of an explained call that people are shown.
#[derive(Deserialize)]
struct Call {
    call_id: String,
    at: String,
    asked: Asked,
    routers: Vec<Opinion>,
    service: String,
    tool: String,
    attempts: Vec<Attempt>,
    #[serde(default)]
    waited_us: u64,
    status: u16,
    #[serde(default)]
    error: String,
    latency_us: u64,
}

#[derive(Deserialize)]
struct Asked {
    service: String,
    tool: String,
    method: String,
    client: String,
    size: u64,
    deadline_ms: u64,
}

#[derive(Deserialize)]
struct Source {
    plugin: String,
    version: String,
    generation: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct Opinion {
    #[serde(flatten)]
    by: Source,
    verdict: Option<String>,
    detail: Option<String>,
    why: Option<String>,
    fate: String,
}

#[derive(Deserialize)]
struct Attempt {
    #[serde(flatten)]
    picked: Seen,
    picked_by: String,
    plugin: Option<Source>,
    why: Option<String>,
    candidates: u32,
    alternatives: Vec<Seen>,
    #[serde(default)]
    hedges: bool,
    #[serde(default)]
    waited_us: u64,
    #[serde(default)]
    waited_behind: u32,
    us: u64,
    outcome: String,
}

#[derive(Deserialize)]
struct Seen {
    instance: String,
    in_flight: u32,
    ewma_us: u64,
    share_permille: u32,
}

pub fn run(args: &Args) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let id: String = args.call_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let body = proxy.get(&format!("/api/v1/calls/{id}"))?;
    match args.output {
        Output::Json => {
            let raw: &RawValue = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
            print(&format!("{}\n", raw.get()));
        }
        Output::Text => {
            let call: Call = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
            print(&call.text());
        }
    }
    Ok(Verdict::Good)
}

impl Call {
    fn text(&self) -> String {
        let asked = &self.asked;
        let client = if asked.client.is_empty() { "somebody" } else { &asked.client };
        let tool = if asked.tool.is_empty() { String::new() } else { format!(" `{}`", asked.tool) };
        let mut out = format!(
            "call {}\n  when      {}\n  asked     {}{tool} of `{}`, by {client}; {} in {} s at most\n",
            self.call_id,
            self.at,
            asked.method,
            asked.service,
            text::bytes(usize::try_from(asked.size).unwrap_or(usize::MAX)),
            asked.deadline_ms as f64 / 1e3,
        );
        let mut line = |label: &str, text: String| {
            // Writing to a string cannot fail.
            writeln!(out, "  {label:<9} {text}").ok();
        };
        if self.routers.is_empty() {
            line("routers", "none was asked".into());
        }
        for opinion in &self.routers {
            line("router", opinion.text());
        }
        let to = format!("`{}`, tool `{}`", self.service, self.tool);
        line("went to", if self.attempts.is_empty() { format!("nobody; it was for {to}") } else { to });
        for (number, attempt) in (1..).zip(&self.attempts) {
            if attempt.waited_us > 0 {
                line("waited", attempt.wait());
            }
            line(&format!("attempt {number}"), attempt.head());
            for alternative in &attempt.alternatives {
                line("", format!("beside {}", alternative.text()));
            }
        }
        let took = text::duration(Duration::from_micros(self.latency_us));
        let waited = match self.waited_us {
            0 => String::new(),
            us => format!(", of which it waited {} for room", text::duration(Duration::from_micros(us))),
        };
        let error = if self.error.is_empty() { String::new() } else { format!(": {}", self.error) };
        line("ended", format!("status {} after {took}{waited}{error}", self.status));
        out
    }
}

impl Source {
    fn text(&self) -> String {
        format!("{} {} #{} ({})", self.plugin, self.version, self.generation, self.sha256)
    }
}

impl Opinion {
    fn text(&self) -> String {
        let said = match (self.verdict.as_deref(), self.fate.as_str()) {
            (None, "holds") => "gave no answer, so the call was refused".to_owned(),
            (None, "skipped") => {
                "crashed on such calls before and was skipped, so the next one was asked".to_owned()
            }
            (None, _) => "faulted, so the next one was asked".to_owned(),
            (Some("pass"), _) => "passed".to_owned(),
            (Some("forward"), _) => format!("forwarded to {}", self.detail.as_deref().unwrap_or_default()),
            (Some(_), _) => format!("refused: {}", self.detail.as_deref().unwrap_or_default()),
        };
        let overruled = if self.fate == "overruled" { ", which does not exist" } else { "" };
        let why = self.why.as_deref().filter(|why| !why.is_empty());
        let why = why.map_or_else(String::new, |why| format!("; because: {why}"));
        format!("{} {said}{overruled}{why}", self.by.text())
    }
}

impl Attempt {
    fn wait(&self) -> String {
        let time = text::duration(Duration::from_micros(self.waited_us));
        let calls = if self.waited_behind == 1 { "call" } else { "calls" };
        format!("{time} for an instance to have room, behind {} other {calls}", self.waited_behind)
    }

    fn head(&self) -> String {
        let by = match (self.picked_by.as_str(), &self.plugin) {
            ("plugin", Some(plugin)) => plugin.text(),
            ("caller", _) => "the caller, who named it".into(),
            ("session", _) => "the client's session, which is with it".into(),
            ("panic", _) => "the native balancer, among all that are left".into(),
            ("trial", _) => "nobody: its breaker waited for a call that shows how it is".into(),
            _ => "the native balancer".into(),
        };
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let took = text::duration(Duration::from_micros(self.us));
        let beside = if self.hedges { "beside the one before, which was slow: " } else { "" };
        let others = match self.candidates {
            0 | 1 => "the only one".to_owned(),
            many => format!("one of {many}"),
        };
        format!(
            "{beside}{}, {others}, picked by {by}{why}; {} after {took}",
            self.picked.text(),
            self.outcome
        )
    }
}

impl Seen {
    fn text(&self) -> String {
        let ewma = match self.ewma_us {
            0 => "not measured yet".to_owned(),
            us => text::duration(Duration::from_micros(us)),
        };
        format!(
            "`{}` ({} in flight, {ewma}, {} % of its weight)",
            self.instance,
            self.in_flight,
            f64::from(self.share_permille) / 10.0
        )
    }
}
