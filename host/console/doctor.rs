//! `doctor`: what is wrong, and what to do about each.

use std::path::Path;

use serde::Deserialize;

use super::processes::{Process, read};
use crate::workshop::print;
use crate::workshop::running::{Running, RunningError, Where};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A service: what else is wrong is passed over
    name: Option<String>,
    #[command(flatten)]
    place: Where,
}

#[derive(Deserialize)]
struct Health {
    reasons: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    name: String,
}

/// What is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    about: String,
    wrong: String,
    fix: String,
}

pub(super) fn run(args: &Args) -> Result<bool, RunningError> {
    let proxy = Running::at(&args.place);
    let processes = read(&proxy, &proxy.get("/api/v1/processes")?)?;
    let body = proxy.get("/health")?;
    let health: Health = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
    let mut findings = of_processes(&processes);
    findings.extend(of_health(&health.reasons, &processes));
    let mut waiting = on_their_way(&processes);
    if let Some(name) = &args.name {
        findings.retain(|finding| *name == finding.about);
        waiting.retain(|finding| *name == finding.about);
        if findings.is_empty() && waiting.is_empty() {
            must_be_there(&proxy, name)?;
        }
    }
    for Finding { about, wrong, fix } in &findings {
        print(&format!("✖ {about}: {wrong}\n  → {fix}\n"));
    }
    for Finding { about, wrong, fix } in &waiting {
        print(&format!("◌ {about}: {wrong}\n  → {fix}\n"));
    }
    if findings.is_empty() {
        print("✔ nothing is wrong\n");
    }
    Ok(findings.is_empty())
}

/// Of one that is not there, nothing is wrong either.
fn must_be_there(proxy: &Running, name: &str) -> Result<(), RunningError> {
    let body = proxy.get("/services")?;
    let listed: Listed = serde_json::from_slice(&body).map_err(|error| proxy.foreign(error))?;
    if listed.services.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let detail = format!("there is no service `{name}`");
    Err(RunningError::NotFound {
        detail,
        hint: "`GET /services` lists them, `meshwright ps` processes".into(),
    })
}

fn of_processes(processes: &[Process]) -> Vec<Finding> {
    processes.iter().filter(|process| !is_on_its_way(process)).filter_map(finding).collect()
}

/// What is not there yet, and may need more time than it has.
fn on_their_way(processes: &[Process]) -> Vec<Finding> {
    processes.iter().filter(|process| is_on_its_way(process)).filter_map(finding).collect()
}

fn is_on_its_way(process: &Process) -> bool {
    matches!(&*process.state, "starting" | "installing")
}

/// `None` of a process with which nothing is to be done.
fn finding(process: &Process) -> Option<Finding> {
    let fix = process.fix.clone()?;
    let why = process.why();
    let colon = if why.is_empty() { "" } else { ": " };
    Some(Finding { about: process.service.clone(), wrong: format!("{}{colon}{why}", process.state), fix })
}

/// What the proxy says of itself, but for services of which their processes say it better.
fn of_health(reasons: &[String], processes: &[Process]) -> Vec<Finding> {
    let findings = reasons.iter().filter_map(|reason| {
        if let Some(left_out) = reason.strip_prefix("left out: ") {
            let is_said = processes.iter().any(|process| process.reason == left_out);
            return (!is_said).then(|| of_left_out(left_out));
        }
        let name = reason.split('`').nth(1).unwrap_or("proxy").to_owned();
        let fix = if reason.starts_with("service ") {
            let own: Vec<&Process> = processes.iter().filter(|process| process.service == name).collect();
            if own.iter().any(|process| process.fix.is_some()) {
                return None;
            }
            of_service(&name, reason, !own.is_empty())
        } else if reason.contains("plugin ") {
            "`meshwright plugin ls` shows what keeps it out or at rest".to_owned()
        } else if reason.starts_with("the changed ") {
            "mend that line, which takes effect at once; `meshwright config check` shows it".to_owned()
        } else {
            "free the disk of the data folder; calls go on meanwhile".to_owned()
        };
        Some(Finding { about: name, wrong: reason.clone(), fix })
    });
    findings.collect()
}

/// Of a service that is not well although its processes, if it has any, run.
fn of_service(name: &str, reason: &str, is_supervised: bool) -> String {
    if reason.contains("taken out of use") {
        format!("`GET /services/{name}` names them; `meshwright undrain INSTANCE` takes one into use again")
    } else if is_supervised {
        format!("`meshwright logs {name}` shows what it said; `meshwright restart {name}` starts it anew")
    } else {
        format!("see whether its server runs; `GET /services/{name}` shows each instance")
    }
}

/// Of a line of a file, `FILE:LINE:COLUMN: \`KEY\`: WHY`, or of a program in a folder, `FILE: WHY`.
fn of_left_out(reason: &str) -> Finding {
    let key = reason.split_once(": `").and_then(|(_, rest)| rest.split_once("`: "));
    let wrong = format!("left out: {reason}");
    if let Some((key, _)) = key {
        let fix = "mend that line, which takes effect at once; `meshwright config check` shows it";
        return Finding { about: key.to_owned(), wrong, fix: fix.to_owned() };
    }
    let path = reason.split_once(": ").map_or(reason, |(path, _)| path);
    let about = Path::new(path).file_stem().map_or("proxy".into(), |stem| stem.to_string_lossy());
    let fix = "mend that, or take the file away; either takes effect at once";
    Finding { about: about.into_owned(), wrong, fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_a_fix_and_no_service_is_named_twice() {
        let processes = [
            Process {
                service: "a".into(),
                state: "skipped".into(),
                reason: "no program `x` in PATH".into(),
                fix: Some("install it".into()),
                ..Process::default()
            },
            Process {
                service: "b".into(),
                state: "installing".into(),
                fix: Some("give it longer".into()),
                ..Process::default()
            },
            Process { service: "hung".into(), state: "ready".into(), ..Process::default() },
            Process {
                service: "v".into(),
                state: "left_out".into(),
                reason: "m.toml:1:1: `services.v`: no".into(),
                fix: Some("mend that line".into()),
                ..Process::default()
            },
        ];
        let reasons = [
            "service `a` is unavailable: none of 1 instances is available".to_owned(),
            "service `web` is unavailable: none of 1 instances is available".to_owned(),
            "plugin `p` rests: three faults".to_owned(),
            "nothing can be written down: disk full".to_owned(),
            "left out: m.toml:1:1: `services.v`: no".to_owned(),
            "left out: more.toml:7:1: `include`: it cannot be read".to_owned(),
            "left out: /mcp.d/open.sh: it may be written by everybody, so it is not run".to_owned(),
            "left out: /mcp.d/a b.py: a name has no ` `".to_owned(),
            "service `hung` is unavailable: 4 probes in a row failed".to_owned(),
            "service `out` is unavailable: all of its 2 instances are taken out of use".to_owned(),
            "the changed file is not in force: a.toml:1:1: unclosed table".to_owned(),
        ];
        let mut findings = of_processes(&processes);
        findings.extend(of_health(&reasons, &processes));
        let about: Vec<&str> = findings.iter().map(|finding| finding.about.as_str()).collect();
        assert_eq!(about, ["a", "v", "web", "p", "proxy", "include", "open", "a b", "hung", "out", "proxy"]);
        let fix = |about: &str| {
            let found = findings.iter().find(|finding| finding.about == about).expect("a finding");
            found.fix.as_str()
        };
        assert!(fix("include").contains("config check") && fix("open").contains("take the file away"));
        assert!(fix("hung").contains("meshwright restart hung") && fix("out").contains("meshwright undrain"));
        let waiting = on_their_way(&processes);
        assert_eq!(waiting.iter().map(|finding| &*finding.about).collect::<Vec<_>>(), ["b"]);
        assert_eq!((&*waiting[0].wrong, &*waiting[0].fix), ("installing", "give it longer"));
        assert!(findings.iter().all(|finding| !finding.fix.is_empty()));
    }
}
