//! Totals by series, and where they are kept.

mod codec;
pub mod description;

use std::collections::BTreeMap;

use crate::settings::{Label, Settings};

/// The host's store of keys and values.
pub trait Store {
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String>;
}

/// One finished call.
pub struct Call {
    pub service: String,
    pub tool: String,
    pub client: String,
    pub us: u32,
    pub failed: bool,
    pub request_bytes: u32,
    pub response_bytes: u32,
}

const CALLS: usize = 0;
const ERRORS: usize = 1;
const REQUEST_BYTES: usize = 2;
const RESPONSE_BYTES: usize = 3;
const TIME_US: usize = 4;

/// Calls, errors, request bytes, response bytes, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; 5]);

impl Totals {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Value of all labels of the series that takes what finds no room.
const OTHER: &str = "other";
/// Longer label values are cut to this, at the start of a character.
const LABEL_BYTES_MAX: usize = 256;
/// With three labels of 256 bytes, a block stays under the host's 64 KiB for a value.
const SERIES_PER_BLOCK: usize = 64;

#[derive(Debug)]
pub struct Usage {
    settings: Settings,
    /// Label values to the position in `series`.
    index: BTreeMap<Vec<String>, usize>,
    /// The first is the overflow.
    series: Vec<(Vec<String>, Totals)>,
    dropped: u64,
    /// By block: whether it differs from what is stored.
    changed: Vec<bool>,
    dropped_changed: bool,
}

impl Usage {
    fn new(settings: Settings) -> Self {
        let overflow = vec![OTHER.to_owned(); settings.by.len()];
        let index = BTreeMap::from([(overflow.clone(), 0)]);
        let series = vec![(overflow, Totals::default())];
        Self { settings, index, series, dropped: 0, changed: vec![false], dropped_changed: false }
    }

    /// What `store` has of these labels, and how many of its blocks could not be read. When it has more series than
    /// are allowed by now, the rest goes to the overflow.
    pub fn load(settings: Settings, store: &impl Store) -> (Self, u32) {
        let mut usage = Self::new(settings);
        let mut unreadable = 0;
        for block in 0.. {
            let Some(bytes) = store.get(&usage.key(block)) else { break };
            // Also of blocks that end up empty: what moved to another block must not be read from both.
            usage.mark_changed(block);
            match codec::decode(&bytes, usage.settings.by.len()) {
                Some(series) => {
                    for (labels, totals) in series {
                        usage.add_totals(labels, &totals);
                    }
                }
                None => unreadable += 1,
            }
        }
        let dropped = store.get(&usage.dropped_key()).and_then(|bytes| bytes.try_into().ok());
        usage.dropped = dropped.map_or(0, u64::from_le_bytes);
        (usage, unreadable)
    }

    pub fn add(&mut self, call: Call) {
        let Call { mut service, mut tool, mut client, .. } = call;
        let labels = self.settings.by.iter().map(|label| {
            let value = match label {
                Label::Service => &mut service,
                Label::Tool => &mut tool,
                Label::Client => &mut client,
            };
            let mut value = std::mem::take(value);
            value.truncate(value.floor_char_boundary(LABEL_BYTES_MAX));
            value
        });
        let mut totals = Totals::default();
        totals.0[CALLS] = 1;
        totals.0[ERRORS] = u64::from(call.failed);
        totals.0[REQUEST_BYTES] = u64::from(call.request_bytes);
        totals.0[RESPONSE_BYTES] = u64::from(call.response_bytes);
        totals.0[TIME_US] = u64::from(call.us);
        let labels = labels.collect();
        self.add_totals(labels, &totals);
    }

    pub fn add_dropped(&mut self, dropped: u32) {
        self.dropped += u64::from(dropped);
        self.dropped_changed |= dropped > 0;
    }

    fn add_totals(&mut self, labels: Vec<String>, totals: &Totals) {
        let position = match self.index.get(&labels) {
            Some(position) => *position,
            None if self.series.len() > self.settings.series_max as usize => 0,
            None => {
                let position = self.series.len();
                self.index.insert(labels.clone(), position);
                self.series.push((labels, Totals::default()));
                position
            }
        };
        self.series[position].1.add(totals);
        self.mark_changed(position / SERIES_PER_BLOCK);
    }

    fn mark_changed(&mut self, block: usize) {
        if block >= self.changed.len() {
            self.changed.resize(block + 1, false);
        }
        self.changed[block] = true;
    }

    /// Writes every block that changed since it was last written.
    ///
    /// # Errors
    /// The store's first refusal; what was refused is tried again next time.
    pub fn save(&mut self, store: &impl Store) -> Result<(), String> {
        let mut result = Ok(());
        for block in 0..self.changed.len() {
            if self.changed[block] {
                let series = self.series.iter().skip(block * SERIES_PER_BLOCK).take(SERIES_PER_BLOCK);
                let bytes = codec::encode(series.map(|(labels, totals)| (labels.as_slice(), totals)));
                let stored = store.set(&self.key(block), &bytes);
                self.changed[block] = stored.is_err();
                result = result.and(stored);
            }
        }
        if self.dropped_changed {
            let stored = store.set(&self.dropped_key(), &self.dropped.to_le_bytes());
            self.dropped_changed = stored.is_err();
            result = result.and(stored);
        }
        result
    }

    /// Calls `emit` with metric, label values and value of each point. The overflow is left out while it is empty.
    pub fn each_point(&self, mut emit: impl FnMut(u32, &[String], f64)) {
        for (labels, Totals(sums)) in self.series.iter().filter(|(_, totals)| totals.0[CALLS] > 0) {
            let sum = |index: usize| sums[index] as f64;
            emit(description::CALLS, labels, sum(CALLS));
            emit(description::ERRORS, labels, sum(ERRORS));
            emit(description::REQUEST_BYTES, labels, sum(REQUEST_BYTES));
            emit(description::RESPONSE_BYTES, labels, sum(RESPONSE_BYTES));
            emit(description::TIME_SECONDS, labels, sum(TIME_US) / 1e6);
            emit(description::RESPONSE_BYTES_MEAN, labels, sum(RESPONSE_BYTES) / sum(CALLS));
        }
        emit(description::DROPPED, &[], self.dropped as f64);
    }

    /// Different label sets have totals of their own: one cannot be worked out from the other.
    fn key(&self, block: usize) -> String {
        let by: Vec<_> = self.settings.by.iter().map(|label| label.name()).collect();
        format!("totals/{}/{block}", by.join("+"))
    }

    fn dropped_key(&self) -> String {
        "dropped".into()
    }
}

/// Counts calls beyond the limit of series, stores them, and reads them back.
///
/// # Errors
/// The first figure that is wrong.
pub fn self_test() -> Result<(), String> {
    #[derive(Default)]
    struct Memory(std::cell::RefCell<BTreeMap<String, Vec<u8>>>);
    impl Store for Memory {
        fn get(&self, key: &str) -> Option<Vec<u8>> {
            self.0.borrow().get(key).cloned()
        }
        fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
            self.0.borrow_mut().insert(key.to_owned(), value.to_vec());
            Ok(())
        }
    }
    let settings = Settings { by: vec![Label::Tool], series_max: 1 };
    let store = Memory::default();
    let mut usage = Usage::new(settings.clone());
    for (tool, failed) in [("a", false), ("a", true), ("b", false)] {
        let (service, client) = ("s".to_owned(), String::new());
        let tool = tool.to_owned();
        usage.add(Call { service, tool, client, us: 500_000, failed, request_bytes: 1, response_bytes: 10 });
    }
    usage.save(&store)?;
    let (loaded, _) = Usage::load(settings, &store);
    if loaded.series != usage.series {
        return Err("stored totals are not the ones that were read back".into());
    }
    let expected = [(OTHER, 1.0, 0.0, 0.5), ("a", 2.0, 1.0, 1.0)];
    for (tool, calls, errors, seconds) in expected {
        for (metric, value) in
            [(description::CALLS, calls), (description::ERRORS, errors), (description::TIME_SECONDS, seconds)]
        {
            let mut found = None;
            loaded.each_point(|at, labels, value| {
                if at == metric && labels == [tool] {
                    found = Some(value);
                }
            });
            if found != Some(value) {
                let name = description::METRICS[metric as usize].name;
                return Err(format!("`{name}` of `{tool}` is {found:?} instead of {value}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
