//! SQL of alerts, so that a restart neither repeats nor forgets one.

use rusqlite::{Connection, Transaction, params};

use super::rows::name_of;
use crate::mesh::alert::{Alert, AlertState, Fingerprint};
use crate::mesh::observe::Severity;
use crate::mesh::time::Wall;

pub(super) fn replace(step: &Transaction<'_>, alerts: &[Alert]) -> rusqlite::Result<()> {
    step.execute("DELETE FROM alerts", [])?;
    let mut put = step.prepare_cached(
        "INSERT INTO alerts (source, rule, labels, state, since, severity, title, detail, value, threshold)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for alert in alerts {
        let Fingerprint { source, rule, labels } = &alert.fingerprint;
        let labels = serde_json::to_string(labels).expect("pairs of texts");
        // A value is never NaN, which would be no alert: SQLite has none.
        put.execute(params![
            source.as_str(),
            rule,
            labels,
            alert.state.as_str(),
            alert.since.as_millis(),
            alert.severity.as_str(),
            alert.title,
            alert.detail,
            alert.value,
            alert.threshold,
        ])?;
    }
    Ok(())
}

pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Alert>> {
    let mut alerts = Vec::new();
    let mut query = connection.prepare(
        "SELECT source, rule, labels, state, since, severity, title, detail, value, threshold FROM alerts",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (rule, labels): (String, String) = (row.get(1)?, row.get(2)?);
        let (state, severity): (String, String) = (row.get(3)?, row.get(5)?);
        let words =
            (serde_json::from_str(&labels).ok(), AlertState::named(&state), Severity::named(&severity));
        let (Some(source), (Some(labels), Some(state), Some(severity))) = (name_of(row, 0)?, words) else {
            tracing::warn!(rule, "stored alert not understood, row left out");
            continue;
        };
        alerts.push(Alert {
            fingerprint: Fingerprint { source, rule, labels },
            state,
            since: Wall::from_millis(row.get(4)?),
            severity,
            title: row.get(6)?,
            detail: row.get(7)?,
            value: row.get(8)?,
            threshold: row.get(9)?,
            stale: false,
        });
    }
    Ok(alerts)
}
