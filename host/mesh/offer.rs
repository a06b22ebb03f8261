//! What an instance offers: tools, prompts, resources and resource templates as it declares them, and what it says
//! of itself.

use std::sync::Arc;

/// How an instance is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize` and sessions: up to 2025-11-25. Of 2024-11-05 only the messages are known, not its own transport.
    Legacy,
    /// Stateless requests that carry their own context: 2026-07-28.
    Modern,
}

impl Era {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// The four lists that a server can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Tool,
    Prompt,
    Resource,
    Template,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "template",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The member of a declaration that tells it from others of its kind.
    pub const fn key_member(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// The method that lists it.
    pub const fn list_method(self) -> &'static str {
        match self {
            Self::Tool => "tools/list",
            Self::Prompt => "prompts/list",
            Self::Resource => "resources/list",
            Self::Template => "resources/templates/list",
        }
    }

    /// The member of the listing's result that holds the declarations.
    pub const fn list_member(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }
}

/// One declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name, URI or URI template.
    pub key: Arc<str>,
    /// The declaration to the byte as it came, JSON text.
    pub json: Arc<str>,
    /// May be asked again when its outcome is unknown: a tool annotated `readOnlyHint` or `idempotentHint`, and
    /// anything else that is only read.
    pub repeatable: bool,
}

/// What a server says of itself, as it came: JSON text, absent where it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub era: Era,
    /// A JSON object.
    pub capabilities: Option<Arc<str>>,
    /// A JSON object.
    pub server_info: Option<Arc<str>>,
    /// A JSON string.
    pub instructions: Option<Arc<str>>,
}

impl About {
    pub const fn new(era: Era) -> Self {
        Self { era, capabilities: None, server_info: None, instructions: None }
    }
}

/// Everything that is offered. Each list is ordered by key, and no key is twice in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    tools: Arc<[Item]>,
    prompts: Arc<[Item]>,
    resources: Arc<[Item]>,
    templates: Arc<[Item]>,
    about: Option<Arc<About>>,
}

impl Default for Offer {
    fn default() -> Self {
        let none = || Arc::from([]);
        Self { tools: none(), prompts: none(), resources: none(), templates: none(), about: None }
    }
}

impl Offer {
    pub fn tools(&self) -> &Arc<[Item]> {
        &self.tools
    }

    pub fn prompts(&self) -> &Arc<[Item]> {
        &self.prompts
    }

    pub fn resources(&self) -> &Arc<[Item]> {
        &self.resources
    }

    pub fn templates(&self) -> &Arc<[Item]> {
        &self.templates
    }

    pub fn about(&self) -> Option<&Arc<About>> {
        self.about.as_ref()
    }

    pub const fn of(&self, kind: Kind) -> &Arc<[Item]> {
        match kind {
            Kind::Tool => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Template => &self.templates,
        }
    }

    pub fn get(&self, kind: Kind, key: &str) -> Option<&Item> {
        let items = self.of(kind);
        items.binary_search_by(|item| (*item.key).cmp(key)).ok().map(|at| &items[at])
    }

    /// With this list in place of the one that was there.
    #[must_use]
    pub fn with(mut self, kind: Kind, items: Vec<Item>) -> Self {
        let items = in_order(items).into();
        match kind {
            Kind::Tool => self.tools = items,
            Kind::Prompt => self.prompts = items,
            Kind::Resource => self.resources = items,
            Kind::Template => self.templates = items,
        }
        self
    }

    #[must_use]
    pub fn with_about(mut self, about: Option<Arc<About>>) -> Self {
        self.about = about;
        self
    }

    /// What several instances of one service offer together. Of declarations with the same key the first one's
    /// text is kept, and of what they say of themselves the first.
    pub fn union<'a>(offers: impl Iterator<Item = &'a Arc<Self>> + Clone) -> Arc<Self> {
        let mut several = offers.clone();
        match (several.next(), several.next()) {
            (None, _) => return Arc::default(),
            (Some(only), None) => return Arc::clone(only),
            (Some(_), Some(_)) => {}
        }
        let list = |kind| {
            let items: Vec<Item> = offers.clone().flat_map(|offer| offer.of(kind).iter().cloned()).collect();
            Arc::from(in_order(items))
        };
        Arc::new(Self {
            tools: list(Kind::Tool),
            prompts: list(Kind::Prompt),
            resources: list(Kind::Resource),
            templates: list(Kind::Template),
            about: offers.clone().find_map(|offer| offer.about.clone()),
        })
    }
}

fn in_order(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by(|a, b| a.key.cmp(&b.key));
    items.dedup_by(|later, first| {
        let same = later.key == first.key;
        // One instance that may not be asked twice is enough: nobody knows yet which one takes the call.
        first.repeatable &= !same || later.repeatable;
        same
    });
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, json: &str, repeatable: bool) -> Item {
        Item { key: key.into(), json: json.into(), repeatable }
    }

    fn offer(tools: &[Item]) -> Arc<Offer> {
        Arc::new(Offer::default().with(Kind::Tool, tools.to_vec()))
    }

    #[test]
    fn a_tool_is_repeatable_only_if_all_instances_say_so() {
        let (may, must_not) = (offer(&[item("t", "{}", true)]), offer(&[item("t", "{}", false)]));
        let repeatable = |offers: &[&Arc<Offer>]| {
            Offer::union(offers.iter().copied()).get(Kind::Tool, "t").map(|tool| tool.repeatable)
        };
        assert_eq!(repeatable(&[&may, &may]), Some(true));
        assert_eq!(repeatable(&[&may, &must_not]), Some(false));
        assert_eq!(repeatable(&[&must_not, &may]), Some(false));
    }

    #[test]
    fn lists_are_in_order_without_doubles_and_the_first_declaration_is_kept() {
        let first = offer(&[item("b", "1", false), item("a", "2", false), item("b", "3", false)]);
        let second = offer(&[item("c", "4", false), item("a", "5", false)]);
        let both = Offer::union([&first, &second].into_iter());
        let seen: Vec<(&str, &str)> = both.tools().iter().map(|t| (&*t.key, &*t.json)).collect();
        assert_eq!(seen, [("a", "2"), ("b", "1"), ("c", "4")]);
        assert_eq!(both.get(Kind::Tool, "c").map(|tool| &*tool.json), Some("4"));
        assert_eq!(both.get(Kind::Prompt, "c"), None);
        assert!(Arc::ptr_eq(&Offer::union(std::iter::once(&first)), &first));
    }
}
