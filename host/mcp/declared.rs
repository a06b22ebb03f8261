//! Declarations of tools, prompts, resources and templates: what is read from them, and that they are kept as they
//! came.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::mesh::offer::{About, Era, Item, Kind};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared<'a> {
    name: Option<String>,
    uri: Option<String>,
    uri_template: Option<String>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

/// Of a tool; other kinds have annotations of other sorts, which are not looked at.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: Option<bool>,
    idempotent_hint: Option<bool>,
}

impl Annotations {
    /// Hints that cannot be read are none: nothing is concluded from them.
    fn of(annotations: Option<&RawValue>) -> Self {
        let read = annotations.map(RawValue::get).map(serde_json::from_str::<Self>);
        read.and_then(Result::ok).unwrap_or_default()
    }
}

/// # Errors
/// JSON that is not an object with the member that names this kind of thing.
pub fn parse(kind: Kind, json: &str) -> Result<Item, serde_json::Error> {
    let declared: Declared<'_> = serde_json::from_str(json)?;
    let key = match kind {
        Kind::Tool | Kind::Prompt => declared.name,
        Kind::Resource => declared.uri,
        Kind::Template => declared.uri_template,
    };
    let key = key.ok_or_else(|| serde::de::Error::missing_field(kind.key_member()))?;
    let repeatable = kind != Kind::Tool || {
        let hints = Annotations::of(declared.annotations);
        hints.read_only_hint == Some(true) || hints.idempotent_hint == Some(true)
    };
    Ok(Item { key: key.into(), json: Arc::from(json), repeatable })
}

/// Whether a tool changes nothing: by its own word, or by the operator's when it says nothing of the kind itself.
pub fn reads_only(tool: &Item) -> bool {
    // What cannot be read promises nothing.
    let Ok(declared) = serde_json::from_str::<Declared<'_>>(&tool.json) else { return false };
    let hints = Annotations::of(declared.annotations);
    hints.read_only_hint == Some(true) || (tool.repeatable && hints.idempotent_hint != Some(true))
}

/// A declaration for a tool of which only the name is known.
pub fn named_tool(name: &str) -> Item {
    let quoted = serde_json::to_string(name).expect("a string can always be written as JSON");
    Item {
        key: name.into(),
        json: format!(r#"{{"name":{quoted},"inputSchema":{{"type":"object"}}}}"#).into(),
        repeatable: false,
    }
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    pub items: Vec<Item>,
    pub next_cursor: Option<String>,
}

impl Page {
    /// Reads the result of a listing. Declarations without a key are left out: nobody could ask for them.
    ///
    /// # Errors
    /// JSON that is not the result of such a listing.
    pub fn read(kind: Kind, json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let page = PageSeed(kind).deserialize(&mut reader)?;
        reader.end()?;
        Ok(page)
    }
}

struct PageSeed(Kind);

impl<'de> DeserializeSeed<'de> for PageSeed {
    type Value = Page;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Page, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PageSeed {
    type Value = Page;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the result of `{}`", self.0.list_method())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
        let mut page = Page::default();
        let mut listed = false;
        while let Some(member) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if member == self.0.list_member() {
                page.items = map.next_value_seed(ItemsSeed(self.0))?;
                listed = true;
            } else if member == "nextCursor" {
                page.next_cursor = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if listed { Ok(page) } else { Err(serde::de::Error::missing_field(self.0.list_member())) }
    }
}

struct ItemsSeed(Kind);

impl<'de> DeserializeSeed<'de> for ItemsSeed {
    type Value = Vec<Item>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Item>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of declarations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            items.extend(parse(self.0, raw.get()));
        }
        Ok(items)
    }
}

/// What a tool's declaration says in words, for a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InWords {
    /// With the title before it.
    pub description: String,
    /// Names of the parameters.
    pub properties: Vec<String>,
}

/// A member that is missing or of another type has nothing to say.
pub fn in_words(json: &str) -> InWords {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Tool<'a> {
        #[serde(borrow)]
        title: Option<&'a RawValue>,
        #[serde(borrow)]
        description: Option<&'a RawValue>,
        #[serde(borrow)]
        input_schema: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Schema {
        properties: std::collections::BTreeMap<String, IgnoredAny>,
    }
    let tool: Tool<'_> = serde_json::from_str(json).unwrap_or_default();
    let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let said: Vec<String> = [text(tool.title), text(tool.description)].into_iter().flatten().collect();
    let schema = tool.input_schema.and_then(|raw| serde_json::from_str::<Schema>(raw.get()).ok());
    InWords {
        description: said.join(". "),
        properties: schema.map(|schema| schema.properties.into_keys().collect()).unwrap_or_default(),
    }
}

/// Reads what a server says of itself out of the result of `initialize` or `server/discover`; members that are
/// missing or of another type are left out.
pub fn about(era: Era, result: &[u8]) -> About {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Said<'a> {
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
        #[serde(borrow)]
        server_info: Option<&'a RawValue>,
        #[serde(borrow)]
        instructions: Option<&'a RawValue>,
        #[serde(borrow, rename = "_meta")]
        meta: Option<Meta<'a>>,
    }
    /// Modern results carry who answered in `_meta`.
    #[derive(Default, Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, default, rename = "io.modelcontextprotocol/serverInfo")]
        server_info: Option<&'a RawValue>,
    }
    let said: Said<'_> = serde_json::from_slice(result).unwrap_or_default();
    let text = |raw: Option<&RawValue>, first: char| {
        raw.map(RawValue::get).filter(|text| text.starts_with(first)).map(Arc::from)
    };
    About {
        era,
        capabilities: text(said.capabilities, '{'),
        server_info: text(said.meta.and_then(|meta| meta.server_info).or(said.server_info), '{'),
        instructions: text(said.instructions, '"'),
    }
}

/// Which lists a server has, by its capabilities (JSON text).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
}

impl Announced {
    pub fn read(capabilities: &str) -> Self {
        #[derive(Deserialize)]
        struct Said {
            tools: Option<IgnoredAny>,
            prompts: Option<IgnoredAny>,
            resources: Option<IgnoredAny>,
        }
        serde_json::from_str::<Said>(capabilities).map_or_else(
            |_| Self::default(),
            |said| Self {
                tools: said.tools.is_some(),
                prompts: said.prompts.is_some(),
                resources: said.resources.is_some(),
            },
        )
    }

    pub const fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Tool => self.tools,
            Kind::Prompt => self.prompts,
            Kind::Resource | Kind::Template => self.resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_kept_to_the_byte() {
        let json = r#"{ "name":"a", "inputSchema":{"x":1.0,"big":12345678901234567890},"annotations":{"readOnlyHint":true} }"#;
        let page = format!(r#"{{"ttlMs":0,"tools":[{json},{{"noname":1}},7],"nextCursor":"n"}}"#);
        let page = Page::read(Kind::Tool, page.as_bytes()).expect("a page");
        assert_eq!(page.items.len(), 1);
        assert_eq!(&*page.items[0].json, json);
        assert!(page.items[0].repeatable);
        assert_eq!(page.next_cursor.as_deref(), Some("n"));
        assert!(Page::read(Kind::Tool, br#"{"prompts":[]}"#).is_err());
        assert!(Page::read(Kind::Tool, br#"{"tools":{}}"#).is_err());
    }

    #[test]
    fn each_kind_has_its_own_key() {
        let json = r#"{"name":"n","uri":"u:1","uriTemplate":"u:{x}","annotations":{"priority":0.5}}"#;
        let key = |kind| parse(kind, json).map(|item| item.key.to_string()).ok();
        let keys = Kind::ALL.map(key);
        assert_eq!(keys.map(Option::unwrap_or_default), ["n", "n", "u:1", "u:{x}"]);
        assert!(parse(Kind::Resource, r#"{"name":"n"}"#).is_err());
    }

    #[test]
    fn only_what_promises_it_reads_only() {
        let tool = |annotations: &str, repeatable| Item {
            repeatable,
            ..parse(Kind::Tool, &format!(r#"{{"name":"t","annotations":{annotations}}}"#)).expect("a tool")
        };
        assert!(reads_only(&tool(r#"{"readOnlyHint":true}"#, false)));
        assert!(reads_only(&tool("null", true)), "the operator says so");
        assert!(!reads_only(&tool("null", false)));
        assert!(!reads_only(&tool(r#"{"idempotentHint":true}"#, true)), "it may write, if always the same");
        let unreadable = Item { json: "{".into(), ..tool("null", true) };
        assert!(!reads_only(&unreadable));
    }

    #[test]
    fn tools_without_hints_are_not_repeatable_and_what_is_read_is() {
        let json = r#"{"name":"a","annotations":{"destructiveHint":false}}"#;
        assert!(!parse(Kind::Tool, json).expect("a tool").repeatable);
        assert!(parse(Kind::Prompt, json).expect("a prompt").repeatable);
    }

    #[test]
    fn what_a_server_says_of_itself_is_kept_as_it_came() {
        let legacy = br#"{"protocolVersion":"2025-11-25","capabilities":{ "tools":{} },"serverInfo":{"name":"s","x":1.0},"instructions":"a\u0062"}"#;
        let said = about(Era::Legacy, legacy);
        assert_eq!(said.capabilities.as_deref(), Some(r#"{ "tools":{} }"#));
        assert_eq!(said.server_info.as_deref(), Some(r#"{"name":"s","x":1.0}"#));
        assert_eq!(said.instructions.as_deref(), Some(r#""a\u0062""#));
        let modern = br#"{"capabilities":null,"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m"}}}"#;
        let said = about(Era::Modern, modern);
        assert_eq!((said.capabilities, said.server_info.as_deref()), (None, Some(r#"{"name":"m"}"#)));
        let announced = Announced::read(r#"{"prompts":{},"resources":{"subscribe":true},"tools":null}"#);
        assert_eq!(Kind::ALL.map(|kind| announced.has(kind)), [false, true, true, true]);
    }
}
