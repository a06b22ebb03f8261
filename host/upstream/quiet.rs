//! Two futures of one task that wait for each other: each is polled when it was woken, and the task is not woken by
//! what they do to each other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Rounds within one poll of the task. A socket whose budget is spent wakes its waker and gets a new budget only when
/// the task has yielded, so going on for ever would be just that.
const ROUNDS_MAX: u32 = 16;

/// Who of the two has something to do.
#[derive(Debug, Default)]
struct Desk {
    work: AtomicBool,
    io: AtomicBool,
    /// The two are being polled: what is woken now is seen to without the task's being woken.
    open: AtomicBool,
    task: AtomicWaker,
}

impl Desk {
    fn wake(&self, who: &AtomicBool) {
        who.store(true, Ordering::SeqCst);
        if !self.open.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[derive(Debug)]
struct Work(Arc<Desk>);

impl Wake for Work {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake(&self.0.work);
    }
}

#[derive(Debug)]
struct Io(Arc<Desk>);

impl Wake for Io {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake(&self.0.io);
    }
}

#[derive(Debug)]
pub(super) struct Pair {
    desk: Arc<Desk>,
    work: Waker,
    io: Waker,
}

impl Pair {
    pub(super) fn new() -> Self {
        let desk = Arc::new(Desk::default());
        Self {
            work: Arc::new(Work(Arc::clone(&desk))).into(),
            io: Arc::new(Io(Arc::clone(&desk))).into(),
            desk,
        }
    }

    /// Before anything is polled: both are looked at once.
    pub(super) fn start(&self) {
        self.desk.work.store(true, Ordering::SeqCst);
        self.desk.io.store(true, Ordering::SeqCst);
    }

    /// Polls whoever was woken until nobody is. `io_ended` is set when there is nothing more to drive.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut work: Pin<&mut impl Future<Output = T>>,
        mut io: Pin<&mut impl Future>,
        io_ended: &mut bool,
    ) -> Poll<T> {
        let desk = &*self.desk;
        desk.task.register(cx.waker());
        let mut rounds = 0;
        loop {
            desk.open.store(true, Ordering::SeqCst);
            loop {
                rounds += 1;
                if rounds > ROUNDS_MAX {
                    desk.open.store(false, Ordering::SeqCst);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let mut idle = true;
                if desk.work.swap(false, Ordering::SeqCst) {
                    idle = false;
                    if let Poll::Ready(out) = work.as_mut().poll(&mut Context::from_waker(&self.work)) {
                        desk.open.store(false, Ordering::SeqCst);
                        return Poll::Ready(out);
                    }
                }
                if desk.io.swap(false, Ordering::SeqCst) && !*io_ended {
                    idle = false;
                    *io_ended = io.as_mut().poll(&mut Context::from_waker(&self.io)).is_ready();
                    if *io_ended {
                        desk.work.store(true, Ordering::SeqCst);
                    }
                }
                if idle {
                    break;
                }
            }
            desk.open.store(false, Ordering::SeqCst);
            // Woken by another thread between the last look and the closing.
            if !desk.work.load(Ordering::SeqCst) && !desk.io.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
    }

    /// Polls the connection alone, without leaving the task's waker with it.
    pub(super) fn poll_io<F: Future + Unpin>(&self, io: &mut F) -> Poll<F::Output> {
        self.desk.open.store(true, Ordering::SeqCst);
        let polled = Pin::new(io).poll(&mut Context::from_waker(&self.io));
        self.desk.open.store(false, Ordering::SeqCst);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_side_that_keeps_waking_itself_lets_the_task_yield() {
        let pair = Pair::new();
        pair.start();
        let mut polls = 0_u32;
        let mut io = pin!(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let mut work = pin!(pending::<()>());
        let mut ended = false;
        let both = poll_fn(|cx| {
            polls += 1;
            pair.poll(cx, work.as_mut(), io.as_mut(), &mut ended)
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), both).await.is_err());
        assert!(polls > 1, "the task was polled {polls} times");
    }

    #[tokio::test]
    async fn what_one_side_does_for_the_other_is_seen_at_once() {
        let pair = Pair::new();
        pair.start();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let mut io = pin!(poll_fn(|_| {
            if let Some(sender) = sender.take() {
                sender.send(7).expect("somebody waits");
            }
            Poll::<()>::Pending
        }));
        let mut work = pin!(receiver);
        let mut ended = false;
        let answer = poll_fn(|cx| pair.poll(cx, work.as_mut(), io.as_mut(), &mut ended)).await;
        assert_eq!(answer, Ok(7));
    }

    #[tokio::test]
    async fn another_thread_wakes_the_task() {
        let pair = Pair::new();
        pair.start();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.send(7)
        });
        let mut io = pin!(pending::<()>());
        let mut work = pin!(receiver);
        let mut ended = false;
        let answer = poll_fn(|cx| pair.poll(cx, work.as_mut(), io.as_mut(), &mut ended)).await;
        assert_eq!(answer, Ok(7));
        assert_eq!(thread.join().expect("no panic"), Ok(()));
    }
}
