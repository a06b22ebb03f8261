use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Message<'_>, MessageError> {
    Message::read(text.as_bytes())
}

#[test]
fn members_are_found_and_borrowed() {
    let text = r#"{"jsonrpc":"2.0","id": 7 ,"method":"tools\/call","params":{"name":"a","arguments":{"name":"b"},"_meta":{"progressToken":"t","io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let message = read(text).expect("a message");
    assert_eq!((message.method(), message.id()), ("tools/call", Some("7")));
    assert_eq!(message.revision().as_deref(), Some("2026-07-28"));
    assert_eq!(message.progress_token().map(RawValue::get), Some("\"t\""));
    let name = message.params().and_then(|params| params.name).expect("a name");
    assert_eq!(&text[message.span(name.get())], "\"a\"");
}

#[test]
fn doubled_members_and_other_cases_are_refused() {
    for text in [
        r#"{"method":"ping","method":"tools/call"}"#,
        r#"{"method":"ping","Method":"tools/call"}"#,
        r#"{"id":1,"ID":2,"method":"ping"}"#,
        r#"{"id":1,"\u0069d":2,"method":"ping"}"#,
        r#"{"method":"tools/call","params":{"name":"a","NAME":"b"}}"#,
        r#"{"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"method":"ping","params":[1]}"#,
        r#"["ping"]"#,
        "",
        "1",
        "{",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    // What is not looked at is the receiver's matter.
    assert!(
        read(r#"{"method":"tools/call","params":{"arguments":{"Name":1,"name":2,"x":1,"x":2}}}"#).is_ok()
    );
}

#[test]
fn limits_are_named() {
    let deep =
        |depth: usize| format!(r#"{{"params":{{"arguments":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(read(&deep(62)).is_ok());
    assert!(matches!(read(&deep(63)), Err(MessageError::TooDeep)));
    let brackets = format!(r#"{{"params":{{"arguments":{{"a":"{}"}}}}}}"#, "[\\\"".repeat(500));
    assert!(read(&brackets).is_ok());
    let many = format!(r#"{{"x":[{}0]}}"#, "0,".repeat(NODES_MAX));
    assert!(matches!(read(&many), Err(MessageError::TooManyNodes)));
    let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(STRING_BYTES_MAX + 1));
    assert!(matches!(read(&long), Err(MessageError::StringTooLong)));
}

#[test]
fn spans_are_replaced_and_all_else_stays() {
    let text = r#"{ "id":1, "params":{"name":"s__a", "arguments":{"n":1.0}} }"#;
    let message = read(text).expect("a message");
    let mut splice = Splice::new(text);
    let name = message.params().and_then(|params| params.name).expect("a name").get();
    splice.replace(message.span(name), "\"a\"");
    splice.replace(message.span(message.id().expect("an id")), "42");
    let changed = String::from_utf8(splice.to_vec()).expect("text");
    assert_eq!(changed, r#"{ "id":42, "params":{"name":"a", "arguments":{"n":1.0}} }"#);
}

#[test]
fn messages_of_instances_are_told_apart() {
    assert_eq!(shape(br#"{"id":"x","result":{}}"#), Some(Shape::Answer { id: "\"x\"" }));
    assert_eq!(shape(br#"{"error":{"code":1}}"#), Some(Shape::Answer { id: "null" }));
    let request = shape(br#"{"id":1,"method":"roots/list"}"#);
    assert_eq!(request, Some(Shape::Request { id: "1", method: "roots/list".into() }));
    let progress = shape(br#"{"method":"notifications/progress","params":{"progressToken":5}}"#);
    assert_eq!(progress, Some(Shape::Notification { progress_token: Some("5") }));
    assert_eq!(shape(b"npm warn deprecated"), None);
    assert_eq!(shape(b"{}"), None);
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_breaks_the_reader(text in ".{0,200}") {
        read(&text).ok();
        shape(text.as_bytes());
    }

    #[test]
    fn limits_never_refuse_small_messages(depth in 1usize..60, text in "[a-z\"\\\\\\[\\]{}]{0,40}") {
        let quoted = serde_json::to_string(&text).expect("JSON");
        let nested = format!("{}{quoted}{}", "[".repeat(depth), "]".repeat(depth));
        let message = format!(r#"{{"id":1,"method":"m","params":{{"x":{nested}}}}}"#);
        prop_assert!(read(&message).is_ok());
    }
}
