//! What an operator allows one plugin, where that is not what all have.

use std::time::Duration;

/// `None` is what all plugins have, or what the plugin itself declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of linear memory, for each of its instances.
    pub memory_bytes_max: Option<usize>,
    /// Within which a question is answered that a call waits for.
    pub ask: Option<Duration>,
    /// Within which all other questions are answered.
    pub background: Option<Duration>,
    /// Within which 99 of 100 calls are routed.
    pub route: Option<Duration>,
    /// Within which 99 of 100 instances are picked.
    pub pick: Option<Duration>,
}

impl Allowance {
    /// A text that is the same for the same allowance in each build of the proxy.
    pub fn key(&self) -> String {
        let number =
            |number: Option<u128>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let memory = number(self.memory_bytes_max.map(|bytes| bytes as u128));
        let times = [self.ask, self.background, self.route, self.pick];
        let [ask, background, route, pick] = times.map(|time| number(time.map(|time| time.as_nanos())));
        format!("memory={memory} ask={ask} background={background} route={route} pick={pick}")
    }
}
