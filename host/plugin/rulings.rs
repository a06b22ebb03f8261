//! Who may be in force, and with what: the configuration, and what operators decided since.

use std::collections::{BTreeMap, BTreeSet};

use super::PluginConfig;
use super::entry::Entry;
use super::folder::Sha;
use crate::mesh::ids::Name;
use crate::mesh::ruling::{Grant, Ruling};

/// What operators decided while the proxy ran.
#[derive(Clone, Debug, Default)]
pub struct Rulings {
    granted: BTreeSet<(Name, Sha, Grant)>,
    switched: BTreeMap<Name, bool>,
}

impl Rulings {
    pub fn add(&mut self, ruling: Ruling) {
        match ruling {
            Ruling::Granted { plugin, sha256, grant } => {
                self.granted.insert((plugin, sha256, grant));
            }
            Ruling::Switched { plugin, enabled } => {
                self.switched.insert(plugin, enabled);
            }
        }
    }
}

/// What holds in one round.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    pub config: &'a BTreeMap<String, PluginConfig>,
    pub rulings: &'a Rulings,
}

impl Terms<'_> {
    pub fn settings(&self, name: &Name) -> Option<&PluginConfig> {
        self.config.get(name.as_str())
    }

    /// Who keeps the plugin out of force, for people; `None` when nobody does.
    pub fn disabled_by(&self, name: &Name) -> Option<&'static str> {
        let settings = self.settings(name);
        match self.rulings.switched.get(name) {
            Some(true) => None,
            Some(false) => Some("switched off; `meshwright plugin enable` switches it on"),
            None => settings
                .is_some_and(|settings| !settings.enabled)
                .then_some("`enabled = false` in the configuration"),
        }
    }

    /// Of what a build `asks` for, what nobody gave it.
    pub fn missing(&self, name: &Name, component: Sha, asks: &[Grant]) -> Vec<Grant> {
        let is_given = |grant: &Grant| {
            self.settings(name).is_some_and(|settings| settings.grants.contains(grant))
                || self.rulings.granted.contains(&(name.clone(), component, *grant))
        };
        asks.iter().copied().filter(|grant| !is_given(grant)).collect()
    }

    /// Of what a build in force was given, what was taken from it.
    pub fn lacks(&self, entry: &Entry) -> Vec<Grant> {
        self.missing(&entry.build.name, entry.component, &entry.build.grants)
    }
}
