//! `doctor`: what is wrong, and what to do about each.

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
    findings.retain(|finding| args.name.as_ref().is_none_or(|name| *name == finding.about));
    for Finding { about, wrong, fix } in &findings {
        print(&format!("✖ {about}: {wrong}\n  → {fix}\n"));
    }
    let mut waiting = on_their_way(&processes);
    waiting.retain(|finding| args.name.as_ref().is_none_or(|name| *name == finding.about));
    for Finding { about, wrong, fix } in &waiting {
        print(&format!("◌ {about}: {wrong}\n  → {fix}\n"));
    }
    if findings.is_empty() {
        print("✔ nothing is wrong\n");
    }
    Ok(findings.is_empty())
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
        let name = reason.split('`').nth(1).unwrap_or("proxy").to_owned();
        let is_service = reason.starts_with("service ");
        let says_it = |process: &Process| match reason.strip_prefix("left out: ") {
            Some(why) => process.reason == why,
            None => is_service && process.service == name,
        };
        if processes.iter().any(says_it) {
            return None;
        }
        let fix = if is_service {
            format!("see whether its server runs; `GET /services/{name}` shows each instance")
        } else if reason.contains("plugin ") {
            "`meshwright plugin ls` shows what keeps it out or at rest".to_owned()
        } else if reason.starts_with("left out: ") || reason.starts_with("the changed ") {
            "mend that line, which takes effect at once; `meshwright config check` shows it".to_owned()
        } else {
            "free the disk of the data folder; calls go on meanwhile".to_owned()
        };
        Some(Finding { about: name, wrong: reason.clone(), fix })
    });
    findings.collect()
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
            "the changed file is not in force: a.toml:1:1: unclosed table".to_owned(),
        ];
        let mut findings = of_processes(&processes);
        findings.extend(of_health(&reasons, &processes));
        let about: Vec<&str> = findings.iter().map(|finding| finding.about.as_str()).collect();
        assert_eq!(about, ["a", "v", "web", "p", "proxy", "include", "proxy"]);
        assert!(findings[5..].iter().all(|finding| finding.fix.contains("config check")));
        let waiting = on_their_way(&processes);
        assert_eq!(waiting.iter().map(|finding| &*finding.about).collect::<Vec<_>>(), ["b"]);
        assert_eq!((&*waiting[0].wrong, &*waiting[0].fix), ("installing", "give it longer"));
        assert!(findings.iter().all(|finding| !finding.fix.is_empty()));
    }
}
