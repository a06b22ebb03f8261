//! What of all that services offer is shown to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use wildmatch::WildMatch;

use super::ids::Name;
use super::offer::{Item, Kind, Offer};

/// Glob patterns: `*` stands for any run of characters, `?` for one.
#[derive(Clone, Default, PartialEq)]
pub struct Patterns(Vec<WildMatch>);

impl<'a> FromIterator<&'a str> for Patterns {
    fn from_iter<T: IntoIterator<Item = &'a str>>(patterns: T) -> Self {
        Self(patterns.into_iter().map(WildMatch::new).collect())
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(WildMatch::pattern)).finish()
    }
}

impl Patterns {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, key: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(key))
    }
}

/// Lets through what `allow` matches, everything when that is empty, unless `deny` matches it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub allow: Patterns,
    pub deny: Patterns,
}

impl Filter {
    pub fn passes(&self, key: &str) -> bool {
        (self.allow.is_empty() || self.allow.matches(key)) && !self.deny.matches(key)
    }

    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// What is shown of one service, by the service's own names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    pub tools: Filter,
    pub prompts: Filter,
    /// By URI, and by URI template.
    pub resources: Filter,
    /// Tools that the operator knows only to read: they may be asked again when their outcome is unknown.
    pub read_only: Patterns,
}

impl Exposure {
    /// Of a service of which nothing is shown.
    pub fn nothing() -> Self {
        let all = || Filter { allow: Patterns::default(), deny: ["*"].into_iter().collect() };
        Self { tools: all(), prompts: all(), resources: all(), read_only: Patterns::default() }
    }

    pub fn passes(&self, kind: Kind, key: &str) -> bool {
        match kind {
            Kind::Tool => self.tools.passes(key),
            Kind::Prompt => self.prompts.passes(key),
            Kind::Resource | Kind::Template => self.resources.passes(key),
        }
    }

    /// The offer with the operator's marks on it.
    pub fn marked(&self, offer: &Arc<Offer>) -> Arc<Offer> {
        let marks = |tool: &Item| !tool.repeatable && self.read_only.matches(&tool.key);
        if !offer.tools().iter().any(marks) {
            return Arc::clone(offer);
        }
        let tools = offer.tools().iter();
        let tools = tools.map(|tool| Item { repeatable: tool.repeatable || marks(tool), ..tool.clone() });
        Arc::new(Offer::clone(offer).with(Kind::Tool, tools.collect()))
    }
}

/// A choice of services and tools with an address of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Empty: all.
    pub services: BTreeSet<Name>,
    /// By merged names.
    pub tools: Filter,
    /// Whether the proxy's own tools are offered.
    pub own_tools: bool,
    /// Whether a search is offered instead of the whole list of tools; what it finds can be called.
    pub search: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self { services: BTreeSet::new(), tools: Filter::default(), own_tools: true, search: false }
    }
}

impl Profile {
    pub fn includes(&self, service: &Name) -> bool {
        self.services.is_empty() || self.services.contains(service)
    }
}

/// All that the operator said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposures {
    pub services: BTreeMap<Name, Exposure>,
    pub profiles: BTreeMap<Name, Profile>,
}

impl Exposures {
    /// Whether a service's own thing may be shown and asked for at all.
    pub fn passes(&self, service: &str, kind: Kind, key: &str) -> bool {
        self.services.get(service).is_none_or(|exposure| exposure.passes(kind, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(patterns: &[&str]) -> Patterns {
        patterns.iter().copied().collect()
    }

    #[test]
    fn deny_wins_over_allow_and_an_empty_allow_lets_all_through() {
        let filter = Filter { allow: patterns(&["search_*", "get_?"]), deny: patterns(&["*_secret*"]) };
        let passed: Vec<&str> = ["search_code", "search_secrets", "get_a", "get_ab", "Search_code", "x"]
            .into_iter()
            .filter(|key| filter.passes(key))
            .collect();
        assert_eq!(passed, ["search_code", "get_a"]);
        let filter = Filter { allow: Patterns::default(), ..filter };
        assert!(filter.passes("anything") && !filter.passes("a_secret"));
    }

    #[test]
    fn operators_mark_tools_as_repeatable_and_touch_nothing_else() {
        let item = |key: &str, repeatable| Item { key: key.into(), json: "{}".into(), repeatable };
        let offer = Offer::default().with(Kind::Tool, vec![item("get", false), item("put", false)]);
        let offer = Arc::new(offer);
        let exposure = Exposure { read_only: patterns(&["get*"]), ..Exposure::default() };
        let marked = exposure.marked(&offer);
        let repeatable = |key| marked.get(Kind::Tool, key).map(|tool| tool.repeatable);
        assert_eq!((repeatable("get"), repeatable("put")), (Some(true), Some(false)));
        assert!(Arc::ptr_eq(&Exposure::default().marked(&offer), &offer));
    }

    #[test]
    fn many_stars_cost_no_more_than_length_times_length() {
        let hostile = Filter { allow: patterns(&[&"*a".repeat(200)]), deny: Patterns::default() };
        assert!(!hostile.passes(&("a".repeat(5000) + "b")));
    }
}
