use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::mesh::ids::Name;
use crate::mesh::plan::Strategy;
use crate::mesh::pool::Live;

/// Answers what it is told to, and remembers what it was asked.
struct Scripted {
    source: Arc<Source>,
    answer: Mutex<Result<Option<Plan>, PolicyFault>>,
    asked: AtomicU64,
}

impl Planner for Scripted {
    fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn plan(&self, _: &Pool) -> Result<Option<Plan>, PolicyFault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answer.lock().expect("not poisoned").clone()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn weighted(weights: &[u32]) -> Plan {
    Plan { strategy: Strategy::Weighted(weights.to_vec()), ttl: Duration::from_secs(10), why: "".into() }
}

fn planned(plan: Plan) -> (Arc<Scripted>, Arc<Planned>) {
    let source =
        Arc::new(Source { name: name("p"), version: "1".to_owned(), generation: 1, component: [0; 32] });
    let scripted = Scripted { source, answer: Mutex::new(Ok(Some(plan))), asked: AtomicU64::new(0) };
    let scripted = Arc::new(scripted);
    (Arc::clone(&scripted), Planned::new(scripted))
}

fn pool(version: u64) -> Arc<Pool> {
    let member = |slot| Member {
        slot: Slot(slot),
        instance: name("i"),
        node: name("n"),
        zone: None,
        weight: 100,
        tags: [].into(),
        live: Arc::new(Live::default()),
    };
    let members = vec![member(0), member(1)];
    Arc::new(Pool { id: PoolId(1), version, service: name("s"), members, loads_version: Arc::default() })
}

fn picked(planned: &Planned, pool: &Arc<Pool>, at_s: u64) -> Option<u32> {
    let ask = Ask { affinity: 0, random: 0, excluded: 0, now: Mono::from_secs(at_s) };
    planned.pick(pool, ask).expect("it cannot fault").map(|slot| slot.0)
}

#[test]
fn a_plan_holds_for_its_time_and_its_membership() {
    let (_, planned) = planned(weighted(&[0, 1]));
    let pool_1 = pool(1);
    assert_eq!(picked(&planned, &pool_1, 0), None, "nothing was planned yet");
    planned.refresh([&pool_1].into_iter(), Mono::from_secs(0));
    assert_eq!(picked(&planned, &pool_1, 9), Some(1));
    assert_eq!(picked(&planned, &pool_1, 10), None, "its time is over");
    assert_eq!(picked(&planned, &pool(2), 1), None, "its places are those of another membership");
    assert_eq!(planned.followed(), 1);
}

#[test]
fn a_planner_is_asked_when_something_changed_or_its_plan_ends() {
    let (scripted, planned) = planned(weighted(&[0, 1]));
    let asked = || scripted.asked.load(Ordering::Relaxed);
    let pool_1 = pool(1);
    for _ in 0..3 {
        planned.refresh([&pool_1].into_iter(), Mono::from_secs(0));
    }
    assert_eq!(asked(), 1);
    pool_1.loads_version.fetch_add(1, Ordering::Relaxed);
    planned.refresh([&pool_1].into_iter(), Mono::from_secs(1));
    assert_eq!(asked(), 2);
    planned.refresh([&pool(2)].into_iter(), Mono::from_secs(1));
    assert_eq!(asked(), 3);
    planned.refresh([&pool(2)].into_iter(), Mono::from_secs(6));
    assert_eq!(asked(), 4);
}

#[test]
fn a_planner_that_faults_leaves_its_plan_until_that_ends() {
    let (scripted, planned) = planned(weighted(&[1, 0]));
    let pool_1 = pool(1);
    planned.refresh([&pool_1].into_iter(), Mono::from_secs(0));
    *scripted.answer.lock().expect("not poisoned") = Err(PolicyFault::Trap(name("p")));
    pool_1.loads_version.fetch_add(1, Ordering::Relaxed);
    planned.refresh([&pool_1].into_iter(), Mono::from_secs(1));
    assert_eq!((picked(&planned, &pool_1, 9), picked(&planned, &pool_1, 10)), (Some(0), None));
    *scripted.answer.lock().expect("not poisoned") = Ok(None);
    planned.refresh([&pool_1].into_iter(), Mono::from_secs(2));
    assert_eq!(picked(&planned, &pool_1, 3), None, "it leaves the pool to others now");
}
