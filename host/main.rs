//! The `meshwright` command.

use std::process::ExitCode;

use clap::Parser;
use meshwright::app;
use meshwright::cli::{Cli, Command};
use meshwright::config::Config;

/// The configuration is wrong (`EX_CONFIG` of sysexits).
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Command::Serve(serve) = cli.command();
    let config = match Config::load(serve.overrides()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("meshwright: {}", meshwright::upstream::chain(&error));
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    app::log_to_stderr();
    match app::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshwright: {error:#}");
            ExitCode::from(if app::is_bad_configuration(&error) { BAD_CONFIGURATION } else { 1 })
        }
    }
}
