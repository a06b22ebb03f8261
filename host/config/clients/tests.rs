use serde::Deserialize;

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
        (r#"{"context_servers": {"z": {"command": {"path": "p", "args": [], "env": null}}}}"#, vec!["z p -"]),
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
    assert!(left[0].starts_with("x.json:3:2: `mcpServers.b`: it must be"), "{left:?}");
    assert!(
        left[1].contains("headers") && left[2].starts_with("x.json:2:2: `mcpServers.old.type`"),
        "{left:?}"
    );
}

#[test]
fn an_entry_that_says_nothing_of_how_it_is_reached_is_left_out_with_what_was_meant() {
    for (entry, hint) in [
        (r#"{"comand": "true"}"#, Some("for `comand`, did you mean `command`?")),
        (r#"{"commands": "true", "args": []}"#, Some("did you mean `command`?")),
        (r#"{"ulr": "http://h"}"#, Some("did you mean `url`?")),
        (r#"{"htpUrl": "http://h"}"#, Some("did you mean `httpUrl`?")),
        (r#"{"command": {"pth": "x"}}"#, Some("did you mean `path`?")),
        (r#"{"command": null, "source": "extension"}"#, None),
        ("{}", None),
    ] {
        let servers = read("x.json", &format!("{{\"mcpServers\":\n {{\"six\": {entry}}}}}"));
        assert_eq!((servers.services.len(), servers.left_out.len()), (0, 1), "{entry}");
        let left = &servers.left_out[0];
        let said = left.flaw.in_a_line();
        let start = "x.json:2:3: `mcpServers.six`: it has neither a `command` nor a `url`";
        assert!(said.starts_with(start) && left.service.as_deref() == Some("six"), "{said}");
        assert_eq!(said.strip_prefix(start).map(|rest| !rest.is_empty()), Some(hint.is_some()), "{said}");
        assert!(hint.is_none_or(|hint| said.ends_with(hint)), "{said}");
    }
}

#[test]
fn tools_that_a_client_hides_stay_hidden() {
    let tools = |entry: &str| {
        let servers =
            read("x.json", &format!("{{\"mcpServers\": {{\"a\": {{\"command\": \"a\", {entry}}}}}}}"));
        let (_, service) = servers.services.into_iter().next().ok_or(servers.left_out)?;
        let tools = service.get_ref().get("tools").expect("a filter").clone();
        let tools = toml::Value::deserialize(toml::de::ValueDeserializer::from(tools)).expect("TOML");
        Ok::<_, Vec<LeftOut>>(tools.to_string())
    };
    for (entry, expected) in [
        (r#""includeTools": ["a", "b"]"#, r#"{ allow = ["a", "b"] }"#),
        (r#""excludeTools": ["delete_repo"]"#, r#"{ deny = ["delete_repo"] }"#),
        (r#""enabled_tools": ["a"], "disabled_tools": ["b"]"#, r#"{ allow = ["a"], deny = ["b"] }"#),
        (r#""disabledTools": ["b"], "excludeTools": ["c(x)"]"#, r#"{ deny = ["c", "b"] }"#),
        (r#""includeTools": [], "excludeTools": ["b"]"#, r#"{ allow = [], deny = ["*"] }"#),
    ] {
        assert_eq!(tools(entry).expect(entry), expected);
    }
    for (entry, part) in
        [(r#""excludeTools": "b""#, "a list of names"), (r#""envFile": "x.env""#, "`mcpServers.a.envFile`: ")]
    {
        let left = tools(entry).expect_err(entry);
        assert!(left[0].flaw.in_a_line().contains(part), "{left:?}");
    }
}

#[test]
fn variables_as_gemini_writes_them_are_variables() {
    let env = |path: &str, text: &str| {
        let json = format!(r#"{{"mcpServers": {{"a": {{"command": "a", "env": {{"K": "{text}"}}}}}}}}"#);
        let (_, service) = read(path, &json).services.remove(0);
        service.get_ref()["env"].get_ref()["K"].get_ref().as_str().map(ToOwned::to_owned).expect("text")
    };
    for (path, text, expected) in [
        ("x.json", "$MY_API_TOKEN", "${MY_API_TOKEN}"),
        ("x.json", "pa$WORD", "pa$WORD"),
        ("x.json", "$ecret", "$ecret"),
        ("/h/.gemini/settings.json", "Bearer $token, $5 ${X} $", "Bearer ${token}, $5 ${X} $"),
    ] {
        assert_eq!(env(path, text), expected, "{text} in {path}");
    }
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
