use std::time::Instant;

use super::*;
use crate::mcp::declared;
use crate::mesh::exposure::Filter;
use crate::mesh::offer::{About, Era};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn tool(name: &str) -> Item {
    declared::named_tool(name)
}

fn resource(uri: &str) -> Item {
    declared::parse(Kind::Resource, &format!(r#"{{"uri":"{uri}","name":"n"}}"#)).expect("a resource")
}

fn template(text: &str) -> Item {
    declared::parse(Kind::Template, &format!(r#"{{"uriTemplate":"{text}","name":"n"}}"#)).expect("a template")
}

fn offer(kind: Kind, items: &[Item]) -> Arc<Offer> {
    Arc::new(Offer::default().with(kind, items.to_vec()))
}

fn filter(allow: &[&str], deny: &[&str]) -> Filter {
    Filter { allow: allow.iter().copied().collect(), deny: deny.iter().copied().collect() }
}

fn catalogue_of(offers: &[(&str, Arc<Offer>)], exposures: &Arc<Exposures>) -> Arc<Catalogue> {
    next(&Arc::default(), offers, exposures)
}

fn next(last: &Arc<Catalogue>, offers: &[(&str, Arc<Offer>)], exposures: &Arc<Exposures>) -> Arc<Catalogue> {
    let offers: BTreeMap<Name, Arc<Offer>> =
        offers.iter().map(|(service, offer)| (name(service), Arc::clone(offer))).collect();
    last.next(offers.iter(), exposures)
}

fn merged(offers: &[(&str, Arc<Offer>)]) -> Arc<View> {
    let catalogue = catalogue_of(offers, &Arc::default());
    Arc::clone(catalogue.view(None).expect("there is always a merged view"))
}

/// The names of a view's services' things, page by page.
fn shown(view: &View, kind: Kind) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = view.page(kind, cursor.as_deref()).expect("a page");
        let members = format!(r#"{{"{}":[{}]}}"#, kind.list_member(), text(&page));
        let items = declared::Page::read(kind, members.as_bytes()).expect("JSON").items;
        names.extend(items.iter().map(|item| item.key.to_string()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            names.retain(|name| OwnTool::named(name).is_none());
            return names;
        }
    }
}

fn text(page: &Page) -> &str {
    std::str::from_utf8(&page.members).expect("text")
}

fn leads_to(view: &View, kind: Kind, key: &str) -> Option<(String, String)> {
    view.find(kind, key).map(|found| (found.service.to_string(), found.key.to_string()))
}

fn pair(service: &str, key: &str) -> Option<(String, String)> {
    Some((service.to_owned(), key.to_owned()))
}

#[test]
fn declarations_change_nothing_but_their_name() {
    let json = r#"{ "x":1.0, "name" : "a\u0062", "inputSchema":{"name":"z"} }"#;
    let item = declared::parse(Kind::Tool, json).expect("a tool");
    let view = merged(&[("s", offer(Kind::Tool, &[item]))]);
    let page = view.page(Kind::Tool, None).expect("a page");
    assert!(text(&page).ends_with(r#"{ "x":1.0, "name" : "s__ab", "inputSchema":{"name":"z"} }"#));
    assert_eq!(leads_to(&view, Kind::Tool, "s__ab"), pair("s", "ab"));
    let alone = catalogue_of(&[("s", offer(Kind::Tool, &[tool("t")]))], &Arc::default());
    let alone = alone.service("s").expect("a service");
    assert_eq!(text(&alone.page(Kind::Tool, None).expect("a page")), &*tool("t").json);
    assert_eq!(leads_to(alone, Kind::Tool, "t"), pair("s", "t"));
    assert_eq!(leads_to(alone, Kind::Tool, "s__t"), None);
}

#[test]
fn two_tools_never_share_a_name() {
    let view =
        merged(&[("a", offer(Kind::Tool, &[tool("b__c")])), ("a__b", offer(Kind::Tool, &[tool("c")]))]);
    assert_eq!(leads_to(&view, Kind::Tool, "a__b__c"), pair("a", "b__c"));
    let other = names::hashed_name("a__b", "c");
    assert_eq!(leads_to(&view, Kind::Tool, &other), pair("a__b", "c"));
    assert_eq!(shown(&view, Kind::Tool), ["a__b__c".to_owned(), other]);
}

#[test]
fn the_first_service_keeps_a_uri_and_others_are_found_behind_their_name() {
    let both = [resource("file:///x y"), resource("file:///only-b")];
    let view = merged(&[("a", offer(Kind::Resource, &both[..1])), ("b", offer(Kind::Resource, &both))]);
    let alias = "meshwright://b/file%3A%2F%2F%2Fx%20y";
    assert_eq!(shown(&view, Kind::Resource), ["file:///x y", "file:///only-b", alias]);
    assert_eq!(leads_to(&view, Kind::Resource, "file:///x y"), pair("a", "file:///x y"));
    assert_eq!(leads_to(&view, Kind::Resource, alias), pair("b", "file:///x y"));
    let unlisted = alias_uri("a", "file:///unlisted");
    assert_eq!(leads_to(&view, Kind::Resource, &unlisted), pair("a", "file:///unlisted"));
    assert_eq!(leads_to(&view, Kind::Resource, "meshwright://nobody/file%3A%2F%2Fx"), None);
    assert_eq!(leads_to(&view, Kind::Resource, "file:///unlisted"), None);
}

#[test]
fn uris_made_from_templates_lead_to_the_service_whose_template_says_most() {
    let view = merged(&[
        ("a", offer(Kind::Template, &[template("{+any}"), template("db://{table}/{id}")])),
        ("b", offer(Kind::Template, &[template("db://{table}/{id}"), template("db://users/{id}")])),
    ]);
    assert_eq!(leads_to(&view, Kind::Resource, "db://users/7"), pair("b", "db://users/7"));
    assert_eq!(leads_to(&view, Kind::Resource, "db://rows/7"), pair("a", "db://rows/7"));
    assert_eq!(leads_to(&view, Kind::Resource, "db://x"), pair("a", "db://x"));
    let alias = "meshwright://b/db://{table}/{id}";
    assert_eq!(leads_to(&view, Kind::Template, alias), pair("b", "db://{table}/{id}"));
    // What a client makes of that one, a blank in a value included.
    let made = leads_to(&view, Kind::Resource, "meshwright://b/db://rows/a%20b");
    assert_eq!(made, pair("b", "db://rows/a%20b"));
}

#[test]
fn what_patterns_hide_is_neither_listed_nor_found() {
    let offered = Offer::default()
        .with(Kind::Tool, vec![tool("search_code"), tool("delete_all")])
        .with(Kind::Resource, vec![resource("file:///a"), resource("file:///secret")])
        .with(Kind::Template, vec![template("file:///{x}")])
        .with_about(Some(Arc::new(About::new(Era::Modern))));
    let exposure = Exposure {
        tools: filter(&["search_*"], &[]),
        resources: filter(&[], &["*secret*"]),
        ..Exposure::default()
    };
    let exposures = Exposures { services: [(name("s"), exposure)].into(), ..Exposures::default() };
    let catalogue = catalogue_of(&[("s", Arc::new(offered)), ("t", Arc::default())], &Arc::new(exposures));
    let view = catalogue.view(None).expect("a view");
    assert_eq!(shown(view, Kind::Tool), ["s__search_code"]);
    assert_eq!(shown(view, Kind::Resource), ["file:///a"]);
    assert!(view.find(Kind::Tool, "s__delete_all").is_none());
    let secret = alias_uri("s", "file:///secret");
    for hidden in ["file:///secret", "file:///my-secret", &secret] {
        assert!(view.find(Kind::Resource, hidden).is_none(), "{hidden}");
    }
    assert_eq!(leads_to(view, Kind::Resource, "file:///b"), pair("s", "file:///b"));
    let alone = catalogue.service("s").expect("a service");
    assert_eq!(shown(alone, Kind::Tool), ["search_code"]);
    assert!(alone.find(Kind::Resource, "file:///my-secret").is_none());
    assert!(alone.is_filtered() && alone.about().is_some());
    assert!(!catalogue.service("t").expect("a service").is_filtered());
    assert!(!catalogue.passes("s", Kind::Tool, "delete_all") && catalogue.passes("t", Kind::Tool, "x"));
}

#[test]
fn profiles_choose_services_and_tools_and_may_offer_a_search_instead() {
    let all = Profile { services: [name("a"), name("later")].into(), ..Profile::default() };
    let some = Profile { tools: filter(&["a__*"], &["*__b"]), own_tools: false, ..Profile::default() };
    let search = Profile { search: true, own_tools: false, ..Profile::default() };
    let profiles = [(name("all"), all), (name("some"), some), (name("search"), search)];
    let exposures = Arc::new(Exposures { profiles: profiles.into(), ..Exposures::default() });
    let offers = [("a", offer(Kind::Tool, &[tool("a"), tool("b")])), ("b", offer(Kind::Tool, &[tool("c")]))];
    let catalogue = catalogue_of(&offers, &exposures);
    let view = |profile| catalogue.view(Some(profile)).expect("a profile");
    assert_eq!(shown(view("all"), Kind::Tool), ["a__a", "a__b"]);
    assert_eq!(view("all").services(), [name("a")]);
    assert_eq!(shown(view("some"), Kind::Tool), ["a__a"]);
    assert!(view("some").find(Kind::Tool, "a__b").is_none());
    assert!(shown(view("search"), Kind::Tool).is_empty());
    assert_eq!(leads_to(view("search"), Kind::Tool, "b__c"), pair("b", "c"));
    assert!(catalogue.view(Some("nobody")).is_none());
}

#[test]
fn revisions_change_exactly_with_the_content() {
    let exposures = Arc::new(Exposures {
        profiles: [(name("p"), Profile { services: [name("a")].into(), ..Profile::default() })].into(),
        ..Exposures::default()
    });
    let (first, other) = (offer(Kind::Tool, &[tool("t")]), offer(Kind::Tool, &[tool("u")]));
    let before = catalogue_of(&[("a", Arc::clone(&first))], &exposures);
    let same = next(&before, &[("a", Arc::clone(&first))], &exposures);
    assert!(Arc::ptr_eq(&before, &same));
    // The same content, told anew.
    let again = next(&before, &[("a", offer(Kind::Tool, &[tool("t")]))], &exposures);
    let changed = next(&again, &[("a", other)], &exposures);
    let back = next(&changed, &[("a", first.clone())], &exposures);
    let grown = next(&before, &[("a", first), ("b", offer(Kind::Prompt, &[tool("p")]))], &exposures);
    let revision =
        |catalogue: &Catalogue, profile, kind| catalogue.view(profile).expect("a view").revision(kind);
    for profile in [None, Some("p")] {
        let of = |catalogue: &Catalogue| revision(catalogue, profile, Kind::Tool);
        assert_eq!(of(&before), of(&again));
        assert_ne!(of(&before), of(&changed));
        assert_eq!(of(&before), of(&back));
        assert_eq!(of(&before), of(&grown), "another kind changed");
    }
    assert_ne!(revision(&before, None, Kind::Prompt), revision(&grown, None, Kind::Prompt));
    let view = |catalogue: &Catalogue| Arc::clone(catalogue.view(Some("p")).expect("a profile"));
    assert!(Arc::ptr_eq(&view(&before), &view(&grown)), "nothing of the profile changed");
}

#[test]
fn pages_end_at_a_limit_and_go_on_where_they_ended() {
    let many: Vec<Item> = (0..list::PAGE_ITEMS_MAX + 7).map(|n| tool(&format!("t{n:05}"))).collect();
    let catalogue = catalogue_of(&[("s", offer(Kind::Tool, &many))], &Arc::default());
    let view = catalogue.service("s").expect("a service");
    let first = view.page(Kind::Tool, None).expect("a page");
    let cursor = first.next_cursor.as_deref().expect("another page");
    let second = view.page(Kind::Tool, Some(cursor)).expect("a page");
    assert_eq!(text(&second).matches("\"name\"").count(), 7);
    assert_eq!(second.next_cursor, None);
    assert_eq!(shown(view, Kind::Tool).len(), many.len());

    // Meanwhile the last tool of the first page went, and one before it came.
    let mut fewer = many.clone();
    fewer.remove(list::PAGE_ITEMS_MAX - 1);
    fewer.insert(0, tool("a"));
    let later = next(&catalogue, &[("s", offer(Kind::Tool, &fewer))], &Arc::default());
    let later = later.service("s").expect("a service");
    let third = later.page(Kind::Tool, Some(cursor)).expect("a page");
    assert_eq!(third.members, second.members, "nothing twice, nothing left out");

    let merged = catalogue.view(None).expect("a view");
    for foreign in ["", "x", "!", "bm9wZQ", cursor] {
        assert_eq!(merged.page(Kind::Tool, Some(foreign)), Err(BadCursor), "{foreign}");
    }
    assert_eq!(view.page(Kind::Prompt, Some(cursor)), Err(BadCursor));

    let large = |n: usize| {
        declared::parse(Kind::Tool, &format!(r#"{{"name":"t{n}","x":"{}"}}"#, "y".repeat(3 << 20)))
    };
    let large: Vec<Item> = (0..3).map(|n| large(n).expect("a tool")).collect();
    let catalogue = catalogue_of(&[("s", offer(Kind::Tool, &large))], &Arc::default());
    assert_eq!(shown(catalogue.view(None).expect("a view"), Kind::Tool), ["s__t0", "s__t1", "s__t2"]);
    let first = catalogue.view(None).expect("a view").page(Kind::Tool, None).expect("a page");
    assert!(first.members.len() <= list::PAGE_BYTES_MAX && first.next_cursor.is_some());
}

#[test]
fn five_thousand_tools_are_merged_in_a_moment() {
    let tools = |service: usize| -> Vec<Item> {
        let json = |n| {
            format!(
                r#"{{"name":"tool_{n}","description":"{}","inputSchema":{{"type":"object"}}}}"#,
                "d".repeat(800 + service)
            )
        };
        (0..50).map(|n| declared::parse(Kind::Tool, &json(n)).expect("a tool")).collect()
    };
    let offers: Vec<(String, Arc<Offer>)> =
        (0..100).map(|n| (format!("service{n:03}"), offer(Kind::Tool, &tools(n)))).collect();
    let mut offers: Vec<(&str, Arc<Offer>)> =
        offers.iter().map(|(name, offer)| (name.as_str(), Arc::clone(offer))).collect();
    let exposures = Arc::default();
    let first = catalogue_of(&offers, &exposures);
    offers[50].1 = offer(Kind::Tool, &[tool("other")]);
    let started = Instant::now();
    let second = next(&first, &offers, &exposures);
    let took = started.elapsed();
    assert_eq!(shown(second.view(None).expect("a view"), Kind::Tool).len(), 99 * 50 + 1);
    // Without optimisation, on a busy machine; a release build takes a few milliseconds.
    assert!(took.as_millis() < 1500, "{took:?}");
}
