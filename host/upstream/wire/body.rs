//! The body of an answer, chunk by chunk as it comes.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use super::connection::{Connection, Pool};
use super::head::Framing;
use crate::upstream::SendError;

/// Longest line between two chunks.
const CHUNK_LINE_MAX: usize = 4 << 10;
/// Room for a read while much is still to come.
const ROOM_MAX: usize = 256 << 10;
const ROOM: usize = 8 << 10;

/// What comes next of a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    /// The line end behind a chunk's data.
    End,
    Trailers,
}

/// A body that is being read. Its connection goes back to the pool when the body's end was read, and is closed when
/// it is dropped before.
#[derive(Debug)]
pub struct Incoming {
    /// `None` once the end was read.
    connection: Option<Connection>,
    framing: Framing,
    chunk: Chunk,
    keeps_alive: bool,
    home: Arc<Pool>,
}

impl Incoming {
    pub(super) fn new(connection: Connection, framing: Framing, keeps_alive: bool, home: Arc<Pool>) -> Self {
        let mut body = Self { connection: Some(connection), framing, chunk: Chunk::Size, keeps_alive, home };
        if framing == Framing::Length(0) {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.keeps_alive) {
            self.home.rest(connection);
        }
    }

    /// The next bytes; `None` at the end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let polled = match self.framing {
            Framing::Length(left) => self.poll_length(left, cx),
            Framing::Chunked => self.poll_chunk(cx),
            Framing::Close => self.poll_rest(cx),
        };
        if let Poll::Ready(Some(Err(_))) = polled {
            self.connection = None;
        }
        polled
    }

    fn poll_length(&mut self, left: u64, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if connection.read.is_empty() {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(ROOM_MAX);
            match ready!(connection.poll_fill(cx, room)) {
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(connection.read.len());
        let data = connection.read.split_to(take).freeze();
        let left = left - take as u64;
        self.framing = Framing::Length(left);
        if left == 0 {
            self.end();
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        if connection.read.is_empty() && ready!(connection.poll_fill(cx, ROOM))? == 0 {
            self.connection = None;
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(connection.read.split().freeze())))
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            let read = &mut connection.read;
            match self.chunk {
                Chunk::Data(left) if !read.is_empty() => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
                    let data = read.split_to(take).freeze();
                    let left = left - take as u64;
                    self.chunk = if left == 0 { Chunk::End } else { Chunk::Data(left) };
                    return Poll::Ready(Some(Ok(data)));
                }
                Chunk::Size => match httparse::parse_chunk_size(read) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        read.advance(length);
                        self.chunk = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                        continue;
                    }
                    Ok(httparse::Status::Partial) if read.len() <= CHUNK_LINE_MAX => {}
                    _ => return Poll::Ready(Some(Err(malformed("the size of a chunk")))),
                },
                Chunk::End if read.len() >= 2 => {
                    if !read.starts_with(b"\r\n") {
                        return Poll::Ready(Some(Err(malformed("the end of a chunk"))));
                    }
                    read.advance(2);
                    self.chunk = Chunk::Size;
                    continue;
                }
                Chunk::Trailers => match memchr::memchr(b'\n', read) {
                    Some(at) => {
                        let line = read.split_to(at + 1);
                        if line.trim_ascii().is_empty() {
                            self.end();
                            return Poll::Ready(None);
                        }
                        continue;
                    }
                    None if read.len() <= CHUNK_LINE_MAX => {}
                    None => return Poll::Ready(Some(Err(malformed("the trailers")))),
                },
                Chunk::Data(_) | Chunk::End => {}
            }
            let room = match self.chunk {
                Chunk::Data(left) => usize::try_from(left).unwrap_or(usize::MAX).clamp(ROOM, ROOM_MAX),
                _ => ROOM,
            };
            match ready!(connection.poll_fill(cx, room)) {
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// The connection broke, or the body is larger than `bytes_max`.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, SendError> {
        if let Framing::Length(length) = self.framing {
            let length = usize::try_from(length).ok().filter(|length| *length <= bytes_max);
            let length = length.ok_or(SendError::TooLarge(bytes_max))?;
            return self.collect_length(length).await;
        }
        let mut first = Bytes::new();
        let mut rest: Option<BytesMut> = None;
        while let Some(data) = poll_fn(|cx| self.poll_data(cx)).await {
            let data = data.map_err(SendError::Broken)?;
            let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
            if so_far + data.len() > bytes_max {
                return Err(SendError::TooLarge(bytes_max));
            }
            match &mut rest {
                Some(rest) => rest.extend_from_slice(&data),
                None if first.is_empty() => first = data,
                None => {
                    let mut both = BytesMut::with_capacity((first.len() + data.len()) * 2);
                    both.extend_from_slice(&first);
                    both.extend_from_slice(&data);
                    rest = Some(both);
                }
            }
        }
        Ok(rest.map_or(first, BytesMut::freeze))
    }

    /// Bodies of known length are read into one piece of memory.
    async fn collect_length(&mut self, length: usize) -> Result<Bytes, SendError> {
        let Some(connection) = &mut self.connection else { return Ok(Bytes::new()) };
        while connection.read.len() < length {
            let missing = length - connection.read.len();
            if connection.read.capacity() < length {
                connection.read.reserve(missing);
            }
            let filled = poll_fn(|cx| connection.poll_fill(cx, missing)).await.map_err(SendError::Broken)?;
            if filled == 0 {
                return Err(SendError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let body = connection.read.split_to(length).freeze();
        self.end();
        Ok(body)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is malformed"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::{Head, Target};
    use super::*;
    use crate::mesh::endpoint::HttpEndpoint;
    use crate::upstream::Times;

    /// What is read of an answer that arrives in the given pieces, and whether the connection can be used again.
    async fn read(pieces: &[&str]) -> (Result<String, SendError>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.expect("written");
                stream.flush().await.expect("flushed");
                tokio::task::yield_now().await;
            }
            // Those whose body ends with the connection wait for its end.
            stream.shutdown().await.expect("shut down");
        };
        let client = async {
            let target = Target::new(&HttpEndpoint::new("127.0.0.1", port, "/").expect("an endpoint"));
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
            let limit = std::time::Duration::from_secs(5);
            let times = Times { connect: limit, first_byte: limit, deadline, wakes: false, stated: false };
            let pool = Arc::new(Pool::new(1));
            let mut connection = Connection::open(&target, &times).await.expect("connected");
            let head: Head = connection.head().await?;
            let body = connection.into_body(&head, &pool);
            let text = body.collect(1 << 20).await.map(|b| String::from_utf8_lossy(&b).into_owned());
            Ok::<_, SendError>((text, pool.len() > 0))
        };
        let ((), read) = tokio::join!(server, client);
        read.unwrap_or_else(|error| (Err(error), false))
    }

    async fn text(pieces: &[&str]) -> Option<(String, bool)> {
        let (text, idle) = read(pieces).await;
        text.ok().map(|text| (text, idle))
    }

    fn some(text: &str, idle: bool) -> Option<(String, bool)> {
        Some((text.to_owned(), idle))
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        assert_eq!(
            text(&["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{\"", "a\""]).await,
            some("{\"a\"", true)
        );
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(
            text(&[chunked, "3;x=y\r\nab", "c\r\n", "1\r\nd\r\n0\r\nT: x\r\n\r\n"]).await,
            some("abcd", true)
        );
        assert_eq!(text(&["HTTP/1.1 200 OK\r\n\r\n", "to the", " end"]).await, some("to the end", false));
        assert_eq!(
            text(&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"]).await,
            some("", true)
        );
    }

    #[tokio::test]
    async fn broken_bodies_are_errors() {
        let broken = [
            &["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"][..],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n"],
            &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\n"],
            &[],
        ];
        for pieces in broken {
            assert!(matches!(read(pieces).await.0, Err(SendError::Broken(_))), "{pieces:?}");
        }
        let large = &["HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"];
        assert!(matches!(read(large).await.0, Err(SendError::TooLarge(_))));
    }
}
