//! What the proxy itself raises alerts for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mesh::observe::{Firing, Severity};
use crate::registry::{Registry, Service};
use crate::supervisor::{ChildStatus, Children};
use crate::telemetry::alerts::Conditions;

/// What deserves attention whatever the thresholds are: children that are parked, until they are ready again, and
/// services that send calls to instances which are not well, because too few are.
pub(super) fn conditions(children: &Children, registry: &Registry) -> Conditions {
    let (children, registry) = (children.clone(), registry.clone());
    Arc::new(move || {
        let snapshot = registry.snapshot();
        let panicking = snapshot.services().into_iter().filter(|one| one.core.panics.load(Ordering::Relaxed));
        let children = children.all();
        let parked = children.iter().filter(|child| child.parked).map(child_parked);
        parked.chain(panicking.map(|service| service_panic(service))).collect()
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
