//! What all services offer, under one roof and each on its own: immutable [`View`]s, made anew only where something
//! changed.
//!
//! Knows what is remembered of each service and what the operator shows of it. Must not know who of a service is
//! alive: a service that is down stays listed, and a call to it says why it cannot be answered.

mod list;
mod names;
mod shelf;
mod template;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::own::OwnTool;
use crate::mesh::exposure::{Exposure, Exposures, Profile};
use crate::mesh::ids::Name;
use crate::mesh::offer::{Item, Kind, Offer};

pub use list::{BadCursor, Page};
pub use names::{alias_uri, merged_name};
use shelf::Shelf;
pub use view::{Found, View};

/// Every view of what is offered.
#[derive(Debug)]
pub struct Catalogue {
    shelves: BTreeMap<Name, Arc<Shelf>>,
    merged: Arc<View>,
    profiles: BTreeMap<Name, Arc<View>>,
    exposures: Arc<Exposures>,
}

impl Default for Catalogue {
    fn default() -> Self {
        let exposures = Arc::default();
        let own = own_tools(&Profile::default());
        let merged = View::merged(MERGED, std::iter::empty(), &Profile::default(), &own, &exposures);
        Self { shelves: BTreeMap::new(), merged: Arc::new(merged), profiles: BTreeMap::new(), exposures }
    }
}

/// What cursors of the merged view are marked with.
const MERGED: &str = "merged";

impl Catalogue {
    /// The catalogue of `offers`, which are in order; what did not change is shared with `self`. The same one when
    /// nothing changed.
    #[must_use]
    pub fn next<'a>(
        self: &Arc<Self>,
        offers: impl Iterator<Item = (&'a Name, &'a Arc<Offer>)> + Clone,
        exposures: &Arc<Exposures>,
    ) -> Arc<Self> {
        let same_rules = Arc::ptr_eq(exposures, &self.exposures);
        let known = self.shelves.iter().map(|(name, shelf)| (name, Arc::as_ptr(&shelf.offer)));
        let unchanged = same_rules && known.eq(offers.clone().map(|(name, o)| (name, Arc::as_ptr(o))));
        if unchanged {
            return Arc::clone(self);
        }
        let open = Exposure::default();
        let shelves: BTreeMap<Name, Arc<Shelf>> = offers
            .map(|(name, offer)| {
                let known = self.shelves.get(name);
                let shelf = known.filter(|shelf| same_rules && Arc::ptr_eq(&shelf.offer, offer)).cloned();
                let exposure = exposures.services.get(name).unwrap_or(&open);
                let made = || Arc::new(Shelf::new(name, offer, exposure));
                (name.clone(), shelf.unwrap_or_else(made))
            })
            .collect();
        let everything = Profile::default();
        let own = own_tools(&everything);
        let merged = View::merged(MERGED, shelves.values(), &everything, &own, exposures);
        let profiles = exposures.profiles.iter().map(|(name, profile)| {
            let last = self.profiles.get(name);
            let chosen = |shelves: &BTreeMap<Name, Arc<Shelf>>| -> Vec<Arc<Shelf>> {
                shelves.values().filter(|shelf| profile.includes(&shelf.service)).cloned().collect()
            };
            let (now, before) = (chosen(&shelves), chosen(&self.shelves));
            let same = same_rules && now.iter().map(Arc::as_ptr).eq(before.iter().map(Arc::as_ptr));
            let view = last.filter(|_| same).cloned().unwrap_or_else(|| {
                let id = format!("profile {name}");
                let view = View::merged(&id, now.iter(), profile, &own_tools(profile), exposures);
                Arc::new(view.sharing(last))
            });
            (name.clone(), view)
        });
        let profiles = profiles.collect();
        let merged = Arc::new(merged.sharing(Some(&self.merged)));
        Arc::new(Self { shelves, merged, profiles, exposures: Arc::clone(exposures) })
    }

    /// All services, or what a profile chooses of them; `None` when there is no such profile.
    pub fn view(&self, profile: Option<&str>) -> Option<&Arc<View>> {
        match profile {
            None => Some(&self.merged),
            Some(profile) => self.profiles.get(profile),
        }
    }

    /// A service under its own names, whether it is up or down.
    pub fn service(&self, name: &str) -> Option<&Arc<View>> {
        self.shelves.get(name).map(|shelf| &shelf.view)
    }

    /// Every service that is offered, in order.
    pub fn services(&self) -> impl Iterator<Item = &Name> {
        self.shelves.keys()
    }

    /// A declaration under the name that a view shows.
    pub fn declaration(&self, kind: Kind, service: &str, key: &str, shown: &str) -> Option<Bytes> {
        let item = self.shelves.get(service)?.offer.get(kind, key)?;
        shelf::renamed(kind, &item.json, shown, &mut BytesMut::new())
    }

    /// Whether the operator lets a service's own thing be shown and asked for at all.
    pub fn passes(&self, service: &str, kind: Kind, key: &str) -> bool {
        self.exposures.passes(service, kind, key)
    }
}

/// The proxy's own tools that a profile offers, in their order.
fn own_tools(profile: &Profile) -> Vec<(OwnTool, Item)> {
    let offered = |tool: &OwnTool| profile.own_tools || (profile.search && *tool == OwnTool::FindTools);
    OwnTool::ALL.into_iter().filter(offered).map(|tool| (tool, tool.declaration())).collect()
}

#[cfg(test)]
mod tests;
