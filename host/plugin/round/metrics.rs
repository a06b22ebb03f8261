//! Whose metrics are whose: a meter takes no name from another plugin, nor from the proxy.

use std::collections::BTreeMap;

use super::Round;
use crate::mesh::ids::Name;
use crate::plugin::entry::Entry;
use crate::plugin::folder::Sha;
use crate::plugin::host_state::{cut, printable};
use crate::plugin::load::LoadError;
use crate::policy::metrics;

const NAME_BYTES_MAX: usize = 256;

/// Names that a plugin may not have, by their owners.
pub type Taken = BTreeMap<String, Name>;

/// # Errors
/// One of the `names` is another's.
pub fn check<'a>(names: impl IntoIterator<Item = &'a str>, taken: &Taken) -> Result<(), LoadError> {
    for name in names {
        if metrics::is_own(name) {
            return Err(LoadError::OwnMetric(printable(cut(name, NAME_BYTES_MAX))));
        }
        if let Some(owner) = taken.get(metrics::family(name)) {
            return Err(LoadError::TakenMetric(printable(cut(name, NAME_BYTES_MAX)), owner.clone()));
        }
    }
    Ok(())
}

impl Round<'_> {
    /// What the plugin `name` may not have.
    ///
    /// # Errors
    /// The build with that configuration is known to have some of it.
    pub(super) fn taken_metrics(&self, name: &Name, key: (Sha, Sha)) -> Result<Taken, LoadError> {
        let in_force = self.outcome.in_force.iter();
        let unsettled = self.reloader.in_force.iter().filter(|(other, entry)| {
            !self.outcome.in_force.contains_key(*other)
                && self.terms.disabled_by(other).is_none()
                && entry.file.as_ref().is_none_or(|file| self.here.contains(file))
        });
        let of = |(other, entry): (&Name, &Entry)| {
            let names = entry.loaded.metrics().map(|name| metrics::family(name).to_owned());
            names.map(|name| (name, other.clone())).collect::<Vec<_>>()
        };
        let taken = in_force.chain(unsettled).filter(|(other, _)| *other != name).flat_map(of).collect();
        let known = self.reloader.memory.metered.get(&key);
        check(known.into_iter().flatten().map(String::as_str), &taken)?;
        Ok(taken)
    }
}
