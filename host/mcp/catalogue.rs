//! Tools of many services under one roof: `service__tool`, at most 64 characters of `[A-Za-z0-9_-]`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::envelope::put_string;
use crate::mesh::ids::Name;
use crate::mesh::offer::Item;

/// Longest name of a merged tool; common clients refuse longer ones.
const NAME_MAX: usize = 64;
/// Hexadecimal digits that stand for what a name had to lose.
const HASH_DIGITS: usize = 10;

/// Where a merged name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub service: Name,
    /// The tool's own name.
    pub tool: Arc<str>,
}

/// All tools of all services, made once for each change of them.
#[derive(Debug, Default)]
pub struct Catalogue {
    by_name: HashMap<String, Origin>,
    /// The members of `tools`, JSON text with the merged names, in a fixed order.
    list: Bytes,
}

impl Catalogue {
    /// `services` in the order in which they are to be listed.
    pub fn new<'a>(services: impl Iterator<Item = (&'a Name, &'a [Item])>) -> Self {
        let mut by_name = HashMap::new();
        let mut list = BytesMut::new();
        for (service, tools) in services {
            for tool in tools {
                let name = merged_name(service.as_str(), &tool.key);
                // `a__b` + `c` and `a` + `b__c`: the second gets a hash.
                let taken = by_name.contains_key(&name);
                let name = if taken { hashed_name(service.as_str(), &tool.key) } else { name };
                if !list.is_empty() {
                    list.put_u8(b',');
                }
                put_renamed(&mut list, &tool.json, &name);
                by_name.insert(name, Origin { service: service.clone(), tool: Arc::clone(&tool.key) });
            }
        }
        Self { by_name, list: list.freeze() }
    }

    pub fn find(&self, name: &str) -> Option<&Origin> {
        self.by_name.get(name)
    }

    /// The members of `tools` as JSON text, without brackets.
    pub fn list(&self) -> &Bytes {
        &self.list
    }
}

/// `service__tool` when that is allowed everywhere; otherwise its beginning with foreign characters replaced, and a
/// hash of the whole, so that the same tool always has the same name and no other tool has it.
pub fn merged_name(service: &str, tool: &str) -> String {
    let plain = format!("{service}__{tool}");
    let fits = plain.len() <= NAME_MAX && plain.chars().all(allowed);
    if fits { plain } else { hashed_name(service, tool) }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn hashed_name(service: &str, tool: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(service.as_bytes());
    hash.update([0]);
    hash.update(tool.as_bytes());
    let hash = hex::encode(hash.finalize());
    let plain = format!("{service}__{tool}");
    let kept = plain.chars().map(|c| if allowed(c) { c } else { '_' }).take(NAME_MAX - HASH_DIGITS - 1);
    format!("{}_{}", kept.collect::<String>(), &hash[..HASH_DIGITS])
}

/// Appends a tool's declaration under another name; all its other bytes stay.
fn put_renamed(out: &mut BytesMut, json: &str, name: &str) {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
    }
    let named: Named<'_> = serde_json::from_str(json).expect("a tool's declaration was read when it came");
    let old = named.name.get();
    let at = old.as_ptr() as usize - json.as_ptr() as usize;
    out.put_slice(&json.as_bytes()[..at]);
    put_string(out, name);
    out.put_slice(&json.as_bytes()[at + old.len()..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::declared;
    use crate::mesh::offer::Kind;

    #[test]
    fn declarations_change_nothing_but_their_name() {
        let tool =
            declared::parse(Kind::Tool, r#"{ "x":1.0, "name" : "a\u0062", "inputSchema":{"name":"z"} }"#)
                .expect("a tool");
        let service = Name::new("s").expect("a name");
        let catalogue = Catalogue::new([(&service, &[tool][..])].into_iter());
        assert_eq!(&catalogue.list()[..], br#"{ "x":1.0, "name" : "s__ab", "inputSchema":{"name":"z"} }"#);
        assert_eq!(catalogue.find("s__ab").map(|origin| &*origin.tool), Some("ab"));
    }

    #[test]
    fn long_and_foreign_names_keep_their_beginning_and_stay_apart() {
        let long = merged_name("service", &"t".repeat(100));
        assert_eq!(long.len(), NAME_MAX);
        assert_ne!(long, merged_name("service", &"t".repeat(101)));
        let foreign = merged_name("my.service", "größe");
        assert!(
            foreign.starts_with("my_service__gr_e_") || foreign.starts_with("my_service__gr__e_"),
            "{foreign}"
        );
        assert!(foreign.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        assert_ne!(merged_name("a__b", "c.d"), merged_name("a", "b__c.d"));
    }

    #[test]
    fn two_tools_never_share_a_name() {
        let (first, second) = (Name::new("a").expect("a name"), Name::new("a__b").expect("a name"));
        let (long, short) = (declared::named_tool("b__c"), declared::named_tool("c"));
        let services = [(&first, std::slice::from_ref(&long)), (&second, std::slice::from_ref(&short))];
        let catalogue = Catalogue::new(services.into_iter());
        assert_eq!(catalogue.find("a__b__c").map(|origin| &*origin.tool), Some("b__c"));
        let other = catalogue.find(&hashed_name("a__b", "c")).expect("under its other name");
        assert_eq!((&other.service, &*other.tool), (&second, "c"));
    }
}
