//! `meshwright config` and `meshwright import`: what the configuration says, and what is wrong with it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, LeftOut, Overrides};

/// The configuration is wrong (`EX_CONFIG` of sysexits).
const BAD_CONFIGURATION: u8 = 78;

/// Says everything that is wrong, and what will hardly work as it is.
pub fn check(overrides: Overrides) -> ExitCode {
    let config = match Config::load(overrides) {
        Ok(config) => config,
        Err(error) => return bad(&error),
    };
    let warnings = config.warnings();
    if !warnings.is_empty() {
        eprintln!("meshwright: this is in force, but will hardly work as it is");
        warnings.iter().for_each(|warning| eprintln!("{warning}"));
    }
    if !config.left_out.is_empty() {
        eprintln!("meshwright: this is left out, and the rest is served");
        config.left_out.iter().flat_map(LeftOut::flaws).for_each(|flaw| eprintln!("{flaw}"));
        return ExitCode::from(BAD_CONFIGURATION);
    }
    match &config.file {
        Some(file) => {
            let but = match warnings.len() {
                0 => String::new(),
                1 => " but for 1 warning".to_owned(),
                count => format!(" but for {count} warnings"),
            };
            println!("{} is good{but}: {}", file.display(), contents(&config));
        }
        None => println!("there is no configuration file, so the defaults are in force"),
    }
    ExitCode::SUCCESS
}

fn contents(config: &Config) -> String {
    let counted = [
        (config.files.len() - 1, "included file", "included files"),
        (config.services.len(), "service", "services"),
        (config.profiles.len(), "profile", "profiles"),
        (config.plugins.len(), "plugin", "plugins"),
    ];
    let some = counted.into_iter().filter(|(count, ..)| *count > 0);
    let words: Vec<String> =
        some.map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many })).collect();
    if words.is_empty() { "no services, profiles or plugins".to_owned() } else { words.join(", ") }
}

/// Prints the settings in force as TOML; with `origin`, where each comes from.
pub fn show(overrides: Overrides, origin: bool) -> ExitCode {
    match config::show(overrides, origin) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => bad(&error),
    }
}

/// Prints the JSON Schema of a configuration file.
pub fn schema() -> ExitCode {
    println!("{:#}", config::schema());
    ExitCode::SUCCESS
}

/// Prints the servers of other clients' files as services.
pub fn import(files: &[PathBuf]) -> ExitCode {
    if files.is_empty() {
        return list_clients();
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let imported = match config::import(file) {
            Ok(imported) => imported,
            Err(error) => {
                eprintln!("meshwright: {}", crate::upstream::chain(&error));
                code = ExitCode::FAILURE;
                continue;
            }
        };
        print!("{}", imported.text);
        for flaw in imported.left_out.iter().flat_map(LeftOut::flaws) {
            eprintln!("meshwright: left out: {}", flaw.in_a_line());
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn list_clients() -> ExitCode {
    let found = config::client_files();
    if found.is_empty() {
        eprintln!("meshwright: no client's file was found; name one: `meshwright import FILE`");
        return ExitCode::FAILURE;
    }
    println!(
        "These files name MCP servers. `meshwright import FILE` prints one as services; or have it included:\n"
    );
    let quoted: Vec<String> = found.iter().map(|file| format!("{:?}", file.display().to_string())).collect();
    println!("include = [{}]", quoted.join(", "));
    ExitCode::SUCCESS
}

fn bad(error: &ConfigError) -> ExitCode {
    eprintln!("meshwright: {}", crate::upstream::chain(error));
    ExitCode::from(BAD_CONFIGURATION)
}
