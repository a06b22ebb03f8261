//! One list of a view: its bytes, made once, and where each of its declarations ends in them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::mesh::ids::Name;

/// Most declarations on a page.
pub(super) const PAGE_ITEMS_MAX: usize = 5000;
/// Most bytes on a page, unless a single declaration has more.
pub(super) const PAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a cursor that say which list it belongs to.
const TAG_BYTES: usize = 8;

/// A cursor that no page of this list ended with.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the cursor is not one of this list")]
pub struct BadCursor;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Declarations as JSON text with commas between them, without brackets.
    pub members: Bytes,
    pub next_cursor: Option<String>,
}

/// Where a declaration stands: its service (none for the proxy's own) and its key there. Lists are in this order.
pub(super) type Position = (Option<Name>, Arc<str>);

#[derive(Debug)]
pub(super) struct List {
    tag: [u8; TAG_BYTES],
    positions: Vec<Position>,
    /// The end of each declaration in `members`.
    ends: Vec<usize>,
    members: Bytes,
    revision: u64,
}

/// A list that grows.
pub(super) struct Writer {
    tag: [u8; TAG_BYTES],
    positions: Vec<Position>,
    ends: Vec<usize>,
    members: BytesMut,
}

impl Writer {
    /// `id` says what the list is of: cursors of lists with other ids are foreign.
    pub(super) fn new(id: &str) -> Self {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&Sha256::digest(id.as_bytes())[..TAG_BYTES]);
        Self { tag, positions: Vec::new(), ends: Vec::new(), members: BytesMut::new() }
    }

    /// Positions must come in order, those of the proxy's own first.
    pub(super) fn push(&mut self, position: Position, json: &[u8]) {
        if !self.members.is_empty() {
            self.members.put_u8(b',');
        }
        self.members.put_slice(json);
        self.ends.push(self.members.len());
        self.positions.push(position);
    }

    pub(super) fn finish(self) -> List {
        let digest = Sha256::digest(&self.members);
        let mut revision = [0; 8];
        revision.copy_from_slice(&digest[..8]);
        List {
            tag: self.tag,
            positions: self.positions,
            ends: self.ends,
            members: self.members.freeze(),
            revision: u64::from_le_bytes(revision),
        }
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A digest of the bytes: the same content has the same number, in any process.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The page behind a cursor, or the first. A cursor says behind which declaration it stands, so that one from
    /// before a change goes on where it was, whether that declaration is still there or not.
    pub(super) fn page(&self, cursor: Option<&str>) -> Result<Page, BadCursor> {
        let first = match cursor {
            None => 0,
            Some(cursor) => {
                let behind = self.read_cursor(cursor)?;
                self.positions.partition_point(|(service, key)| {
                    let behind = (behind.0.as_str(), behind.1.as_str());
                    service.as_ref().is_none_or(|service| (service.as_str(), &**key) <= behind)
                })
            }
        };
        let start = if first == 0 { 0 } else { self.ends[first - 1] + 1 };
        let by_bytes = self.ends.partition_point(|end| *end <= start + PAGE_BYTES_MAX);
        let end = by_bytes.max(first + 1).min(first + PAGE_ITEMS_MAX).min(self.len());
        if first >= end {
            return Ok(Page { members: Bytes::new(), next_cursor: None });
        }
        let next_cursor = (end < self.len()).then(|| self.cursor(end - 1));
        Ok(Page { members: self.members.slice(start..self.ends[end - 1]), next_cursor })
    }

    fn cursor(&self, last: usize) -> String {
        let (service, key) = &self.positions[last];
        let service = service.as_ref().map_or("", Name::as_str);
        let bytes = [&self.tag[..], service.as_bytes(), b"\0", key.as_bytes()].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read_cursor(&self, cursor: &str) -> Result<(String, String), BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
        let position = bytes.strip_prefix(&self.tag[..]).ok_or(BadCursor)?;
        let position = std::str::from_utf8(position).map_err(|_| BadCursor)?;
        let (service, key) = position.split_once('\0').ok_or(BadCursor)?;
        Ok((service.to_owned(), key.to_owned()))
    }
}
