//! One message a line: how messages become lines, and lines are read.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::clock;
use crate::mesh::flood::Flood;

/// Longest line that a process may write.
const LINE_BYTES_MAX: usize = 4 << 20;
/// What nobody asked for counts as one more message for each so many bytes.
const UNASKED_BYTES: usize = 4 << 10;

/// One message as one line: line ends between its tokens become blanks; inside strings JSON has none.
pub(super) fn line(message: &[&[u8]]) -> Bytes {
    let size: usize = message.iter().map(|piece| piece.len()).sum();
    let mut line = BytesMut::with_capacity(size + 1);
    message.iter().for_each(|piece| line.put_slice(piece));
    for byte in line.iter_mut() {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.put_u8(b'\n');
    line.freeze()
}

/// What was read of a process's output.
pub(super) enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads a line; of one that is too long nothing is kept.
pub(super) async fn next_line(
    output: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    flood: &mut Flood,
) -> std::io::Result<Line> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = output.fill_buf().await?;
        if available.is_empty() {
            return Ok(if line.is_empty() || too_long { Line::End } else { Line::Whole });
        }
        let end = memchr::memchr(b'\n', available);
        let used = end.map_or(available.len(), |at| at + 1);
        if line.len() + used > LINE_BYTES_MAX {
            too_long = true;
            line.clear();
        }
        if !too_long {
            line.extend_from_slice(&available[..used]);
        }
        output.consume(used);
        if too_long {
            hold_up(flood, used).await;
        }
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

/// What nobody waits for is read no faster than it may come: the process waits.
pub(super) async fn hold_up(flood: &mut Flood, bytes: usize) {
    let messages = 1 + u32::try_from(bytes / UNASKED_BYTES).unwrap_or(u32::MAX);
    let wait = flood.add(messages, clock::mono);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_costs_itself_alone() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("first\n{long}\nlast");
        let mut output = BufReader::with_capacity(1000, text.as_bytes());
        let (mut line, mut seen) = (Vec::new(), Vec::new());
        loop {
            match next_line(&mut output, &mut line, &mut Flood::default()).await.expect("memory can be read")
            {
                Line::Whole => seen.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
                Line::TooLong => seen.push("too long".to_owned()),
                Line::End => break,
            }
        }
        assert_eq!(seen, ["first", "too long", "last"]);
    }

    #[test]
    fn messages_become_lines() {
        let message: [&[u8]; 2] = [b"{\"a\":\r\n", b"1}"];
        assert_eq!(line(&message), &b"{\"a\":  1}\n"[..]);
    }
}
