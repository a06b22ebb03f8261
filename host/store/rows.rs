//! SQL, table by table.

use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Change, InstanceFigures, InstanceRow, Kept, ServiceTotals, alerts, drains, memos, offers, reliable,
    rulings,
};
use crate::mcp::declared::Page;
use crate::mesh::ids::Name;
use crate::mesh::instance::{Endpoint, HttpEndpoint, InstanceSpec};
use crate::mesh::memo::MemoChange;
use crate::mesh::offer::{Item, Kind};
use crate::mesh::reliability;
use crate::mesh::stats::CallCounts;
use crate::mesh::time::Wall;

pub(super) fn commit(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    let step = connection.transaction()?;
    for change in changes {
        match change {
            Change::Instance(row) => put_instance(&step, row)?,
            Change::InstanceGone(name) => {
                step.prepare_cached("DELETE FROM instances WHERE name = ?1")?.execute([name.as_str()])?;
                step.prepare_cached("DELETE FROM figures WHERE instance = ?1")?.execute([name.as_str()])?;
                drains::put(&step, name, None)?;
                reliable::remove(&step, name)?;
            }
            Change::Drain(name, order) => drains::put(&step, name, order.as_ref())?,
            Change::ServiceSince(name, since) => {
                step.prepare_cached(
                    "INSERT INTO services (name, registered_at) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET registered_at = excluded.registered_at",
                )?
                .execute(params![name.as_str(), since.map(Wall::as_millis)])?;
            }
            Change::Offer(service, offer) => offers::put(&step, service, offer)?,
            Change::OfferGone(service) => offers::remove(&step, service)?,
            Change::Ruling(ruling) => rulings::put(&step, ruling)?,
            Change::Alerts(all) => alerts::replace(&step, all)?,
        }
    }
    step.commit()
}

pub(super) fn totals(
    connection: &mut Connection,
    services: &[ServiceTotals],
    instances: &[InstanceFigures],
    changes: &[MemoChange],
    reliability: &[reliability::Kept],
) -> rusqlite::Result<()> {
    let step = connection.transaction()?;
    {
        let mut put = step.prepare_cached(
            "INSERT INTO services (name, messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (name) DO UPDATE SET messages = excluded.messages, ok = excluded.ok,
               tool_errors = excluded.tool_errors, failed = excluded.failed, refused = excluded.refused,
               retries = excluded.retries, request_bytes = excluded.request_bytes,
               response_bytes = excluded.response_bytes",
        )?;
        for service in services {
            let c = counts_to_row(&service.counts);
            put.execute(params![service.name.as_str(), c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]])?;
        }
        let mut put = step.prepare_cached(
            "INSERT OR REPLACE INTO figures (instance, state, score, reason, ewma_us,
               messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
             WHERE ?14 OR EXISTS (SELECT 1 FROM instances WHERE name = ?1)",
        )?;
        for f in instances {
            let c = counts_to_row(&f.counts);
            put.execute(params![
                f.name.as_str(),
                f.state,
                f.score,
                f.reason,
                f.ewma_us,
                c[0],
                c[1],
                c[2],
                c[3],
                c[4],
                c[5],
                c[6],
                c[7],
                f.configured,
            ])?;
        }
    }
    memos::put(&step, changes)?;
    reliable::put(&step, reliability)?;
    step.commit()
}

fn put_instance(step: &Transaction<'_>, row: &InstanceRow) -> rusqlite::Result<()> {
    let spec = &row.spec;
    // Processes come from the configuration alone and are not kept.
    let Endpoint::Http(endpoint) = &spec.endpoint else { return Ok(()) };
    let tags: Vec<&str> = spec.tags.iter().map(Name::as_str).collect();
    step.prepare_cached(
        "INSERT OR REPLACE INTO instances (name, id, service, host, port, path, pid, tags, zone, weight, metadata,
           tools, token_hash, epoch, registered_at, expired_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        spec.name.as_str(),
        row.id.cast_signed(),
        spec.service.as_str(),
        endpoint.host(),
        endpoint.port(),
        endpoint.path(),
        spec.pid,
        tags.join(","),
        spec.zone.as_ref().map(Name::as_str),
        spec.weight,
        &*spec.metadata,
        tools_to_text(&spec.tools),
        row.token_hash,
        row.epoch.cast_signed(),
        row.registered_at.as_millis(),
        row.expired_at.map(Wall::as_millis),
    ])?;
    Ok(())
}

fn tools_to_text(tools: &[Item]) -> String {
    let mut text = String::from("[");
    for (index, tool) in tools.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&tool.json);
    }
    text.push(']');
    text
}

fn tools_from_text(text: &str) -> Vec<Item> {
    let page = format!(r#"{{"tools":{text}}}"#);
    Page::read(Kind::Tool, page.as_bytes()).map(|page| page.items).unwrap_or_default()
}

/// SQLite integers are signed; a total beyond 2⁶³ would be one call a nanosecond for 292 years.
fn counts_to_row(counts: &CallCounts) -> [i64; 8] {
    [
        counts.messages,
        counts.ok,
        counts.tool_errors,
        counts.failed,
        counts.refused,
        counts.retries,
        counts.request_bytes,
        counts.response_bytes,
    ]
    .map(u64::cast_signed)
}

fn counts_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<CallCounts> {
    let at = |offset: usize| row.get::<_, i64>(first + offset).map(i64::cast_unsigned);
    Ok(CallCounts {
        messages: at(0)?,
        ok: at(1)?,
        tool_errors: at(2)?,
        failed: at(3)?,
        refused: at(4)?,
        retries: at(5)?,
        request_bytes: at(6)?,
        response_bytes: at(7)?,
    })
}

/// Reads everything. A row that this build cannot understand is left out with a line in the log.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Kept> {
    let mut kept = Kept::default();
    let mut query = connection.prepare(
        "SELECT name, registered_at, messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes
         FROM services",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row, 0)? else { continue };
        let since = row.get::<_, Option<i64>>(1)?.map(Wall::from_millis);
        kept.services.push((ServiceTotals { name, counts: counts_from_row(row, 2)? }, since));
    }

    let mut query = connection.prepare(
        "SELECT i.name, id, service, host, port, path, pid, tags, zone, weight, metadata, tools, token_hash, epoch,
           registered_at, expired_at, state, score, reason, ewma_us,
           messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes
         FROM instances i LEFT JOIN figures f ON f.instance = i.name ORDER BY registered_at, i.name",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(instance) = instance_of(row)? {
            let figures = figures_of(row, &instance.spec.name)?;
            kept.instances.push((instance, figures));
        }
    }

    // Instances of the configuration have no row of their own: the file says which there are.
    let mut query = connection.prepare(
        "SELECT instance, messages, ok, tool_errors, failed, refused, retries, request_bytes, response_bytes
         FROM figures WHERE instance NOT IN (SELECT name FROM instances)",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row, 0)? else { continue };
        kept.configured.insert(name, counts_from_row(row, 1)?);
    }

    kept.offers = offers::load(connection)?;
    kept.memories = memos::load(connection)?;
    kept.rulings = rulings::load(connection)?;
    kept.drains = drains::load(connection)?;
    kept.reliability = reliable::load(connection)?;
    kept.alerts = alerts::load(connection)?;
    Ok(kept)
}

pub(super) fn name_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Name>> {
    let text: String = row.get(column)?;
    let name = Name::new(&text);
    if let Err(error) = &name {
        tracing::warn!(name = text, error = %error, "stored name not understood, row left out");
    }
    Ok(name.ok())
}

fn instance_of(row: &Row<'_>) -> rusqlite::Result<Option<InstanceRow>> {
    let (Some(name), Some(service)) = (name_of(row, 0)?, name_of(row, 2)?) else { return Ok(None) };
    let (host, port, path): (String, u16, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let endpoint = match HttpEndpoint::new(&host, port, &path) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::warn!(instance = %name, error = %error, "stored endpoint not understood, row left out");
            return Ok(None);
        }
    };
    let tags: String = row.get(7)?;
    let zone: Option<String> = row.get(8)?;
    let metadata: String = row.get(10)?;
    let spec = InstanceSpec {
        name,
        service,
        endpoint: endpoint.into(),
        pid: row.get(6)?,
        tags: tags.split(',').filter_map(|tag| Name::new(tag).ok()).collect(),
        zone: zone.and_then(|zone| Name::new(&zone).ok()),
        weight: row.get(9)?,
        metadata: metadata.into(),
        tools: tools_from_text(&row.get::<_, String>(11)?).into(),
    };
    Ok(Some(InstanceRow {
        spec: Arc::new(spec),
        id: row.get::<_, i64>(1)?.cast_unsigned(),
        token_hash: row.get(12)?,
        epoch: row.get::<_, i64>(13)?.cast_unsigned(),
        registered_at: Wall::from_millis(row.get(14)?),
        expired_at: row.get::<_, Option<i64>>(15)?.map(Wall::from_millis),
    }))
}

fn figures_of(row: &Row<'_>, name: &Name) -> rusqlite::Result<Option<InstanceFigures>> {
    let Some(state) = row.get::<_, Option<String>>(16)? else { return Ok(None) };
    Ok(Some(InstanceFigures {
        name: name.clone(),
        counts: counts_from_row(row, 20)?,
        state,
        score: row.get(17)?,
        reason: row.get(18)?,
        ewma_us: row.get(19)?,
        configured: false,
    }))
}
