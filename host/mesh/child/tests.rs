use proptest::prelude::*;

use super::*;

/// The random bits that leave the base as it is.
const NO_JITTER: u64 = u64::MAX / 2;

fn at(millis: u64) -> Mono {
    Mono::from_micros(millis * 1000)
}

fn ended(why: &str) -> Event {
    Event::Ended { why: why.to_owned(), clean: false }
}

fn launched(rules: Rules, now: Mono) -> Child {
    let mut child = Child::new(rules);
    assert_eq!(child.step(Event::Launch, now, 0), None);
    assert_eq!(child.state(), ChildState::Starting);
    child
}

fn ready(rules: Rules, now: Mono) -> Child {
    let mut child = launched(rules, now);
    child.step(Event::Answered, now, 0);
    assert_eq!((child.state(), child.reason()), (ChildState::Ready, ""));
    child
}

#[test]
fn pauses_double_up_to_half_a_minute() {
    let rules = Rules { failures_max: 100, ..Rules::default() };
    let mut child = Child::new(rules);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        child.step(Event::Launch, now, 0);
        child.step(ended("exited with 1"), now, NO_JITTER);
        let until = child.next_try().expect("it is tried again");
        pauses.push(until.since(now).as_millis().next_multiple_of(10));
        assert!(!child.wants_launch(now), "not before its time");
        now = until;
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    assert_eq!((child.state(), child.reason(), child.restarts()), (ChildState::Backoff, "exited with 1", 8));
}

#[test]
fn the_fifth_failure_within_a_minute_parks_it_with_a_try_every_five_minutes() {
    let mut child = Child::new(Rules::default());
    let mut now = at(0);
    for failure in 1..=5 {
        child.step(Event::Launch, now, 0);
        let effect = child.step(ended("exited with 1"), now, NO_JITTER);
        assert_eq!(effect, (failure == 5).then_some(Effect::Park));
        now = child.next_try().expect("it is tried again");
    }
    assert_eq!(child.state(), ChildState::Fatal);
    assert_eq!(now.as_micros(), 7_500_000 + 300_000_000);
    child.step(Event::Launch, now, 0);
    assert_eq!(child.step(ended("exited with 1"), now, 0), None, "it is parked still: no second alert");
    assert_eq!((child.state(), child.next_try()), (ChildState::Fatal, Some(now + PARKED_TRY)));
    child.step(Event::Start, now, 0);
    assert!(child.wants_launch(now), "by hand it starts at once");
    child.step(Event::Launch, now, 0);
    child.step(ended("exited with 1"), now, 0);
    assert_eq!(child.state(), ChildState::Backoff, "and has all its tries again");
}

#[test]
fn one_that_is_parked_is_so_until_it_is_ready() {
    let mut child = Child::new(Rules { failures_max: 1, ..Rules::default() });
    child.step(Event::Launch, at(0), 0);
    child.step(ended("exited with 1"), at(0), 0);
    assert!(child.is_parked());
    let now = child.next_try().expect("it is tried again");
    child.step(Event::Launch, now, 0);
    assert!(child.is_parked(), "a try is no recovery");
    child.step(Event::Answered, now, 0);
    assert!(!child.is_parked());
    child.step(ended("exited with 1"), now, 0);
    assert!(child.is_parked(), "it was not steady");
    child.step(Event::Stop, now, 0);
    assert!(!child.is_parked(), "who stops it knows");
}

#[test]
fn other_rules_hold_for_the_next_failure_and_for_who_waits() {
    let mut child = ready(Rules::default(), at(0));
    child.rule_by(Rules { failures_max: 1, ..Rules::default() });
    assert_eq!(child.step(ended("exited with 1"), at(1), 0), Some(Effect::Park));
    child.rule_by(Rules { policy: RestartPolicy::Never, ..Rules::default() });
    assert_eq!((child.state(), child.next_try()), (ChildState::Stopped, None));
    assert!(child.reason().ends_with("\"never\"") && !child.wants_launch(at(10_000_000)));
    let mut child = launched(Rules::default(), at(0));
    child.rule_by(Rules { startup: Duration::from_secs(1), ..Rules::default() });
    assert_eq!(child.step(Event::Tick { busy: false }, at(1000), 0), Some(Effect::End));
}

#[test]
fn failures_far_apart_do_not_park_it() {
    let mut child = Child::new(Rules::default());
    for minute in 0..20 {
        let now = Mono::from_secs(minute * 61);
        child.step(Event::Launch, now, 0);
        child.step(ended("exited with 1"), now, 0);
        assert_eq!(child.state(), ChildState::Backoff);
    }
}

#[test]
fn a_minute_of_readiness_forgives_and_less_does_not() {
    for (lived, pause) in [(59_000, 1000), (60_000, 500)] {
        let mut child = launched(Rules::default(), at(0));
        child.step(ended("exited with 1"), at(0), NO_JITTER);
        child.step(Event::Launch, at(1000), 0);
        child.step(Event::Answered, at(1000), 0);
        child.step(ended("was killed"), at(1000 + lived), NO_JITTER);
        let until = child.next_try().expect("it is tried again");
        assert_eq!(until.since(at(1000 + lived)).as_millis().next_multiple_of(10), pause);
    }
}

#[test]
fn the_policy_says_what_is_started_again() {
    let end = |policy, clean| {
        let mut child = ready(Rules { policy, ..Rules::default() }, at(0));
        child.step(Event::Ended { why: "ended".to_owned(), clean }, at(1), 0);
        child.state()
    };
    assert_eq!(end(RestartPolicy::OnFailure, true), ChildState::Stopped);
    assert_eq!(end(RestartPolicy::OnFailure, false), ChildState::Backoff);
    assert_eq!(end(RestartPolicy::Always, true), ChildState::Backoff);
    assert_eq!(end(RestartPolicy::Never, false), ChildState::Stopped);
    let mut child = launched(Rules::default(), at(0));
    child.step(Event::Ended { why: "exited with 0".to_owned(), clean: true }, at(1), 0);
    assert_eq!(child.state(), ChildState::Backoff, "who never answered has failed, however it ended");
}

#[test]
fn the_start_up_clock_rests_while_something_is_installed_but_not_for_ever() {
    let mut child = launched(Rules::default(), at(0));
    for second in 1..=599 {
        assert_eq!(child.step(Event::Tick { busy: true }, Mono::from_secs(second), 0), None);
        assert_eq!(child.state(), ChildState::Installing);
    }
    assert_eq!(child.step(Event::Tick { busy: true }, Mono::from_secs(600), 0), Some(Effect::End));
    child.step(ended("was killed"), Mono::from_secs(601), 0);
    assert_eq!(child.state(), ChildState::Backoff);
    assert!(child.reason().contains("10 minutes"), "{}", child.reason());
}

#[test]
fn silence_uses_the_start_up_time_up() {
    let mut child = launched(Rules::default(), at(0));
    child.step(Event::Tick { busy: true }, Mono::from_secs(1), 0);
    let given_up = (2..100).find(|second| {
        child.step(Event::Tick { busy: false }, Mono::from_secs(*second), 0) == Some(Effect::End)
    });
    assert_eq!(given_up, Some(35), "30 s, and the 5 s that a sign lasts");
    assert_eq!(child.state(), ChildState::Stopping);
    child.step(ended("was killed by signal 9"), Mono::from_secs(40), 0);
    assert_eq!(child.reason(), "no answer within 30s of its start", "the first cause, not how it ended");
}

#[test]
fn a_proxy_that_was_suspended_has_not_waited() {
    let mut child = launched(Rules::default(), at(0));
    assert_eq!(child.step(Event::Tick { busy: false }, Mono::from_secs(130), 0), None);
    assert_eq!(child.state(), ChildState::Starting);
}

#[test]
fn what_is_missing_is_looked_for_again_every_five_minutes_and_whenever_somebody_starts_it() {
    let mut child = launched(Rules::default(), at(0));
    let missing = || Event::Missing("`npx` is not in PATH".to_owned());
    let mut now = at(0);
    for _ in 0..3 {
        child.step(missing(), now, 0);
        assert_eq!((child.state(), child.reason()), (ChildState::Skipped, "`npx` is not in PATH"));
        assert!(child.is_settled() && !child.wants_launch(now));
        assert_eq!(child.next_try(), Some(now + PARKED_TRY));
        now = now + PARKED_TRY;
        assert!(child.wants_launch(now));
        child.step(Event::Launch, now, 0);
    }
    assert_eq!(child.restarts(), 0, "nothing was ever started");
    child.step(missing(), now, 0);
    child.step(Event::Start, now, 0);
    assert!(child.wants_launch(now), "by hand it starts at once");
    child.step(Event::Launch, now, 0);
    child.step(Event::Answered, now, 0);
    child.step(ended("exited with 1"), now, 0);
    now = child.next_try().expect("it is tried again");
    child.step(Event::Launch, now, 0);
    child.step(missing(), now, 0);
    assert_eq!(child.next_try(), Some(now + PARKED_TRY), "gone while it was to start again");
}

#[test]
fn what_is_missing_and_may_not_start_again_and_what_is_barred_waits_for_somebody() {
    let never = Rules { policy: RestartPolicy::Never, ..Rules::default() };
    let mut missing = launched(never, at(0));
    missing.step(Event::Missing("`npx` is not in PATH".to_owned()), at(0), 0);
    let mut changed = launched(Rules::default(), at(0));
    changed.step(Event::Missing("`npx` is not in PATH".to_owned()), at(0), 0);
    changed.rule_by(never);
    let mut barred = Child::new(Rules::default());
    barred.step(Event::Barred("it needs itself".to_owned()), at(0), 0);
    for child in [&mut missing, &mut changed, &mut barred] {
        assert_eq!((child.state(), child.next_try()), (ChildState::Skipped, None), "{child:?}");
        assert!(child.is_settled() && !child.wants_launch(Mono::from_secs(9999)));
        child.step(Event::Start, at(1), 0);
        assert!(child.wants_launch(at(1)));
    }
}

#[test]
fn a_restart_waits_for_the_end_and_a_stop_during_it_wins() {
    let mut child = ready(Rules::default(), at(0));
    assert_eq!(child.step(Event::Restart, at(1), 0), Some(Effect::End));
    assert!(!child.wants_launch(at(1)));
    child.step(ended("exited with 0"), at(2), 0);
    assert!(child.wants_launch(at(2)));
    child.step(Event::Launch, at(2), 0);
    child.step(Event::Restart, at(3), 0);
    assert_eq!(child.step(Event::Stop, at(3), 0), None, "it is ending already");
    child.step(Event::Start, at(3), 0);
    assert_eq!((child.state(), child.reason()), (ChildState::Stopping, STARTS_AGAIN));
    child.step(Event::Stop, at(3), 0);
    child.step(ended("exited with 0"), at(4), 0);
    assert!(child.state() == ChildState::Stopped && !child.wants_launch(Mono::from_secs(9999)));
}

#[test]
fn one_that_rests_is_waited_for_until_it_is_ready_or_has_failed() {
    let mut child = Child::new(Rules { start: Start::Lazy, ..Rules::default() });
    child.step(Event::Rest, at(0), 0);
    assert_eq!((child.state(), child.is_awaited(), child.is_settled()), (ChildState::Idle, true, true));
    assert!(!child.wants_launch(Mono::from_secs(9999)), "nobody has called");
    for ready in [true, false] {
        child.step(Event::Wake, at(1), 0);
        assert!(child.wants_launch(at(1)) && child.is_awaited());
        child.step(Event::Launch, at(1), 0);
        assert!(child.is_awaited(), "who called waits still");
        if ready {
            child.step(Event::Answered, at(2), 0);
            assert_eq!((child.state(), child.is_awaited()), (ChildState::Ready, false));
            assert_eq!(child.step(Event::Rest, at(3), 0), Some(Effect::End));
            assert!(child.is_awaited(), "who calls while it ends waits for the next one");
            child.step(ended("exited with 0"), at(4), 0);
            assert_eq!(child.state(), ChildState::Idle);
        } else {
            child.step(ended("exited with 1"), at(2), 0);
            assert_eq!(
                (child.state(), child.is_awaited()),
                (ChildState::Backoff, false),
                "who waits is told"
            );
        }
    }
}

#[test]
fn who_needs_one_that_is_about_to_rest_gets_another() {
    let mut child = ready(Rules { idle_stop: Some(Duration::from_secs(1)), ..Rules::default() }, at(0));
    child.step(Event::Rest, at(1), 0);
    child.step(Event::Wake, at(2), 0);
    child.step(ended("exited with 0"), at(3), 0);
    assert!(child.wants_launch(at(3)) && child.is_awaited());
    child.step(Event::Stop, at(4), 0);
    assert!(!child.is_awaited() && !child.wants_launch(at(5)), "a stop by hand is no rest");
    child.step(Event::Wake, at(5), 0);
    assert_eq!(child.state(), ChildState::Stopped);
}

#[test]
fn one_that_may_rest_and_ends_well_rests() {
    let lazy = Rules { start: Start::Lazy, ..Rules::default() };
    let clean = Event::Ended { why: "exited with 0".to_owned(), clean: true };
    let mut child = ready(lazy, at(0));
    child.step(clean, at(1), 0);
    assert_eq!(child.state(), ChildState::Idle);
    child.rule_by(Rules::default());
    assert!(child.wants_launch(at(2)), "one that is to run always is started at once");
    let mut child = ready(lazy, at(0));
    child.step(ended("exited with 1"), at(1), 0);
    assert_eq!(child.state(), ChildState::Backoff);
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Start),
        2 => Just(Event::Stop),
        2 => Just(Event::Restart),
        2 => Just(Event::Rest),
        2 => Just(Event::Wake),
        8 => Just(Event::Launch),
        1 => Just(Event::Missing("missing".to_owned())),
        1 => Just(Event::NotStarted("not started".to_owned())),
        2 => Just(Event::Unfit("unfit".to_owned())),
        6 => Just(Event::Answered),
        8 => any::<bool>().prop_map(|clean| Event::Ended { why: "ended".to_owned(), clean }),
        6 => any::<bool>().prop_map(|busy| Event::Tick { busy }),
    ]
}

proptest! {
    #[test]
    fn jitter_stays_within_a_fifth_of_the_base(random: u64, failures in 1u32..20) {
        let mut child = Child::new(Rules { failures_max: 1000, ..Rules::default() });
        let mut now = at(0);
        let mut base = 0.5_f64;
        for _ in 0..failures {
            child.step(Event::Launch, now, 0);
            child.step(ended("x"), now, random);
            let pause = child.next_try().expect("it is tried again").since(now).as_secs_f64();
            prop_assert!(pause >= base * 0.8 - 1e-3 && pause <= base * 1.2 + 1e-3, "{pause} for {base}");
            base = (base * 2.0).min(30.0);
            now = child.next_try().expect("it is tried again");
        }
    }

    /// Against any history: one process at a time, each end that is asked for is waited for, and who was stopped stays so.
    #[test]
    fn never_two_processes_and_what_was_stopped_stays_stopped(
        steps in prop::collection::vec((events(), 0u64..20_000, any::<u64>()), 1..300),
    ) {
        let rules = Rules { idle_stop: Some(Duration::from_secs(60)), ..Rules::default() };
        let mut child = Child::new(rules);
        let mut now = at(0);
        let (mut process, mut stopped) = (false, false);
        for (event, millis, random) in steps {
            now = now + Duration::from_millis(millis);
            // Only what runs can answer or end.
            let of_process =
                matches!(event, Event::Missing(_) | Event::NotStarted(_) | Event::Unfit(_) | Event::Answered | Event::Ended { .. });
            if of_process && !process {
                continue;
            }
            let launches = event == Event::Launch && child.wants_launch(now);
            if launches {
                prop_assert!(!process && !stopped);
                process = true;
            }
            match &event {
                Event::Start | Event::Restart => stopped = false,
                Event::Stop => stopped = true,
                _ => {}
            }
            let ends = matches!(event, Event::Missing(_) | Event::NotStarted(_) | Event::Ended { .. });
            let effect = child.step(event, now, random);
            if ends {
                process = false;
            }
            let runs = matches!(
                child.state(),
                ChildState::Starting | ChildState::Installing | ChildState::Ready | ChildState::Stopping
            );
            prop_assert_eq!(runs, process, "{:?}", child);
            prop_assert!(effect != Some(Effect::End) || child.state() == ChildState::Stopping);
            prop_assert!(!stopped || matches!(child.state(), ChildState::Stopped | ChildState::Stopping));
            let waits = matches!(child.state(), ChildState::Backoff | ChildState::Fatal | ChildState::Skipped);
            prop_assert_eq!(child.next_try().is_some(), waits);
            prop_assert!(child.state() != ChildState::Idle || child.is_awaited());
            let cannot_come = matches!(child.state(), ChildState::Ready | ChildState::Backoff | ChildState::Fatal | ChildState::Skipped);
            prop_assert!(!cannot_come || !child.is_awaited(), "who waits would wait in vain: {:?}", child);
            prop_assert!(!stopped || !child.is_awaited());
            if matches!(child.state(), ChildState::Backoff | ChildState::Fatal | ChildState::Skipped) {
                prop_assert!(!child.reason().is_empty());
            }
        }
    }

    /// However it fails, it is started at most so often in any minute.
    #[test]
    fn a_crash_loop_is_bounded(lives in prop::collection::vec(0u64..3_000, 200), random: u64) {
        let mut child = Child::new(Rules::default());
        let mut now = at(0);
        let mut starts: Vec<Mono> = Vec::new();
        for lived in lives {
            now = child.next_try().unwrap_or(now);
            child.step(Event::Launch, now, 0);
            starts.push(now);
            now = now + Duration::from_millis(lived);
            child.step(ended("x"), now, random);
            let lately = starts.iter().filter(|start| now.since(**start) < Duration::from_secs(60)).count();
            prop_assert!(lately <= 5, "{lately} starts within a minute");
        }
    }
}
