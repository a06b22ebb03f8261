use proptest::prelude::*;

use super::*;

const TIMES: LeaseTimes =
    LeaseTimes { suspect_after: Duration::from_secs(60), ttl: Duration::from_secs(120) };

fn at(secs: u64) -> Mono {
    Mono::from_secs(secs)
}

fn sweep_all(leases: &mut [Lease], now: Mono) -> Sweep<usize> {
    let mut keyed: Vec<(usize, &mut Lease)> = leases.iter_mut().enumerate().collect();
    sweep(&mut keyed, now, &TIMES)
}

#[test]
fn silent_lease_is_suspect_after_a_minute_and_expires_after_two() {
    let mut lease = [Lease::granted(at(10))];
    assert_eq!(lease[0].epoch(), 1);
    assert_eq!(sweep_all(&mut lease, at(69)).transitions, []);
    assert_eq!(sweep_all(&mut lease, at(70)).transitions, [(0, LeasePhase::Suspect)]);
    assert_eq!(sweep_all(&mut lease, at(71)).transitions, []);
    assert_eq!(sweep_all(&mut lease, at(129)).transitions, []);
    assert_eq!(sweep_all(&mut lease, at(130)).transitions, [(0, LeasePhase::Expired)]);
    assert_eq!(sweep_all(&mut lease, at(500)).transitions, []);
}

#[test]
fn heartbeat_revives_a_suspect_lease_and_starts_its_time_anew() {
    let mut lease = [Lease::granted(at(0))];
    sweep_all(&mut lease, at(60));
    assert_eq!(lease[0].heartbeat(at(100)), Ok(Some(LeasePhase::Active)));
    assert_eq!(lease[0].heartbeat(at(101)), Ok(None));
    assert_eq!(lease[0].renewed_at(), at(101));
    assert_eq!(lease[0].due(at(160), &TIMES), None);
    assert_eq!(lease[0].due(at(161), &TIMES), Some(LeasePhase::Suspect));
}

#[test]
fn expired_lease_takes_no_heartbeat_but_a_registration() {
    let mut lease = [Lease::granted(at(0))];
    sweep_all(&mut lease, at(120));
    assert_eq!(lease[0].heartbeat(at(121)), Err(LeaseGone));
    assert_eq!(lease[0].renewed_at(), at(0));
    assert_eq!(lease[0].phase(), LeasePhase::Expired);
    lease[0].reregister(at(122));
    assert_eq!((lease[0].phase(), lease[0].epoch(), lease[0].renewed_at()), (LeasePhase::Active, 2, at(122)));
}

#[test]
fn late_heartbeat_never_shortens_a_lease() {
    let mut lease = Lease::granted(at(0));
    lease.heartbeat(at(50)).unwrap();
    lease.heartbeat(at(40)).unwrap();
    assert_eq!(lease.renewed_at(), at(50));
}

#[test]
fn restored_lease_waits_for_a_probe_and_expires_like_others() {
    let mut lease = Lease::restored(at(0), 7);
    assert_eq!(lease.heartbeat(at(30)), Ok(None));
    assert_eq!((lease.phase(), lease.epoch()), (LeasePhase::Restored, 7));
    assert_eq!(lease.due(at(149), &TIMES), None);
    assert_eq!(lease.due(at(150), &TIMES), Some(LeasePhase::Expired));
    assert_eq!(lease.proved(at(140)), Some(LeasePhase::Active));
    assert_eq!(lease.due(at(199), &TIMES), None);
    assert_eq!(lease.proved(at(200)), None);
    assert_eq!(lease.renewed_at(), at(140), "only the first probe renews");
}

#[test]
fn mass_expiry_is_held_once_for_one_more_ttl() {
    let mut leases = vec![Lease::granted(at(0)); 5];
    let woken = sweep_all(&mut leases, at(1000));
    assert_eq!(woken.held, [0, 1, 2, 3, 4]);
    assert!(woken.transitions.iter().all(|(_, phase)| *phase == LeasePhase::Suspect));
    assert!(leases.iter().all(Lease::is_held));

    leases[0].heartbeat(at(1010)).unwrap();
    assert!(!leases[0].is_held());
    let quiet = sweep_all(&mut leases, at(1119));
    assert!(quiet.held.is_empty(), "{quiet:?}");
    assert!(quiet.transitions.iter().all(|(_, phase)| *phase != LeasePhase::Expired), "{quiet:?}");

    let over = sweep_all(&mut leases, at(1120));
    assert_eq!(over.held, [] as [usize; 0]);
    assert_eq!(over.transitions.len(), 4);
    assert!(over.transitions.iter().all(|(key, phase)| *key != 0 && *phase == LeasePhase::Expired));
}

#[test]
fn renewal_makes_a_lease_holdable_again() {
    let mut leases = vec![Lease::granted(at(0)); 6];
    assert_eq!(sweep_all(&mut leases, at(200)).held.len(), 6);
    for lease in &mut leases {
        lease.heartbeat(at(210)).unwrap();
    }
    assert_eq!(sweep_all(&mut leases, at(2000)).held.len(), 6);
}

#[test]
fn guard_leaves_small_fleets_and_halves_alone() {
    let mut four = vec![Lease::granted(at(0)); 4];
    assert_eq!(sweep_all(&mut four, at(120)).transitions.len(), 4);

    let mut half = vec![Lease::granted(at(0)); 3];
    half.extend(vec![Lease::granted(at(100)); 3]);
    let swept = sweep_all(&mut half, at(120));
    assert!(swept.held.is_empty());
    assert_eq!(swept.transitions.iter().filter(|(_, phase)| *phase == LeasePhase::Expired).count(), 3);
}

#[test]
fn long_expired_leases_are_no_part_of_the_fleet() {
    let mut leases = vec![Lease::granted(at(0)); 4];
    sweep_all(&mut leases, at(120));
    leases.extend(vec![Lease::granted(at(1000)); 5]);
    assert_eq!(sweep_all(&mut leases, at(1120)).held, [4, 5, 6, 7, 8]);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Heartbeat(usize),
    Reregister(usize),
    Proved(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..200).prop_map(Step::Wait),
        6 => (0usize..8).prop_map(Step::Heartbeat),
        1 => (0usize..8).prop_map(Step::Reregister),
        1 => (0usize..8).prop_map(Step::Proved),
    ]
}

proptest! {
    /// Whatever happens: nobody expires before a TTL of silence, nobody lives on after two, nobody is held twice in
    /// a row, and epochs never fall.
    #[test]
    fn lease_ends_between_one_and_two_ttls_of_silence(steps in prop::collection::vec(step(), 1..200)) {
        let mut now = at(0);
        let mut leases: Vec<Lease> = (0..8)
            .map(|i| if i % 2 == 0 { Lease::granted(now) } else { Lease::restored(now, 3) })
            .collect();
        let mut held_since_renewal = [false; 8];
        for step in steps {
            let before = leases.clone();
            match step {
                Step::Wait(secs) => {
                    // Swept every second, as in life, with the proxy itself away for a third of the longer waits.
                    let stride = if secs % 3 == 0 { secs } else { 1 };
                    for _ in 0..secs / stride {
                        now = now + Duration::from_secs(stride);
                        let was = leases.clone();
                        let swept = sweep_all(&mut leases, now);
                        for key in swept.held {
                            prop_assert!(!std::mem::replace(&mut held_since_renewal[key], true));
                        }
                        for (key, phase) in swept.transitions {
                            prop_assert_ne!(was[key].phase(), phase);
                            prop_assert_eq!(leases[key].phase(), phase);
                            if phase == LeasePhase::Expired {
                                prop_assert!(now.since(was[key].renewed_at()) >= TIMES.ttl);
                            }
                        }
                        for lease in leases.iter().filter(|lease| lease.phase() != LeasePhase::Expired) {
                            prop_assert!(lease.is_held() || now.since(lease.renewed_at()) < TIMES.ttl);
                        }
                    }
                }
                Step::Heartbeat(i) => {
                    let expired = leases[i].phase() == LeasePhase::Expired;
                    prop_assert_eq!(leases[i].heartbeat(now).is_err(), expired);
                    held_since_renewal[i] &= expired;
                }
                Step::Reregister(i) => {
                    leases[i].reregister(now);
                    held_since_renewal[i] = false;
                }
                Step::Proved(i) => {
                    if leases[i].proved(now).is_some() {
                        held_since_renewal[i] = false;
                    }
                }
            }
            for (old, new) in before.iter().zip(&leases) {
                prop_assert!(new.epoch() >= old.epoch());
                prop_assert!(new.renewed_at() >= old.renewed_at());
            }
        }
    }
}
