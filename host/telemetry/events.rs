//! Recent events, for alerters and people.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mesh::observe::Event;

/// Events that are kept.
const KEPT: usize = 1024;

/// A bounded log of events, each with a number that only grows. Written by [`EventLog::run`] alone.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Number of the event after the newest.
    next: u64,
}

impl EventLog {
    /// Takes events until `stop`.
    pub async fn run(self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.events.len() == KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(event);
            kept.next += 1;
        }
    }

    /// The events from number `from` on that are still kept, and the number to ask from next.
    pub fn since(&self, from: u64) -> (Vec<Event>, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            usize::try_from(kept.next.saturating_sub(from)).unwrap_or(usize::MAX).min(kept.events.len());
        (kept.events.iter().skip(kept.events.len() - new).cloned().collect(), kept.next)
    }
}
