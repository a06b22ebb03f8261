//! `add` and `rm`: services written into the configuration file, and taken out of it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Failed;
use crate::config::{self, Overrides};
use crate::workshop::print;
use crate::workshop::running::{Running, RunningError, Where};

#[derive(Clone, Debug, clap::Args)]
pub struct AddArgs {
    /// What the service is called
    name: String,
    /// Where it listens
    #[arg(value_name = "URL", required_unless_present = "command", conflicts_with = "command")]
    address: Option<String>,
    /// A variable of its processes, such as `TOKEN=${secret:token}`; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "command", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Where its processes run
    #[arg(long, value_name = "DIR", requires = "command")]
    cwd: Option<PathBuf>,
    /// A program that speaks MCP on standard input and output, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct RmArgs {
    /// The service
    name: String,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct FileArgs {
    /// Configuration file [default: that of the running proxy, else the usual one]
    #[arg(long, env = "MESHWRIGHT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it must look like `NAME=VALUE`")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn add(args: &AddArgs) -> Result<bool, Failed> {
    let target = Target::of(&args.file)?;
    let file = config::add_service(&target.overrides, &args.name, &args.settings())?;
    print(&format!("`{}` was written into {}\n", args.name, file.display()));
    target.tell(&file)
}

pub(super) fn rm(args: &RmArgs) -> Result<bool, Failed> {
    let target = Target::of(&args.file)?;
    let file = config::remove_service(&target.overrides, &args.name)?;
    print(&format!("`{}` was taken out of {}\n", args.name, file.display()));
    target.tell(&file)
}

impl AddArgs {
    fn settings(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        let Some((program, args)) = self.command.split_first() else {
            settings.extend(self.address.iter().map(|url| ("url".to_owned(), json!(url))));
            return settings;
        };
        settings.insert("command".to_owned(), json!(placed(program)));
        if !args.is_empty() {
            settings.insert("args".to_owned(), json!(args));
        }
        if !self.env.is_empty() {
            let env: Map<String, Value> =
                self.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            settings.insert("env".to_owned(), env.into());
        }
        let cwd = self.cwd.as_deref().and_then(|folder| std::path::absolute(folder).ok());
        settings.extend(cwd.map(|folder| ("cwd".to_owned(), json!(folder))));
        settings
    }
}

/// A program that is named by its place is meant as seen from here, not from where the proxy runs.
fn placed(program: &str) -> String {
    let is_place = program.contains('/') && !program.starts_with("~/");
    let place = Some(program).filter(|_| is_place).and_then(|program| std::path::absolute(program).ok());
    place.map_or_else(|| program.to_owned(), |place| place.display().to_string())
}

/// The file that is written, and the proxy that follows it.
struct Target {
    overrides: Overrides,
    running: Option<Running>,
}

/// The part of `GET /api/v1/config` that is needed here.
#[derive(Deserialize)]
struct InForce {
    file: Option<PathBuf>,
    complaints: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    what: String,
    why: String,
}

impl Target {
    fn of(args: &FileArgs) -> Result<Self, Failed> {
        let proxy = Running::at(&args.place);
        let running = match proxy.get("/api/v1/config") {
            Ok(body) => Some(in_force(&proxy, &body)?.file),
            Err(RunningError::Unreachable { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // A proxy without a file takes the user's up as soon as there is one.
        let followed = running.clone().map(|file| file.or_else(config::user_file));
        let file = args.config.clone().or(followed.flatten());
        let overrides = Overrides { file, ..Overrides::default() };
        Ok(Self { overrides, running: running.map(|_| proxy) })
    }

    /// Has the running proxy read the file; whether it is in force then.
    fn tell(&self, file: &Path) -> Result<bool, Failed> {
        let Some(proxy) = &self.running else {
            print("no proxy runs here: it holds from the next start on\n");
            return Ok(true);
        };
        let body = proxy.post("/api/v1/config/reloads", &Map::new())?;
        let InForce { file: followed, complaints } = in_force(proxy, &body)?;
        if followed.as_deref().and_then(|path| path.canonicalize().ok()) != file.canonicalize().ok() {
            print("the running proxy follows another file: nothing changes there\n");
            return Ok(true);
        }
        let refused = complaints.iter().find(|complaint| complaint.what != "left out");
        if let Some(Complaint { what, why }) = refused {
            print(&format!("✖ {what}: {why}\n"));
        }
        Ok(refused.is_none())
    }
}

fn in_force(proxy: &Running, body: &[u8]) -> Result<InForce, RunningError> {
    serde_json::from_slice(body).map_err(|error| proxy.foreign(error))
}
