//! Server-sent events, frame by frame, out of chunks that break anywhere.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("an event is larger than {0} bytes")]
pub struct EventTooLarge(pub usize);

/// Collects chunks and yields the `data` of each event that has any. Fields other than `data` are passed over,
/// as are comments; events without data (priming, keep-alive) yield nothing. Per the WHATWG event-stream format.
#[derive(Debug)]
pub struct Frames {
    pending: BytesMut,
    /// Where the search for a line end goes on.
    scanned: usize,
    data: BytesMut,
    has_data: bool,
    event_bytes_max: usize,
}

impl Frames {
    pub fn new(event_bytes_max: usize) -> Self {
        Self { pending: BytesMut::new(), scanned: 0, data: BytesMut::new(), has_data: false, event_bytes_max }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    /// The next complete event's data; `None` when more bytes are needed.
    ///
    /// # Errors
    /// An event beyond the limit; the stream cannot be read on.
    pub fn next_data(&mut self) -> Result<Option<Bytes>, EventTooLarge> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(self.data.split().freeze()));
                }
                continue;
            }
            if let Some(value) = field(&line, b"data") {
                if self.has_data {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            self.check(self.data.len())?;
        }
        self.check(self.pending.len())?;
        Ok(None)
    }

    fn check(&self, size: usize) -> Result<(), EventTooLarge> {
        if size > self.event_bytes_max { Err(EventTooLarge(self.event_bytes_max)) } else { Ok(()) }
    }

    /// Takes one line, ended by LF, CR LF or CR, without its end.
    fn line(&mut self) -> Option<Bytes> {
        let rest = &self.pending[self.scanned..];
        let Some(at) = memchr::memchr2(b'\n', b'\r', rest).map(|at| at + self.scanned) else {
            self.scanned = self.pending.len();
            return None;
        };
        let end = if self.pending[at] == b'\n' {
            1
        } else {
            match self.pending.get(at + 1) {
                Some(b'\n') => 2,
                Some(_) => 1,
                // The LF of a CR LF may still be on its way.
                None => {
                    self.scanned = at;
                    return None;
                }
            }
        };
        let line = self.pending.split_to(at).freeze();
        self.pending.advance(end);
        self.scanned = 0;
        Some(line)
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.first() {
        None => Some(rest),
        Some(b':') => Some(rest[1..].strip_prefix(b" ").unwrap_or(&rest[1..])),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<String> {
        let mut frames = Frames::new(1 << 20);
        let mut out = Vec::new();
        for chunk in chunks {
            frames.push(chunk);
            while let Some(data) = frames.next_data().expect("small events") {
                out.push(String::from_utf8(data.to_vec()).expect("text"));
            }
        }
        out
    }

    #[test]
    fn priming_events_and_comments_yield_nothing() {
        let stream = b"id: 1\nretry: 3000\ndata:\n\n: hello\n\nevent: message\ndata: {\"a\":1}\n\n";
        assert_eq!(all(&[stream]), ["", "{\"a\":1}"]);
        assert_eq!(all(&[b"id: 1\n\n:c\n\n"]), Vec::<String>::new());
    }

    #[test]
    fn data_lines_join_with_a_line_feed() {
        assert_eq!(all(&[b"data: a\ndata:b\r\ndataset: c\r\rdata\n\n"]), ["a\nb", ""]);
    }

    #[test]
    fn events_over_the_limit_are_refused() {
        let mut frames = Frames::new(8);
        frames.push(b"data: 123456789\n\n");
        assert_eq!(frames.next_data(), Err(EventTooLarge(8)));
        let mut frames = Frames::new(8);
        frames.push(b"data: 123456789");
        assert_eq!(frames.next_data(), Err(EventTooLarge(8)));
    }

    proptest! {
        #[test]
        fn where_chunks_break_does_not_matter(cuts in prop::collection::vec(0usize..60, 0..6)) {
            let stream: &[u8] = b"id: 7\r\ndata: one\r\n\r\ndata: two\ndata: lines\n\n:x\rdata: 3\r\rdata: 4\n\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(all(&chunks), vec!["one", "two\nlines", "3", "4"]);
        }
    }
}
