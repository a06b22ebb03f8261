use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

const PACE: (u32, Duration) = (1, Duration::from_millis(1));

fn join(line: &Line, slots: impl IntoIterator<Item = u32>) -> Place<'_> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let takers = slots.into_iter().map(Slot).collect();
    line.join(takers, PACE, deadline, &Limits::default()).expect("there is room in the line")
}

/// One look at it, as if nothing else ran.
fn look<F: Future>(waits: &mut Pin<&mut F>) -> bool {
    matches!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

#[tokio::test]
async fn who_waits_for_long_does_not_take_what_another_was_called_for() {
    let (line, room) = (Line::default(), Cell::new(0));
    let places = [join(&line, [0]), join(&line, [0]), join(&line, [0])];
    let mut first = pin!(places[0].turn(|| room.get()));
    let mut second = pin!(places[1].turn(|| room.get()));
    let mut third = pin!(places[2].turn(|| room.get()));
    assert!(!look(&mut first) && !look(&mut second) && !look(&mut third));
    tokio::time::sleep(LOOK * 2).await;
    room.set(1);
    line.leave(Slot(0));
    assert!(!look(&mut third) && !look(&mut second), "they are behind, however long they wait");
    assert!(look(&mut first));
    assert_eq!((line.waiting(), line.called()), (3, 1), "it stands there until it is under way");
}

#[tokio::test]
async fn who_finds_its_place_taken_keeps_its_turn() {
    let (line, room) = (Line::default(), Cell::new(0));
    let places = [join(&line, [0]), join(&line, [0])];
    let mut first = pin!(places[0].turn(|| room.get()));
    let mut second = pin!(places[1].turn(|| room.get()));
    assert!(!look(&mut first) && !look(&mut second));
    line.leave(Slot(0));
    assert!(!look(&mut first), "somebody else was faster");
    assert_eq!(line.called(), 0);
    room.set(1);
    line.leave(Slot(0));
    assert!(!look(&mut second) && look(&mut first));
    // Also when it was taken between the look and the attempt.
    room.set(0);
    let mut again = pin!(places[0].turn(|| room.get()));
    assert!(!look(&mut again));
    room.set(1);
    line.leave(Slot(0));
    assert!(!look(&mut second) && look(&mut again));
}

#[tokio::test]
async fn who_goes_away_passes_its_turn_on() {
    let (line, room) = (Line::default(), Cell::new(1));
    let places = [join(&line, [0]), join(&line, [0])];
    let [first, second] = places;
    let mut waits = pin!(second.turn(|| room.get()));
    assert!(!look(&mut waits));
    line.leave(Slot(0));
    assert_eq!(line.called(), 1);
    drop(first);
    assert!(look(&mut waits));
    assert_eq!((line.waiting(), line.called()), (1, 1));
}

#[tokio::test]
async fn a_free_place_is_for_the_first_who_could_take_it() {
    let (line, room) = (Line::default(), Cell::new([0, 0]));
    let (anywhere, there) = (join(&line, [0]), join(&line, [1]));
    let mut first = pin!(anywhere.turn(|| room.get()[0]));
    let mut second = pin!(there.turn(|| room.get()[1]));
    assert!(!look(&mut first) && !look(&mut second));
    room.set([0, 1]);
    line.leave(Slot(1));
    assert!(!look(&mut first) && look(&mut second));
    // Who is the first to wait for an instance looks at once.
    let other = join(&line, [0, 2]);
    let mut third = pin!(other.turn(|| 1));
    assert!(look(&mut third));
}

#[tokio::test]
async fn more_room_is_for_all_that_wait_in_their_order() {
    let (line, room) = (Line::default(), Cell::new(0));
    let [first, second, third] = [join(&line, [0]), join(&line, [0]), join(&line, [0])];
    let mut later = Box::pin(second.turn(|| room.get()));
    assert!(!look(&mut later.as_mut()));
    // A limit grew: nobody left.
    room.set(2);
    first.turn(|| room.get()).await.expect("it is the first");
    room.set(1);
    first.enter(|| room.get());
    assert!(look(&mut later.as_mut()), "there is room for one more");
    drop(later);
    room.set(0);
    second.enter(|| room.get());
    assert_eq!((line.waiting(), line.called()), (1, 0), "and not for the last one");
    drop(third);
}

#[tokio::test]
async fn who_waits_too_long_is_refused_and_counted() {
    let (line, limits) = (Line::default(), Limits::default());
    let takers = Takers::from_iter([Slot(0)]);
    assert!(line.join(takers, PACE, Instant::now(), &limits).is_err(), "there is no time to wait");
    assert_eq!((line.waiting(), line.shed()), (0, 1));
    let deadline = Instant::now() + Duration::from_millis(200);
    let place = line.join(takers, PACE, deadline, &limits).expect("there is time");
    let waited = place.turn(|| 0).await;
    assert!(matches!(waited, Err(Shed::Waited(_))), "{waited:?}");
    drop(place);
    assert_eq!((line.waiting(), line.called(), line.shed()), (0, 0, 2));
    line.leave(Slot(0));
    assert_eq!(line.called(), 0, "nobody waits");
}

/// A call in the line: it ends with its place when its turn has come.
type Waits<'l> = Pin<Box<dyn Future<Output = Result<Place<'l>, Shed>> + 'l>>;

/// Calls to one instance that takes a few at once, as they come, end, look and go away.
struct Scene<'l> {
    line: &'l Line,
    limit: u32,
    in_flight: &'l Cell<u32>,
    /// With their numbers, in the order in which they came.
    waiting: Vec<(u32, Waits<'l>)>,
    came: u32,
}

impl<'l> Scene<'l> {
    /// As `proxy` does it: who comes while all the room is for those who were called waits behind them.
    fn comes(&mut self) {
        let (line, limit, in_flight) = (self.line, self.limit, self.in_flight);
        let room = move || limit - in_flight.get();
        let called = line.called();
        if room() > 0 && (called == 0 || room() > called) {
            return in_flight.set(in_flight.get() + 1);
        }
        let place = join(line, [0]);
        let mut stands: Waits<'l> = Box::pin(async move { place.turn(room).await.map(|_| place) });
        let looked = stands.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(looked.is_pending(), "it is behind others, or there is no room");
        self.waiting.push((self.came, stands));
        self.came += 1;
    }

    fn ends(&mut self) {
        if self.in_flight.get() > 0 {
            self.in_flight.set(self.in_flight.get() - 1);
            self.line.leave(Slot(0));
        }
    }

    /// All look, one after the other; those whose turn it is, by their numbers.
    fn look(&mut self) -> Vec<u32> {
        let (mut served, mut left) = (Vec::new(), Vec::new());
        for (number, mut stands) in self.waiting.drain(..) {
            match stands.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(place) => {
                    let (limit, in_flight) = (self.limit, self.in_flight);
                    assert!(in_flight.get() < limit, "there is room for who is let in");
                    in_flight.set(in_flight.get() + 1);
                    place.expect("it did not wait for long").enter(|| limit - in_flight.get());
                    served.push(number);
                }
                Poll::Pending => left.push((number, stands)),
            }
        }
        self.waiting = left;
        served
    }
}

proptest! {
    /// Whoever comes, ends, looks and goes away, and when: who stands first is served first, no more than the limit
    /// are served at once, and nobody is forgotten.
    #[test]
    fn who_stands_first_is_served_first_and_nobody_is_lost(
        limit in 1u32..5, steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let (line, in_flight) = (Line::default(), Cell::new(0));
        let mut scene = Scene { line: &line, limit, in_flight: &in_flight, waiting: Vec::new(), came: 0 };
        let mut last = None;
        for (kind, which) in steps {
            match kind {
                0..=2 => scene.comes(),
                3 | 4 => scene.ends(),
                5 if !scene.waiting.is_empty() => drop(scene.waiting.remove(which.index(scene.waiting.len()))),
                5 => {}
                _ => {
                    for served in scene.look() {
                        prop_assert!(last < Some(served), "{} after {:?}", served, last);
                        prop_assert!(scene.waiting.iter().all(|(number, _)| *number > served));
                        last = Some(served);
                    }
                }
            }
            prop_assert!(in_flight.get() <= limit);
            prop_assert_eq!(line.waiting() as usize, scene.waiting.len());
            prop_assert!(line.called() <= line.waiting());
        }
        // From now on nobody comes: each end serves the next one, until nobody is left.
        scene.look();
        while !scene.waiting.is_empty() {
            let before = scene.waiting.len();
            prop_assert_eq!(in_flight.get(), limit, "nobody waits while there is room");
            scene.ends();
            scene.look();
            prop_assert_eq!(scene.waiting.len(), before - 1);
        }
        prop_assert_eq!((line.waiting(), line.called()), (0, 0));
    }
}
