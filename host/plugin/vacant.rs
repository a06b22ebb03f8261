//! Routers that must agree with each call, as the configuration says, and are not in force: why nothing passes.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::round::ORDER;
use super::rulings::Terms;
use crate::mesh::ids::Name;
use crate::policy::status::{PluginState, PluginStatus};

const NOT_READ_YET: &str = "the plugins folder was not read yet";
const NO_FILE: &str = "no file of the plugins folder is that plugin";
const NOT_COMPILED_YET: &str =
    "no file of the plugins folder is that plugin, unless it is among those that are being compiled";
const NO_ROUTER: &str = "the build of that name is no router";
const ROUTER: &str = "router";

/// The place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacant {
    pub order: i32,
    pub name: Name,
    /// A sentence for whoever calls.
    pub reason: String,
}

/// Before anything is known of files.
pub fn at_first(terms: Terms<'_>) -> Vec<Vacant> {
    let wanted = wanted(terms).filter(|name| terms.disabled_by(name).is_none());
    wanted.map(|name| Vacant::of(name, terms, NOT_READ_YET)).collect()
}

/// All that there are, and what is listed of them; `others` are not in force.
pub fn find(
    terms: Terms<'_>,
    in_force: &BTreeMap<Name, Entry>,
    others: &mut Vec<PluginStatus>,
) -> Vec<Vacant> {
    let routes = |entry: &Entry| entry.loaded.kinds.contains(&ROUTER);
    let mut all = Vec::new();
    for name in wanted(terms).filter(|name| !in_force.get(name).is_some_and(routes)) {
        if let Some(reason) = terms.disabled_by(&name) {
            if others.iter().all(|other| other.name != name.as_str()) {
                let (name, reason) = (name.to_string(), reason.to_owned());
                others.push(PluginStatus::idle(name, None, PluginState::Disabled, reason));
            }
            continue;
        }
        let is_compiling = others.iter().any(|other| other.state == PluginState::Building);
        // What never said what it is may be the router.
        let may_route = |other: &&mut PluginStatus| {
            other.name == name.as_str() && (other.kinds.is_empty() || other.kinds.contains(&ROUTER))
        };
        let reason = if let Some(other) = others.iter_mut().find(may_route) {
            other.stops_calls = true;
            other.reason.clone()
        } else if in_force.contains_key(&name) {
            NO_ROUTER.to_owned()
        } else {
            let reason = if is_compiling { NOT_COMPILED_YET } else { NO_FILE };
            let mut missing =
                PluginStatus::idle(name.to_string(), None, PluginState::Missing, reason.to_owned());
            missing.stops_calls = true;
            others.push(missing);
            reason.to_owned()
        };
        all.push(Vacant::of(name, terms, &reason));
    }
    all
}

/// Plugins without which no call passes.
fn wanted(terms: Terms<'_>) -> impl Iterator<Item = Name> {
    let strict = terms.config.iter().filter(|(_, settings)| settings.refuse_on_fault);
    // What is no name is no plugin's.
    strict.filter_map(|(name, _)| Name::new(name).ok())
}

impl Vacant {
    fn of(name: Name, terms: Terms<'_>, why: &str) -> Self {
        let order = terms.settings(&name).and_then(|settings| settings.order).unwrap_or(ORDER);
        let reason = format!(
            "no call passes without plugin `{name}` (`on_error = \"reject\"`), and there is none in force: {why}; mend \
             that, or switch it off with `meshwright plugin disable {name}`"
        );
        Self { order, name, reason }
    }
}
