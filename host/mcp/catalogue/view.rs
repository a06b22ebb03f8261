//! What one address offers: four lists, and where each name in them leads.

use std::collections::HashMap;
use std::sync::Arc;

use super::list::{BadCursor, List, Page, Writer};
use super::names::{hashed_name, merged_name, resolve_alias};
use super::shelf::{Good, Shelf};
use super::template::Template;
use crate::mcp::own::OwnTool;
use crate::mesh::exposure::{Exposure, Exposures, Profile};
use crate::mesh::ids::Name;
use crate::mesh::offer::{About, Item, Kind, Offer};

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub service: Name,
    /// The service's own name for it, or its URI.
    pub key: Arc<str>,
    /// May be asked again when its outcome is unknown.
    pub repeatable: bool,
    /// One of the proxy's own tools; `service` is the proxy then.
    pub own: Option<OwnTool>,
}

/// One address: all services (merged), a profile, or a service on its own. Immutable.
#[derive(Debug)]
pub struct View {
    lists: [Arc<List>; 4],
    /// By the name that is shown, whether it is listed or only found by search.
    found: [HashMap<Arc<str>, Found>; 4],
    templates: Vec<(Template, Found)>,
    services: Arc<[Name]>,
    about: Option<Arc<About>>,
    /// What of the services' own things may be asked for.
    exposures: Arc<Exposures>,
    /// Whether `meshwright://` URIs are understood.
    merges: bool,
    filtered: bool,
}

impl View {
    /// Where a name leads: a tool's or prompt's name, a resource's URI, a template. A URI may be a listed one, a
    /// `meshwright://SERVICE/URI`, or made from a template.
    pub fn find(&self, kind: Kind, key: &str) -> Option<Found> {
        if let Some(found) = self.found[kind as usize].get(key) {
            return Some(found.clone());
        }
        if kind != Kind::Resource {
            return None;
        }
        let of = |service: &Name, uri: &str, found: Option<&Found>| Found {
            service: service.clone(),
            key: uri.into(),
            repeatable: found.is_none_or(|found| found.repeatable),
            own: None,
        };
        if let Some((service, uri)) = resolve_alias(key).filter(|_| self.merges) {
            // Not only what is listed: results of tools link to resources that are not.
            let service = self.services.iter().find(|name| name.as_str() == service)?;
            let shown = self.exposures.passes(service.as_str(), kind, &uri);
            return shown.then(|| of(service, &uri, None));
        }
        let by_template = self.templates.iter().find(|(template, found)| {
            template.matches(key) && self.exposures.passes(found.service.as_str(), kind, key)
        });
        by_template.map(|(_, found)| of(&found.service, key, Some(found)))
    }

    /// Under which name a view of several services shows a service's own thing, if it does.
    pub fn shown(&self, kind: Kind, service: &str, key: &str) -> Option<String> {
        let leads_there = |name: &String| {
            let found = self.found[kind as usize].get(name.as_str());
            found.is_some_and(|found| found.service.as_str() == service && &*found.key == key)
        };
        [merged_name(service, key), hashed_name(service, key)].into_iter().find(leads_there)
    }

    /// The first page, or the one behind a cursor. Copies nothing.
    ///
    /// # Errors
    /// A cursor of another list, or none of the proxy's at all.
    pub fn page(&self, kind: Kind, cursor: Option<&str>) -> Result<Page, BadCursor> {
        self.lists[kind as usize].page(cursor)
    }

    /// Whether anything of that kind is listed.
    pub fn has(&self, kind: Kind) -> bool {
        self.lists[kind as usize].len() > 0
    }

    /// How many of that kind are listed.
    pub fn count(&self, kind: Kind) -> usize {
        self.lists[kind as usize].len()
    }

    /// Another number exactly when the list's bytes are others.
    pub fn revision(&self, kind: Kind) -> u64 {
        self.lists[kind as usize].revision()
    }

    /// In order.
    pub fn services(&self) -> &[Name] {
        &self.services
    }

    /// What the service says of itself: of a service on its own.
    pub fn about(&self) -> Option<&Arc<About>> {
        self.about.as_ref()
    }

    /// Whether some of what the service offers is hidden by patterns, or would be if it were offered.
    pub fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Of two views with the same content this one shares the other's bytes.
    pub(super) fn sharing(mut self, last: Option<&Arc<Self>>) -> Self {
        if let Some(last) = last {
            for (list, known) in self.lists.iter_mut().zip(&last.lists) {
                if list.revision() == known.revision() && list.len() == known.len() {
                    *list = Arc::clone(known);
                }
            }
        }
        self
    }

    pub(super) fn of_service(
        service: &Name,
        offer: &Offer,
        exposure: &Exposure,
        items: &[Vec<Item>; 4],
    ) -> Self {
        let id = format!("service {service}");
        let mut building = Building::new(&id, vec![service.clone()]);
        for kind in Kind::ALL {
            for item in &items[kind as usize] {
                building.put(kind, service, item, &item.key, item.json.as_bytes(), true);
            }
        }
        let open = exposure.tools.is_open() && exposure.prompts.is_open() && exposure.resources.is_open();
        let exposures =
            Exposures { services: [(service.clone(), exposure.clone())].into(), ..Exposures::default() };
        Self {
            about: offer.about().cloned(),
            merges: false,
            filtered: !open,
            ..building.finish(Arc::new(exposures))
        }
    }

    /// All that `profile` chooses, in one list of each kind; `own` comes first.
    pub(super) fn merged<'a>(
        id: &str,
        shelves: impl Iterator<Item = &'a Arc<Shelf>> + Clone,
        profile: &Profile,
        own: &[(OwnTool, Item)],
        exposures: &Arc<Exposures>,
    ) -> Self {
        let mut building = Building::new(id, shelves.clone().map(|shelf| shelf.service.clone()).collect());
        for (tool, item) in own {
            building.put_own(*tool, item);
        }
        for kind in Kind::ALL {
            let listed = kind != Kind::Tool || !profile.search;
            for shelf in shelves.clone() {
                for good in shelf.goods(kind) {
                    building.put_good(kind, &shelf.service, good, profile, listed);
                }
            }
        }
        building.finish(Arc::clone(exposures))
    }
}

struct Building {
    lists: [Writer; 4],
    found: [HashMap<Arc<str>, Found>; 4],
    templates: Vec<(Template, Found)>,
    services: Vec<Name>,
}

impl Building {
    fn new(id: &str, services: Vec<Name>) -> Self {
        Self {
            lists: Kind::ALL.map(|kind| Writer::new(&format!("{id} {}", kind.as_str()))),
            found: Default::default(),
            templates: Vec::new(),
            services,
        }
    }

    fn put_own(&mut self, tool: OwnTool, item: &Item) {
        let service = Name::new("meshwright").expect("a good name");
        let found =
            Found { service, key: Arc::clone(&item.key), repeatable: item.repeatable, own: Some(tool) };
        self.lists[Kind::Tool as usize].push((None, Arc::clone(&item.key)), item.json.as_bytes());
        self.found[Kind::Tool as usize].insert(Arc::clone(&item.key), found);
    }

    fn put_good(&mut self, kind: Kind, service: &Name, good: &Good, profile: &Profile, listed: bool) {
        let found = &self.found[kind as usize];
        let taken = found.contains_key(&good.shown);
        let other = if taken { good.otherwise(kind, service) } else { None };
        let good = other.as_ref().unwrap_or(good);
        let chosen = kind != Kind::Tool || profile.tools.passes(&good.shown);
        if chosen && !found.contains_key(&good.shown) {
            self.put(kind, service, &good.item, &good.shown, &good.json, listed);
        }
    }

    fn put(&mut self, kind: Kind, service: &Name, item: &Item, shown: &Arc<str>, json: &[u8], listed: bool) {
        if listed {
            let position = (Some(service.clone()), Arc::clone(&item.key));
            self.lists[kind as usize].push(position, json);
        }
        let found = Found {
            service: service.clone(),
            key: Arc::clone(&item.key),
            repeatable: item.repeatable,
            own: None,
        };
        if kind == Kind::Template {
            self.templates.push((Template::new(&item.key), found.clone()));
        }
        self.found[kind as usize].insert(Arc::clone(shown), found);
    }

    fn finish(mut self, exposures: Arc<Exposures>) -> View {
        // Those that say most are tried first; the sort keeps the order of services otherwise.
        self.templates.sort_by_key(|(template, _)| std::cmp::Reverse(template.literal_bytes()));
        View {
            lists: self.lists.map(|list| Arc::new(list.finish())),
            found: self.found,
            templates: self.templates,
            services: self.services.into(),
            about: None,
            exposures,
            merges: true,
            filtered: false,
        }
    }
}
