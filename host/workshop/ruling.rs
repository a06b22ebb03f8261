//! `plugin allow`, `enable` and `disable`: what an operator decides about a plugin of a running proxy.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::running::{Running, Where};
use super::{Verdict, WorkshopError, print};

#[derive(Clone, Debug, clap::Args)]
pub struct AllowArgs {
    /// The plugin
    name: String,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Debug, clap::Args)]
pub struct SwitchArgs {
    /// The plugin
    name: String,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Error)]
pub enum RulingError {
    #[error("no plugin is called `{0}`; `meshwright plugin ls` lists them")]
    Unknown(String),
    #[error("nobody is there to say yes; `--yes` gives the grants without asking")]
    NobodyToAsk,
    #[error("the answer cannot be read")]
    Answer(#[source] io::Error),
}

#[derive(Deserialize)]
struct Listing {
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
    source: String,
    version: String,
    state: String,
    #[serde(default)]
    reason: String,
    pending: Option<Pending>,
    refused: Option<Refused>,
}

/// What is kept out while the build before is in force.
#[derive(Deserialize)]
struct Refused {
    reason: String,
}

#[derive(Deserialize)]
struct Pending {
    sha256: String,
    version: String,
    grants: Vec<String>,
}

#[derive(Serialize)]
struct Grants<'a> {
    sha256: &'a str,
    grants: &'a [String],
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

/// What people should know before they give it.
fn meaning(grant: &str) -> &str {
    match grant {
        "arguments" => "it reads the arguments of the calls that it routes, whatever they contain",
        _ => "this release of the command does not know what that is",
    }
}

pub fn allow(args: &AllowArgs) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let listing: Listing =
        serde_json::from_slice(&proxy.get("/plugins")?).map_err(|error| proxy.foreign(error))?;
    let mut named = listing.plugins.into_iter().filter(|plugin| plugin.name == args.name).peekable();
    if named.peek().is_none() {
        return Err(RulingError::Unknown(args.name.clone()).into());
    }
    let Some((source, pending)) = named.find_map(|plugin| Some((plugin.source, plugin.pending?))) else {
        print(&format!("`{}` waits for nothing.\n", args.name));
        return Ok(Verdict::Good);
    };
    let mut text = format!("{} {} from {source}\n", args.name, pending.version);
    text.push_str(&format!("  sha256  {}\n", pending.sha256));
    for grant in &pending.grants {
        text.push_str(&format!("  grant   {grant}: {}\n", meaning(grant)));
    }
    print(&text);
    if !args.yes && !is_agreed()? {
        print("Nothing has changed.\n");
        return Ok(Verdict::Bad);
    }
    let body = Grants { sha256: &pending.sha256, grants: &pending.grants };
    let answer = proxy.post(&format!("/api/v1/plugins/{}/grants", args.name), &body)?;
    tell(&proxy, &answer)
}

pub fn switch(args: &SwitchArgs, enabled: bool) -> Result<Verdict, WorkshopError> {
    let proxy = Running::at(&args.place);
    let answer = proxy.post(&format!("/api/v1/plugins/{}/enabled", args.name), &Enabled { enabled })?;
    tell(&proxy, &answer)
}

fn is_agreed() -> Result<bool, RulingError> {
    if !io::stdin().is_terminal() {
        return Err(RulingError::NobodyToAsk);
    }
    eprint!("Give this to this build? [y/N] ");
    io::stderr().flush().map_err(RulingError::Answer)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(RulingError::Answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn tell(proxy: &Running, answer: &[u8]) -> Result<Verdict, WorkshopError> {
    let plugin: Plugin = serde_json::from_slice(answer).map_err(|error| proxy.foreign(error))?;
    let why = if plugin.reason.is_empty() { String::new() } else { format!(": {}", plugin.reason) };
    let refused = plugin.refused.as_ref();
    let beside =
        refused.map_or_else(String::new, |build| format!("; what is new is refused: {}", build.reason));
    print(&format!("{} {} is {}{why}{beside}\n", plugin.name, plugin.version, plugin.state));
    let is_whole = plugin.state == "loaded" && refused.is_none();
    Ok(Verdict::good_if(is_whole || plugin.state == "disabled"))
}
