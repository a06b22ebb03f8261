//! SQL of instances that were taken out of use.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::rows::name_of;
use crate::mesh::drain::Order;
use crate::mesh::ids::Name;
use crate::mesh::time::Wall;

pub(super) fn put(step: &Transaction<'_>, instance: &Name, order: Option<&Order>) -> rusqlite::Result<()> {
    let Some(order) = order else {
        step.prepare_cached("DELETE FROM drains WHERE instance = ?1")?.execute([instance.as_str()])?;
        return Ok(());
    };
    let kept_s = i64::try_from(order.sessions_kept.as_secs()).unwrap_or(i64::MAX);
    step.prepare_cached(
        "INSERT OR REPLACE INTO drains (instance, reason, since, sessions_kept_s) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![instance.as_str(), order.reason, order.since.as_millis(), kept_s])?;
    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<(Name, Order)>> {
    let mut drains = Vec::new();
    let mut query = connection.prepare("SELECT instance, reason, since, sessions_kept_s FROM drains")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(instance) = name_of(row, 0)? else { continue };
        let sessions_kept = Duration::from_secs(row.get::<_, i64>(3)?.max(0).cast_unsigned());
        let since = Wall::from_millis(row.get(2)?);
        drains.push((instance, Order { reason: row.get(1)?, sessions_kept, since }));
    }
    Ok(drains)
}
