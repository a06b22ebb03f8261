//! Services, profiles and sessions: from what the file says to what the program gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::children::{self, RawChild};
use super::hedge::hedge;
use super::{
    RawLimits, RawPatterns, RawProfile, RawService, RawSessionUse, RawSessions, RawText, RawTools, Wrong,
    clash, or, wrong,
};
use crate::config::{ChildConfig, ProfileConfig, ServiceConfig, SessionLimits, expand_home};
use crate::mesh::exposure::{Exposure, Filter, Patterns};
use crate::mesh::ids::Name;
use crate::mesh::instance::{Command, Endpoint, HttpEndpoint, InstanceSpec, Written};
use crate::mesh::limit::Limits;
use crate::mesh::ruling::Grant;

/// Most client sessions that may be allowed.
const SESSIONS_MAX: usize = 1_000_000;
/// Processes for client sessions that a service has at once unless it says otherwise, and may have.
const OWN_PROCESSES: usize = 100;
const OWN_PROCESSES_MAX: usize = 10_000;

/// `startup` is how long the first answer of its processes may take when it does not say.
///
/// # Errors
/// Everything that is wrong with it.
pub fn service(raw: RawService, startup: Duration) -> Result<ServiceConfig, Vec<Wrong>> {
    let RawService { command, args, env, cwd, sessions, url, urls, tools, prompts, resources, .. } = raw;
    let RawService { instances, required, depends_on, restart, start, idle_stop, .. } = raw;
    let RawService { startup_timeout, sessions_max, .. } = raw;
    let mut wrongs = Vec::new();
    let (concurrency, hedge) = (raw.concurrency, or_default(hedge(raw.hedge), &mut wrongs));
    let child = RawChild { instances, required, depends_on, restart, start, idle_stop, startup_timeout };
    if concurrency == Some(0) {
        wrongs.push(wrong("concurrency", "must be at least 1"));
    }
    let exposure = exposure(tools, &prompts, &resources, &mut wrongs);
    let (endpoints, child) = if let Some(program) = command {
        if url.is_some() || !urls.is_empty() {
            wrongs.push(clash("command", "a service has either a `command` or a `url`"));
        }
        check_command(&program, &env, &mut wrongs);
        let per_session = matches!(sessions, Some(RawSessionUse::Each));
        let mut command = self::command(&program, &args, env, cwd.as_ref(), per_session);
        command.sessions_max = own_processes(sessions_max, per_session, &mut wrongs);
        let nothing = |key| clash(key, "means nothing where each session has a process of its own");
        wrongs.extend(child.given().filter(|_| per_session).map(nothing));
        let child = children::child(child, startup, &mut wrongs);
        (vec![Endpoint::Stdio(Arc::new(command)); child.instances], child)
    } else {
        let of_command = [
            (!args.is_empty(), "args"),
            (!env.is_empty(), "env"),
            (cwd.is_some(), "cwd"),
            (sessions.is_some(), "sessions"),
            (sessions_max.is_some(), "sessions_max"),
        ];
        let keys = of_command.into_iter().filter_map(|(given, key)| given.then_some(key));
        let keys = keys.chain(child.given());
        wrongs.extend(keys.map(|key| clash(key, "only means something beside `command`")));
        (addresses(url.as_ref(), &urls, &mut wrongs), ChildConfig::default())
    };
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    Ok(ServiceConfig { endpoints, concurrency, hedge, exposure, child })
}

fn exposure(
    tools: RawTools,
    prompts: &RawPatterns,
    resources: &RawPatterns,
    wrongs: &mut Vec<Wrong>,
) -> Exposure {
    let RawTools { allow, deny, read_only } = tools;
    Exposure {
        tools: or_default(filter(&RawPatterns { allow, deny }, "tools"), wrongs),
        prompts: or_default(filter(prompts, "prompts"), wrongs),
        resources: or_default(filter(resources, "resources"), wrongs),
        read_only: or_default(patterns(&read_only, "tools.read_only"), wrongs),
    }
}

fn check_command(program: &RawText, env: &BTreeMap<String, String>, wrongs: &mut Vec<Wrong>) {
    if program.value().is_empty() || program.value().contains('\0') {
        wrongs.push(wrong("command", "must name a program"));
    }
    let bad_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    let bad = |name: &String| wrong("env", format!("`{name}` cannot be the name of a variable"));
    wrongs.extend(env.keys().filter(bad_name).map(bad));
}

fn own_processes(max: Option<usize>, per_session: bool, wrongs: &mut Vec<Wrong>) -> usize {
    match max {
        Some(_) if !per_session => {
            wrongs.push(clash("sessions_max", "only means something beside `sessions = \"each\"`"));
        }
        Some(max) if !(1..=OWN_PROCESSES_MAX).contains(&max) => {
            wrongs.push(wrong("sessions_max", format!("{max} is not between 1 and {OWN_PROCESSES_MAX}")));
        }
        _ => {}
    }
    max.unwrap_or(OWN_PROCESSES)
}

fn addresses(url: Option<&RawText>, urls: &[RawText], wrongs: &mut Vec<Wrong>) -> Vec<Endpoint> {
    if url.is_some() && !urls.is_empty() {
        wrongs.push(clash("urls", "write either `url` or `urls`"));
    }
    let url = url.into_iter().map(|url| ("url", url));
    let mut endpoints = Vec::new();
    for (key, url) in url.chain(urls.iter().map(|url| ("urls", url))) {
        match HttpEndpoint::parse(url.value()) {
            Ok(endpoint) if url.is_filled() => {
                endpoints.push(Endpoint::Http(endpoint.written_as(url.shown())));
            }
            Ok(endpoint) => endpoints.push(Endpoint::Http(endpoint)),
            Err(error) => wrongs.push(wrong(key, error.of(url.shown()).to_string())),
        }
    }
    endpoints
}

fn or_default<T: Default>(read: Result<T, Wrong>, wrongs: &mut Vec<Wrong>) -> T {
    read.unwrap_or_else(|wrong| {
        wrongs.push(wrong);
        T::default()
    })
}

fn command(
    program: &RawText,
    args: &[RawText],
    env: BTreeMap<String, String>,
    cwd: Option<&RawText>,
    per_session: bool,
) -> Command {
    let is_filled = args.iter().chain([program]).chain(cwd).any(RawText::is_filled);
    let written = is_filled.then(|| Written {
        program: program.shown().into(),
        args: args.iter().map(|arg| Arc::from(arg.shown())).collect(),
        cwd: cwd.map(|cwd| cwd.shown().into()),
    });
    Command {
        program: match program.value().strip_prefix("~/") {
            Some(_) => expand_home(program.value().as_ref()).to_string_lossy().as_ref().into(),
            None => program.value().into(),
        },
        args: args.iter().map(|arg| Arc::from(arg.value())).collect(),
        env,
        cwd: cwd.map(|cwd| expand_home(cwd.value().as_ref())),
        per_session,
        sessions_max: OWN_PROCESSES,
        written,
        stamp: None,
    }
}

/// The instance that stands for the service's endpoint of that index.
///
/// # Errors
/// The service's name leaves no room for the instance's number.
pub fn instance(service: &Name, index: usize, endpoints: &[Endpoint]) -> Result<InstanceSpec, String> {
    let endpoint = endpoints.get(index).ok_or("there is no such endpoint")?;
    let name = match endpoint {
        Endpoint::Stdio(_) if endpoints.len() == 1 => Ok(service.clone()),
        Endpoint::Stdio(_) | Endpoint::Http(_) => Name::new(&format!("{service}-{}", index + 1)),
    };
    let name = name.map_err(|error| error.to_string())?;
    Ok(InstanceSpec::plain(name, service.clone(), endpoint.clone()))
}

/// # Errors
/// Everything that is wrong with it.
pub fn profile(raw: RawProfile) -> Result<ProfileConfig, Vec<Wrong>> {
    let mut wrongs = Vec::new();
    let tools = or_default(filter(&raw.tools, "tools"), &mut wrongs);
    let mut services = Vec::new();
    for name in &raw.services {
        match Name::new(name.value()) {
            Ok(name) => services.push(name),
            Err(error) => wrongs.push(wrong("services", format!("`{}`: {error}", name.shown()))),
        }
    }
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    let services = services.into_iter().collect();
    Ok(ProfileConfig { services, tools, own_tools: raw.own_tools, search: raw.search })
}

/// What a plugin may have; else the name of what there is not.
pub(super) fn grants(names: &[RawText]) -> Result<Vec<Grant>, String> {
    let grant = |name: &RawText| {
        Grant::named(name.value()).ok_or_else(|| {
            let all = crate::mesh::ruling::list(&Grant::ALL);
            format!("there is no grant `{}`; there is {all}", name.shown())
        })
    };
    names.iter().map(grant).collect()
}

pub(super) fn sessions(raw: RawSessions, wrongs: &mut Vec<Wrong>) -> SessionLimits {
    let limits = SessionLimits {
        idle_timeout: or(raw.idle_timeout, Duration::from_secs(30 * 60)),
        age_max: or(raw.age_max, Duration::from_secs(24 * 3600)),
        max: raw.max.unwrap_or(10_000),
    };
    if limits.idle_timeout > limits.age_max {
        wrongs.push(clash("sessions.idle_timeout", "must not be longer than `sessions.age_max`"));
    }
    if !(1..=SESSIONS_MAX).contains(&limits.max) {
        wrongs.push(wrong("sessions.max", format!("{} is not between 1 and {SESSIONS_MAX}", limits.max)));
    }
    limits
}

pub(super) fn limits(raw: RawLimits, wrongs: &mut Vec<Wrong>) -> Limits {
    let usual = Limits::default();
    let limits = Limits {
        in_flight: raw.in_flight.unwrap_or(usual.in_flight),
        per_instance: raw.per_instance.unwrap_or(usual.per_instance),
        waiting: raw.waiting.unwrap_or(usual.waiting),
        wait: or(raw.wait, usual.wait),
    };
    if limits.in_flight == 0 {
        wrongs.push(wrong("limits.in_flight", "must be at least 1"));
    }
    if limits.per_instance == 0 {
        wrongs.push(wrong("limits.per_instance", "must be at least 1"));
    }
    limits
}

fn filter(raw: &RawPatterns, key: &'static str) -> Result<Filter, Wrong> {
    Ok(Filter { allow: patterns(&raw.allow, key)?, deny: patterns(&raw.deny, key)? })
}

fn patterns(raw: &[String], key: &'static str) -> Result<Patterns, Wrong> {
    if raw.iter().any(String::is_empty) {
        return Err(wrong(key, "a pattern must not be empty; `*` matches everything"));
    }
    Ok(raw.iter().map(String::as_str).collect())
}
