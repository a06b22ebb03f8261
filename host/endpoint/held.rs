//! Calls that wait for a modern client's input while a legacy instance waits for the answer to its question.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::relay::Waiting;

/// How long a client has to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// Calls that may wait at once.
const HELD_MAX: usize = 1000;
/// What marks the state of such a call.
const MARK: &str = "mwh:";

#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<String, (Instant, Waiting)>>);

impl Held {
    /// Keeps a call, and gives back the state under which it is found again.
    pub fn put(&self, waiting: Waiting) -> String {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        let state = format!("{MARK}{}", hex::encode(bytes));
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD_MAX {
            let oldest = held.iter().min_by_key(|(_, (until, _))| *until).map(|(state, _)| state.clone());
            oldest.map(|state| held.remove(&state));
        }
        held.insert(state.clone(), (Instant::now() + PATIENCE, waiting));
        state
    }

    /// Whether a state is of this kind at all.
    pub fn is_one(state: &str) -> bool {
        state.starts_with(MARK)
    }

    pub fn take(&self, state: &str) -> Option<Waiting> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(state).filter(|(until, _)| *until > Instant::now()).map(|(_, waiting)| waiting)
    }

    /// Lets go of calls whose clients did not come back.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (until, _)| *until > now);
    }
}
