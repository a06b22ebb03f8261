//! The health of an instance: a score from its calls and probes, a state from the score, and the share of its
//! weight that it gets. Judged once a second.

use std::time::Duration;

use super::time::Mono;

pub const HEALTHY_SCORE: u8 = 80;
pub const DEGRADED_SCORE: u8 = 50;
/// How far above a state's threshold the score must be, twice running, to go up to it.
pub const MARGIN: u8 = 5;
/// Good probes in a row, since the state last fell, without which it does not rise.
pub const GOOD_PROBES: u32 = 2;
/// Probes failed in a row that make an instance unhealthy.
pub const FAILED_PROBES: u32 = 3;
/// How long connections must have been refused for an instance to be dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(120);
/// How long an instance that got nothing takes back to its whole share.
pub const RAMP: Duration = Duration::from_secs(30);

const WINDOW_SECONDS: u64 = 30;
/// What balancers go by is younger: who is kept from calls for those that failed gets none that could prove it well.
const RECENT_SECONDS: u64 = 10;
const PROBES: u32 = 5;
const FRESH: Duration = Duration::from_secs(60);
/// Heartbeat age at which freshness is 0. A lease that is older and has not expired is held by the mass-expiry guard.
const STALE: Duration = Duration::from_secs(120);

/// Ordered from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthState {
    /// Never routed to.
    Dead,
    Unhealthy,
    /// Used when nothing better is free.
    Degraded,
    Healthy,
}

impl HealthState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
            Self::Healthy => "healthy",
        }
    }

    const fn weight_permille(self) -> u32 {
        match self {
            Self::Healthy => 1000,
            Self::Degraded => 250,
            Self::Unhealthy | Self::Dead => 0,
        }
    }

    fn of_score(score: u8) -> Self {
        match score {
            HEALTHY_SCORE.. => Self::Healthy,
            DEGRADED_SCORE.. => Self::Degraded,
            _ => Self::Unhealthy,
        }
    }
}

/// What is known of an instance at a tick, apart from its probes.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// Calls that succeeded and that failed, since the counters began.
    pub ok_total: u64,
    pub failed_total: u64,
    /// 3 · the pool's median latency / the instance's own, compared per tool; 1 or more is fine, and so is NaN (no
    /// calls to compare).
    pub latency_ratio: f64,
    /// Since the last accepted heartbeat; `None` for supervised and static instances. Judged by the default lease
    /// times, 60 s and 120 s: scale it when they are others.
    pub heartbeat_age: Option<Duration>,
    /// The lease expired or the child exited.
    pub gone: bool,
    /// The last connection attempt of a call was refused.
    pub refused: bool,
    /// A breaker's trial succeeded since the last tick: calls before it say nothing more.
    pub proven: bool,
}

/// The outcome of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed<'a> {
    Good,
    /// The connection was refused.
    Refused,
    /// Why it failed.
    Bad(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    pub state: HealthState,
    /// 0-100, the formula's value whatever the state is.
    pub score: u8,
    /// Share of its weight that the instance gets now.
    pub share_permille: u32,
    /// Of the last 30 s, with a prior of 2 good samples.
    pub success_permille: u32,
    /// The same of the last 10 s, for balancers.
    pub recent_permille: u32,
    /// A short phrase for people; empty when healthy.
    pub reason: String,
    /// Whether the state is another than at the last tick.
    pub changed: bool,
    /// Failed in a row until now.
    pub probe_failures: u32,
}

impl Assessment {
    /// The score as [`Live::set_health`](super::pool::Live::set_health) and balancers take it: 0 when not routed to.
    pub fn routed_score(&self) -> u8 {
        if self.share_permille == 0 { 0 } else { self.score.max(1) }
    }

    /// Whether it gets no calls because most of those that it had failed, and its probes do not.
    pub fn is_for_calls(&self) -> bool {
        self.state == HealthState::Unhealthy && self.probe_failures == 0 && self.success_permille < 500
    }
}

#[derive(Clone, Debug)]
pub struct Health {
    state: HealthState,
    since: Mono,
    score: u8,
    window: Window,
    probes: Probes,
    refused_since: Option<Mono>,
    /// The better state that the last tick's score allowed.
    rising_to: Option<HealthState>,
    /// When it last began to get calls again.
    recovered_at: Option<Mono>,
}

impl Health {
    /// Also for a child that was started anew, or an instance that registered again after its lease had expired: the
    /// past of another process says nothing about it. Healthy, at full share.
    pub fn new(now: Mono) -> Self {
        Self {
            state: HealthState::Healthy,
            since: now,
            score: 100,
            window: Window::default(),
            probes: Probes::default(),
            refused_since: None,
            rising_to: None,
            recovered_at: None,
        }
    }

    pub fn state(&self) -> HealthState {
        self.state
    }

    pub fn since(&self) -> Mono {
        self.since
    }

    pub fn score(&self) -> u8 {
        self.score
    }

    /// Acts at the next tick.
    pub fn probe(&mut self, now: Mono, probed: Probed<'_>) {
        self.probes.push(probed);
        match probed {
            Probed::Good => self.refused_since = None,
            Probed::Refused => drop(self.refused_since.get_or_insert(now)),
            Probed::Bad(_) => {}
        }
    }

    /// Probing stopped because it can say nothing (a 401): until the next probe, calls alone decide.
    pub fn unprobed(&mut self) {
        self.probes = Probes { stopped: true, ..Probes::default() };
    }

    pub fn tick(&mut self, now: Mono, inputs: &Inputs) -> Assessment {
        if inputs.proven {
            self.window = Window::default();
        }
        self.window.advance(now, inputs.ok_total, inputs.failed_total);
        if inputs.refused || self.probes.last_refused {
            self.refused_since.get_or_insert(now);
        } else {
            self.refused_since = None;
        }
        let losses = Losses::of(&self.window, &self.probes, inputs);
        self.score = losses.score();

        let before = self.state;
        let target = self.target(now, inputs);
        if target < before {
            self.rising_to = None;
            self.probes.good_since_fall = 0;
            self.enter(target, now);
        } else {
            self.rise(now, target);
        }
        Assessment {
            state: self.state,
            score: self.score,
            share_permille: self.state.weight_permille() * self.ramp_permille(now) / 1000,
            success_permille: permille(self.window.success()),
            recent_permille: permille(self.window.recent_success()),
            reason: self.reason(now, target, inputs, &losses),
            changed: self.state != before,
            probe_failures: self.probes.failed_in_row,
        }
    }

    /// The state that this second's figures ask for, without regard to the one it is in.
    fn target(&self, now: Mono, inputs: &Inputs) -> HealthState {
        if inputs.gone || self.refused_too_long(now) {
            return HealthState::Dead;
        }
        if self.probes.failed_in_row >= FAILED_PROBES {
            return HealthState::Unhealthy;
        }
        HealthState::of_score(self.score).min(best_for_age(inputs))
    }

    /// Goes up when the score was high enough for it at the last tick too: then to the lower of the two.
    fn rise(&mut self, now: Mono, target: HealthState) {
        let allowed = HealthState::of_score(self.score.saturating_sub(MARGIN)).min(target);
        let rising_to = (allowed > self.state).then_some(allowed);
        let twice = rising_to.zip(self.rising_to).map(|(one, other)| one.min(other));
        self.rising_to = rising_to;
        if let Some(up) = twice
            && self.probes.allow_rise()
        {
            // A degraded instance has been at work all along and needs no slow start.
            if self.state.weight_permille() == 0 {
                self.recovered_at = Some(now);
            }
            self.enter(up, now);
        }
    }

    fn enter(&mut self, state: HealthState, now: Mono) {
        self.state = state;
        self.since = now;
    }

    fn refused_too_long(&self, now: Mono) -> bool {
        self.refused_since.is_some_and(|since| now.since(since) >= DEAD_AFTER)
    }

    fn ramp_permille(&self, now: Mono) -> u32 {
        self.recovered_at.map_or(1000, |since| {
            let part = now.since(since).as_secs_f64() / RAMP.as_secs_f64();
            100 + (900.0 * part.min(1.0)) as u32
        })
    }

    fn reason(&self, now: Mono, target: HealthState, inputs: &Inputs, losses: &Losses) -> String {
        if self.state == HealthState::Healthy {
            return String::new();
        }
        if inputs.gone {
            return "its lease expired or its process exited".to_owned();
        }
        if self.refused_too_long(now) {
            return format!("connections refused for {} s", DEAD_AFTER.as_secs());
        }
        if self.probes.failed_in_row >= FAILED_PROBES {
            return format!("{} probes in a row failed: {}", self.probes.failed_in_row, self.probes.why);
        }
        if target > self.state {
            return if self.probes.allow_rise() {
                "recovering: the score must stay up".to_owned()
            } else {
                format!("recovering: {} of {GOOD_PROBES} good probes", self.probes.good_since_fall)
            };
        }
        if HealthState::of_score(self.score) > best_for_age(inputs) {
            return losses.name_age(inputs);
        }
        losses.name_greatest(&self.window, &self.probes, inputs)
    }
}

/// The best state that the heartbeat's age allows: held leases count as degraded.
fn best_for_age(inputs: &Inputs) -> HealthState {
    let held = inputs.heartbeat_age.is_some_and(|age| age >= STALE);
    if held { HealthState::Degraded } else { HealthState::Healthy }
}

/// Points lost for each of the score's parts:
/// `score = 100 · (0.5·success + 0.2·latency + 0.2·probes + 0.1·freshness)`.
struct Losses {
    success: f64,
    latency: f64,
    probes: f64,
    freshness: f64,
}

impl Losses {
    fn of(window: &Window, probes: &Probes, inputs: &Inputs) -> Self {
        // Written so that NaN counts as 1.
        let latency = if inputs.latency_ratio < 1.0 { inputs.latency_ratio.max(0.0) } else { 1.0 };
        let age = inputs.heartbeat_age.unwrap_or_default();
        let overdue = age.saturating_sub(FRESH).as_secs_f64() / (STALE - FRESH).as_secs_f64();
        Self {
            success: 50.0 * (1.0 - window.success()),
            latency: 20.0 * (1.0 - latency),
            probes: 20.0 * f64::from(probes.failed()) / f64::from(PROBES),
            freshness: 10.0 * overdue.min(1.0),
        }
    }

    /// Rounded down, so that a score shown as 80 has reached 80; the epsilon forgives binary fractions.
    fn score(&self) -> u8 {
        (100.0 - self.success - self.latency - self.probes - self.freshness + 1e-9) as u8
    }

    fn name_greatest(&self, window: &Window, probes: &Probes, inputs: &Inputs) -> String {
        let greatest = self.success.max(self.latency).max(self.probes).max(self.freshness);
        if greatest <= self.success {
            let (ok, failed) = window.sums();
            let calls = ok + failed;
            format!("{} % of {calls} calls succeeded", ok * 100 / calls.max(1))
        } else if greatest <= self.latency {
            let times = 3.0 / inputs.latency_ratio.max(0.003);
            format!("calls take {times:.0} times as long as the pool's median")
        } else if greatest <= self.probes {
            format!("{} of the last {PROBES} probes failed", probes.failed())
        } else {
            self.name_age(inputs)
        }
    }

    fn name_age(&self, inputs: &Inputs) -> String {
        format!("no heartbeat for {} s", inputs.heartbeat_age.unwrap_or_default().as_secs())
    }
}

fn permille(ratio: f64) -> u32 {
    (ratio * 1000.0).round() as u32
}

#[derive(Clone, Debug, Default)]
struct Probes {
    /// A bit for each failed one of the last [`PROBES`]; those not made yet count as good.
    failed_bits: u8,
    failed_in_row: u32,
    good_since_fall: u32,
    last_refused: bool,
    stopped: bool,
    /// Why the last one failed, if it did.
    why: String,
}

impl Probes {
    fn push(&mut self, probed: Probed<'_>) {
        let ok = probed == Probed::Good;
        self.stopped = false;
        self.failed_bits = ((self.failed_bits << 1) | u8::from(!ok)) & ((1 << PROBES) - 1);
        self.failed_in_row = if ok { 0 } else { self.failed_in_row.saturating_add(1) };
        self.good_since_fall = if ok { self.good_since_fall.saturating_add(1) } else { 0 };
        self.last_refused = probed == Probed::Refused;
        self.why.clear();
        self.why.push_str(match probed {
            Probed::Good => "",
            Probed::Refused => "the connection was refused",
            Probed::Bad(why) => why,
        });
    }

    fn failed(&self) -> u32 {
        self.failed_bits.count_ones()
    }

    fn allow_rise(&self) -> bool {
        self.stopped || self.good_since_fall >= GOOD_PROBES
    }
}

mod window;
use window::Window;

#[cfg(test)]
mod tests;
