//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;
use crate::console::{AddArgs, DoctorArgs, DrainArgs, LogsArgs, OrderArgs, PsArgs, RmArgs, UndrainArgs};
use crate::plugin::Limits;
use crate::workshop::{Tool, WhyArgs};

/// A mesh proxy for MCP servers whose policies are WebAssembly components.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the proxy (the default).
    Serve(Serve),
    /// Checks and shows the configuration.
    #[command(subcommand)]
    Config(ConfigTool),
    /// Prints the MCP servers of other clients' files as services; without FILE, says where such files are.
    Import {
        /// Claude Desktop, Claude Code, Cursor, Cline, Windsurf, Gemini, VS Code, Zed (JSON), Codex (TOML)
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Tools for authors of plugins.
    #[command(subcommand)]
    Plugin(Tool),
    /// Writes a service into the configuration file; a running proxy takes it up at once
    Add(AddArgs),
    /// Takes a service out of the configuration file
    Rm(RmArgs),
    /// Lists the processes of services by command, with their states and reasons
    Ps(PsArgs),
    /// Shows what a service's processes wrote to standard error, and on standard output beside the protocol
    Logs(LogsArgs),
    /// Starts a service's processes
    Start(OrderArgs),
    /// Stops a service's processes
    Stop(OrderArgs),
    /// Stops a service's processes and starts them again
    Restart(OrderArgs),
    /// Takes an instance out of use: nothing new goes there, what is under way ends
    Drain(DrainArgs),
    /// Takes a drained instance into use again
    Undrain(UndrainArgs),
    /// Says what is wrong and what to do about it
    Doctor(DoctorArgs),
    /// Explains one call: what was asked, which plugin decided, why, and which instance was picked by whom.
    Why(WhyArgs),
    /// Compiles the component on standard input within limits; for the program itself.
    #[command(hide = true)]
    CompilePlugin {
        #[command(flatten)]
        limits: ChildLimits,
        /// For an engine that counts instructions.
        #[arg(long)]
        counting: bool,
    },
    /// Checks the configuration on standard input within limits; for the program itself.
    #[command(hide = true)]
    CheckConfiguration(ChildLimits),
}

#[derive(Clone, Copy, Debug, Args)]
pub struct ChildLimits {
    #[arg(long)]
    cpu_s: u64,
    #[arg(long)]
    memory_bytes: u64,
}

impl From<ChildLimits> for Limits {
    fn from(given: ChildLimits) -> Self {
        let cpu = Duration::from_secs(given.cpu_s);
        Self { cpu, wall: cpu, memory_bytes: given.memory_bytes }
    }
}

#[derive(Debug, Subcommand)]
pub enum ConfigTool {
    /// Says everything that is wrong, and what is left out because of it.
    Check(Serve),
    /// Prints the settings in force, as TOML.
    Show {
        #[command(flatten)]
        serve: Serve,
        /// Says where each comes from.
        #[arg(long)]
        origin: bool,
    },
    /// Prints the JSON Schema of a configuration file, for editors.
    Schema,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Configuration file (TOML) [default: ./meshwright.toml, then the user's and the system's]
    #[arg(long, env = "MESHWRIGHT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the database and `endpoints.json` are kept [default: ~/.local/share/meshwright]
    #[arg(long, env = "MESHWRIGHT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where plugins are dropped [default: ./plugins when it exists, else `plugins` in the data folder]
    #[arg(long, env = "MESHWRIGHT_PLUGINS", value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Address of the MCP endpoint; port 0 takes a free one [default: 127.0.0.1:6000]
    #[arg(long, env = "MESHWRIGHT_MCP_ADDR", value_name = "ADDR")]
    mcp_addr: Option<SocketAddr>,
    /// Address of registration, calls, pages and metrics; port 0 takes a free one [default: 127.0.0.1:6001]
    #[arg(long, env = "MESHWRIGHT_HTTP_ADDR", value_name = "ADDR")]
    http_addr: Option<SocketAddr>,
    /// Threads that run calls [default: one a core, at most 16]
    #[arg(long, env = "MESHWRIGHT_WORKERS", value_name = "N")]
    workers: Option<usize>,
}

/// Flags go before variables.
fn said_by_whom(flag: &str, variable: &str) -> String {
    let is_flag =
        |arg: String| arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    let by_flag = std::env::args_os().filter_map(|arg| arg.into_string().ok()).any(is_flag);
    if by_flag { flag } else { variable }.to_owned()
}

impl Cli {
    /// As [`Parser::parse`], which ends the program when something is wrong, with what to do about a flag that stands
    /// before a subcommand.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|mut error| {
            if error.get(ContextKind::InvalidSubcommand).is_some()
                && error.kind() == ErrorKind::ArgumentConflict
            {
                let tip = "flags go after the subcommand, as in `meshwright config check --config FILE`";
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            error.exit()
        })
    }

    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

impl Serve {
    pub fn overrides(self) -> Overrides {
        let given = [
            (self.data_dir.is_some(), "server.data_dir", "--data-dir", "MESHWRIGHT_DATA_DIR"),
            (self.plugins.is_some(), "server.plugins_dir", "--plugins", "MESHWRIGHT_PLUGINS"),
            (self.mcp_addr.is_some(), "server.mcp_addr", "--mcp-addr", "MESHWRIGHT_MCP_ADDR"),
            (self.http_addr.is_some(), "server.http_addr", "--http-addr", "MESHWRIGHT_HTTP_ADDR"),
            (self.workers.is_some(), "server.workers", "--workers", "MESHWRIGHT_WORKERS"),
        ];
        let said_by = given.into_iter().filter(|(given, ..)| *given);
        Overrides {
            said_by: said_by
                .map(|(_, setting, flag, variable)| (setting, said_by_whom(flag, variable)))
                .collect(),
            file: self.config,
            data_dir: self.data_dir,
            plugins_dir: self.plugins,
            mcp_addr: self.mcp_addr,
            http_addr: self.http_addr,
            workers: self.workers,
        }
    }
}
