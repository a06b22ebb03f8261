//! The statistics file that desktop monitors read: a view of the counts, replaced as a whole.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::account::total_messages;
use crate::clock;
use crate::mesh::time::Wall;
use crate::registry::Snapshot;

/// What the file shows, beside its time.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    total_services: usize,
    total_messages: u64,
    services: Vec<ServiceView>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServiceView {
    name: String,
    registered_at: String,
    message_count: u64,
}

#[derive(Serialize)]
struct File<'a> {
    total_services: usize,
    total_messages: u64,
    last_updated: String,
    services: &'a [ServiceView],
}

impl View {
    pub fn of(snapshot: &Snapshot) -> Self {
        let services: Vec<ServiceView> = snapshot
            .services()
            .into_iter()
            .map(|service| ServiceView {
                name: service.name.to_string(),
                registered_at: clock::iso(service.since),
                message_count: service.core.counters.messages.load(Ordering::Acquire),
            })
            .collect();
        Self { total_services: services.len(), total_messages: total_messages(snapshot), services }
    }
}

/// Replaces the file: a temporary one in the same folder, then a rename, so that a reader sees the old or the new one.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn write(path: &Path, view: &View, now: Wall) -> io::Result<()> {
    let file = File {
        total_services: view.total_services,
        total_messages: view.total_messages,
        last_updated: clock::iso(now),
        services: &view.services,
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::Builder::new()
        .prefix(".mm_mesh_stats")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    fresh.write_all(&serde_json::to_vec(&file)?)?;
    fresh.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Moves a file away that is not what this module writes. The database is the truth, so nothing is lost with it, but
/// a person may want to see what was there.
pub fn set_corrupt_aside(path: &Path) {
    let Ok(text) = std::fs::read(path) else { return };
    if serde_json::from_slice::<View>(&text).is_ok() {
        return;
    }
    let aside = path.with_extension(format!("corrupt-{}.json", clock::wall().as_millis()));
    match std::fs::rename(path, &aside) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), aside = %aside.display(), "stats file not understood, set aside")
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %error, "stats file not understood, cannot set it aside")
        }
    }
}
