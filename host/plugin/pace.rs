//! Whether a generation keeps its latency budgets while it is in force. As long as answers are quick by the wall clock
//! nothing more is measured; when they are not, processor time decides, since a busy machine is not the plugin's fault.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::hot::{Hot, QUESTIONS, Question};
use super::stats::Times;

/// Answers from which on their times are judged: one in eight is timed.
pub const JUDGED_FROM: u64 = 200;
/// Windows in a row over the budget that bring a rest.
const WINDOWS_MAX: u32 = 2;

/// What was seen of one kind of question.
#[derive(Default)]
struct Track {
    /// Up to the end of the window before.
    wall: Times,
    cpu: Times,
    /// By the wall clock it was over its budget, so that processor time is taken.
    is_watched: bool,
    /// Windows over the budget in a row.
    over: u32,
}

/// Looked at beside the calls.
#[derive(Default)]
pub struct Pace(Mutex<[Track; QUESTIONS.len()]>);

impl Pace {
    /// Judges what was answered since the last look, if that is enough. The plugin rests when it was too slow twice in
    /// a row.
    pub fn look(&self, hot: &Hot) {
        let plugin = hot.plugin();
        // What gives way is judged by its probation.
        if hot.rests() || hot.gives_way() {
            return;
        }
        // A panic leaves a window that is longer than others.
        let mut tracks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_watched = tracks.iter().any(|track| track.is_watched);
        for (track, question) in tracks.iter_mut().zip(QUESTIONS) {
            let budget_us = plugin.budget.of(question);
            // One rest for both questions is enough.
            if let Some(p99_us) = track.exceeds(hot, question, budget_us).filter(|_| !hot.rests()) {
                plugin.health.too_slow(&format!(
                    "over its latency budget: p99 {p99_us:.0} µs of {budget_us:.0} µs in `{}`",
                    question.as_str()
                ));
            }
        }
        let is_watched = tracks.iter().any(|track| track.is_watched);
        if was_watched && !is_watched {
            plugin.health.kept_pace();
        }
        plugin.is_watched.store(is_watched, Ordering::Relaxed);
    }
}

impl Track {
    /// What 99 of 100 answers took of the second window in a row over the budget.
    fn exceeds(&mut self, hot: &Hot, question: Question, budget_us: f64) -> Option<f64> {
        if !self.is_watched {
            let wall = hot.answered(question);
            let window = wall.since(&self.wall);
            if window.count() >= JUDGED_FROM {
                self.wall = wall;
                self.is_watched = window.p99_us() > budget_us;
                self.cpu = hot.computed(question);
            }
            return None;
        }
        let cpu = hot.computed(question);
        let window = cpu.since(&self.cpu);
        if window.count() < JUDGED_FROM {
            return None;
        }
        self.cpu = cpu;
        if window.p99_us_at_least() <= budget_us {
            (self.is_watched, self.over) = (false, 0);
            self.wall = hot.answered(question);
            return None;
        }
        self.over += 1;
        (self.over >= WINDOWS_MAX).then(|| {
            self.over = 0;
            window.p99_us()
        })
    }
}
