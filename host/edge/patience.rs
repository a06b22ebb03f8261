//! How long a connection may say nothing: long between requests, short within the head of one.
//!
//! hyper has one limit for both. A short one ends connections that a client's pool still holds, and a request that
//! is sent at that moment fails with nobody to blame; a long one lets heads trickle. It has none for clients that read
//! nothing: what is made for them only while they read would be kept for ever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Sleep as TokioSleep, sleep_until};

/// From a connection's opening, or from the first byte of a later head, to the end of that head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// For which a client may take nothing of what is written to it.
const STALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two requests. Clients' pools keep connections for at most 90 s, so that they, and not the proxy, end them.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(120);

/// What the timer and the stream of one connection share.
#[derive(Debug, Default)]
struct Heard {
    /// There was a request before the one that is waited for.
    kept: AtomicBool,
    /// Something was read since the wait began.
    begun: AtomicBool,
}

/// The stream of a connection, and the timer for hyper's `header_read_timeout` of [`IDLE_TIME_MAX`].
pub fn patient(stream: TcpStream) -> (Listening, Patience) {
    patient_for(stream, STALL_TIME_MAX)
}

fn patient_for(stream: TcpStream, stall_time_max: Duration) -> (Listening, Patience) {
    let heard = Arc::new(Heard::default());
    let stream = TokioIo::new(stream);
    (Listening { stream, heard: Arc::clone(&heard), stalled: None, stall_time_max }, Patience { heard })
}

/// Times the waits for heads; hyper starts one wait for each.
#[derive(Debug)]
pub struct Patience {
    heard: Arc<Heard>,
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let kept = self.heard.kept.swap(true, Ordering::Relaxed);
        self.heard.begun.store(false, Ordering::Relaxed);
        let deadline = if kept { deadline } else { deadline.min(Instant::now() + HEAD_TIME_MAX) };
        Box::pin(Wait { sleep: sleep_until(deadline.into()), begun: !kept, heard: Arc::clone(&self.heard) })
    }
}

pin_project! {
    struct Wait {
        #[pin]
        sleep: TokioSleep,
        // The short limit is set.
        begun: bool,
        heard: Arc<Heard>,
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut wait = self.project();
        if !*wait.begun && wait.heard.begun.load(Ordering::Relaxed) {
            *wait.begun = true;
            wait.sleep.as_mut().reset((Instant::now() + HEAD_TIME_MAX).into());
        }
        wait.sleep.poll(cx)
    }
}

impl Sleep for Wait {}

pin_project! {
    /// A stream that notes that something was read, and ends when nothing can be written for too long.
    pub struct Listening {
        #[pin]
        stream: TokioIo<TcpStream>,
        heard: Arc<Heard>,
        // While the client takes nothing.
        stalled: Option<Pin<Box<TokioSleep>>>,
        stall_time_max: Duration,
    }
}

/// What became of a write; a client that takes nothing is waited for only so long.
fn bear(
    written: Poll<io::Result<usize>>,
    stalled: &mut Option<Pin<Box<TokioSleep>>>,
    stall_time_max: Duration,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if written.is_ready() {
        *stalled = None;
        return written;
    }
    let sleep = stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_time_max)));
    ready!(sleep.as_mut().poll(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

impl Read for Listening {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let listening = self.project();
        ready!(listening.stream.poll_read(cx, buffer))?;
        // The end of the stream counts too; it ends the wait by itself.
        listening.heard.begun.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl Write for Listening {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let listening = self.project();
        let written = listening.stream.poll_write(cx, bytes);
        bear(written, listening.stalled, *listening.stall_time_max, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let listening = self.project();
        let written = listening.stream.poll_write_vectored(cx, slices);
        bear(written, listening.stalled, *listening.stall_time_max, cx)
    }
}

#[cfg(test)]
mod tests;
