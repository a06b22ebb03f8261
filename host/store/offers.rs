//! SQL of what services offer.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::index;
use super::rows::name_of;
use crate::mesh::ids::Name;
use crate::mesh::offer::{About, Era, Item, Kind, Offer};

pub(super) fn put(step: &Transaction<'_>, service: &Name, offer: &Offer) -> rusqlite::Result<()> {
    remove(step, service)?;
    let mut put = step.prepare_cached(
        "INSERT INTO offers (service, kind, position, key, json, repeatable) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for kind in Kind::ALL {
        for (position, item) in offer.of(kind).iter().enumerate() {
            let position = position as i64;
            let (name, kind) = (service.as_str(), kind.as_str());
            put.execute(params![name, kind, position, &*item.key, &*item.json, item.repeatable])?;
        }
    }
    index::put(step, service, offer.tools())?;
    if let Some(about) = offer.about() {
        let mut put = step.prepare_cached(
            "INSERT INTO abouts (service, era, capabilities, server_info, instructions)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        put.execute(params![
            service.as_str(),
            about.era.as_str(),
            about.capabilities,
            about.server_info,
            about.instructions
        ])?;
    }
    Ok(())
}

pub(super) fn remove(step: &Transaction<'_>, service: &Name) -> rusqlite::Result<()> {
    step.prepare_cached("DELETE FROM offers WHERE service = ?1")?.execute([service.as_str()])?;
    step.prepare_cached("DELETE FROM abouts WHERE service = ?1")?.execute([service.as_str()])?;
    index::remove(step, service)
}

/// Fills an empty index.
pub(super) fn index_all(step: &Transaction<'_>) -> rusqlite::Result<()> {
    load(step)?.iter().try_for_each(|(service, offer)| index::put(step, service, offer.tools()))
}

/// Reads all offers. A row that this build cannot understand is left out.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<(Name, Offer)>> {
    let mut lists: BTreeMap<Name, BTreeMap<Kind, Vec<Item>>> = BTreeMap::new();
    let mut query = connection.prepare(
        "SELECT service, kind, key, json, repeatable FROM offers ORDER BY service, kind, position",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (service, kind) = (name_of(row, 0)?, Kind::parse(&row.get::<_, String>(1)?));
        let (Some(service), Some(kind)) = (service, kind) else { continue };
        let item = Item { key: row.get(2)?, json: row.get(3)?, repeatable: row.get(4)? };
        lists.entry(service).or_default().entry(kind).or_default().push(item);
    }

    let mut abouts: BTreeMap<Name, Arc<About>> = BTreeMap::new();
    let mut query =
        connection.prepare("SELECT service, era, capabilities, server_info, instructions FROM abouts")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(service) = name_of(row, 0)? else { continue };
        let era: String = row.get(1)?;
        let about = About {
            era: if era == Era::Modern.as_str() { Era::Modern } else { Era::Legacy },
            capabilities: row.get(2)?,
            server_info: row.get(3)?,
            instructions: row.get(4)?,
        };
        lists.entry(service.clone()).or_default();
        abouts.insert(service, Arc::new(about));
    }
    let offer = |(service, lists): (Name, BTreeMap<Kind, Vec<Item>>)| {
        let filled = lists.into_iter().fold(Offer::default(), |offer, (kind, items)| offer.with(kind, items));
        let about = abouts.remove(&service);
        (service, filled.with_about(about))
    };
    Ok(lists.into_iter().map(offer).collect())
}
