//! Tool declarations: what is read from them, and that they are kept as they came.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mesh::instance::Tool;

#[derive(Deserialize)]
struct Declared {
    name: String,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotations {
    #[serde(default)]
    read_only_hint: Option<bool>,
    #[serde(default)]
    idempotent_hint: Option<bool>,
}

/// One page of `tools/list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    pub next_cursor: Option<String>,
}

impl Page<'_> {
    /// Declarations without a name are left out: nobody could call them.
    pub fn tools(&self) -> impl Iterator<Item = Tool> + '_ {
        self.tools.iter().filter_map(|raw| parse(raw.get()).ok())
    }
}

/// # Errors
/// JSON that is not an object with a `name`.
pub fn parse(json: &str) -> Result<Tool, serde_json::Error> {
    let declared: Declared = serde_json::from_str(json)?;
    let hints = declared.annotations.unwrap_or_default();
    Ok(Tool {
        name: declared.name.into(),
        json: Arc::from(json),
        repeatable: hints.read_only_hint == Some(true) || hints.idempotent_hint == Some(true),
    })
}

/// A declaration for a tool of which only the name is known.
pub fn named(name: &str) -> Tool {
    let quoted = serde_json::to_string(name).expect("a string can always be written as JSON");
    Tool {
        name: name.into(),
        json: format!(r#"{{"name":{quoted},"inputSchema":{{"type":"object"}}}}"#).into(),
        repeatable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_kept_to_the_byte() {
        let json = r#"{ "name":"a", "inputSchema":{"x":1.0,"big":12345678901234567890},"annotations":{"readOnlyHint":true} }"#;
        let page = format!(r#"{{"tools":[{json},{{"noname":1}}],"nextCursor":"n"}}"#);
        let page: Page<'_> = serde_json::from_str(&page).expect("a page");
        let tools: Vec<Tool> = page.tools().collect();
        assert_eq!(tools.len(), 1);
        assert_eq!(&*tools[0].json, json);
        assert!(tools[0].repeatable);
        assert_eq!(page.next_cursor.as_deref(), Some("n"));
    }

    #[test]
    fn tools_without_hints_are_not_repeatable() {
        assert!(
            !parse(r#"{"name":"a","annotations":{"destructiveHint":false}}"#).expect("a tool").repeatable
        );
    }
}
