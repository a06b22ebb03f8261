//! Arguments that modern requests repeat in headers, so that what is between need not read bodies (SEP-2243).

use super::era::header_name;
use super::turn::Members;

/// What marks an argument in a tool's schema.
const MARK: &str = "x-mcp-header";
/// Schemas are looked into this deep.
const DEPTH_MAX: usize = 16;

/// The headers `mcp-param-NAME` that a call has to carry, by the tool's declaration and its arguments; both are JSON
/// text. Arguments that are absent or null have none.
pub fn headers(declaration: &str, arguments: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if memchr::memmem::find(declaration.as_bytes(), MARK.as_bytes()).is_some()
        && let Some(schema) = Members::of(declaration).and_then(|tool| tool.get("inputSchema"))
    {
        look(schema, arguments, DEPTH_MAX, &mut found);
    }
    found
}

fn look(schema: &str, arguments: &str, depth: usize, found: &mut Vec<(String, String)>) {
    let properties = Members::of(schema).and_then(|schema| schema.get("properties")).and_then(Members::of);
    let (Some(properties), Some(arguments)) = (properties, Members::of(arguments)) else { return };
    for (key, property) in properties.0 {
        let Some(value) = arguments.get(&key).filter(|value| *value != "null") else { continue };
        let Some(members) = Members::of(property.get()) else { continue };
        if let Some(name) = members.get(MARK).and_then(|name| serde_json::from_str::<String>(name).ok()) {
            let text = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
            found.push((format!("mcp-param-{}", name.to_ascii_lowercase()), header_name(&text).into_owned()));
        }
        if depth > 0 {
            look(property.get(), value, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::headers;

    #[test]
    fn marked_arguments_are_repeated_as_text() {
        let tool = r#"{"name":"t","inputSchema":{"properties":{
            "region":{"type":"string","x-mcp-header":"Region"},"n":{"x-mcp-header":"N"},"plain":{},
            "deep":{"properties":{"flag":{"x-mcp-header":"Flag"}}},"absent":{"x-mcp-header":"Absent"}}}}"#;
        let arguments = r#"{"region":"s\u00fcd","n":4.20,"plain":1,"deep":{"flag":true},"absent":null}"#;
        let pairs = [("region", "=?base64?c8O8ZA==?="), ("n", "4.20"), ("flag", "true")];
        let wanted = pairs.map(|(name, value)| (format!("mcp-param-{name}"), value.to_owned()));
        assert_eq!(headers(tool, arguments), wanted);
        assert_eq!(headers(r#"{"name":"t","inputSchema":{}}"#, arguments), []);
    }
}
