//! What plugins remember, as it is kept from run to run.

use std::sync::Arc;
use std::time::Duration;

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
    /// The plugin was there then: what it remembers is [`KEPT`] from then on.
    Seen(Name, Wall),
    /// Nobody has seen the plugin for so long that its memory goes.
    Forgotten(Name),
}

/// How long the memory of a plugin that is gone waits for it.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// All that was kept of plugins' memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memories {
    pub memos: Vec<Memo>,
    pub seen: Vec<(Name, Wall)>,
}
