//! SQL of how reliable services and instances were.

use rusqlite::{Connection, Transaction, params};

use super::rows::name_of;
use crate::mesh::ids::Name;
use crate::mesh::reliability::{Kept, Part, Record, Share, Subject, Uptime};

pub(super) fn put(step: &Transaction<'_>, figures: &[Kept]) -> rusqlite::Result<()> {
    let mut put = step.prepare_cached(
        "INSERT OR REPLACE INTO reliability (kind, name, watched_us, up_us, parts, probes, probes_good,
           errors_in_a_row, trips, ewma_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for Kept { of, record, errors_in_a_row, ewma_us } in figures {
        let (kind, name) = match of {
            Subject::Service(name) => (SERVICE, name),
            Subject::Instance(name) => (INSTANCE, name),
        };
        let ever = record.uptime.ever();
        put.execute(params![
            kind,
            name.as_str(),
            ever.watched_us.cast_signed(),
            ever.up_us.cast_signed(),
            parts_to_text(&record.uptime),
            record.probes.cast_signed(),
            record.probes_good.cast_signed(),
            errors_in_a_row,
            record.trips_before.cast_signed(),
            ewma_us,
        ])?;
    }
    Ok(())
}

const SERVICE: &str = "service";
const INSTANCE: &str = "instance";

pub(super) fn remove(step: &Transaction<'_>, instance: &Name) -> rusqlite::Result<()> {
    step.prepare_cached("DELETE FROM reliability WHERE kind = 'instance' AND name = ?1")?
        .execute([instance.as_str()])?;
    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Kept>> {
    let mut figures = Vec::new();
    let mut query = connection.prepare(
        "SELECT name, kind, watched_us, up_us, parts, probes, probes_good, errors_in_a_row, trips, ewma_us
         FROM reliability",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row, 0)? else { continue };
        let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let is_service = row.get::<_, String>(1)? == SERVICE;
        let ever = Share { watched_us: number(2)?, up_us: number(3)? };
        let record = Record {
            uptime: Uptime::resumed(ever, parts_from_text(&row.get::<_, String>(4)?)),
            probes: number(5)?,
            probes_good: number(6)?,
            trips_before: number(8)?,
        };
        let of = if is_service { Subject::Service(name) } else { Subject::Instance(name) };
        figures.push(Kept { of, record, errors_in_a_row: row.get(7)?, ewma_us: row.get(9)? });
    }
    Ok(figures)
}

/// `NUMBER:WATCHED:UP`, a blank between two parts.
fn parts_to_text(uptime: &Uptime) -> String {
    let parts = uptime.parts().map(|(part, share)| format!("{part}:{}:{}", share.watched_us, share.up_us));
    parts.collect::<Vec<_>>().join(" ")
}

/// What cannot be understood is left out.
fn parts_from_text(text: &str) -> Vec<Part> {
    let part = |text: &str| -> Option<Part> {
        let mut numbers = text.split(':');
        let number = numbers.next()?.parse().ok()?;
        let share = Share { watched_us: numbers.next()?.parse().ok()?, up_us: numbers.next()?.parse().ok()? };
        Some((number, share))
    };
    text.split(' ').filter_map(part).collect()
}
