//! Names under one roof: `service__tool`, at most 64 characters of `[A-Za-z0-9_-]`; URIs stay, and where two
//! services have the same one, `meshwright://SERVICE/URI` tells them apart.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Longest name of a merged tool; common clients refuse longer ones.
const NAME_MAX: usize = 64;
/// Hexadecimal digits that stand for what a name had to lose.
const HASH_DIGITS: usize = 10;
/// What begins a URI that names its service.
const SCHEME: &str = "meshwright://";

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

pub(super) fn hashed_name(service: &str, tool: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(service.as_bytes());
    hash.update([0]);
    hash.update(tool.as_bytes());
    let hash = hex::encode(hash.finalize());
    let plain = format!("{service}__{tool}");
    let kept = plain.chars().map(|c| if allowed(c) { c } else { '_' }).take(NAME_MAX - HASH_DIGITS - 1);
    format!("{}_{}", kept.collect::<String>(), &hash[..HASH_DIGITS])
}

/// A service's resource under a URI that no other service has.
pub fn alias_uri(service: &str, uri: &str) -> String {
    let mut alias = format!("{SCHEME}{service}/");
    for byte in uri.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            alias.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(alias, "%{byte:02X}").ok();
        }
    }
    alias
}

/// The same for a template. It stays as it is behind the service, so that what clients make from it is the
/// service's own URI behind the service; [`resolve_alias`] tells the two forms apart.
pub(super) fn alias_template(service: &str, template: &str) -> String {
    format!("{SCHEME}{service}/{template}")
}

/// Service and URI of an alias. Behind the service stands a URI with its scheme and colon, or a percent-encoded one,
/// in which no colon is left.
pub(super) fn resolve_alias(uri: &str) -> Option<(&str, Cow<'_, str>)> {
    let (service, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    if rest.contains(':') {
        return Some((service, Cow::Borrowed(rest)));
    }
    let mut bytes = Vec::with_capacity(rest.len());
    let mut left = rest.as_bytes();
    while let Some((&byte, behind)) = left.split_first() {
        left = behind;
        if byte == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            left = behind;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(|uri| (service, Cow::Owned(uri)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_and_foreign_names_keep_their_beginning_and_stay_apart() {
        let long = merged_name("service", &"t".repeat(100));
        assert_eq!(long.len(), NAME_MAX);
        assert_ne!(long, merged_name("service", &"t".repeat(101)));
        let foreign = merged_name("my.service", "größe");
        assert!(foreign.starts_with("my_service__gr__e_"), "{foreign}");
        assert!(foreign.chars().all(allowed));
        assert_ne!(merged_name("a__b", "c.d"), merged_name("a", "b__c.d"));
    }

    #[test]
    fn only_aliases_are_resolved() {
        assert_eq!(resolve_alias("meshwright://s/file%3A%2F%2F%2Fa"), Some(("s", "file:///a".into())));
        assert_eq!(resolve_alias("meshwright://s/file:///a%20b"), Some(("s", "file:///a%20b".into())));
        for uri in
            ["file:///a", "meshwright://s", "meshwright://s/a%3", "meshwright://s/%FF", "meshwright://s/%+1"]
        {
            assert_eq!(resolve_alias(uri), None, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn every_uri_comes_back_from_its_alias(service in "[a-z][a-z0-9._-]{0,20}", uri in "\\PC{0,60}") {
            let alias = alias_uri(&service, &uri);
            prop_assert!(alias.is_ascii());
            prop_assert_eq!(resolve_alias(&alias), Some((service.as_str(), Cow::Owned(uri))));
        }

        #[test]
        fn every_merged_name_is_allowed_everywhere(service in "[a-z][a-z0-9._-]{0,100}", tool in "\\PC{0,100}") {
            let name = merged_name(&service, &tool);
            prop_assert!(name.len() <= NAME_MAX && name.chars().all(allowed), "{}", name);
        }
    }
}
