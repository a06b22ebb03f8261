//! Server-sent events, frame by frame, out of chunks that break anywhere.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("an event is larger than {0} bytes")]
pub struct EventTooLarge(pub usize);

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// All its bytes as they came, the empty line included.
    pub raw: Bytes,
    /// The joined `data` lines; `None` when there is none: an event of comments, a retry time or an id alone.
    pub data: Option<Bytes>,
    pub id: Option<Bytes>,
}

/// Collects chunks and yields event by event, per the WHATWG event-stream format.
#[derive(Debug)]
pub struct Frames {
    pending: BytesMut,
    /// Where the line begins that is not whole yet.
    line: usize,
    /// How far it was searched for its end.
    scanned: usize,
    event_bytes_max: usize,
}

impl Frames {
    pub fn new(event_bytes_max: usize) -> Self {
        Self { pending: BytesMut::new(), line: 0, scanned: 0, event_bytes_max }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    /// The next complete event; `None` when more bytes are needed.
    ///
    /// # Errors
    /// An event beyond the limit; the stream cannot be read on.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventTooLarge> {
        while let Some((end, next)) = self.line_end() {
            let empty = end == self.line;
            (self.line, self.scanned) = (next, next);
            if next > self.event_bytes_max {
                return Err(EventTooLarge(self.event_bytes_max));
            }
            if empty {
                (self.line, self.scanned) = (0, 0);
                return Ok(Some(read(self.pending.split_to(next).freeze())));
            }
        }
        if self.pending.len() > self.event_bytes_max {
            return Err(EventTooLarge(self.event_bytes_max));
        }
        Ok(None)
    }

    /// Where the line ends, and where the next one begins: behind LF, CR LF or CR.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let found = memchr::memchr2(b'\n', b'\r', &self.pending[self.scanned..]);
        let Some(at) = found.map(|at| at + self.scanned) else {
            self.scanned = self.pending.len();
            return None;
        };
        match (self.pending[at], self.pending.get(at + 1)) {
            (b'\n', _) => Some((at, at + 1)),
            (_, Some(b'\n')) => Some((at, at + 2)),
            (_, Some(_)) => Some((at, at + 1)),
            // The LF of a CR LF may still be on its way.
            (_, None) => {
                self.scanned = at;
                None
            }
        }
    }
}

fn read(raw: Bytes) -> Event {
    let mut event = Event { data: None, id: None, raw: raw.clone() };
    let mut joined: Option<BytesMut> = None;
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if let Some(value) = field(line, b"data") {
            match (&event.data, &mut joined) {
                (None, _) => event.data = Some(raw.slice_ref(value)),
                (Some(_), Some(joined)) => {
                    joined.extend_from_slice(b"\n");
                    joined.extend_from_slice(value);
                }
                (Some(first), None) => {
                    let mut both = BytesMut::with_capacity(raw.len());
                    both.extend_from_slice(first);
                    both.extend_from_slice(b"\n");
                    both.extend_from_slice(value);
                    joined = Some(both);
                }
            }
        } else if let Some(value) = field(line, b"id") {
            event.id = Some(raw.slice_ref(value));
        }
    }
    if let Some(joined) = joined {
        event.data = Some(joined.freeze());
    }
    event
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.first() {
        None => Some(rest),
        Some(b':') => Some(rest[1..].strip_prefix(b" ").unwrap_or(&rest[1..])),
        Some(_) => None,
    }
}

/// Appends an event with this data and this id, if any.
pub fn put_event(out: &mut BytesMut, id: Option<&[u8]>, data: &[u8]) {
    out.put_slice(b"event: message\n");
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id);
        out.put_u8(b'\n');
    }
    // A message that came with line ends keeps them: several `data` lines are joined by them again.
    for line in data.split(|b| *b == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
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
            while let Some(event) = frames.next_event().expect("small events") {
                out.extend(event.data.map(|data| String::from_utf8(data.to_vec()).expect("text")));
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
        assert_eq!(frames.next_event(), Err(EventTooLarge(8)));
        let mut frames = Frames::new(8);
        frames.push(b"data: 123456789");
        assert_eq!(frames.next_event(), Err(EventTooLarge(8)));
    }

    #[test]
    fn events_keep_their_bytes_and_their_id() {
        let mut frames = Frames::new(1 << 10);
        frames.push(b"id: 7\r\nretry: 3\r\ndata: \r\n\r\n: x\n\n");
        let event = frames.next_event().expect("small").expect("whole");
        assert_eq!(&event.raw[..], b"id: 7\r\nretry: 3\r\ndata: \r\n\r\n");
        assert_eq!((event.id.as_deref(), event.data.as_deref()), (Some(&b"7"[..]), Some(&b""[..])));
        let comment = frames.next_event().expect("small").expect("whole");
        assert_eq!((&comment.raw[..], comment.data), (&b": x\n\n"[..], None));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = BytesMut::new();
        put_event(&mut out, Some(b"a/1"), b"{\"a\":\n1}");
        let mut frames = Frames::new(1 << 10);
        frames.push(&out);
        let event = frames.next_event().expect("small").expect("whole");
        assert_eq!(
            (event.id.as_deref(), event.data.as_deref()),
            (Some(&b"a/1"[..]), Some(&b"{\"a\":\n1}"[..]))
        );
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
