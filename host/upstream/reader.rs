//! Whoever waits for what a process says to one request, as the process's output sees him.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::SendError;
use crate::clock;
use crate::mesh::stall::Stall;

/// Messages of one request that may wait to be read; a reader that is slower holds the process up for a while. The
/// last place is the answer's.
const OUTPUT: usize = 256;

/// Where messages for him go. Shared by those that have one for him now.
#[derive(Debug)]
pub(super) struct Reader {
    messages: mpsc::Sender<Bytes>,
    state: Arc<State>,
}

/// His side.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::Receiver<Bytes>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// He was given up.
    is_slow: AtomicBool,
    /// He reads later, and that is no fault of his: what is asked of him has to be answered first.
    is_away: AtomicBool,
}

impl Reader {
    pub(super) fn new() -> (Arc<Self>, Messages) {
        let (messages, queue) = mpsc::channel(OUTPUT);
        let state = Arc::<State>::default();
        (Arc::new(Self { messages, state: Arc::clone(&state) }), Messages { queue, state })
    }

    fn is_away(&self) -> bool {
        self.state.is_away.load(Ordering::Acquire)
    }

    /// Whether a question finds room: none is passed over, for the process waits for its answer.
    pub(super) fn can_be_asked(&self) -> bool {
        !self.is_away() || self.messages.capacity() >= places(false)
    }

    /// Gives him a message, and waits for as long as `stall`, that of the process, lets him hold it up: for ever when
    /// it is `None`, the process is his own. While he is away what finds no room is passed over, except the answer.
    /// `false` when he reads too slowly and is to be given up.
    pub(super) async fn take(&self, message: Bytes, is_answer: bool, stall: Option<&mut Stall>) -> bool {
        let places = places(is_answer);
        match self.messages.try_reserve_many(places) {
            Ok(room) => {
                put(room, message);
                return true;
            }
            // Whoever went away meanwhile needs it no more.
            Err(mpsc::error::TrySendError::Closed(())) => return true,
            Err(mpsc::error::TrySendError::Full(())) if self.is_away() => return true,
            Err(mpsc::error::TrySendError::Full(())) => {}
        }
        let Some(stall) = stall else {
            // As above.
            if let Ok(room) = self.messages.reserve_many(places).await {
                put(room, message);
            }
            return true;
        };
        let left = stall.left(clock::mono());
        let room = tokio::time::timeout(left, self.messages.reserve_many(places)).await;
        stall.held_until(clock::mono());
        match room {
            Ok(Ok(room)) => put(room, message),
            // As above.
            Ok(Err(_)) => {}
            // He was asked something meanwhile.
            Err(_) if self.is_away() => {}
            Err(_) => {
                self.state.is_slow.store(true, Ordering::Release);
                return false;
            }
        }
        true
    }
}

/// How many must be free for a message.
const fn places(is_answer: bool) -> usize {
    if is_answer { 1 } else { 2 }
}

/// Leaves the places that it does not need.
fn put(mut room: mpsc::PermitIterator<'_, Bytes>, message: Bytes) {
    if let Some(place) = room.next() {
        place.send(message);
    }
}

impl Messages {
    /// What came before he was given up is still his.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, SendError>> {
        self.queue.poll_recv(cx).map(|message| match message {
            None if self.state.is_slow.load(Ordering::Acquire) => Err(SendError::SlowReader),
            message => Ok(message),
        })
    }

    /// He reads on later, or now again.
    pub(super) fn set_away(&self, is_away: bool) {
        self.state.is_away.store(is_away, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(messages: &mut Messages) -> Option<Bytes> {
        poll_fn(|cx| messages.poll_next(cx)).await.expect("he was not given up")
    }

    #[tokio::test]
    async fn who_is_away_gets_the_answer_however_much_was_said_before() {
        let (reader, mut messages) = Reader::new();
        let mut stall = Stall::new(clock::mono());
        messages.set_away(true);
        for _ in 0..2 * OUTPUT {
            assert!(reader.take(Bytes::from_static(b"more"), false, Some(&mut stall)).await);
        }
        assert!(!reader.can_be_asked());
        assert!(reader.take(Bytes::from_static(b"answer"), true, Some(&mut stall)).await);
        drop(reader);
        messages.set_away(false);
        let mut all = Vec::new();
        while let Some(message) = next(&mut messages).await {
            all.push(message);
        }
        assert_eq!((all.len(), &*all[OUTPUT - 1]), (OUTPUT, &b"answer"[..]));
    }

    #[tokio::test]
    async fn who_is_there_and_reads_nothing_is_given_up_after_what_came_before() {
        let (reader, mut messages) = Reader::new();
        let mut stall = Stall::new(clock::mono());
        let mut given = 0;
        while reader.take(Bytes::from_static(b"more"), false, Some(&mut stall)).await {
            given += 1;
        }
        assert_eq!(given, OUTPUT - 1);
        drop(reader);
        for _ in 0..given {
            assert!(next(&mut messages).await.is_some());
        }
        let end = poll_fn(|cx| messages.poll_next(cx)).await;
        assert!(matches!(end, Err(SendError::SlowReader)), "{end:?}");
    }
}
