//! Tables, by version. A migration is never edited once released: a new one is added.

use rusqlite::Connection;

use super::offers;

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE services (
        name TEXT PRIMARY KEY,
        registered_at INTEGER,
        messages INTEGER NOT NULL DEFAULT 0,
        ok INTEGER NOT NULL DEFAULT 0,
        tool_errors INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0,
        retries INTEGER NOT NULL DEFAULT 0,
        request_bytes INTEGER NOT NULL DEFAULT 0,
        response_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE instances (
        name TEXT PRIMARY KEY,
        id INTEGER NOT NULL,
        service TEXT NOT NULL,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        path TEXT NOT NULL,
        pid INTEGER,
        tags TEXT NOT NULL,
        zone TEXT,
        weight INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        tools TEXT NOT NULL,
        token_hash BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        registered_at INTEGER NOT NULL,
        expired_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE figures (
        instance TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        score INTEGER NOT NULL,
        reason TEXT NOT NULL,
        ewma_us INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        ok INTEGER NOT NULL,
        tool_errors INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        refused INTEGER NOT NULL,
        retries INTEGER NOT NULL,
        request_bytes INTEGER NOT NULL,
        response_bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tools (
        service TEXT NOT NULL,
        position INTEGER NOT NULL,
        json TEXT NOT NULL,
        PRIMARY KEY (service, position)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE offers (
        service TEXT NOT NULL,
        kind TEXT NOT NULL,
        position INTEGER NOT NULL,
        key TEXT NOT NULL,
        json TEXT NOT NULL,
        repeatable INTEGER NOT NULL,
        PRIMARY KEY (service, kind, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE abouts (
        service TEXT PRIMARY KEY,
        era TEXT NOT NULL,
        capabilities TEXT,
        server_info TEXT,
        instructions TEXT
    ) STRICT, WITHOUT ROWID;
    INSERT INTO offers (service, kind, position, key, json, repeatable)
        SELECT service, 'tool', position, json_extract(json, '$.name'), json,
            COALESCE(json_extract(json, '$.annotations.readOnlyHint') = 1, 0)
            OR COALESCE(json_extract(json, '$.annotations.idempotentHint') = 1, 0)
        FROM tools WHERE json_valid(json) AND json_type(json, '$.name') = 'text';
    DROP TABLE tools;
",
    "
    CREATE VIRTUAL TABLE tool_index USING fts5(
        service UNINDEXED, tool UNINDEXED, name, description, properties,
        tokenize = 'porter unicode61 remove_diacritics 2', prefix = '2 3'
    );
",
    "
    CREATE TABLE memos (
        plugin TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        expires_at INTEGER,
        PRIMARY KEY (plugin, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX memos_expiring ON memos (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE memories (
        plugin TEXT PRIMARY KEY,
        seen_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE plugin_grants (
        plugin TEXT NOT NULL,
        sha256 BLOB NOT NULL,
        granted TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (plugin, sha256, granted)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE plugin_switches (
        plugin TEXT PRIMARY KEY,
        enabled INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE drains (
        instance TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        since INTEGER NOT NULL,
        sessions_kept_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE reliability (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        watched_us INTEGER NOT NULL,
        up_us INTEGER NOT NULL,
        parts TEXT NOT NULL,
        probes INTEGER NOT NULL,
        probes_good INTEGER NOT NULL,
        errors_in_a_row INTEGER NOT NULL,
        trips INTEGER NOT NULL,
        ewma_us INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE alerts (
        source TEXT NOT NULL,
        rule TEXT NOT NULL,
        labels TEXT NOT NULL,
        state TEXT NOT NULL,
        since INTEGER NOT NULL,
        severity TEXT NOT NULL,
        title TEXT NOT NULL,
        detail TEXT NOT NULL,
        value REAL NOT NULL,
        threshold REAL NOT NULL,
        PRIMARY KEY (source, rule, labels)
    ) STRICT, WITHOUT ROWID;
",
];
/// Migrations, by their place, after which the index of tools is filled from what services offer.
const INDEXED: &[usize] = &[2];

/// The schema that this build writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the tables to [`VERSION`]; the caller has checked that they are not newer.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    migrate_to(connection, found, MIGRATIONS.len())
}

pub(super) fn migrate_to(connection: &mut Connection, found: i64, wanted: usize) -> rusqlite::Result<()> {
    let done = usize::try_from(found).unwrap_or(0);
    for (index, sql) in MIGRATIONS.iter().enumerate().take(wanted).skip(done) {
        let step = connection.transaction()?;
        step.execute_batch(sql)?;
        if INDEXED.contains(&index) {
            offers::index_all(&step)?;
        }
        step.pragma_update(None, "user_version", index as i64 + 1)?;
        step.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
