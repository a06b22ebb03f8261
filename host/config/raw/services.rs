//! Services, profiles and sessions: from what the file says to what the program gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::children::{self, RawChild};
use super::hedge::hedge;
use super::{
    RawLimits, RawPatterns, RawProfile, RawService, RawSessionUse, RawSessions, RawText, RawTools, Wrong, or,
    wrong,
};
use crate::config::{ChildConfig, ProfileConfig, ServiceConfig, SessionLimits, expand_home};
use crate::mesh::exposure::{Exposure, Filter, Patterns};
use crate::mesh::ids::Name;
use crate::mesh::instance::{Command, Endpoint, HttpEndpoint, InstanceSpec, SpecError, Written};
use crate::mesh::limit::Limits;
use crate::mesh::ruling::Grant;

/// Most client sessions that may be allowed.
const SESSIONS_MAX: usize = 1_000_000;

/// `startup` is how long the first answer of its processes may take when it does not say.
pub fn service(raw: RawService, startup: Duration) -> Result<ServiceConfig, Wrong> {
    let RawService { command, args, env, cwd, sessions, url, urls, tools, prompts, resources, .. } = raw;
    let RawService { instances, required, depends_on, restart, start, idle_stop, .. } = raw;
    let RawService { startup_timeout, .. } = raw;
    let (concurrency, hedge) = (raw.concurrency, hedge(raw.hedge)?);
    let child = RawChild { instances, required, depends_on, restart, start, idle_stop, startup_timeout };
    if concurrency == Some(0) {
        return Err(wrong("concurrency", "must be at least 1"));
    }
    let RawTools { allow, deny, read_only } = tools;
    let exposure = Exposure {
        tools: filter(&RawPatterns { allow, deny }, "tools")?,
        prompts: filter(&prompts, "prompts")?,
        resources: filter(&resources, "resources")?,
        read_only: patterns(&read_only, "tools.read_only")?,
    };
    let Some(program) = command else {
        let of_command = [
            (!args.is_empty(), "args"),
            (!env.is_empty(), "env"),
            (cwd.is_some(), "cwd"),
            (sessions.is_some(), "sessions"),
        ];
        if let Some((_, key)) = of_command.into_iter().find(|(given, _)| *given) {
            return Err(wrong(key, "only means something beside `command`"));
        }
        if let Some(key) = child.given() {
            return Err(wrong(key, "only means something beside `command`"));
        }
        if url.is_some() && !urls.is_empty() {
            return Err(wrong("urls", "write either `url` or `urls`"));
        }
        let key = if url.is_some() { "url" } else { "urls" };
        let endpoints = url.iter().chain(&urls).map(|url| {
            let bad = |error: SpecError| wrong(key, error.of(url.shown()).to_string());
            let endpoint = HttpEndpoint::parse(url.value()).map_err(bad)?;
            Ok(Endpoint::Http(if url.is_filled() { endpoint.written_as(url.shown()) } else { endpoint }))
        });
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let child = ChildConfig::default();
        return Ok(ServiceConfig { endpoints, concurrency, hedge, exposure, child });
    };
    if url.is_some() || !urls.is_empty() {
        return Err(wrong("command", "a service has either a `command` or a `url`"));
    }
    if program.value().is_empty() || program.value().contains('\0') {
        return Err(wrong("command", "must name a program"));
    }
    let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = env.keys().find(|name| bad_name(name)) {
        return Err(wrong("env", format!("`{name}` cannot be the name of a variable")));
    }
    let per_session = matches!(sessions, Some(RawSessionUse::Each));
    let command = self::command(&program, &args, env, cwd.as_ref(), per_session);
    if let Some(key) = child.given().filter(|_| command.per_session) {
        return Err(wrong(key, "means nothing where each session has a process of its own"));
    }
    let child = children::child(child, startup)?;
    Ok(ServiceConfig {
        endpoints: vec![Endpoint::Stdio(Arc::new(command)); child.instances],
        concurrency,
        hedge,
        exposure,
        child,
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

pub fn profile(raw: RawProfile) -> Result<ProfileConfig, Wrong> {
    let names = raw
        .services
        .iter()
        .map(|name| (Name::new(name.value()), name.shown()))
        .map(|(name, shown)| name.map_err(|error| wrong("services", format!("`{shown}`: {error}"))));
    Ok(ProfileConfig {
        services: names.collect::<Result<_, _>>()?,
        tools: filter(&raw.tools, "tools")?,
        own_tools: raw.own_tools,
        search: raw.search,
    })
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

pub(super) fn sessions(raw: RawSessions) -> Result<SessionLimits, Wrong> {
    let limits = SessionLimits {
        idle_timeout: or(raw.idle_timeout, Duration::from_secs(30 * 60)),
        age_max: or(raw.age_max, Duration::from_secs(24 * 3600)),
        max: raw.max.unwrap_or(10_000),
    };
    if limits.idle_timeout > limits.age_max {
        return Err(wrong("sessions.idle_timeout", "must not be longer than `sessions.age_max`"));
    }
    if !(1..=SESSIONS_MAX).contains(&limits.max) {
        return Err(wrong("sessions.max", format!("{} is not between 1 and {SESSIONS_MAX}", limits.max)));
    }
    Ok(limits)
}

pub fn limits(raw: RawLimits) -> Result<Limits, Wrong> {
    let usual = Limits::default();
    let limits = Limits {
        in_flight: raw.in_flight.unwrap_or(usual.in_flight),
        per_instance: raw.per_instance.unwrap_or(usual.per_instance),
        waiting: raw.waiting.unwrap_or(usual.waiting),
        wait: or(raw.wait, usual.wait),
    };
    if limits.in_flight == 0 {
        return Err(wrong("limits.in_flight", "must be at least 1"));
    }
    if limits.per_instance == 0 {
        return Err(wrong("limits.per_instance", "must be at least 1"));
    }
    Ok(limits)
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
