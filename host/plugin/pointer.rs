//! RFC 6901 pointers into JSON text: walks from bracket to bracket and builds nothing.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub const POINTER_BYTES_MAX: usize = 1 << 10;

/// The text at `pointer`, as it came; the whole for an empty one. Of members with the same name the last counts, as
/// it does for most who read JSON.
pub fn at<'a>(json: &'a str, pointer: &str) -> Option<&'a str> {
    if pointer.len() > POINTER_BYTES_MAX || !(pointer.is_empty() || pointer.starts_with('/')) {
        return None;
    }
    let mut text = json;
    for segment in pointer.split('/').skip(1) {
        let step = Step(unescaped(segment)?);
        let found: &'a RawValue = serde_json::Deserializer::from_str(text).deserialize_any(step).ok()??;
        text = found.get();
    }
    Some(text)
}

fn unescaped(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('~') {
        return Some(segment.into());
    }
    let is_sound = segment.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    is_sound.then(|| segment.replace("~1", "/").replace("~0", "~").into())
}

/// One step down: a member's name, or an element's number.
struct Step<'s>(Cow<'s, str>);

impl Step<'_> {
    fn index(&self) -> Option<usize> {
        let is_plain = *self.0 == *"0" || !self.0.starts_with(['0', '+']);
        is_plain.then(|| self.0.parse().ok()).flatten()
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Is(&self.0))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut left = self.index();
        // To the end, as the reader demands it, also when the element has been found.
        loop {
            if left == Some(0) {
                let Some(element) = list.next_element()? else { break };
                found = Some(element);
                left = None;
                continue;
            }
            if list.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            left = left.map(|left| left - 1);
        }
        Ok(found)
    }
}

/// Whether a member has that name, escapes and all.
struct Is<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn texts_are_found_as_they_came() {
        let json = r#"{ "a": {"b": [ 1.0, "x\u0041", {"c": 1e400 } ] }, "": 7, "m~n/o": true, "\u0061b": null, "t": 1, "t": 2 }"#;
        for (pointer, text) in [
            ("/a/b/0", "1.0"),
            ("/a/b/1", r#""x\u0041""#),
            ("/a/b/2/c", "1e400"),
            ("/a/b/2", r#"{"c": 1e400 }"#),
            ("/", "7"),
            ("/m~0n~1o", "true"),
            ("/ab", "null"),
            ("/t", "2"),
            ("", json),
        ] {
            assert_eq!(at(json, pointer), Some(text), "{pointer}");
        }
        let nowhere =
            ["a", "/x", "/a/b/3", "/a/b/01", "/a/b/+1", "/a/b/-", "/a/b/0/0", "/t/t", "/m~2", "/a~", "/A"];
        for pointer in nowhere {
            assert_eq!(at(json, pointer), None, "{pointer}");
        }
        assert_eq!(at("", "/a"), None);
        assert_eq!(at("{\"a\": ", "/a"), None);
        assert_eq!(at(json, &format!("/{}", "a".repeat(POINTER_BYTES_MAX))), None);
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(at(&format!("{{\"a\":{deep},\"b\":2}}"), "/b"), Some("2"));
    }

    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab~/\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_a_tree_has(tree in trees(), pointer in "(/([ab~/\"\\\\]{0,2}|~0|~1|0|1|2)){0,4}") {
            let text = tree.to_string();
            let found = at(&text, &pointer).map(|text| serde_json::from_str::<Value>(text).unwrap());
            prop_assume!(pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])));
            prop_assert_eq!(found.as_ref(), tree.pointer(&pointer));
        }
    }
}
