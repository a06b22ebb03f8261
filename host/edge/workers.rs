//! The threads that serve connections: each has a runtime of its own and keeps a connection to its end, so that a
//! call never changes threads.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::serve::{Edge, Port};
use crate::worker;

/// Connections that may wait for a worker to take them.
const QUEUE: usize = 1024;

/// How the workers' connections end.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// From here on each connection ends with the request that is under way.
    pub last_request: CancellationToken,
    /// From here on nothing is waited for.
    pub cut: CancellationToken,
}

/// The way to the workers.
pub struct Workers {
    queues: Vec<mpsc::Sender<(TcpStream, Port)>>,
    next: AtomicUsize,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads. `each` runs first on each of them. They end as `ends` says.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(
        count: usize,
        edge: &Arc<Edge>,
        ends: &Ends,
        each: impl Fn(usize) + Send + Clone + 'static,
    ) -> std::io::Result<Self> {
        let mut queues = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (queue, connections) = mpsc::channel(QUEUE);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (edge, ends, each) = (Arc::clone(edge), ends.clone(), each.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                worker::set(index);
                each(index);
                runtime.block_on(run(edge, connections, ends));
            })?;
            queues.push(queue);
            threads.push(thread);
        }
        Ok(Self { queues, next: AtomicUsize::new(0), threads })
    }

    /// Hands a connection to the next worker.
    pub async fn take(&self, stream: TcpStream, port: Port) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        if self.queues[index].send((stream, port)).await.is_err() {
            tracing::debug!("worker ended, connection dropped");
        }
    }

    /// Waits for the threads to end; the tokens given to `start` must have been cancelled.
    pub fn join(self) {
        drop(self.queues);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

async fn run(edge: Arc<Edge>, mut connections: mpsc::Receiver<(TcpStream, Port)>, ends: Ends) {
    let tracker = TaskTracker::new();
    loop {
        tokio::select! {
            () = ends.last_request.cancelled() => break,
            next = connections.recv() => match next {
                None => break,
                Some((stream, port)) => match tokio::net::TcpStream::from_std(stream) {
                    Ok(stream) => {
                        tracker.spawn(Arc::clone(&edge).serve(stream, port, ends.last_request.clone()));
                    }
                    Err(error) => tracing::warn!(error = %error, "connection cannot be served"),
                },
            }
        }
    }
    tracker.close();
    // What is cut ends with the runtime, when it is dropped: its accounts are closed then.
    ends.cut.run_until_cancelled(tracker.wait()).await;
}
