//! How the processes of a service are supervised: from what the file says to what the program gets.

use std::time::Duration;

use super::{RawDuration, RawRestart, RawRestartPolicy, RawStart, RawText, Wrong, or, wrong};
use crate::config::ChildConfig;
use crate::mesh::child::{RestartPolicy, Rules, Start};
use crate::mesh::ids::Name;

/// Most processes of one service.
const INSTANCES_MAX: usize = 64;
/// Most failures that may be allowed within the window.
const FAILURES_MAX: usize = 1000;

/// What a service's table says of its processes.
pub(super) struct RawChild {
    pub instances: Option<usize>,
    pub required: bool,
    pub depends_on: Vec<RawText>,
    pub restart: RawRestart,
    pub start: Option<RawStart>,
    pub idle_stop: Option<RawDuration>,
    pub startup_timeout: Option<RawDuration>,
}

impl RawChild {
    /// The keys that only mean something for a process that is supervised.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> + use<> {
        let RawRestart { policy, max, window } = &self.restart;
        let given = [
            (self.instances.is_some(), "instances"),
            (self.required, "required"),
            (!self.depends_on.is_empty(), "depends_on"),
            (policy.is_some() || max.is_some() || window.is_some(), "restart"),
            (self.start.is_some(), "start"),
            (self.idle_stop.is_some(), "idle_stop"),
            (self.startup_timeout.is_some(), "startup_timeout"),
        ];
        given.into_iter().filter_map(|(given, key)| given.then_some(key))
    }
}

/// `startup` is how long the first answer may take when the service does not say.
pub(super) fn child(raw: RawChild, startup: Duration, wrongs: &mut Vec<Wrong>) -> ChildConfig {
    let usual = Rules::default();
    let RawRestart { policy, max, window } = raw.restart;
    let rules = Rules {
        policy: match policy {
            None | Some(RawRestartPolicy::OnFailure) => RestartPolicy::OnFailure,
            Some(RawRestartPolicy::Always) => RestartPolicy::Always,
            Some(RawRestartPolicy::Never) => RestartPolicy::Never,
        },
        failures_max: max.unwrap_or(usual.failures_max),
        window: or(window, usual.window),
        startup: or(raw.startup_timeout, startup),
        start: match raw.start {
            None | Some(RawStart::Eager) => Start::Eager,
            Some(RawStart::Lazy) => Start::Lazy,
        },
        idle_stop: raw.idle_stop.map(|raw| raw.0),
    };
    if !(1..=FAILURES_MAX).contains(&rules.failures_max) {
        let message = format!("`max` is {}, which is not between 1 and {FAILURES_MAX}", rules.failures_max);
        wrongs.push(wrong("restart", message));
    }
    let mut instances = raw.instances.unwrap_or(1);
    if !(1..=INSTANCES_MAX).contains(&instances) {
        wrongs.push(wrong("instances", format!("{instances} is not between 1 and {INSTANCES_MAX}")));
        instances = 1;
    }
    let mut needs = Vec::new();
    for name in &raw.depends_on {
        match Name::new(name.value()) {
            Ok(name) => needs.push(name),
            Err(error) => wrongs.push(wrong("depends_on", format!("`{}`: {error}", name.shown()))),
        }
    }
    ChildConfig { instances, required: raw.required, needs, rules }
}
