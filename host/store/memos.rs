//! SQL of what plugins remember.

use rusqlite::{Connection, Transaction, params};

use super::rows::name_of;
use crate::clock;
use crate::mesh::memo::{Memo, MemoChange, Memories};
use crate::mesh::time::Wall;

pub(super) fn put(step: &Transaction<'_>, changes: &[MemoChange]) -> rusqlite::Result<()> {
    for change in changes {
        match change {
            MemoChange::Set(memo) => {
                let expires_at = memo.expires_at.map(Wall::as_millis);
                step.prepare_cached(
                    "INSERT OR REPLACE INTO memos (plugin, key, value, expires_at) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    memo.plugin.as_str(),
                    memo.key,
                    &*memo.value,
                    expires_at
                ])?;
            }
            MemoChange::Seen(name, at) => {
                step.prepare_cached("INSERT OR REPLACE INTO memories (plugin, seen_at) VALUES (?1, ?2)")?
                    .execute(params![name.as_str(), at.as_millis()])?;
            }
            MemoChange::Forgotten(name) => {
                step.prepare_cached("DELETE FROM memos WHERE plugin = ?1")?.execute([name.as_str()])?;
                step.prepare_cached("DELETE FROM memories WHERE plugin = ?1")?.execute([name.as_str()])?;
            }
        }
    }
    if !changes.is_empty() {
        step.prepare_cached("DELETE FROM memos WHERE expires_at <= ?1")?
            .execute([clock::wall().as_millis()])?;
    }
    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Memories> {
    let mut memories = Memories::default();
    let mut query = connection.prepare("SELECT plugin, seen_at FROM memories")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row, 0)? else { continue };
        memories.seen.push((name, Wall::from_millis(row.get(1)?)));
    }
    let mut query = connection.prepare("SELECT plugin, key, value, expires_at FROM memos")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(plugin) = name_of(row, 0)? else { continue };
        let value: Vec<u8> = row.get(2)?;
        let expires_at = row.get::<_, Option<i64>>(3)?.map(Wall::from_millis);
        memories.memos.push(Memo { plugin, key: row.get(1)?, value: value.into(), expires_at });
    }
    Ok(memories)
}
