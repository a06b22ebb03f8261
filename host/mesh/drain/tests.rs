use proptest::prelude::*;

use super::*;

fn order(kept_s: u64) -> Order {
    Order { reason: String::new(), sessions_kept: Duration::from_secs(kept_s), since: Wall::default() }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0_u64..20).prop_map(|kept| Event::Ordered(order(kept))),
        1 => Just(Event::Revoked),
        4 => (0_u32..3, 0_u32..3).prop_map(|(calls, sessions)| Event::Seen { calls, sessions }),
    ]
}

#[test]
fn sessions_are_kept_for_a_day_at_most() {
    let (drain, told) = step(None, Event::Ordered(order(u64::MAX / 2)), Mono::from_secs(7));
    let drain = drain.expect("it was ordered");
    assert_eq!((drain.sessions_until, told), (Mono::from_secs(7 + 24 * 3600), Some(Told::Began)));
}

#[test]
fn an_order_that_is_repeated_begins_anew() {
    let (drain, _) = step(None, Event::Ordered(order(10)), Mono::from_secs(0));
    let (drain, told) = step(drain, Event::Seen { calls: 0, sessions: 0 }, Mono::from_secs(1));
    assert_eq!(told, Some(Told::Empty));
    let (drain, told) = step(drain, Event::Ordered(order(20)), Mono::from_secs(2));
    assert_eq!(told, Some(Told::Began));
    assert_eq!(drain.expect("it was ordered").sessions_until, Mono::from_secs(22));
}

proptest! {
    #[test]
    fn nothing_new_goes_where_it_was_ordered_and_what_was_begun_ends_there(
        steps in prop::collection::vec((0_u64..5, event()), 1..100),
    ) {
        let (mut now, mut state) = (Mono::from_secs(50), None::<Drain>);
        let (mut ordered, mut until, mut emptied) = (false, now, false);
        for (seconds, event) in steps {
            now = now + Duration::from_secs(seconds);
            let was_ordered = ordered;
            let (next, told) = step(state.take(), event.clone(), now);
            match event {
                Event::Ordered(order) => {
                    (ordered, until, emptied) = (true, now + order.sessions_kept, false);
                    prop_assert_eq!(told, Some(Told::Began));
                }
                Event::Revoked => {
                    ordered = false;
                    prop_assert_eq!(told, was_ordered.then_some(Told::Revoked));
                }
                Event::Seen { calls, sessions } => {
                    let left = calls > 0 || (sessions > 0 && now < until);
                    prop_assert_eq!(told, (ordered && !left && !emptied).then_some(Told::Empty));
                    emptied |= ordered && !left;
                }
            }
            state = next;
            prop_assert_eq!(admits(state.as_ref(), Wants::New, now), !ordered);
            prop_assert!(admits(state.as_ref(), Wants::Rest, now));
            prop_assert_eq!(admits(state.as_ref(), Wants::InSession, now), !ordered || now < until);
        }
    }
}
