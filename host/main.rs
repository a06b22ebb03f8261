//! The `meshwright` command.

use std::process::ExitCode;

use meshwright::app;
use meshwright::cli::{Cli, Command, ConfigTool, Serve};
use meshwright::config::Config;
use meshwright::console;
use meshwright::plugin::{check_configuration, compile_plugin};
use meshwright::workshop;

/// The configuration is wrong (`EX_CONFIG` of sysexits).
const BAD_CONFIGURATION: u8 = 78;

/// Tools print their findings themselves; only what plugins say is of interest beside them.
const QUIET: &str = "error,meshwright::plugin=info";

fn main() -> ExitCode {
    let cli = Cli::read();
    match cli.command() {
        Command::Serve(serve) => run(serve),
        Command::Config(tool) => configuration(tool),
        Command::Import { files } => workshop::configuration::import(&files),
        Command::Plugin(tool) => {
            app::log_to_stderr(QUIET);
            workshop::run(tool)
        }
        Command::Add(args) => console::add(&args),
        Command::Rm(args) => console::rm(&args),
        Command::Ps(args) => console::ps(&args),
        Command::Logs(args) => console::logs(&args),
        Command::Start(args) => console::order(&args, "start"),
        Command::Stop(args) => console::order(&args, "stop"),
        Command::Restart(args) => console::order(&args, "restart"),
        Command::Drain(args) => console::drain(&args),
        Command::Undrain(args) => console::undrain(&args),
        Command::Doctor(args) => console::doctor(&args),
        Command::Why(args) => {
            app::log_to_stderr(QUIET);
            workshop::explain_call(&args)
        }
        Command::CompilePlugin { limits, counting } => compile_plugin(limits.into(), counting),
        Command::CheckConfiguration(limits) => check_configuration(limits.into()),
    }
}

fn configuration(tool: ConfigTool) -> ExitCode {
    match tool {
        ConfigTool::Check(serve) => workshop::configuration::check(serve.overrides()),
        ConfigTool::Show { serve, origin } => workshop::configuration::show(serve.overrides(), origin),
        ConfigTool::Schema => workshop::configuration::schema(),
    }
}

fn run(serve: Serve) -> ExitCode {
    let overrides = serve.overrides();
    let config = match Config::load(overrides.clone()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("meshwright: {}", meshwright::upstream::chain(&error));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    app::log_to_stderr("info");
    match app::serve(overrides, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshwright: {error:#}");
            ExitCode::from(if app::is_bad_configuration(&error) { BAD_CONFIGURATION } else { 1 })
        }
    }
}
