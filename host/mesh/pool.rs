//! The instances of one service as balancers see them, with their live figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::ids::{Name, PoolId, Slot};
use super::time::Mono;

/// Figures of one instance that calls change and everything else reads. Shared by all snapshots that know the
/// instance; every field is a single atomic, so a reader may see a call half accounted for, never torn.
#[derive(Debug)]
pub struct Live {
    in_flight: AtomicU32,
    /// Calls that it takes at once.
    limit: AtomicU32,
    /// Peak-sensitive moving average of call latency in microseconds; 0 before the first call.
    ewma_us: AtomicU32,
    /// When `ewma_us` was last written, as [`Mono`] microseconds.
    ewma_at: AtomicU64,
    /// Successes of 1000 over the last 10 s, kept by the health task.
    success_permille: AtomicU32,
    /// 0-100, kept by the health task; 0 means: not routed to.
    score: AtomicU8,
    /// Share of its weight that the instance gets now, 0-1000 (health state times slow start).
    share_permille: AtomicU32,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            ewma_us: AtomicU32::new(0),
            ewma_at: AtomicU64::new(0),
            success_permille: AtomicU32::new(1000),
            score: AtomicU8::new(100),
            share_permille: AtomicU32::new(1000),
        }
    }
}

/// Decay time of the moving average of latency.
pub const EWMA_DECAY: Duration = Duration::from_secs(10);
/// An average that is not fed for so long fades.
const FADE_AFTER: Duration = Duration::from_secs(2);
/// To a thousandth within 10 s.
const FADED_IN_A_SECOND: f64 = 0.5;

impl Live {
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether it takes no call more.
    pub fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) >= self.limit()
    }

    /// Counts a call in unless it is full. Never beyond the limit, not even for a moment: others would find it full.
    pub fn try_enter(self: &Arc<Self>) -> Option<InFlight> {
        let limit = self.limit();
        let one_more = |in_flight| (in_flight < limit).then_some(in_flight + 1);
        let entered = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        entered.is_ok().then(|| InFlight(Arc::clone(self)))
    }

    /// Counts a call in; the guard counts it out.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    pub fn ewma_us(&self) -> u32 {
        self.ewma_us.load(Ordering::Relaxed)
    }

    /// Begins the average anew: what came before was another state of the instance.
    pub fn start_anew(&self, now: Mono, latency: Duration) {
        self.ewma_us.store(0, Ordering::Relaxed);
        self.observe(now, latency);
    }

    /// Called each second: without calls, the average says less and less, so that an instance that was slow, or
    /// failed, is tried again.
    pub fn fade(&self, now: Mono) {
        let last = Mono::from_micros(self.ewma_at.load(Ordering::Relaxed));
        if self.in_flight() == 0 && now.since(last) > FADE_AFTER {
            let faded = f64::from(self.ewma_us.load(Ordering::Relaxed)) * FADED_IN_A_SECOND;
            self.ewma_us.store(faded as u32, Ordering::Relaxed);
        }
    }

    /// Whether calls are under way and none was answered for so long.
    pub fn is_silent(&self, now: Mono, since: Duration) -> bool {
        let last = Mono::from_micros(self.ewma_at.load(Ordering::Relaxed));
        self.in_flight() > 0 && now.since(last) > since
    }

    /// Feeds one latency: a higher one counts at once, a lower one moves the average by its age
    /// (peak-EWMA as in Finagle's balancer).
    pub fn observe(&self, now: Mono, latency: Duration) {
        let sample = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.ewma_us.load(Ordering::Relaxed);
        let last = self.ewma_at.swap(now.as_micros(), Ordering::Relaxed);
        let next = if before == 0 || sample >= before {
            sample
        } else {
            let age_s = now.since(Mono::from_micros(last)).as_secs_f64();
            let keep = (-age_s / EWMA_DECAY.as_secs_f64()).exp();
            (f64::from(before) * keep + f64::from(sample) * (1.0 - keep)) as u32
        };
        self.ewma_us.store(next.max(1), Ordering::Relaxed);
    }

    pub fn success_permille(&self) -> u32 {
        self.success_permille.load(Ordering::Relaxed)
    }

    pub fn score(&self) -> u8 {
        self.score.load(Ordering::Relaxed)
    }

    pub fn share_permille(&self) -> u32 {
        self.share_permille.load(Ordering::Relaxed)
    }

    /// What the health task found: score 0-100, share of the weight 0-1000, successes of 1000 over the
    /// last 10 s.
    pub fn set_health(&self, score: u8, share_permille: u32, success_permille: u32) {
        self.score.store(score, Ordering::Relaxed);
        self.share_permille.store(share_permille, Ordering::Relaxed);
        self.success_permille.store(success_permille, Ordering::Relaxed);
    }

    /// Others are picked until the health is set again.
    pub fn pass_over(&self) {
        self.share_permille.store(0, Ordering::Relaxed);
    }
}

impl Live {
    /// The figures as they are now, which do not change any more.
    fn frozen(&self) -> Self {
        Self {
            in_flight: AtomicU32::new(self.in_flight()),
            limit: AtomicU32::new(self.limit()),
            ewma_us: AtomicU32::new(self.ewma_us()),
            ewma_at: AtomicU64::new(self.ewma_at.load(Ordering::Relaxed)),
            success_permille: AtomicU32::new(self.success_permille()),
            score: AtomicU8::new(self.score()),
            share_permille: AtomicU32::new(self.share_permille()),
        }
    }
}

/// A call that an instance is working on; dropping it counts the call out.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One instance in its pool.
#[derive(Clone, Debug)]
pub struct Member {
    pub slot: Slot,
    pub instance: Name,
    pub node: Name,
    pub zone: Option<Name>,
    /// 1-1000, 100 unless registered otherwise.
    pub weight: u16,
    pub tags: Arc<[Name]>,
    pub live: Arc<Live>,
}

/// The membership of a service at one moment. `version` grows with each change of the members; `loads_version`
/// is shared by all versions of the pool and grows when figures that balancers are told about changed.
#[derive(Debug)]
pub struct Pool {
    pub id: PoolId,
    pub version: u64,
    pub service: Name,
    pub members: Vec<Member>,
    pub loads_version: Arc<AtomicU64>,
}

impl Pool {
    pub fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.iter().find(|member| member.slot == slot)
    }

    /// The pool with its figures as they are now.
    pub fn frozen(&self) -> Self {
        let frozen = |member: &Member| Member { live: Arc::new(member.live.frozen()), ..member.clone() };
        Self {
            id: self.id,
            version: self.version,
            service: self.service.clone(),
            members: self.members.iter().map(frozen).collect(),
            loads_version: Arc::new(AtomicU64::new(self.loads_version.load(Ordering::Relaxed))),
        }
    }
}

/// One service as routers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogService {
    pub name: Name,
    pub tags: Vec<Name>,
    pub tools: Vec<String>,
    pub instances: u32,
    pub healthy: u32,
}

/// All services as routers see them. `version` grows with each change.
#[derive(Debug, Default)]
pub struct Catalog {
    pub version: u64,
    pub services: Vec<CatalogService>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_fades_and_what_is_busy_does_not() {
        let (live, second) = (Arc::new(Live::default()), Mono::from_secs);
        live.observe(second(10), Duration::from_secs(5));
        live.fade(second(11));
        assert_eq!(live.ewma_us(), 5_000_000, "it was just asked");
        let entered = live.enter();
        live.fade(second(60));
        assert_eq!(live.ewma_us(), 5_000_000, "it is at work");
        assert!(live.is_silent(second(60), Duration::from_secs(3)));
        drop(entered);
        (0..10).for_each(|at| live.fade(second(60 + at)));
        assert!(live.ewma_us() < 5_000, "{}", live.ewma_us());
        live.start_anew(second(80), Duration::from_millis(2));
        assert_eq!(live.ewma_us(), 2_000);
        assert!(!live.is_silent(second(100), Duration::from_secs(3)), "nothing is under way");
    }

    #[test]
    fn an_instance_takes_no_more_calls_than_its_limit() {
        let live = Arc::new(Live::default());
        live.set_limit(2);
        let calls = [live.try_enter(), live.try_enter()];
        assert!(calls.iter().all(Option::is_some) && live.is_full());
        assert!(live.try_enter().is_none());
        assert_eq!(live.in_flight(), 2, "who was turned away is not counted");
        drop(calls);
        assert!(!live.is_full() && live.try_enter().is_some());
    }
}
