//! Components that are built beside the rounds, several at once: one that takes long, or has no end, holds up nothing
//! else.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
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
pub struct Wanted<'a> {
    pub label: &'a str,
    pub sha: Sha,
    pub bytes: &'a Cow<'static, [u8]>,
}

struct Job {
    label: String,
    sha: Sha,
    bytes: Cow<'static, [u8]>,
}

/// What a round began to build.
#[derive(Clone, Debug, Default)]
pub struct Begun(HashSet<Sha>);

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
    queue: VecDeque<Job>,
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
    pub fn want(&self, wanted: &[Wanted<'_>]) -> Begun {
        let mut jobs = self.shared.jobs();
        let Jobs { queue, under_way, done, .. } = &mut *jobs;
        let known = |sha: &Sha| under_way.contains(sha) || done.iter().any(|(built, _)| built == sha);
        let mut before: HashMap<Sha, Job> = queue.drain(..).map(|job| (job.sha, job)).collect();
        let mut begun = Begun::default();
        for wanted in wanted.iter().filter(|wanted| !known(&wanted.sha)) {
            queue.push_back(before.remove(&wanted.sha).unwrap_or_else(|| {
                begun.0.insert(wanted.sha);
                Job::of(wanted)
            }));
        }
        self.work_on(jobs);
        begun
    }

    /// Builds this one, too, unless it is being built.
    pub fn also(&self, wanted: &Wanted<'_>) -> Begun {
        let mut jobs = self.shared.jobs();
        let is_pending = jobs.pending().any(|sha| *sha == wanted.sha);
        if is_pending || jobs.done.iter().any(|(built, _)| *built == wanted.sha) {
            return Begun::default();
        }
        jobs.queue.push_back(Job::of(wanted));
        self.work_on(jobs);
        Begun([wanted.sha].into())
    }

    fn work_on(&self, mut jobs: MutexGuard<'_, Jobs>) {
        for _ in jobs.threads..at_once().min(jobs.threads + jobs.queue.len()) {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("plugin-build".to_owned()).spawn(move || shared.work()) {
                Ok(_) => jobs.threads += 1,
                Err(error) if jobs.threads == 0 => {
                    let failed = |job: Job| (job.sha, Err(LoadError::NoProcess("compile it", error.kind())));
                    let failed: Vec<_> = jobs.queue.drain(..).map(failed).collect();
                    jobs.done.extend(failed);
                }
                // Those that run do it all.
                Err(_) => break,
            }
        }
    }

    /// Waits until none of these is being built, at most so long.
    pub fn wait(&self, begun: &Begun, patience: Duration) {
        let ends = Instant::now().checked_add(patience);
        let mut jobs = self.shared.jobs();
        while jobs.pending().any(|sha| begun.0.contains(sha)) {
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

    /// Whether all of these are built, and were taken.
    pub fn has_built(&self, begun: &Begun) -> bool {
        let jobs = self.shared.jobs();
        let mut there = jobs.pending().chain(jobs.done.iter().map(|(sha, _)| sha));
        !there.any(|sha| begun.0.contains(sha))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // What is under way ends by itself, and nobody asks for it.
        self.shared.jobs().queue.clear();
    }
}

impl Begun {
    pub fn of(shas: HashSet<Sha>) -> Self {
        Self(shas)
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Job {
    fn of(wanted: &Wanted<'_>) -> Self {
        Self { label: wanted.label.to_owned(), sha: wanted.sha, bytes: wanted.bytes.clone() }
    }
}

impl Jobs {
    fn pending(&self) -> impl Iterator<Item = &Sha> {
        self.under_way.iter().chain(self.queue.iter().map(|job| &job.sha))
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
        while let Some(job) = jobs.queue.pop_front() {
            jobs.under_way.insert(job.sha);
            let others = jobs.queue.len() + jobs.under_way.len();
            drop(jobs);
            let threads = (cores() / others.min(at_once())).max(1);
            let build = || load::build(&self.runtime, &job.label, &job.bytes, threads);
            let built = catch_unwind(AssertUnwindSafe(build))
                .unwrap_or_else(|_| Err(LoadError::Compiler("it panicked".to_owned())));
            jobs = self.jobs();
            jobs.under_way.remove(&job.sha);
            jobs.done.push((job.sha, built));
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
