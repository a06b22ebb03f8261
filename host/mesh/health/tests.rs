use proptest::prelude::*;

use super::*;

const FINE: Inputs = Inputs {
    proven: false,
    ok_total: 0,
    failed_total: 0,
    latency_ratio: f64::INFINITY,
    heartbeat_age: None,
    gone: false,
    refused: false,
};

/// An instance that is ticked each second.
struct Patient {
    health: Health,
    now: u64,
    inputs: Inputs,
}

impl Patient {
    fn new() -> Self {
        let mut patient = Self { health: Health::new(Mono::from_secs(1000)), now: 1000, inputs: FINE };
        patient.wait(0);
        patient
    }

    fn tick(&mut self) -> Assessment {
        self.health.tick(Mono::from_secs(self.now), &self.inputs)
    }

    fn wait(&mut self, secs: u64) -> Assessment {
        let mut last = self.tick();
        for _ in 0..secs {
            self.now += 1;
            last = self.tick();
        }
        last
    }

    fn calls(&mut self, ok: u64, failed: u64) -> Assessment {
        self.inputs.ok_total += ok;
        self.inputs.failed_total += failed;
        self.now += 1;
        self.tick()
    }

    fn probes(&mut self, count: u32, ok: bool) -> Assessment {
        for _ in 0..count {
            let probed = if ok { Probed::Good } else { Probed::Bad("no answer") };
            self.health.probe(Mono::from_secs(self.now), probed);
        }
        self.now += 1;
        self.tick()
    }

    fn aged(&mut self, secs: u64) -> Assessment {
        self.inputs.heartbeat_age = Some(Duration::from_secs(secs));
        self.now += 1;
        self.tick()
    }
}

#[test]
fn new_instance_is_healthy_at_full_share() {
    let found = Patient::new().tick();
    assert_eq!((found.state, found.score, found.share_permille), (HealthState::Healthy, 100, 1000));
    assert_eq!(found.reason, "");
    assert!(!found.changed);
}

#[test]
fn totals_of_earlier_runs_are_no_calls_of_today() {
    let mut health = Health::new(Mono::from_secs(5));
    let stored = Inputs { ok_total: 10, failed_total: 90_000, ..FINE };
    assert_eq!(health.tick(Mono::from_secs(6), &stored).success_permille, 1000);
}

#[test]
fn one_failed_call_condemns_nobody() {
    let found = Patient::new().calls(0, 1);
    assert_eq!((found.state, found.score, found.success_permille), (HealthState::Healthy, 83, 667));
}

#[test]
fn failing_calls_degrade_at_once_and_say_so() {
    let mut patient = Patient::new();
    let found = patient.calls(94, 136);
    assert_eq!((found.state, found.share_permille, found.changed), (HealthState::Degraded, 250, true));
    assert_eq!(found.reason, "40 % of 230 calls succeeded");
    assert_eq!(patient.health.since(), Mono::from_secs(1001));
    assert!(!patient.wait(1).changed);
}

#[test]
fn half_the_calls_failing_on_a_slow_instance_makes_it_unhealthy() {
    let mut patient = Patient::new();
    patient.inputs.latency_ratio = 0.1;
    let found = patient.calls(0, 100);
    assert_eq!((found.state, found.share_permille), (HealthState::Unhealthy, 0));
    assert_eq!(found.routed_score(), 0);
    assert_eq!(found.score, 32);
}

#[test]
fn calls_are_forgotten_after_thirty_seconds() {
    let mut patient = Patient::new();
    patient.calls(0, 98);
    assert_eq!(patient.wait(29).success_permille, 20);
    assert_eq!(patient.wait(1).success_permille, 1000);
}

#[test]
fn ticks_missed_for_minutes_leave_only_recent_calls() {
    let mut patient = Patient::new();
    patient.calls(0, 98);
    patient.now += 299;
    let found = patient.calls(1000, 0);
    assert_eq!(found.success_permille, 1000);
    // 1000 failures in 300 s are 100 in 30.
    patient.now += 299;
    assert_eq!(patient.calls(0, 1000).success_permille, 20);
    assert_eq!(patient.health.window.sums(), (0, 100));
}

#[test]
fn totals_that_fall_are_a_new_beginning() {
    let mut patient = Patient::new();
    patient.calls(1000, 1000);
    patient.wait(30);
    (patient.inputs.ok_total, patient.inputs.failed_total) = (0, 0);
    assert_eq!(patient.wait(1).success_permille, 1000);
    assert_eq!(patient.calls(0, 2).success_permille, 500);
}

#[test]
fn slow_instance_loses_at_most_a_fifth() {
    let mut patient = Patient::new();
    patient.inputs.latency_ratio = 0.5;
    assert_eq!(patient.wait(1).score, 90);
    patient.inputs.latency_ratio = 0.0;
    assert_eq!(patient.wait(1).state, HealthState::Healthy, "80 is healthy");
    patient.inputs.latency_ratio = f64::NAN;
    assert_eq!(patient.wait(1).score, 100);
    patient.inputs.latency_ratio = 0.25;
    assert_eq!(patient.probes(1, false).score, 81);
    let found = patient.calls(98, 4);
    assert_eq!(found.state, HealthState::Degraded);
    assert_eq!(found.reason, "calls take 12 times as long as the pool's median");
}

#[test]
fn three_failed_probes_in_a_row_make_unhealthy() {
    let mut patient = Patient::new();
    assert_eq!(patient.probes(2, false).state, HealthState::Healthy);
    patient.probes(1, true);
    assert_eq!(
        patient.probes(2, false).state,
        HealthState::Healthy,
        "a good one broke the row: 4 of 5 failed"
    );
    let found = patient.probes(1, false);
    assert_eq!((found.state, found.probe_failures), (HealthState::Unhealthy, 3));
    assert_eq!(found.reason, "3 probes in a row failed: no answer");
}

#[test]
fn failed_probes_are_forgotten_after_five_more() {
    let mut patient = Patient::new();
    assert_eq!(patient.probes(2, false).score, 92);
    patient.probes(4, true);
    assert_eq!(patient.tick().score, 96);
    assert_eq!(patient.probes(1, true).score, 100);
}

#[test]
fn heartbeat_age_costs_up_to_ten_points() {
    let mut patient = Patient::new();
    assert_eq!(patient.aged(60).score, 100);
    assert_eq!(patient.aged(90).score, 95);
    assert_eq!(patient.aged(119).state, HealthState::Healthy);
}

#[test]
fn lease_held_past_its_end_is_degraded() {
    let mut patient = Patient::new();
    let found = patient.aged(130);
    assert_eq!((found.state, found.score), (HealthState::Degraded, 90));
    assert_eq!(found.reason, "no heartbeat for 130 s");
    patient.probes(2, true);
    patient.wait(5);
    assert_eq!(patient.health.state(), HealthState::Degraded, "probes do not replace the heartbeat");
    patient.aged(0);
    assert_eq!(patient.wait(1).state, HealthState::Healthy);
}

#[test]
fn going_up_takes_five_points_more_twice() {
    let mut patient = Patient::new();
    patient.calls(0, 20);
    patient.probes(2, true);
    patient.wait(29);
    patient.inputs.latency_ratio = 0.2;
    assert_eq!(patient.wait(20).state, HealthState::Degraded, "84 is not 5 above 80");
    patient.inputs.latency_ratio = 0.25;
    patient.now += 1;
    let first = patient.tick();
    assert_eq!((first.score, first.state), (85, HealthState::Degraded));
    assert_eq!(first.reason, "recovering: the score must stay up");
    patient.inputs.latency_ratio = 0.2;
    patient.now += 1;
    assert_eq!(patient.tick().state, HealthState::Degraded);
    patient.inputs.latency_ratio = 0.25;
    patient.now += 1;
    assert_eq!(patient.tick().state, HealthState::Degraded, "twice in a row, not twice in all");
    patient.now += 1;
    let up = patient.tick();
    assert_eq!((up.state, up.changed, up.share_permille), (HealthState::Healthy, true, 1000));
}

#[test]
fn fall_interrupts_going_up() {
    let mut patient = Patient::new();
    patient.probes(3, false);
    patient.health.probe(Mono::from_secs(patient.now), Probed::Good);
    assert_eq!(patient.probes(1, true).reason, "recovering: the score must stay up");
    patient.inputs.gone = true;
    patient.probes(0, true);
    patient.inputs.gone = false;
    assert_eq!(patient.probes(2, true).state, HealthState::Dead);
    assert_eq!(patient.probes(0, true).state, HealthState::Healthy);
}

#[test]
fn score_that_is_whole_loses_nothing_to_binary_fractions() {
    let mut patient = Patient::new();
    patient.calls(0, 4);
    assert_eq!(patient.aged(70).score, 65, "the sum of binary fractions is a little less");
}

#[test]
fn going_up_takes_two_good_probes_since_the_fall() {
    let mut patient = Patient::new();
    patient.probes(5, true);
    patient.calls(0, 20);
    let waits = patient.wait(60);
    assert_eq!(waits.state, HealthState::Degraded, "probes from before the fall prove nothing");
    assert_eq!(waits.reason, "recovering: 0 of 2 good probes");
    assert_eq!(patient.probes(1, true).state, HealthState::Degraded);
    assert_eq!(patient.probes(1, true).state, HealthState::Healthy);
}

#[test]
fn unhealthy_instance_comes_back_over_thirty_seconds() {
    let mut patient = Patient::new();
    patient.probes(3, false);
    patient.probes(1, true);
    // 3 of 5 failed: 88.
    let up = patient.probes(1, true);
    assert_eq!((up.state, up.score, up.share_permille), (HealthState::Healthy, 88, 100));
    assert_eq!(patient.wait(10).share_permille, 400);
    assert_eq!(patient.wait(20).share_permille, 1000);
    assert_eq!(patient.wait(100).share_permille, 1000);
    // The next recovery starts again from the beginning.
    patient.probes(3, false);
    patient.probes(5, true);
    assert_eq!(patient.wait(1).share_permille, 130);
}

#[test]
fn ramp_goes_on_across_degraded_and_healthy() {
    let mut patient = Patient::new();
    patient.probes(3, false);
    patient.probes(2, true);
    patient.wait(1);
    assert_eq!(patient.wait(10).share_permille, 430);
    assert_eq!(patient.calls(0, 3).share_permille, 250 * 460 / 1000);
}

#[test]
fn refused_connections_kill_after_two_minutes_and_good_probes_revive() {
    let mut patient = Patient::new();
    let start = patient.now;
    for second in 0..119 {
        if second % 10 == 0 {
            patient.health.probe(Mono::from_secs(start + second), Probed::Refused);
        }
        assert_ne!(patient.wait(1).state, HealthState::Dead);
    }
    patient.now += 1;
    let dead = patient.tick();
    assert_eq!((dead.state, dead.share_permille), (HealthState::Dead, 0));
    assert_eq!(dead.reason, "connections refused for 120 s");

    // The last call was refused and none has been sent since: the probes know better.
    patient.inputs.refused = true;
    assert_eq!(patient.probes(1, true).state, HealthState::Dead);
    patient.probes(1, true);
    assert_eq!(patient.wait(1).state, HealthState::Healthy);
}

#[test]
fn refusal_counts_from_the_probe_that_met_it() {
    let mut health = Health::new(Mono::from_secs(0));
    health.probe(Mono::from_secs(10), Probed::Refused);
    assert_eq!(health.tick(Mono::from_secs(130), &FINE).state, HealthState::Dead);
}

#[test]
fn refused_calls_kill_without_a_probe() {
    let mut patient = Patient::new();
    patient.inputs.refused = true;
    assert_eq!(patient.wait(119).state, HealthState::Healthy);
    patient.inputs.refused = false;
    patient.wait(1);
    patient.inputs.refused = true;
    assert_eq!(patient.wait(119).state, HealthState::Healthy, "it was interrupted");
    assert_eq!(patient.wait(2).state, HealthState::Dead);
}

#[test]
fn gone_instance_is_dead_at_once_and_stays_so() {
    let mut patient = Patient::new();
    patient.inputs.gone = true;
    let dead = patient.wait(1);
    assert_eq!((dead.state, dead.share_permille), (HealthState::Dead, 0));
    patient.probes(5, true);
    assert_eq!(patient.wait(100).state, HealthState::Dead);
    patient.inputs.gone = false;
    patient.wait(1);
    assert_eq!(patient.health.state(), HealthState::Healthy);
}

#[test]
fn instance_that_cannot_be_probed_recovers_by_its_calls() {
    let mut patient = Patient::new();
    patient.probes(2, false);
    patient.calls(0, 50);
    patient.health.unprobed();
    assert_eq!(patient.wait(40).state, HealthState::Healthy);
    assert_eq!(patient.tick().score, 100, "its probes are forgotten");
}

#[derive(Clone, Debug)]
enum Step {
    Tick { gap: u64, ok: u64, failed: u64 },
    Probe { ok: bool, refused: bool },
    Latency(f64),
    Age(Option<u64>),
    Gone(bool),
    Refused(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop_oneof![9 => Just(1u64), 1 => 1u64..400], 0u64..20, 0u64..20)
            .prop_map(|(gap, ok, failed)| Step::Tick { gap, ok, failed: failed.saturating_sub(12) }),
        6 => (prop::bool::weighted(0.7), any::<bool>()).prop_map(|(ok, refused)| Step::Probe { ok, refused }),
        1 => (0.0f64..2.0).prop_map(Step::Latency),
        1 => prop::option::of(0u64..200).prop_map(Step::Age),
        1 => prop::bool::weighted(0.1).prop_map(Step::Gone),
        1 => any::<bool>().prop_map(Step::Refused),
    ]
}

proptest! {
    #[test]
    fn every_assessment_obeys_the_rules(steps in prop::collection::vec(step(), 1..400)) {
        let mut patient = Patient::new();
        let mut probes: Vec<bool> = Vec::new();
        let mut last = patient.tick();
        let mut good_since_fall = 0;
        for step in steps {
            match step {
                Step::Probe { ok, refused } => {
                    let probed = match (ok, refused) {
                        (true, _) => Probed::Good,
                        (false, true) => Probed::Refused,
                        (false, false) => Probed::Bad("no answer"),
                    };
                    patient.health.probe(Mono::from_secs(patient.now), probed);
                    probes.push(ok);
                    good_since_fall = if ok { good_since_fall + 1 } else { 0 };
                }
                Step::Latency(ratio) => patient.inputs.latency_ratio = ratio,
                Step::Age(secs) => patient.inputs.heartbeat_age = secs.map(Duration::from_secs),
                Step::Gone(gone) => patient.inputs.gone = gone,
                Step::Refused(refused) => patient.inputs.refused = refused,
                Step::Tick { gap, ok, failed } => {
                    patient.now += gap - 1;
                    let found = patient.calls(ok, failed);
                    let inputs = patient.inputs;

                    let failed_probes = probes.iter().rev().take(5).filter(|ok| !**ok).count() as f64;
                    let age = inputs.heartbeat_age.map_or(0.0, |age| age.as_secs_f64());
                    let score = 50.0 * patient.health.window.success()
                        + 20.0 * inputs.latency_ratio.min(1.0)
                        + 20.0 * (1.0 - failed_probes / 5.0)
                        + 10.0 * ((120.0 - age) / 60.0).clamp(0.0, 1.0);
                    prop_assert!(f64::from(found.score) <= score + 1e-6 && f64::from(found.score) > score - 1.0 - 1e-6);

                    let failing = probes.len() >= 3 && probes.iter().rev().take(3).all(|ok| !ok);
                    prop_assert!(found.state <= HealthState::of_score(found.score), "never better than the score");
                    prop_assert!(!failing || found.state <= HealthState::Unhealthy);
                    prop_assert!(!inputs.gone || found.state == HealthState::Dead);
                    prop_assert!(age < 120.0 || found.state <= HealthState::Degraded);
                    if found.state > last.state {
                        prop_assert!(good_since_fall >= GOOD_PROBES);
                        for score in [found.score, last.score] {
                            prop_assert!(HealthState::of_score(score.saturating_sub(MARGIN)) >= found.state);
                        }
                        prop_assert!(last.share_permille > 0 || found.share_permille <= 100);
                    }
                    if found.state < last.state {
                        good_since_fall = 0;
                    }
                    prop_assert_eq!(found.changed, found.state != last.state);
                    prop_assert_eq!(found.reason.is_empty(), found.state == HealthState::Healthy);
                    prop_assert!(found.share_permille <= found.state.weight_permille());
                    prop_assert_eq!(found.share_permille > 0, found.state >= HealthState::Degraded);
                    prop_assert_eq!(found.routed_score() > 0, found.share_permille > 0);
                    last = found;
                }
            }
        }
    }
}

#[test]
fn balancers_forget_failures_sooner_than_health_does() {
    let mut patient = Patient::new();
    let failing = patient.calls(0, 8);
    assert_eq!((failing.success_permille, failing.recent_permille), (200, 200));
    let after = patient.wait(9);
    assert_eq!((after.success_permille, after.recent_permille), (200, 200));
    let after = patient.wait(1);
    assert_eq!(
        (after.success_permille, after.recent_permille),
        (200, 1000),
        "who is never asked cannot prove itself"
    );
    assert_eq!(patient.wait(20).success_permille, 1000);
}

#[test]
fn it_is_for_calls_when_most_failed_and_probes_did_not() {
    let mut patient = Patient::new();
    patient.inputs.latency_ratio = 0.1;
    assert!(patient.calls(0, 40).is_for_calls());
    assert!(!patient.probes(1, false).is_for_calls(), "probes tell more");
    let mut proven = Patient::new();
    proven.inputs.latency_ratio = 0.1;
    proven.calls(0, 40);
    proven.inputs.proven = true;
    let assessment = proven.calls(1, 0);
    assert_eq!(assessment.state, HealthState::Unhealthy);
    assert!(!assessment.is_for_calls(), "its trial succeeded: the rest is a matter of time");
}
