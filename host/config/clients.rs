//! The files in which MCP clients keep their servers, as they are: `mcpServers` (Claude Desktop and Code, Cursor, Cline,
//! Windsurf, Gemini), `servers` and `mcp.servers` (VS Code), `context_servers` (Zed), `mcp_servers` (Codex).

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::file::{File, Value};
use super::flaw::{Flaw, LeftOut};
use crate::spelling::nearest;

/// Servers that a file names: in our words, with the name that the file gives them.
pub(super) struct Servers<'f> {
    pub services: Vec<(Spanned<String>, Value<'f>)>,
    pub left_out: Vec<LeftOut>,
}

/// Under which keys servers stand, by client.
const PLACES: &[&[&str]] =
    &[&["mcpServers"], &["servers"], &["mcp", "servers"], &["context_servers"], &["mcp_servers"]];

/// What changes an entry's meaning and is not taken over, and why.
const NOT_TAKEN: [(&str, &str); 5] = [
    ("headers", NO_HEADERS),
    ("http_headers", NO_HEADERS),
    ("env_http_headers", NO_HEADERS),
    ("bearer_token_env_var", NO_HEADERS),
    ("envFile", "variables are not read from files; write them into `env`"),
];
const NO_HEADERS: &str = "headers of one's own are not sent to instances";

/// How clients call the address of a server.
const URLS: [&str; 3] = ["url", "httpUrl", "serverUrl"];

/// Lists of tools that are offered, and of those that are not, as Gemini, Codex and Windsurf call them.
const ALLOWED: [&str; 2] = ["includeTools", "enabled_tools"];
const DENIED: [&str; 3] = ["excludeTools", "disabled_tools", "disabledTools"];

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
    let of_gemini = file.path.parent().is_some_and(|folder| folder.ends_with(".gemini"));
    let mut read = Servers { services: Vec::new(), left_out: Vec::new() };
    for (name, server) in servers {
        // Names of other tables may be the same text; the first one behind the section is the server's own.
        let section =
            text.find(&format!("\"{}\"", under.rsplit('.').next().unwrap_or_default())).unwrap_or(0);
        let quoted = Json::String(name.clone()).to_string();
        let span = text[section..].find(&quoted).map(|at| section + at..section + at + quoted.len());
        let span = span.unwrap_or(0..0);
        let server = if under == "mcpServers" { &braced(server, of_gemini) } else { server };
        match service(&json_value(server, &span)) {
            Ok(Some(service)) => {
                read.services.push((Spanned::new(span.clone(), slug(name)), Spanned::new(span, service)));
            }
            Ok(None) => {}
            Err((key, why)) => {
                let flaw = file.flaw(&key_of(&under, name, key), Some(span), why);
                read.left_out.push(LeftOut::of(Some(slug(name)), flaw));
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
                let flaw = file.flaw(&key_of("mcp_servers", name, key), Some(span), why);
                read.left_out.push(LeftOut::of(Some(slug(name)), flaw));
            }
        }
    }
    read
}

fn key_of(section: &str, name: &str, key: &str) -> String {
    let dot = if key.is_empty() { "" } else { "." };
    format!("{section}.{name}{dot}{key}")
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
    for (key, why) in NOT_TAKEN {
        if get(key).is_some_and(|value| value.as_table().is_none_or(|table| !table.is_empty())) {
            return Err((key, why.to_owned()));
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
    put("url", URLS.iter().find_map(|key| table.get(*key)));
    put("tools", filter(table)?.as_ref());
    if !["command", "url"].iter().any(|key| out.contains_key(*key)) {
        let known = if inner.is_some() { vec!["path"] } else { [&["command"][..], &URLS].concat() };
        return Err(("", neither(source, &known)));
    }
    Ok(Some(DeValue::Table(out)))
}

/// Why an entry is none that could be reached.
fn neither(table: &DeTable<'_>, known: &[&str]) -> String {
    let near = |key: &str| nearest(key, known).map(|meant| format!("; for `{key}`, did you mean `{meant}`?"));
    let hint = table.keys().find_map(|key| near(key.get_ref()));
    // Mostly no key is near one that is missed.
    format!("it has neither a `command` nor a `url`{}", hint.unwrap_or_default())
}

/// Which tools are offered, in our words.
fn filter<'f>(table: &DeTable<'f>) -> Result<Option<Value<'f>>, (&'static str, String)> {
    let (allow, mut deny) = (names(table, &ALLOWED)?, names(table, &DENIED)?);
    let Some(span) = allow.as_ref().or(deny.as_ref()).map(Spanned::span) else { return Ok(None) };
    let spanned = |value| Spanned::new(span.clone(), value);
    if allow.as_ref().is_some_and(|allow| allow.get_ref().is_empty()) {
        // A list of none; in our words an empty one is of all.
        let all = spanned(DeValue::String(Cow::Borrowed("*")));
        deny = Some(Spanned::new(span.clone(), vec![all]));
    }
    let lists = [("allow", allow), ("deny", deny)].into_iter();
    let lists = lists.filter_map(|(key, list)| Some((key, list?.into_inner())));
    let filter = lists.map(|(key, list)| {
        let key = Spanned::new(span.clone(), Cow::Borrowed(key));
        (key, spanned(DeValue::Array(list.into_iter().collect())))
    });
    Ok(Some(spanned(DeValue::Table(filter.collect()))))
}

type Names<'f> = Spanned<Vec<Value<'f>>>;

/// What stands under those keys together.
fn names<'f>(
    table: &DeTable<'f>,
    keys: &[&'static str],
) -> Result<Option<Names<'f>>, (&'static str, String)> {
    let mut all: Option<Names<'f>> = None;
    for key in keys {
        let Some(list) = table.get(*key) else { continue };
        let wrong = || (*key, "it must be a list of names".to_owned());
        let found = all.get_or_insert_with(|| Spanned::new(list.span(), Vec::new())).get_mut();
        for name in list.get_ref().as_array().ok_or_else(wrong)?.iter() {
            let text = name.get_ref().as_str().ok_or_else(wrong)?;
            // Gemini allows `name(…)`, too. What is split has a first piece, here and below.
            let text = text.split('(').next().unwrap_or_default().to_owned();
            found.push(Spanned::new(name.span(), DeValue::String(Cow::Owned(text))));
        }
    }
    Ok(all)
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

/// Gemini's `$NAME` as `${NAME}`: in its own file wherever it stands. Another file may mean any text with a `$`, but
/// hardly one that is nothing else than a variable's name.
fn braced(value: &Json, anywhere: bool) -> Json {
    match value {
        Json::String(text) if anywhere => Json::String(all_braced(text)),
        Json::String(text) => match text.strip_prefix('$') {
            Some(name) if is_variable(name) => Json::String(format!("${{{name}}}")),
            _ => value.clone(),
        },
        Json::Array(items) => items.iter().map(|item| braced(item, anywhere)).collect(),
        Json::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.clone(), braced(value, anywhere)));
            Json::Object(members.collect())
        }
        _ => value.clone(),
    }
}

fn is_variable(name: &str) -> bool {
    let may_be = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    name.starts_with(|c: char| !c.is_ascii_digit()) && name.bytes().all(may_be)
}

fn all_braced(text: &str) -> String {
    let mut pieces = text.split('$');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        if name.starts_with(|c: char| !c.is_ascii_digit()) {
            out.push_str(&format!("${{{name}}}{rest}"));
        } else {
            out.push('$');
            out.push_str(piece);
        }
    }
    out
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
mod tests;
