//! Before a build comes into force, it is asked again what was asked lately, and so is the one that it replaces: what
//! would change, and what would it cost? Beside the data path, with instances that share no memory with those in force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::clock;
use super::fault::Fault;
use super::instance::{Class, Instance};
use super::load::Budget;
use super::loaded::Plugin;
use crate::mesh::ids::{CallId, Name, Slot};
use crate::mesh::plan::Plan;
use crate::mesh::pool::{Catalog, Member, Pool};
use crate::mesh::story::{RecordedCall, Recording};
use crate::mesh::verdict::Verdict;
use crate::policy::Ask;
use crate::policy::status::{Replay, ReplayExample};

/// Calls that are asked about again.
pub const CALLS_MAX: usize = 1_000;
/// For both builds together.
const TIME_MAX: Duration = Duration::from_secs(2);
/// After this time the build has waited long enough, when so many calls were asked about.
const TIME_USUAL: Duration = Duration::from_millis(200);
const ENOUGH: usize = 150;
const EXAMPLES_MAX: usize = 5;
/// What 99 of 100 answers may take when the plugin promises nothing else, in microseconds.
pub const BUDGET_US: f64 = 1_000.0;
/// Of fewer answers the slowest says nothing about the build.
const JUDGED_FROM: usize = 100;
/// Answers before the first one that is measured: a fresh instance touches its memory for the first time.
const WARM_UP: usize = 20;
/// Instances that the build before is given anew after its faults, for one kind of question.
const OLD_RENEWALS_MAX: usize = 5;

/// What speaks against a build that answered calls which are over.
#[derive(Debug, Error)]
pub enum Setback {
    #[error("asked again about the recorded call {call} (`{tool}` of `{service}`): {fault}")]
    Fault { call: CallId, service: Name, tool: String, fault: Fault },
    #[error("asked for a plan of `{service}`: {fault}")]
    PlanFault { service: Name, fault: Fault },
    #[error(
        "over its budget: 99 of 100 answers of `{question}` about {count} recorded calls took up to {p99_us:.0} µs, \
         and {budget_us:.0} µs are allowed"
    )]
    OverBudget { question: &'static str, count: usize, p99_us: f64, budget_us: f64 },
}

impl Setback {
    /// Whether the same build would fail again, as far as anyone can know.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Fault { fault, .. } | Self::PlanFault { fault, .. } => fault.by_guest(),
            Self::OverBudget { .. } => true,
        }
    }
}

/// Asks `before`, if there is one, and `after`, in turn, about each recorded call. `None` when there is nothing to be
/// asked. A router of which there was none before is compared with one that passes all calls on; who else decides when
/// a balancer or planner is new is not known here, so that nothing is compared.
///
/// # Errors
/// `after` is too slow for `budget`, or it faulted and `before` would go on. A first build that faults on some calls
/// is of use for the others: its fault is in the report.
pub fn replay(
    before: Option<&Plugin>,
    after: &Plugin,
    budget: Budget,
    recording: &Recording,
) -> Result<Option<Replay>, Setback> {
    let mut rehearsal = Rehearsal { before, after, began: Instant::now(), report: Replay::default() };
    match rehearsal.run(budget, recording) {
        Ok(asked) => Ok(asked.then_some(rehearsal.report)),
        Err(fault @ (Setback::Fault { .. } | Setback::PlanFault { .. })) if before.is_none() => {
            rehearsal.report.fault = Some(fault.to_string());
            Ok(Some(rehearsal.report))
        }
        Err(setback) => Err(setback),
    }
}

/// A build, the one before it, and what was found of them.
struct Rehearsal<'a> {
    before: Option<&'a Plugin>,
    after: &'a Plugin,
    began: Instant,
    report: Replay,
}

/// The instances and the times of one question.
struct Sides {
    /// `None` when no build before was of that kind, and when it cannot be asked any more.
    old: Option<Box<Instance>>,
    old_renewals: usize,
    new: Box<Instance>,
    old_us: Vec<f64>,
    new_us: Vec<f64>,
}

impl<'a> Rehearsal<'a> {
    /// Whether anything was asked.
    fn run(&mut self, budget: Budget, recording: &Recording) -> Result<bool, Setback> {
        let kinds = self.after.kinds();
        let mut asked = false;
        if kinds.contains(&"router") {
            asked |= self.routes(recording, budget.route_us)?;
        }
        if kinds.contains(&"balancer") {
            asked |= self.picks(recording, budget.pick_us)?;
        }
        if kinds.contains(&"planner") {
            asked |= self.plans(recording)?;
        }
        Ok(asked)
    }

    fn is_late(&self, asked: usize) -> bool {
        self.began.elapsed() >= if asked < ENOUGH { TIME_MAX } else { TIME_USUAL }
    }

    /// The build before, if it was of that kind.
    fn before(&self, kind: &str) -> Option<&'a Plugin> {
        self.before.filter(|before| before.kinds().contains(&kind))
    }

    fn sides(&self, kind: &str, call: &RecordedCall) -> Result<Sides, Setback> {
        let new = self.after.apart(Class::Hot).map_err(|fault| setback(call, fault))?;
        // The build in force may have come to its end; then the new one is asked alone.
        let old = self.before(kind).and_then(|before| before.apart(Class::Hot).ok());
        Ok(Sides { old, old_renewals: 0, new, old_us: Vec::new(), new_us: Vec::new() })
    }

    /// Asks the build before, and gives it another instance when it faulted: what takes its place is often what mends
    /// it. `None` when there is none of that kind, or it faulted too often; what then cannot be compared is counted.
    fn ask_old<T>(
        &mut self,
        kind: &str,
        sides: &mut Sides,
        catalog: &Catalog,
        question: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let before = self.before(kind)?;
        let Some(old) = sides.old.as_mut() else {
            self.report.uncompared += 1;
            return None;
        };
        let answer = timed(&mut sides.old_us, || question(old));
        if answer.as_ref().is_err_and(Fault::condemns) {
            let may = sides.old_renewals < OLD_RENEWALS_MAX;
            sides.old_renewals += 1;
            // One that cannot be made anew is not compared with; that is counted.
            sides.old = may.then(|| before.apart(Class::Hot).ok()).flatten();
            tell(&mut sides.old, catalog);
        }
        Some(answer)
    }

    /// An instance that was stopped can be asked nothing more, also when a busy machine is to blame.
    fn renew(&self, sides: &mut Sides, fault: &Fault, call: &RecordedCall) -> Result<(), Setback> {
        if fault.condemns() {
            sides.new = self.after.apart(Class::Hot).map_err(|fault| setback(call, fault))?;
        }
        Ok(())
    }

    fn routes(&mut self, recording: &Recording, budget_us: f64) -> Result<bool, Setback> {
        let Some((first, _)) = recording.calls.first() else { return Ok(false) };
        let is_first = self.before("router").is_none();
        let mut sides = self.sides("router", first)?;
        let catalog = &recording.catalog;
        tell(&mut sides.old, catalog);
        sides.new.tell(catalog).map_err(|fault| setback(first, fault))?;
        for (call, _) in &recording.calls {
            if self.is_late(sides.new_us.len()) {
                break;
            }
            let facts = call.facts(clock::now());
            let answer = timed(&mut sides.new_us, || sides.new.route(&facts, catalog));
            let has_read = sides.new.has_read_arguments();
            let after = match answer {
                Ok(decision) => decision.verdict,
                Err(fault) if fault.by_guest() && !has_read => return Err(setback(call, fault)),
                Err(fault) => {
                    self.report.unrepeatable += usize::from(has_read);
                    self.renew(&mut sides, &fault, call)?;
                    sides.new.tell(catalog).map_err(|fault| setback(call, fault))?;
                    continue;
                }
            };
            let mut old_has_read = false;
            let before = if is_first {
                Verdict::Pass.to_string()
            } else {
                let question = |old: &mut Instance| {
                    let answer = old.route(&facts, catalog);
                    old_has_read = old.has_read_arguments();
                    answer
                };
                match self.ask_old("router", &mut sides, catalog, question) {
                    Some(Ok(decision)) => decision.verdict.to_string(),
                    Some(Err(fault)) => fault.to_string(),
                    None => continue,
                }
            };
            if has_read || old_has_read {
                self.report.unrepeatable += 1;
            } else {
                self.compare(call, before, after.to_string());
            }
        }
        self.judge("route", &mut sides, budget_us)?;
        Ok(true)
    }

    fn picks(&mut self, recording: &Recording, budget_us: f64) -> Result<bool, Setback> {
        let pools = frozen(recording);
        let of = |service: &Name| pools.iter().find(|pool| pool.service == *service);
        let mut calls = recording.calls.iter().filter_map(|(call, took)| Some((call, of(took)?))).peekable();
        let Some((first, _)) = calls.peek() else { return Ok(false) };
        let mut sides = self.sides("balancer", first)?;
        for (call, pool) in calls {
            if self.is_late(sides.new_us.len()) {
                break;
            }
            let ask = Ask {
                affinity: call.affinity,
                random: call.random,
                excluded: unavailable(pool),
                now: clock::now(),
            };
            let after = match timed(&mut sides.new_us, || sides.new.pick(pool, ask)) {
                Ok(slot) => slot,
                Err(fault) if fault.by_guest() => return Err(setback(call, fault)),
                Err(fault) => {
                    self.renew(&mut sides, &fault, call)?;
                    continue;
                }
            };
            let question = |old: &mut Instance| old.pick(pool, ask);
            let before = match self.ask_old("balancer", &mut sides, &recording.catalog, question) {
                Some(Ok(slot)) => picked(pool, slot),
                Some(Err(fault)) => fault.to_string(),
                None => continue,
            };
            self.compare(call, before, picked(pool, after));
        }
        self.judge("pick", &mut sides, budget_us)?;
        Ok(true)
    }

    /// Plans decide for the calls of their pool: the same draws are made by both.
    fn plans(&mut self, recording: &Recording) -> Result<bool, Setback> {
        let mut asked = false;
        for pool in frozen(recording) {
            let mut calls = recording.calls.iter().filter(|(_, took)| *took == pool.service).peekable();
            if calls.peek().is_none() {
                continue;
            }
            if self.began.elapsed() >= TIME_MAX {
                break;
            }
            let after = match plan(self.after, &pool) {
                Ok(plan) => plan,
                Err(fault) if fault.by_guest() => {
                    return Err(Setback::PlanFault { service: pool.service.clone(), fault });
                }
                // A busy machine is to blame.
                Err(_) => continue,
            };
            asked = true;
            let Some(before) = self.before("planner") else { continue };
            let Ok(before) = plan(before, &pool) else {
                self.report.uncompared += calls.count();
                continue;
            };
            let pick = |plan: &Option<Plan>, call: &RecordedCall| {
                let slot =
                    plan.as_ref().and_then(|plan| plan.pick(&pool, |_| false, call.affinity, call.random));
                picked(&pool, slot.map(|slot| slot.0))
            };
            for (call, _) in calls {
                self.compare(call, pick(&before, call), pick(&after, call));
            }
        }
        Ok(asked)
    }

    fn compare(&mut self, call: &RecordedCall, before: String, after: String) {
        let report = &mut self.report;
        report.compared += 1;
        if before == after {
            return;
        }
        report.changed += 1;
        if report.examples.len() < EXAMPLES_MAX {
            report.examples.push(ReplayExample {
                call: call.id,
                service: call.service.to_string(),
                tool: call.tool.to_string(),
                before,
                after,
            });
        }
    }

    fn judge(&mut self, question: &'static str, sides: &mut Sides, budget_us: f64) -> Result<(), Setback> {
        let report = &mut self.report;
        let p99_us = p99(&mut sides.new_us);
        report.p99_us = report.p99_us.max(p99_us);
        if !sides.old_us.is_empty() {
            let before = p99(&mut sides.old_us);
            report.p99_us_before = Some(report.p99_us_before.map_or(before, |other| other.max(before)));
        }
        let count = sides.new_us.len();
        if count >= JUDGED_FROM && p99_us > budget_us {
            return Err(Setback::OverBudget { question, count, p99_us, budget_us });
        }
        Ok(())
    }
}

/// Beforehand, so that it is not part of the first answer's time.
fn tell(old: &mut Option<Box<Instance>>, catalog: &Catalog) {
    if let Some(old) = old {
        // What it cannot be told it is told again with the next call, which then says what is wrong.
        old.tell(catalog).ok();
    }
}

/// Pools whose figures stand still: all are asked about the same moment.
fn frozen(recording: &Recording) -> Vec<Arc<Pool>> {
    recording.pools.iter().map(|pool| Arc::new(pool.frozen())).collect()
}

/// By an instance of its own, with the limits of one that plans.
fn plan(plugin: &Plugin, pool: &Pool) -> Result<Option<Plan>, Fault> {
    plugin.apart(Class::Background)?.compile(pool)
}

fn setback(call: &RecordedCall, fault: Fault) -> Setback {
    Setback::Fault { call: call.id, service: call.service.clone(), tool: call.tool.to_string(), fault }
}

/// In time on the processor, where it can be known: a busy machine is not the plugin's fault.
fn timed<T>(times_us: &mut Vec<f64>, question: impl FnOnce() -> T) -> T {
    let (started, cpu) = (Instant::now(), clock::thread_cpu());
    let answer = question();
    let took =
        cpu.zip(clock::thread_cpu()).map_or_else(|| started.elapsed(), |(from, to)| to.saturating_sub(from));
    times_us.push(took.as_secs_f64() * 1e6);
    answer
}

/// What 99 of 100 did not exceed, the first ones left out; 0 of none.
fn p99(times_us: &mut Vec<f64>) -> f64 {
    if times_us.len() > WARM_UP * 2 {
        times_us.drain(..WARM_UP);
    }
    times_us.sort_by(f64::total_cmp);
    let rank = times_us.len() - times_us.len() / 100;
    rank.checked_sub(1).map_or(0.0, |at| times_us[at])
}

fn unavailable(pool: &Pool) -> u64 {
    let is_out = |member: &&Member| member.slot.0 < 64 && member.live.share_permille() == 0;
    pool.members.iter().filter(is_out).fold(0, |bits, member| bits | 1 << member.slot.0)
}

fn picked(pool: &Pool, slot: Option<u32>) -> String {
    match slot {
        None => "left to the next".to_owned(),
        Some(slot) => match pool.member(Slot(slot)) {
            Some(member) => member.instance.to_string(),
            None => format!("slot {slot}, which does not exist"),
        },
    }
}
