use rusqlite::Connection;

use super::*;
use crate::mesh::ids::Name;
use crate::mesh::offer::{About, Era, Item, Kind, Offer};
use crate::store::rows;
use crate::store::{Change, Kept};

/// A database as the first version left it.
fn first_version() -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(MIGRATIONS[0]).expect("the first schema");
    connection.pragma_update(None, "user_version", 1).expect("its number");
    connection
        .execute_batch(
            r#"INSERT INTO services (name, registered_at, messages, ok) VALUES ('s', 5, 12, 11), ('gone', NULL, 3, 3);
               INSERT INTO instances VALUES ('i', 7, 's', '127.0.0.1', 5000, '/mcp', NULL, 'a,b', NULL, 100, '{}',
                 '[]', x'0000000000000000000000000000000000000000000000000000000000000000', 2, 5, NULL);
               INSERT INTO figures VALUES ('i', 'healthy', 100, '', 1, 9, 9, 0, 0, 0, 0, 0, 0);
               INSERT INTO tools VALUES ('s', 0, '{"name":"r\u00fcn","x":1.0}'),
                 ('s', 1, '{"name":"read","annotations":{"readOnlyHint":true}}'),
                 ('s', 2, '{"name":"again","annotations":{"idempotentHint":true,"readOnlyHint":false}}'),
                 ('s', 3, 'damaged'), ('s', 4, '{"name":7}');"#,
        )
        .expect("rows");
    connection
}

fn migrated() -> (Connection, Kept) {
    let mut connection = first_version();
    migrate(&mut connection, 1).expect("a migration");
    let kept = rows::load(&connection).expect("what was kept");
    (connection, kept)
}

#[test]
fn counts_and_tools_of_the_first_version_are_kept() {
    let (connection, kept) = migrated();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
    assert_eq!(version, VERSION);
    let messages: Vec<_> =
        kept.services.iter().map(|(totals, _)| (totals.name.as_str(), totals.counts.messages)).collect();
    assert_eq!(messages, [("gone", 3), ("s", 12)]);
    let (row, figures) = &kept.instances[0];
    assert_eq!((row.id, row.epoch, row.spec.tags.len()), (7, 2, 2));
    assert_eq!(figures.as_ref().map(|figures| figures.counts.messages), Some(9));

    let (service, offer) = &kept.offers[0];
    assert_eq!((kept.offers.len(), service.as_str()), (1, "s"));
    let tools: Vec<_> = offer.tools().iter().map(|tool| (&*tool.key, tool.repeatable)).collect();
    assert_eq!(tools, [("again", true), ("read", true), ("rün", false)]);
    assert_eq!(offer.get(Kind::Tool, "rün").map(|tool| &*tool.json), Some(r#"{"name":"r\u00fcn","x":1.0}"#));
}

#[test]
fn offers_come_back_as_they_were_and_go_when_they_are_gone() {
    let (mut connection, _) = migrated();
    let name = Name::new("s").expect("a name");
    let about = About { instructions: Some("\"use it\"".into()), ..About::new(Era::Modern) };
    let item = |key: &str, repeatable| Item {
        key: key.into(),
        json: format!("{{\"k\":\"{key}\"}}").into(),
        repeatable,
    };
    let offer = Offer::default()
        .with(Kind::Tool, vec![item("b", true), item("a", false)])
        .with(Kind::Prompt, vec![item("p", true)])
        .with(Kind::Resource, vec![item("file:///x", true)])
        .with(Kind::Template, vec![item("file:///{x}", true)])
        .with_about(Some(about.into()));
    let put = Change::Offer(name.clone(), offer.clone().into());
    rows::commit(&mut connection, &[put]).expect("a commit");
    let kept = rows::load(&connection).expect("what was kept");
    assert_eq!(kept.offers, [(name.clone(), offer)]);
    rows::commit(&mut connection, &[Change::OfferGone(name)]).expect("a commit");
    assert!(rows::load(&connection).expect("what was kept").offers.is_empty());
}
