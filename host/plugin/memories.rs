//! What all plugins remember: one memory for each name, which outlives generations, removal and restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::host_state::Shared;
use crate::mesh::ids::Name;
use crate::mesh::memo::{KEPT, Memo, MemoChange, Memories as Kept};
use crate::mesh::time::{Mono, Wall};

/// Of one plugin, in one transaction: the rest has the next, 200 ms later.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How exactly it is written down when a plugin was last there.
const SEEN_EVERY: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct Memories(Mutex<BTreeMap<Name, Memory>>);

struct Memory {
    shared: Arc<Shared>,
    /// When the plugin was last there, in force or not.
    seen: Wall,
    /// What the store knows of that.
    said: Option<Wall>,
}

impl Memories {
    /// As the run before left them.
    pub fn restored(kept: Kept, now: (Mono, Wall)) -> Self {
        let memories = Self::default();
        for (name, seen) in kept.seen {
            let shared = Shared::new(name.as_str());
            memories.lock().insert(name, Memory { shared, seen, said: Some(seen) });
        }
        for Memo { plugin, key, value, expires_at } in kept.memos {
            let ttl = match expires_at.map(|at| at.since(now.1)) {
                // The kv's word for "for good".
                None => Duration::ZERO,
                Some(left) if left.is_zero() => continue,
                Some(left) => left,
            };
            if let Err(error) = memories.of(&plugin, now.1).kv.restore(&key, &value, ttl, now.0) {
                tracing::warn!(%plugin, key, %error, "a remembered value is not taken over");
            }
        }
        memories
    }

    /// Of the plugin of that name; empty when there was none before.
    pub fn of(&self, name: &Name, now: Wall) -> Arc<Shared> {
        let mut memories = self.lock();
        let memory = memories.entry(name.clone()).or_insert_with(|| Memory {
            shared: Shared::new(name.as_str()),
            seen: now,
            said: None,
        });
        Arc::clone(&memory.shared)
    }

    /// These plugins are there now.
    pub fn seen<'a>(&self, names: impl Iterator<Item = &'a str>, now: Wall) {
        let mut memories = self.lock();
        for name in names.filter_map(|name| Name::new(name).ok()) {
            if let Some(memory) = memories.get_mut(&name) {
                memory.seen = now;
            }
        }
    }

    /// What is to be written down; it counts as written until [`Self::put_back`].
    pub fn unsaved(&self, now: (Mono, Wall)) -> Vec<MemoChange> {
        let mut memories = self.lock();
        let mut changes = Vec::new();
        memories.retain(|name, memory| {
            if now.1.since(memory.seen) > KEPT {
                changes.push(MemoChange::Forgotten(name.clone()));
                return false;
            }
            if memory.said.is_none_or(|said| memory.seen.since(said) >= SEEN_EVERY)
                && memory.shared.kv.is_used()
            {
                memory.said = Some(memory.seen);
                changes.push(MemoChange::Seen(name.clone(), memory.seen));
            }
            let unsaved = memory.shared.kv.take_unsaved(BATCH_BYTES_MAX, now.0);
            changes.extend(unsaved.into_iter().map(|(key, value, left)| {
                let expires_at = left.map(|left| now.1 + left);
                MemoChange::Set(Memo { plugin: name.clone(), key, value, expires_at })
            }));
            true
        });
        changes
    }

    /// What could not be written down, to be tried again with what is remembered by then.
    pub fn put_back(&self, changes: &[MemoChange]) {
        let mut memories = self.lock();
        for change in changes {
            match change {
                MemoChange::Set(memo) => {
                    if let Some(memory) = memories.get(&memo.plugin) {
                        memory.shared.kv.mark_unsaved(&memo.key);
                    }
                }
                MemoChange::Seen(name, _) => {
                    if let Some(memory) = memories.get_mut(name) {
                        memory.said = None;
                    }
                }
                // Its rows are found again at the next start, and go then.
                MemoChange::Forgotten(_) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Memory>> {
        // Every change is complete before the lock is given back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now(secs: u64) -> (Mono, Wall) {
        // The two clocks have nothing to do with each other.
        (Mono::from_secs(secs), Wall::from_millis(1_700_000_000_000) + Duration::from_secs(secs))
    }

    fn name() -> Name {
        Name::new("p").unwrap()
    }

    /// As the store has it after those changes.
    fn kept(changes: Vec<MemoChange>) -> Kept {
        let mut kept = Kept::default();
        for change in changes {
            match change {
                MemoChange::Set(memo) => kept.memos.push(memo),
                MemoChange::Seen(name, at) => kept.seen.push((name, at)),
                MemoChange::Forgotten(name) => panic!("`{name}` is forgotten"),
            }
        }
        kept
    }

    #[test]
    fn what_is_remembered_outlives_a_restart_as_long_as_its_time_lasts() {
        let memories = Memories::default();
        let kv = &memories.of(&name(), now(0).1).kv;
        kv.set("good", b"1", Duration::ZERO, now(0).0).unwrap();
        kv.set("short", b"2", Duration::from_secs(10), now(0).0).unwrap();
        kv.set("long", b"3", Duration::from_secs(100), now(0).0).unwrap();
        let kept = kept(memories.unsaved(now(5)));
        assert_eq!(memories.unsaved(now(6)), [], "said once");

        let (mono, wall) = (now(1).0, now(50).1);
        let restored = Memories::restored(kept, (mono, wall));
        let kv = &restored.of(&name(), wall).kv;
        let get = |key: &str, at: Mono| kv.get(key, at).map(|value| value.to_vec());
        assert_eq!(get("good", mono).as_deref(), Some(&b"1"[..]));
        assert_eq!(get("short", mono), None);
        assert_eq!(get("long", mono + Duration::from_secs(49)).as_deref(), Some(&b"3"[..]));
        assert_eq!(get("long", mono + Duration::from_secs(50)), None);
        assert_eq!(restored.unsaved((mono, wall)), [], "what is written down is not written again");
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_with_what_is_remembered_by_then() {
        let memories = Memories::default();
        let kv = &memories.of(&name(), now(0).1).kv;
        kv.set("k", b"old", Duration::ZERO, now(0).0).unwrap();
        let failed = memories.unsaved(now(0));
        assert_eq!(failed.len(), 2, "{failed:?}");
        kv.set("k", b"new", Duration::ZERO, now(0).0).unwrap();
        memories.put_back(&failed);
        let again = kept(memories.unsaved(now(0)));
        assert_eq!((again.memos.len(), &*again.memos[0].value, again.seen.len()), (1, &b"new"[..], 1));
    }

    #[test]
    fn much_is_written_in_several_batches() {
        let memories = Memories::default();
        let kv = &memories.of(&name(), now(0).1).kv;
        for key in 0..40 {
            kv.set(&format!("{key}"), &[7; 64 << 10], Duration::ZERO, now(0).0).unwrap();
        }
        let batches: Vec<usize> = (0..4).map(|_| memories.unsaved(now(0)).len()).collect();
        assert_eq!(batches.iter().sum::<usize>(), 41, "{batches:?}");
        assert!(batches[0] <= 18 && batches[3] == 0, "{batches:?}");
    }

    #[test]
    fn a_plugin_that_nobody_saw_for_thirty_days_is_forgotten() {
        let memories = Memories::default();
        memories.of(&name(), now(0).1).kv.set("k", b"v", Duration::ZERO, now(0).0).unwrap();
        memories.unsaved(now(0));
        let at = |days: u32| (now(0).0, now(0).1 + DAY * days);
        memories.seen(["p", "q"].into_iter(), at(29).1);
        assert_eq!(memories.unsaved(at(29)), [MemoChange::Seen(name(), at(29).1)]);
        assert_eq!(memories.unsaved(at(59)), []);
        assert_eq!(memories.unsaved(at(60)), [MemoChange::Forgotten(name())]);
        assert_eq!(memories.of(&name(), at(60).1).kv.get("k", now(0).0), None);
    }
}
