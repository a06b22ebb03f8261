//! Bodies of answers: bytes that are ready, and bytes that are being made.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::mpsc;

/// An error while a page's body is made.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    Ready(ReplyBody),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
    /// Bytes that are made while they are read.
    Made(Made),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Ready(body) => Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {}),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
            Self::Made(made) => made.poll_frame(cx).map(|data| data.map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Made(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Made(_) => SizeHint::default(),
        }
    }
}

/// A body of up to three chunks, none of them copied.
#[derive(Debug, Default)]
pub struct ReplyBody {
    chunks: [Bytes; 3],
    next: usize,
}

impl From<[Bytes; 3]> for ReplyBody {
    fn from(chunks: [Bytes; 3]) -> Self {
        Self { chunks, next: 0 }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self { chunks: [bytes, Bytes::new(), Bytes::new()], next: 0 }
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.next < self.chunks.len() {
            let at = self.next;
            self.next += 1;
            let chunk = std::mem::take(&mut self.chunks[at]);
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.chunks[self.next..].iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.chunks[self.next..].iter().map(|chunk| chunk.len() as u64).sum())
    }
}

/// Pieces that may wait to be read.
const QUEUE: usize = 16;

/// A body that a future makes. The future runs only while the body is read, and ends with it: whoever goes away ends
/// what was done for him.
pub struct Made {
    /// `None` when it has ended.
    making: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    queue: mpsc::Receiver<Bytes>,
}

/// Where the maker of a body puts it.
pub struct Out(mpsc::Sender<Bytes>);

impl Out {
    /// Waits until there is room.
    pub async fn put(&self, bytes: Bytes) {
        // The queue ends with the body, and with it the maker: this never fails where it could be noticed.
        self.0.send(bytes).await.ok();
    }
}

impl Made {
    pub fn new<F: Future<Output = ()> + Send + 'static>(make: impl FnOnce(Out) -> F) -> Self {
        let (out, queue) = mpsc::channel(QUEUE);
        Self { making: Some(Box::pin(make(Out(out)))), queue }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Ok(bytes) = self.queue.try_recv() {
            return Poll::Ready(Some(bytes));
        }
        if let Some(making) = &mut self.making
            && making.as_mut().poll(cx).is_ready()
        {
            self.making = None;
        }
        match self.queue.poll_recv(cx) {
            // Its sender is gone with the maker.
            Poll::Ready(bytes) => Poll::Ready(bytes),
            Poll::Pending => Poll::Pending,
        }
    }
}
