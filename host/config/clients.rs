//! The files in which MCP clients keep their servers, as they are: `mcpServers` (Claude Desktop and Code, Cursor, Cline,
//! Windsurf, Gemini), `servers` and `mcp.servers` (VS Code), `context_servers` (Zed), `mcp_servers` (Codex).

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::file::{File, Value};
use super::flaw::{Flaw, LeftOut};

/// Servers that a file names: in our words, with the name that the file gives them.
pub(super) struct Servers<'f> {
    pub services: Vec<(Spanned<String>, Value<'f>)>,
    pub left_out: Vec<LeftOut>,
}

/// Under which keys servers stand, by client.
const PLACES: &[&[&str]] =
    &[&["mcpServers"], &["servers"], &["mcp", "servers"], &["context_servers"], &["mcp_servers"]];

/// # Errors
/// It is no JSON, or names no servers.
pub(super) fn of_json(file: &File) -> Result<Servers<'static>, Flaw> {
    let text = without_comments(&file.text);
    let json: Json = serde_json::from_str(&text).map_err(|error| {
        let at = offset(&file.text, error.line(), error.column());
        let message = error.to_string();
        // The place is shown apart.
        let message = message.split_once(" at line ").map_or(&*message, |(message, _)| message);
        file.flaw("", Some(at..at), message)
    })?;
    let found = PLACES.iter().find_map(|place| {
        let found = place.iter().try_fold(&json, |inside, key| inside.get(key))?;
        found.as_object().map(|servers| (servers, place.join(".")))
    });
    let (servers, under) = found.ok_or_else(|| {
        let places: Vec<String> = PLACES.iter().map(|place| format!("`{}`", place.join("."))).collect();
        file.flaw("", None, format!("no servers are in it, under none of {}", places.join(", ")))
    })?;
    let mut read = Servers { services: Vec::new(), left_out: Vec::new() };
    for (name, server) in servers {
        // Names of other tables may be the same text; the first one behind the section is the server's own.
        let section =
            text.find(&format!("\"{}\"", under.rsplit('.').next().unwrap_or_default())).unwrap_or(0);
        let quoted = Json::String(name.clone()).to_string();
        let span = text[section..].find(&quoted).map(|at| section + at..section + at + quoted.len());
        let span = span.unwrap_or(0..0);
        match service(&json_value(server, &span)) {
            Ok(Some(service)) => {
                read.services.push((Spanned::new(span.clone(), slug(name)), Spanned::new(span, service)));
            }
            Ok(None) => {}
            Err((key, why)) => {
                let flaw = file.flaw(&format!("{under}.{name}.{key}"), Some(span), why);
                read.left_out.push(LeftOut { service: Some(slug(name)), flaw });
            }
        }
    }
    Ok(read)
}

/// What stands under `mcp_servers` of a TOML file.
pub(super) fn of_table<'f>(file: &File, servers: &DeTable<'f>) -> Servers<'f> {
    let mut read = Servers { services: Vec::new(), left_out: Vec::new() };
    for (name, server) in servers {
        let (span, name) = (name.span(), name.get_ref());
        match service(server.get_ref()) {
            Ok(Some(service)) => {
                let value = Spanned::new(server.span(), service);
                read.services.push((Spanned::new(span, slug(name)), value));
            }
            Ok(None) => {}
            Err((key, why)) => {
                let flaw = file.flaw(&format!("mcp_servers.{name}.{key}"), Some(span), why);
                read.left_out.push(LeftOut { service: Some(slug(name)), flaw });
            }
        }
    }
    read
}

/// A client's entry in our words; `None` for one that is switched off.
fn service<'f>(server: &DeValue<'f>) -> Result<Option<DeValue<'f>>, (&'static str, String)> {
    let table = server.as_table().ok_or(("", "it must be an object".to_owned()))?;
    let get = |key: &str| table.get(key).map(Spanned::get_ref);
    let flag = |key: &str| match get(key) {
        Some(DeValue::Boolean(flag)) => Some(*flag),
        _ => None,
    };
    if flag("disabled") == Some(true) || flag("enabled") == Some(false) {
        return Ok(None);
    }
    if get("type").or_else(|| get("transport")).and_then(|kind| kind.as_str()) == Some("sse") {
        let why = "the transport `sse` of 2024-11-05 is not supported; most of its servers offer `http`, too";
        return Err(("type", why.to_owned()));
    }
    for key in ["headers", "http_headers", "env_http_headers", "bearer_token_env_var"] {
        if get(key).is_some_and(|value| value.as_table().is_none_or(|headers| !headers.is_empty())) {
            return Err((key_of(key), "headers of one's own are not sent to instances".to_owned()));
        }
    }
    let mut out = DeTable::new();
    let mut put = |key: &'static str, value: Option<&Spanned<DeValue<'f>>>| {
        if let Some(value) = value {
            out.insert(Spanned::new(value.span(), Cow::Borrowed(key)), value.clone());
        }
    };
    // Zed has had the command as an object, too.
    let inner = get("command").and_then(|command| command.as_table());
    let source = inner.unwrap_or(table);
    put("command", inner.map_or_else(|| table.get("command"), |inner| inner.get("path")));
    for key in ["args", "env", "cwd"] {
        put(key, source.get(key));
    }
    put("url", ["url", "httpUrl", "serverUrl"].iter().find_map(|key| table.get(*key)));
    Ok(Some(DeValue::Table(out)))
}

fn key_of(key: &str) -> &'static str {
    match key {
        "bearer_token_env_var" => "bearer_token_env_var",
        _ => "headers",
    }
}

fn json_value(json: &Json, span: &std::ops::Range<usize>) -> DeValue<'static> {
    let spanned = |value| Spanned::new(span.clone(), value);
    match json {
        Json::Null => DeValue::String(Cow::Borrowed("null")),
        Json::Bool(flag) => DeValue::Boolean(*flag),
        Json::Number(number) => DeValue::String(Cow::Owned(number.to_string())),
        Json::String(text) => DeValue::String(Cow::Owned(text.clone())),
        Json::Array(items) => {
            let mut array = DeArray::new();
            items
                .iter()
                .filter(|item| !item.is_null())
                .for_each(|item| array.push(spanned(json_value(item, span))));
            DeValue::Array(array)
        }
        Json::Object(members) => {
            let member = |(key, value): (&String, &Json)| {
                let key = Spanned::new(span.clone(), Cow::Owned(key.clone()));
                (key, spanned(json_value(value, span)))
            };
            // A member that is null is one that is not there.
            DeValue::Table(members.iter().filter(|(_, value)| !value.is_null()).map(member).collect())
        }
    }
}

/// Clients allow any text as a name.
fn slug(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '-' };
    let text: String = name.trim().chars().map(allowed).collect();
    text.trim_start_matches(['-', '.']).to_owned()
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column.saturating_sub(1)
}

/// The same text with blanks in place of comments and of commas before a closing bracket.
fn without_comments(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let (mut at, mut comma) = (0, None);
    let blank = |bytes: &mut [u8]| {
        for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    };
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', _) => {
                comma = None;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            (b'/', Some(b'/')) => {
                let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
                blank(&mut bytes[at..end]);
                at = end;
            }
            (b'/', Some(b'*')) => {
                let end = memchr::memmem::find(&bytes[at + 2..], b"*/");
                let end = end.map_or(bytes.len(), |end| at + end + 4);
                blank(&mut bytes[at..end]);
                at = end;
            }
            (b',', _) => {
                comma = Some(at);
                at += 1;
            }
            (b'}' | b']', _) => {
                comma.take().into_iter().for_each(|at: usize| bytes[at] = b' ');
                at += 1;
            }
            (byte, _) => {
                if !byte.is_ascii_whitespace() {
                    comma = None;
                }
                at += 1;
            }
        }
    }
    // Only whole comments and commas became blanks, so that it is text as before.
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Servers<'static> {
        of_json(&File { path: path.into(), text: text.into() }).expect("servers")
    }

    fn shown(servers: &Servers<'_>) -> Vec<String> {
        let services = servers.services.iter();
        services
            .map(|(name, service)| {
                let get = |key: &str| service.get_ref().get(key).and_then(|value| value.get_ref().as_str());
                format!("{} {} {}", name.get_ref(), get("command").unwrap_or("-"), get("url").unwrap_or("-"))
            })
            .collect()
    }

    #[test]
    fn the_files_of_many_clients_are_read_as_they_are() {
        for (text, expected) in [
            (
                r#"{"mcpServers": {"GitHub (MCP)": {"command": "npx", "args": ["-y", "x"], "autoApprove": []},
                    "off": {"command": "x", "disabled": true}}}"#,
                vec!["GitHub--MCP- npx -"],
            ),
            (
                "// mine\n{\"servers\": {\"a\": {\"type\": \"http\", \"url\": \"http://h/\" /* , */ },},\n\"inputs\": [],}",
                vec!["a - http://h/"],
            ),
            (r#"{"theme": "x", "mcp": {"servers": {"a": {"command": "b"}}}}"#, vec!["a b -"]),
            (
                r#"{"context_servers": {"z": {"command": {"path": "p", "args": [], "env": null}}}}"#,
                vec!["z p -"],
            ),
            (
                r#"{"mcpServers": {"g": {"httpUrl": "http://h"}, "w": {"serverUrl": "http://w"}}}"#,
                vec!["g - http://h", "w - http://w"],
            ),
        ] {
            assert_eq!(shown(&read("x.json", text)), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_left_out_with_its_place() {
        let text = "{\"mcpServers\": {\n \"old\": {\"type\": \"sse\", \"url\": \"http://h\"},\n \"b\": 5,\n \
                    \"c\": {\"url\": \"http://h\", \"headers\": {\"x\": \"y\"}}, \"d\": {\"command\": \"d\"}}}";
        let servers = read("x.json", text);
        assert_eq!(shown(&servers), ["d d -"]);
        let left: Vec<String> = servers.left_out.iter().map(|left| left.flaw.in_a_line()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left[0].starts_with("x.json:3:2: `mcpServers.b.`: it must be"), "{left:?}");
        assert!(
            left[1].contains("headers") && left[2].starts_with("x.json:2:2: `mcpServers.old.type`"),
            "{left:?}"
        );
    }

    #[test]
    fn broken_json_is_named_with_its_place() {
        for (text, part) in
            [("{\n \"mcpServers\": {\"a\" 5}}", "x.json:2:21"), ("[]", "no servers are in it"), ("", "EOF")]
        {
            let file = File { path: "x.json".into(), text: text.into() };
            let flaw = of_json(&file).err().expect(text);
            assert!(flaw.in_a_line().contains(part), "{text}: {}", flaw.in_a_line());
        }
    }

    #[test]
    fn comments_become_blanks_and_strings_stay() {
        let text = "{\"a\": \"// no /* , ] \\\" \", // yes\n\"b\": [1, /* x\ny */ ], }";
        let plain = without_comments(text);
        assert_eq!(plain.len(), text.len());
        let json: Json = serde_json::from_str(&plain).expect("JSON");
        assert_eq!(json, serde_json::json!({"a": "// no /* , ] \" ", "b": [1]}));
    }
}
