use super::*;

const RULES: &str = r##"{
    "type": "object",
    "properties": {
        "zone": {"type": "string", "enum": ["east", "west"]},
        "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}},
        "limit": {"anyOf": [{"type": "integer", "maximum": 10}, {"type": "object", "properties": {"soft": {"type": "integer"}}}]}
    },
    "additionalProperties": false,
    "$defs": {"rule": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "permille": {"type": "integer", "maximum": 1000}},
        "additionalProperties": false
    }}
}"##;

fn found(schema: &str, config_json: &str) -> Vec<(String, String)> {
    issues(&Question { schema: schema.into(), config_json: config_json.into() }).expect("a schema")
}

#[track_caller]
fn says(config_json: &str, path: &str, words: &str) {
    let found = found(RULES, config_json);
    let is_said = found.iter().any(|(place, message)| place == path && message.contains(words));
    assert!(is_said && found.len() == 1, "{config_json}: {found:?}");
}

#[test]
fn each_issue_names_its_place_and_what_is_expected() {
    assert_eq!(found(RULES, "{}"), []);
    assert_eq!(found(RULES, r#"{"zone": "east", "rules": [{"name": "a", "permille": 1000}]}"#), []);
    says(r#"{"rules": [{"name": "a", "permille": 1001}]}"#, "/rules/0/permille", "maximum of 1000");
    says(r#"{"rules": [{"name": "A"}]}"#, "/rules/0/name", "[a-z]");
    says(r#"{"rules": [{}]}"#, "/rules/0", "the setting `name` is missing");
    says(r#"{"rules": {}}"#, "/rules", "this must be of type `array`, not an object");
    says(r#"{"limit": {"soft": "much"}}"#, "/limit/soft", "of type `integer`, not `\"much\"`");
    says(r#"{"limit": 11}"#, "/limit", "anyOf");
}

#[test]
fn what_is_misspelt_gets_a_suggestion() {
    says(r#"{"ruels": []}"#, "/ruels", "no setting `ruels` here; did you mean `rules`?");
    says(r#"{"rules": [{"name": "a", "per-mille": 1}]}"#, "/rules/0/per-mille", "did you mean `permille`?");
    says(r#"{"quite/other": 1}"#, "/quite~1other", "there are `limit`, `rules`, `zone`");
    says(r#"{"zone": "wets"}"#, "/zone", "did you mean `west`?");
}

#[test]
fn what_is_no_schema_is_said_to_be_none() {
    for (schema, words) in [
        ("{", "is not JSON"),
        ("false", "describes no object"),
        ("[]", "describes no object"),
        (r#"{"type": "array"}"#, "describes no object"),
        (r#"{"type": ["string", "null"]}"#, "describes no object"),
        (r#"{"properties": []}"#, "is not JSON Schema: `/properties`"),
        (r#"{"properties": {"a": {"type": "strnig"}}}"#, "is not JSON Schema: `/properties/a/type`"),
        (r#"{"properties": {"a": {"pattern": "("}}}"#, "is not JSON Schema"),
        (r##"{"$ref": "#/nowhere"}"##, "refers to what is not there"),
        (r#"{"$ref": "https://example.com/schema.json"}"#, "refers to what is not there"),
        (r#"{"$ref": "file:///etc/hostname"}"#, "refers to what is not there"),
    ] {
        let error = issues(&Question { schema: schema.into(), config_json: r#"{"a": "b"}"#.into() })
            .expect_err(schema);
        assert!(error.to_string().contains(words), "{schema}: {error}");
    }
}
