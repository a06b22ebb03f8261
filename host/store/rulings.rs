//! SQL of what operators decided about plugins.

use rusqlite::{Connection, Transaction, params};

use super::rows::name_of;
use crate::clock;
use crate::mesh::ruling::{Grant, Ruling};

pub(super) fn put(step: &Transaction<'_>, ruling: &Ruling) -> rusqlite::Result<()> {
    let now = clock::wall().as_millis();
    match ruling {
        Ruling::Granted { plugin, sha256, grant } => {
            step.prepare_cached(
                "INSERT OR IGNORE INTO plugin_grants (plugin, sha256, granted, at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![plugin.as_str(), sha256, grant.as_str(), now])?;
        }
        Ruling::Switched { plugin, enabled } => {
            step.prepare_cached(
                "INSERT OR REPLACE INTO plugin_switches (plugin, enabled, at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![plugin.as_str(), enabled, now])?;
        }
    }
    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Ruling>> {
    let mut rulings = Vec::new();
    let mut query = connection.prepare("SELECT plugin, sha256, granted FROM plugin_grants")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (Some(plugin), granted) = (name_of(row, 0)?, row.get::<_, String>(2)?) else { continue };
        // A grant that this build does not know is of no use to it.
        let Some(grant) = Grant::named(&granted) else { continue };
        rulings.push(Ruling::Granted { plugin, sha256: row.get(1)?, grant });
    }
    let mut query = connection.prepare("SELECT plugin, enabled FROM plugin_switches")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(plugin) = name_of(row, 0)? else { continue };
        rulings.push(Ruling::Switched { plugin, enabled: row.get(1)? });
    }
    Ok(rulings)
}
