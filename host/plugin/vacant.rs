//! Routers that must agree with each call, as the configuration says, and are not in force: why nothing passes.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::round::ORDER;
use super::rulings::Terms;
use crate::mesh::ids::Name;
use crate::policy::status::{PluginState, PluginStatus};

const NOT_READ_YET: &str = "the plugins folder was not read yet";
const NO_FILE: &str = "no file of the plugins folder is that plugin";

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
    let mut all = Vec::new();
    // What is in force and no router has nothing to say about calls.
    for name in wanted(terms).filter(|name| !in_force.contains_key(name)) {
        let at = others.iter().position(|other| other.name == name.as_str());
        if let Some(reason) = terms.disabled_by(&name) {
            if at.is_none() {
                let (name, reason) = (name.to_string(), reason.to_owned());
                others.push(PluginStatus::idle(name, None, PluginState::Disabled, reason));
            }
            continue;
        }
        let at = at.unwrap_or_else(|| {
            let (name, reason) = (name.to_string(), NO_FILE.to_owned());
            others.push(PluginStatus::idle(name, None, PluginState::Missing, reason));
            others.len() - 1
        });
        let other = &mut others[at];
        // What never said what it is may be a router.
        if other.kinds.is_empty() || other.kinds.contains(&"router") {
            other.stops_calls = true;
            all.push(Vacant::of(name, terms, &other.reason));
        }
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
            "no call passes without plugin `{name}` (`on_error = \"reject\"`), and it is not in force: {why}; mend \
             that, or switch it off with `meshwright plugin disable {name}`"
        );
        Self { order, name, reason }
    }
}
