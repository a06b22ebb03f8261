//! What the proxy itself raises alerts for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mesh::observe::{Firing, Severity};
use crate::policy::status::PluginStatus;
use crate::registry::{Registry, Service};
use crate::supervisor::{ChildStatus, Children};
use crate::telemetry::alerts::{Conditions, PluginList};

/// What deserves attention whatever the thresholds are: children that are parked, until they are ready again,
/// services that send calls to instances which are not well, because too few are, plugins that rest, and
/// builds of plugins that were rolled back, for as long as their files hold them.
pub(super) fn conditions(children: &Children, registry: &Registry, plugins: &PluginList) -> Conditions {
    let (children, registry, plugins) = (children.clone(), registry.clone(), Arc::clone(plugins));
    Arc::new(move || {
        let snapshot = registry.snapshot();
        let panicking = snapshot.services().into_iter().filter(|one| one.core.panics.load(Ordering::Relaxed));
        let children = children.all();
        let parked = children.iter().filter(|child| child.parked).map(child_parked);
        let plugins = plugins();
        let resting = plugins.iter().filter(|plugin| plugin.rested_lately);
        let rolled_back = plugins.iter().filter_map(|plugin| Some((plugin, plugin.rolled_back()?)));
        parked
            .chain(panicking.map(|service| service_panic(service)))
            .chain(resting.map(plugin_quarantined))
            .chain(rolled_back.map(|(plugin, reason)| plugin_rolled_back(plugin, reason)))
            .collect()
    })
}

fn child_parked(child: &ChildStatus) -> Firing {
    let name = &child.instance;
    Firing {
        rule: "child-parked".to_owned(),
        severity: if child.required { Severity::Critical } else { Severity::Error },
        labels: vec![
            ("instance".to_owned(), name.to_string()),
            ("service".to_owned(), child.service.to_string()),
        ],
        title: format!("`{name}` failed too often and is parked"),
        detail: match &child.fix {
            Some(fix) => format!("{}; {fix}", child.reason),
            None => child.reason.clone(),
        },
        value: 1.0,
        threshold: 1.0,
        for_s: 0,
        resolve_at: 1.0,
    }
}

fn service_panic(service: &Service) -> Firing {
    let name = &service.name;
    Firing {
        rule: "service-panic".to_owned(),
        severity: Severity::Error,
        labels: vec![("service".to_owned(), name.to_string())],
        title: format!("`{name}` has too few instances that are well"),
        detail: format!(
            "{} of {} are available, so calls may go to all that are not dead; \
             `GET /services/{name}` says what each of them suffers from",
            service.unhampered(),
            service.expected(),
        ),
        value: 1.0,
        threshold: 1.0,
        // A breaker that opened for a moment is not worth a word.
        for_s: 10,
        resolve_at: 1.0,
    }
}

fn plugin_quarantined(plugin: &PluginStatus) -> Firing {
    let name = &plugin.name;
    Firing {
        rule: "plugin-quarantined".to_owned(),
        severity: Severity::Error,
        labels: vec![("plugin".to_owned(), name.clone())],
        title: format!("plugin `{name}` rests"),
        detail: format!(
            "{}; {} while it rests",
            plugin.rest_reason,
            if plugin.refuses_on_fault { "no call passes" } else { "calls go on without it" }
        ),
        value: 1.0,
        threshold: 1.0,
        for_s: 0,
        resolve_at: 1.0,
    }
}

fn plugin_rolled_back(plugin: &PluginStatus, reason: &str) -> Firing {
    let name = &plugin.name;
    Firing {
        rule: "plugin-rolled-back".to_owned(),
        severity: Severity::Warning,
        labels: vec![("plugin".to_owned(), name.clone())],
        title: format!("the new build of plugin `{name}` is kept out"),
        detail: format!(
            "{reason}; put another build in its place, or have it tried again with \
             `meshwright plugin enable {name}`"
        ),
        value: 1.0,
        threshold: 1.0,
        for_s: 0,
        resolve_at: 1.0,
    }
}
