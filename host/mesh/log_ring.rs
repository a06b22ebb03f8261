//! The last lines that a child wrote.

use std::collections::VecDeque;

use super::time::Wall;

/// What is kept of a child's lines, their own bookkeeping included.
pub const LOG_BYTES_MAX: usize = 256 << 10;
/// Longest line that is kept whole.
pub const LINE_BYTES_MAX: usize = 4 << 10;
/// What a line costs beside its text.
const LINE_COST: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output that is not of the protocol.
    Out,
    Err,
}

impl Stream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counts from 1.
    pub number: u64,
    pub at: Wall,
    pub stream: Stream,
    pub text: Box<str>,
}

#[derive(Debug, Default)]
pub struct LogRing {
    lines: VecDeque<Line>,
    bytes: usize,
    written: u64,
    noise: u64,
}

impl LogRing {
    pub fn push(&mut self, at: Wall, stream: Stream, text: &str) {
        self.written += 1;
        self.noise += u64::from(stream == Stream::Out);
        let text = match text.char_indices().find(|(at, c)| at + c.len_utf8() > LINE_BYTES_MAX) {
            Some((end, _)) => &text[..end],
            None => text,
        };
        self.bytes += text.len() + LINE_COST;
        self.lines.push_back(Line { number: self.written, at, stream, text: text.into() });
        while self.bytes > LOG_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len() + LINE_COST;
        }
    }

    /// The number of the newest line; 0 before the first.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Lines on standard output that were not of the protocol, ever.
    pub fn noise(&self) -> u64 {
        self.noise
    }

    /// Lines on standard error, ever.
    pub fn errors(&self) -> u64 {
        self.written - self.noise
    }

    /// Those after number `after`, the newest `limit` of them.
    pub fn since(&self, after: u64, limit: usize) -> Vec<Line> {
        let from = self.lines.partition_point(|line| line.number <= after);
        let from = from.max(self.lines.len().saturating_sub(limit));
        self.lines.range(from..).cloned().collect()
    }

    /// The last words on standard error after number `after`, in one line, at most `lines` and `chars`.
    pub fn last_words(&self, after: u64, lines: usize, chars: usize) -> String {
        let said = self.lines.iter().rev().take_while(|line| line.number > after);
        let said = said.filter(|line| line.stream == Stream::Err && !line.text.trim().is_empty());
        let mut words: Vec<&str> = said.take(lines).map(|line| line.text.trim()).collect();
        words.reverse();
        let words = words.join(" | ");
        let excess = words.chars().count().saturating_sub(chars);
        words.chars().skip(excess).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_when_it_is_full_and_numbers_go_on() {
        let mut ring = LogRing::default();
        for number in 0..5_000 {
            ring.push(Wall::from_millis(number), Stream::Err, &"x".repeat(100));
        }
        let kept = ring.since(0, usize::MAX);
        let bytes: usize = kept.iter().map(|line| line.text.len() + LINE_COST).sum();
        assert!(bytes <= LOG_BYTES_MAX && bytes > LOG_BYTES_MAX - 200, "{bytes}");
        assert_eq!(kept.last().map(|line| line.number), Some(5_000));
        assert_eq!(ring.since(4_990, 100).len(), 10);
        assert_eq!(ring.since(0, 3).first().map(|line| line.number), Some(4_998));
    }

    #[test]
    fn one_line_never_fills_it_and_is_cut_between_characters() {
        let mut ring = LogRing::default();
        ring.push(Wall::default(), Stream::Out, &"ä".repeat(LINE_BYTES_MAX));
        assert_eq!(ring.since(0, 1)[0].text.len(), LINE_BYTES_MAX);
        assert_eq!(ring.noise(), 1);
    }

    #[test]
    fn last_words_are_of_this_run_and_of_standard_error() {
        let mut ring = LogRing::default();
        for (stream, text) in [
            (Stream::Err, "of the run before"),
            (Stream::Err, "loading\t"),
            (Stream::Out, "noise"),
            (Stream::Err, ""),
            (Stream::Err, "Error: no\u{1b}[0m token"),
        ] {
            ring.push(Wall::default(), stream, text);
        }
        assert_eq!(ring.last_words(1, 3, 100), "loading | Error: no [0m token");
        assert_eq!(ring.last_words(1, 1, 5), "token");
        assert_eq!(ring.last_words(5, 3, 100), "");
    }
}
