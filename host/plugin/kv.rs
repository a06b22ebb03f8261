//! What a plugin remembers: one map per plugin, shared by all its instances and generations, which knows what of it has
//! not been written down yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use crate::mesh::time::Mono;

pub const KEYS_MAX: usize = 1_000;
pub const KEY_BYTES_MAX: usize = 256;
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Keys and values together.
pub const TOTAL_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum KvError {
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes, this one has {0}")]
    Key(usize),
    #[error("a value has at most {VALUE_BYTES_MAX} bytes, this one has {0}")]
    Value(usize),
    #[error("there are already {KEYS_MAX} keys")]
    Keys,
    #[error("keys and values would exceed {TOTAL_BYTES_MAX} bytes")]
    Total,
    #[error("the value is not a decimal number")]
    NotANumber,
    #[error("the sum does not fit into 64 bits")]
    Overflow,
}

#[derive(Default)]
pub struct Kv(Mutex<Map>);

#[derive(Default)]
struct Map {
    entries: HashMap<String, Entry>,
    bytes: usize,
    /// Keys of entries that changed since they were last written down.
    unsaved: HashSet<String>,
    /// Something was kept, now or before.
    used: bool,
}

struct Entry {
    value: Arc<[u8]>,
    expires: Option<Mono>,
}

impl Kv {
    pub fn get(&self, key: &str, now: Mono) -> Option<Arc<[u8]>> {
        self.lock().live(key, now).map(|entry| Arc::clone(&entry.value))
    }

    /// A `ttl` of zero keeps the value for good.
    ///
    /// # Errors
    /// A quota, which the error names; nothing has changed then.
    pub fn set(&self, key: &str, value: &[u8], ttl: Duration, now: Mono) -> Result<(), KvError> {
        self.lock().put(key, value, ttl, now)
    }

    /// Sets what the run before wrote down.
    ///
    /// # Errors
    /// A quota, which the error names; nothing has changed then.
    pub fn restore(&self, key: &str, value: &[u8], ttl: Duration, now: Mono) -> Result<(), KvError> {
        let mut map = self.lock();
        map.put(key, value, ttl, now)?;
        map.unsaved.remove(key);
        Ok(())
    }

    pub fn is_used(&self) -> bool {
        self.lock().used
    }

    /// Keys, values and the time that is left to them (`None` for good) that have not been written down, until they
    /// have about `bytes_max`. They count as written down from now on.
    pub fn take_unsaved(&self, bytes_max: usize, now: Mono) -> Vec<(String, Arc<[u8]>, Option<Duration>)> {
        let mut map = self.lock();
        let Map { entries, unsaved, .. } = &mut *map;
        let mut taken = Vec::new();
        let mut bytes = 0;
        unsaved.retain(|key| {
            if bytes >= bytes_max {
                return true;
            }
            if let Some(entry) = entries.get(key).filter(|entry| entry.expires.is_none_or(|at| at > now)) {
                bytes += key.len() + entry.value.len();
                let left = entry.expires.map(|at| at.since(now));
                taken.push((key.clone(), Arc::clone(&entry.value), left));
            }
            false
        });
        taken
    }

    /// What was written down after all was not.
    pub fn mark_unsaved(&self, key: &str) {
        let mut map = self.lock();
        if map.entries.contains_key(key) {
            map.unsaved.insert(key.to_owned());
        }
    }

    /// Adds to a decimal number, 0 when the key is absent, and answers the sum.
    ///
    /// # Errors
    /// A quota, a value that is not a number, or an overflow; nothing has changed then.
    pub fn add(&self, key: &str, delta: i64, ttl: Duration, now: Mono) -> Result<i64, KvError> {
        let mut map = self.lock();
        let before = match map.live(key, now) {
            None => 0,
            Some(entry) => std::str::from_utf8(&entry.value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or(KvError::NotANumber)?,
        };
        let sum = before.checked_add(delta).ok_or(KvError::Overflow)?;
        map.put(key, sum.to_string().as_bytes(), ttl, now)?;
        Ok(sum)
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        // Every change is complete before the lock is given back, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn live(&mut self, key: &str, now: Mono) -> Option<&Entry> {
        if self.entries.get(key)?.expires.is_some_and(|at| at <= now) {
            self.remove(key);
            return None;
        }
        self.entries.get(key)
    }

    fn put(&mut self, key: &str, value: &[u8], ttl: Duration, now: Mono) -> Result<(), KvError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(KvError::Key(key.len()));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(KvError::Value(value.len()));
        }
        if let Err(full) = self.room_for(key, value.len()) {
            self.sweep(now);
            self.room_for(key, value.len()).map_err(|_| full)?;
        }
        self.remove(key);
        self.bytes += key.len() + value.len();
        let expires = (!ttl.is_zero()).then(|| now + ttl);
        self.entries.insert(key.to_owned(), Entry { value: value.into(), expires });
        self.unsaved.insert(key.to_owned());
        self.used = true;
        Ok(())
    }

    fn room_for(&self, key: &str, value_bytes: usize) -> Result<(), KvError> {
        let replaced = self.entries.get(key).map(|entry| key.len() + entry.value.len());
        if replaced.is_none() && self.entries.len() >= KEYS_MAX {
            return Err(KvError::Keys);
        }
        if self.bytes - replaced.unwrap_or(0) + key.len() + value_bytes > TOTAL_BYTES_MAX {
            return Err(KvError::Total);
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(gone) = self.entries.remove(key) {
            self.bytes -= key.len() + gone.value.len();
            self.unsaved.remove(key);
        }
    }

    fn sweep(&mut self, now: Mono) {
        self.entries.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
        self.unsaved.retain(|key| self.entries.contains_key(key));
        self.bytes = self.entries.iter().map(|(key, entry)| key.len() + entry.value.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Duration = Duration::ZERO;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    #[test]
    fn values_live_until_their_time_is_over() {
        let kv = Kv::default();
        kv.set("a", b"1", Duration::from_secs(10), at(0)).unwrap();
        kv.set("b", b"2", FOREVER, at(0)).unwrap();
        assert_eq!(kv.get("a", at(9)).as_deref(), Some(&b"1"[..]));
        assert_eq!(kv.get("a", at(10)), None);
        assert_eq!(kv.get("b", at(1_000_000)).as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn sums_start_at_zero_and_refuse_text_and_overflow() {
        let kv = Kv::default();
        assert_eq!(kv.add("n", -3, FOREVER, at(0)), Ok(-3));
        assert_eq!(kv.add("n", 10, FOREVER, at(0)), Ok(7));
        assert_eq!(kv.add("n", i64::MAX, FOREVER, at(0)), Err(KvError::Overflow));
        kv.set("t", b"x", FOREVER, at(0)).unwrap();
        assert_eq!(kv.add("t", 1, FOREVER, at(0)), Err(KvError::NotANumber));
        assert_eq!(kv.get("n", at(0)).as_deref(), Some(&b"7"[..]));
    }

    #[test]
    fn each_quota_refuses_and_names_itself() {
        let kv = Kv::default();
        assert_eq!(kv.set("", b"", FOREVER, at(0)), Err(KvError::Key(0)));
        assert_eq!(kv.set(&"k".repeat(257), b"", FOREVER, at(0)), Err(KvError::Key(257)));
        assert_eq!(kv.set("k", &[0; VALUE_BYTES_MAX + 1], FOREVER, at(0)), Err(KvError::Value(65537)));
        for i in 0..63 {
            kv.set(&format!("{i:02}"), &[0; VALUE_BYTES_MAX], FOREVER, at(0)).unwrap();
        }
        assert_eq!(kv.set("last", &[0; VALUE_BYTES_MAX], FOREVER, at(0)), Err(KvError::Total));
        kv.set("00", &[1; VALUE_BYTES_MAX], FOREVER, at(0)).expect("a value may replace one of its size");
    }

    #[test]
    fn expired_keys_make_room_for_new_ones() {
        let kv = Kv::default();
        for i in 0..KEYS_MAX {
            kv.set(&format!("k{i}"), b"v", Duration::from_secs(1), at(0)).unwrap();
        }
        assert_eq!(kv.set("more", b"v", FOREVER, at(0)), Err(KvError::Keys));
        kv.set("more", b"v", FOREVER, at(1)).unwrap();
        assert_eq!(kv.get("more", at(2)).as_deref(), Some(&b"v"[..]));
    }
}
