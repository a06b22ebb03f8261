//! What a call costs: the proxy beside other proxies and the bare upstream, all on one core, in one run. See
//! `../README.md`.

#[cfg(target_os = "linux")]
mod generator;
#[cfg(target_os = "linux")]
mod listing;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod typed_proxy;
#[cfg(target_os = "linux")]
mod upstream;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match run::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!(
        "this benchmark reads CPU times from /proc and pins processes with taskset: it runs on Linux only"
    );
}
