//! Components that are built beside the rounds, several at once: one that takes long, or has no end, holds up nothing
//! else.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::Runtime;
use super::folder::Sha;
use super::load::{self, Build, LoadError};

/// Each may take 1 GiB while it compiles.
const AT_ONCE_MAX: usize = 4;

/// Told when something was built: it is time for a round.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A component that a round has not seen before.
pub struct Wanted {
    pub label: String,
    pub sha: Sha,
    pub bytes: Cow<'static, [u8]>,
}

pub struct Building {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<Runtime>,
    wake: Option<Wake>,
    jobs: Mutex<Jobs>,
    /// Something was built.
    built: Condvar,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Wanted>,
    under_way: HashSet<Sha>,
    done: Vec<(Sha, Result<Build, LoadError>)>,
    threads: usize,
}

impl Building {
    pub fn new(runtime: Arc<Runtime>, wake: Option<Wake>) -> Self {
        Self { shared: Arc::new(Shared { runtime, wake, jobs: Mutex::default(), built: Condvar::new() }) }
    }

    /// Builds these, and nothing that was wanted before and has not been begun. Answers which are wanted for the first
    /// time.
    pub fn want(&self, wanted: Vec<Wanted>) -> HashSet<Sha> {
        let mut jobs = self.shared.jobs();
        let Jobs { queue, under_way, done, .. } = &mut *jobs;
        let known = |sha: &Sha| under_way.contains(sha) || done.iter().any(|(built, _)| built == sha);
        let before: HashSet<Sha> = queue.iter().map(|wanted| wanted.sha).collect();
        *queue = wanted.into_iter().filter(|wanted| !known(&wanted.sha)).collect();
        let new = queue.iter().map(|wanted| wanted.sha).filter(|sha| !before.contains(sha)).collect();
        for _ in jobs.threads..at_once().min(jobs.threads + jobs.queue.len()) {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("plugin-build".to_owned()).spawn(move || shared.work()) {
                Ok(_) => jobs.threads += 1,
                Err(error) if jobs.threads == 0 => {
                    let failed =
                        |wanted: Wanted| (wanted.sha, Err(LoadError::NoProcess("compile it", error.kind())));
                    let failed: Vec<_> = jobs.queue.drain(..).map(failed).collect();
                    jobs.done.extend(failed);
                }
                // Those that run do it all.
                Err(_) => break,
            }
        }
        new
    }

    /// Waits until none of these is being built, at most so long.
    pub fn wait(&self, shas: &HashSet<Sha>, patience: Duration) {
        let ends = Instant::now().checked_add(patience);
        let mut jobs = self.shared.jobs();
        while jobs.pending().any(|sha| shas.contains(sha)) {
            let left = ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            let waited = self.shared.built.wait_timeout(jobs, left);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was built since this was asked last.
    pub fn take(&self) -> Vec<(Sha, Result<Build, LoadError>)> {
        std::mem::take(&mut self.shared.jobs().done)
    }

    pub fn is_busy(&self) -> bool {
        let jobs = self.shared.jobs();
        jobs.pending().next().is_some() || !jobs.done.is_empty()
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // What is under way ends by itself, and nobody asks for it.
        self.shared.jobs().queue.clear();
    }
}

impl Jobs {
    fn pending(&self) -> impl Iterator<Item = &Sha> {
        self.under_way.iter().chain(self.queue.iter().map(|wanted| &wanted.sha))
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // No panic happens while it is held.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds until nothing is left to do.
    fn work(&self) {
        let mut jobs = self.jobs();
        while let Some(wanted) = jobs.queue.pop_front() {
            jobs.under_way.insert(wanted.sha);
            let others = jobs.queue.len() + jobs.under_way.len();
            drop(jobs);
            let threads = (cores() / others.min(at_once())).max(1);
            let build = || load::build(&self.runtime, &wanted.label, &wanted.bytes, threads);
            let built = catch_unwind(AssertUnwindSafe(build))
                .unwrap_or_else(|_| Err(LoadError::Compiler("it panicked".to_owned())));
            jobs = self.jobs();
            jobs.under_way.remove(&wanted.sha);
            jobs.done.push((wanted.sha, built));
            self.built.notify_all();
            if let Some(wake) = &self.wake {
                wake();
            }
        }
        jobs.threads -= 1;
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Never one alone, which could hold up all others.
fn at_once() -> usize {
    cores().clamp(2, AT_ONCE_MAX)
}
