//! Where a caller says how long it waits, and where an instance is told how much of that is left.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::mesh::deadline::{self, NoTime};

/// The header, of calls and of what is sent to instances over HTTP: milliseconds.
pub static HEADER: HeaderName = HeaderName::from_static("meshwright-timeout-ms");
/// The same as a member of `params._meta`, for those who have no headers: a number of milliseconds.
pub const MEMBER: &str = "meshwright/timeoutMs";

/// A caller gives a time that is none.
#[derive(Debug, Error)]
#[error("`{place}` gives no time: {source}")]
pub struct BadTime {
    place: &'static str,
    source: NoTime,
}

/// The time that a call's header gives.
///
/// # Errors
/// It is there twice, or gives none.
pub fn in_header(headers: &HeaderMap) -> Result<Option<Duration>, BadTime> {
    let bad = |source| BadTime { place: "Meshwright-Timeout-Ms", source };
    let mut values = headers.get_all(&HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| bad(NoTime))?;
            deadline::read(text.trim()).map(Some).map_err(bad)
        }
        (Some(_), Some(_)) => Err(bad(NoTime)),
    }
}

/// The time that a message's own member gives.
///
/// # Errors
/// It gives none.
pub fn in_message(member: Option<&RawValue>) -> Result<Option<Duration>, BadTime> {
    let read = |member: &RawValue| deadline::read(member.get());
    member.map(read).transpose().map_err(|source| BadTime { place: MEMBER, source })
}
