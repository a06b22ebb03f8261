//! What an instance says of itself, checked.

use std::sync::Arc;

use thiserror::Error;

pub use super::endpoint::{Command, Endpoint, HttpEndpoint, Stamp, Written};
use super::ids::{Name, NameError};
use super::offer::Item;

/// Most tags of one instance.
pub const TAGS_MAX: usize = 64;
/// Weight of an instance that names none.
pub const WEIGHT_DEFAULT: u16 = 100;
/// Largest weight.
pub const WEIGHT_MAX: u16 = 1000;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("`{field}`: {source}")]
    Name { field: &'static str, source: NameError },
    #[error("either `port` or `url` must say where the instance listens")]
    NoEndpoint,
    #[error("`{0}` is not an address; write `http://HOST:PORT/PATH`")]
    Endpoint(String),
    #[error("`https` upstreams are not supported; `{0}` must start with `http://`")]
    Tls(String),
    #[error("`weight` is {0}; it must be between 1 and {WEIGHT_MAX}")]
    Weight(u64),
    #[error("{0} tags are given, at most {TAGS_MAX} are allowed")]
    TooManyTags(usize),
    #[error("{0} tools are given, at most 1000 are allowed")]
    TooManyTools(usize),
    #[error("`metadata` must be an object")]
    Metadata,
    #[error("a tool must be a name or an object with `name`: {0}")]
    Tool(String),
}

impl SpecError {
    /// The same of an address that people read as `shown`.
    #[must_use]
    pub fn of(self, shown: &str) -> Self {
        match self {
            Self::Endpoint(_) => Self::Endpoint(shown.to_owned()),
            Self::Tls(_) => Self::Tls(shown.to_owned()),
            other => other,
        }
    }
}

/// A registration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    pub name: Name,
    pub service: Name,
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
    pub tags: Arc<[Name]>,
    pub zone: Option<Name>,
    pub weight: u16,
    /// JSON text of an object, as it came.
    pub metadata: Arc<str>,
    /// Declared at registration; empty: the instance is asked.
    pub tools: Arc<[Item]>,
}

impl InstanceSpec {
    /// An instance of which nothing but its place is said.
    pub fn plain(name: Name, service: Name, endpoint: Endpoint) -> Self {
        Self {
            name,
            service,
            endpoint,
            pid: None,
            tags: Arc::from([]),
            zone: None,
            weight: WEIGHT_DEFAULT,
            metadata: Arc::from("{}"),
            tools: Arc::from([]),
        }
    }
}
