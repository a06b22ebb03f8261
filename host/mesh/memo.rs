//! What plugins remember, as it is kept from run to run.

use std::sync::Arc;

use super::ids::Name;
use super::time::Wall;

/// A value under a key of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    pub plugin: Name,
    pub key: String,
    pub value: Arc<[u8]>,
    /// By the wall clock, since it counts while nobody runs; `None` for good.
    pub expires_at: Option<Wall>,
}

/// What is written down of plugins' memories since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoChange {
    Set(Memo),
    /// The plugin was there then: what it remembers is kept for [`KEPT_S`] seconds from then on.
    Seen(Name, Wall),
    /// Nobody has seen the plugin for so long that its memory goes.
    Forgotten(Name),
}

/// Thirty days.
pub const KEPT_S: u64 = 30 * 24 * 3600;

/// All that was kept of plugins' memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memories {
    pub memos: Vec<Memo>,
    pub seen: Vec<(Name, Wall)>,
}
