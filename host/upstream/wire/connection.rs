//! One connection, the pool that keeps it between requests, and where it leads.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::body::Incoming;
use super::head::{self, Head};
use crate::mesh::endpoint::HttpEndpoint;
use crate::upstream::{SendError, Times};
use crate::worker;

/// An idle connection older than this is not used again: common servers close theirs after 5 s, and a request
/// that meets the closing has an unknown outcome.
const IDLE_REUSE_MAX: Duration = Duration::from_secs(4);
/// Idle connections that one worker keeps to one instance.
const IDLE_PER_WORKER_MAX: usize = 128;
/// Bodies up to this size leave in one write with their head.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Room that a read has at least, and that it gets when it has less.
const READ_ROOM_MIN: usize = 2 << 10;
const READ_ROOM: usize = 8 << 10;
/// An idle connection keeps no more room than this.
const IDLE_ROOM_MAX: usize = 16 << 10;

/// Where connections go, with what every request repeats.
#[derive(Debug)]
pub struct Target {
    /// `PATH HTTP/1.1` and the headers that never change.
    pub(in crate::upstream) constant: Box<[u8]>,
    address: Option<SocketAddr>,
    endpoint: HttpEndpoint,
}

impl Target {
    pub fn new(endpoint: &HttpEndpoint) -> Self {
        let address =
            endpoint.bare_host().parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, endpoint.port()));
        let authority = endpoint.authority();
        let constant = format!(" {} HTTP/1.1\r\nhost: {authority}\r\n", endpoint.path());
        Self { constant: constant.into_bytes().into(), address, endpoint: endpoint.clone() }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((self.endpoint.bare_host(), self.endpoint.port())).await,
        }
    }
}

/// Idle connections to one instance, newest last. Each part is used by its worker alone, and pruned now and then.
#[derive(Debug)]
pub struct Pool(Box<[Mutex<Vec<Connection>>]>);

impl Pool {
    /// `workers` is the number of data-path workers; control tasks get a part of their own.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Mutex::new(Vec::new())).collect())
    }

    fn part(&self) -> Option<&Mutex<Vec<Connection>>> {
        self.0.get(worker::index())
    }

    pub(in crate::upstream) fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = self.part()?.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    pub(super) fn rest(&self, mut connection: Connection) {
        let Some(part) = self.part() else { return };
        connection.idle_since = Instant::now();
        if connection.read.capacity() > IDLE_ROOM_MAX {
            connection.read = BytesMut::new();
        }
        if connection.write.capacity() > IDLE_ROOM_MAX {
            connection.write = BytesMut::new();
        }
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() < IDLE_PER_WORKER_MAX {
            part.push(connection);
        }
    }

    /// Connections at rest.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Closes the connections that no call will use again.
    pub fn prune(&self) {
        for part in &self.0 {
            part.lock().unwrap_or_else(PoisonError::into_inner).retain(Connection::is_fresh);
        }
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were read and not used yet.
    pub(super) read: BytesMut,
    /// The head of the request that is being sent, and a small body behind it.
    pub(in crate::upstream) write: BytesMut,
    idle_since: Instant,
}

impl Connection {
    pub(in crate::upstream) async fn open(target: &Target, times: &Times) -> Result<Self, SendError> {
        let limit = times.connect.min(times.deadline.saturating_duration_since(tokio::time::Instant::now()));
        let stream = tokio::time::timeout(limit, target.connect())
            .await
            .map_err(|_| SendError::ConnectTimeout(limit))?
            .map_err(SendError::Connect)?;
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        Ok(Self { stream, read: BytesMut::new(), write: BytesMut::new(), idle_since: Instant::now() })
    }

    /// Whether the connection may carry another request: bytes that nobody asked for, or the other side's closing,
    /// say no. Costs a system call only when the kernel has said that there is something to read.
    fn is_usable(&mut self) -> bool {
        let mut probe = [0_u8; 1];
        let quiet = matches!(self.stream.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.is_fresh() && self.read.is_empty() && quiet
    }

    fn is_fresh(&self) -> bool {
        self.idle_since.elapsed() <= IDLE_REUSE_MAX
    }

    /// Writes a request. Its head is in `write`; it ends with the empty line and has the length of all of `body`.
    pub(in crate::upstream) async fn send(&mut self, body: &[&[u8]]) -> Result<(), SendError> {
        let Self { stream, write: head, .. } = self;
        let size: usize = body.iter().map(|piece| piece.len()).sum();
        let mut sent = 0;
        let written = if size <= COPY_BYTES_MAX {
            body.iter().for_each(|piece| head.extend_from_slice(piece));
            write_one(stream, head, &mut sent).await
        } else {
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(body.len() + 1);
            slices.push(IoSlice::new(head));
            slices.extend(body.iter().map(|piece| IoSlice::new(piece)));
            write_all(stream, &mut slices, &mut sent).await
        };
        written.map_err(|error| if sent == 0 { SendError::NotSent(error) } else { SendError::Broken(error) })
    }

    /// Reads the head of the answer; interim answers (1xx) are passed over.
    pub(in crate::upstream) async fn head(&mut self) -> Result<Head, SendError> {
        loop {
            match head::parse(&self.read)? {
                Some((head, length)) => {
                    self.read.advance(length);
                    if !head.status.is_informational() {
                        return Ok(head);
                    }
                }
                None => {
                    if poll_fn(|cx| self.poll_fill(cx, READ_ROOM)).await.map_err(SendError::Broken)? == 0 {
                        return Err(SendError::Broken(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Reads more; 0 is the end. `room` is how much there is likely to come.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < READ_ROOM_MIN.min(room) {
            self.read.reserve(room.max(READ_ROOM_MIN));
        }
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)
    }

    pub(in crate::upstream) fn into_body(self, head: &Head, home: &Arc<Pool>) -> Incoming {
        Incoming::new(self, head.framing, head.keeps_alive, Arc::clone(home))
    }
}

async fn write_one(stream: &mut TcpStream, mut bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *sent += written;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn write_all(
    stream: &mut TcpStream,
    mut slices: &mut [IoSlice<'_>],
    sent: &mut usize,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = stream.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *sent += written;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
