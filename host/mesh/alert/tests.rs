use proptest::prelude::*;

use super::*;

fn source() -> Name {
    Name::new("latency-watch").unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// An upper bound: fires at 100 after 30 s, resolves under 80.
fn firing(value: f64) -> Firing {
    Firing {
        rule: "slow".to_owned(),
        severity: Severity::Warning,
        labels: labels(&[("service", "a")]),
        title: "slow".to_owned(),
        detail: format!("{value} ms"),
        value,
        threshold: 100.0,
        for_s: 30,
        resolve_at: 80.0,
    }
}

fn at(book: &mut AlertBook, secs: u64, firings: Vec<Firing>) -> Vec<(AlertState, AlertState)> {
    let changes = book.evaluate(&source(), firings, Mono::from_secs(secs), wall(secs));
    for change in &changes {
        assert_eq!(change.alert.state, change.to);
        assert_eq!(change.alert.since, wall(secs));
    }
    changes.into_iter().map(|change| (change.from, change.to)).collect()
}

fn wall(secs: u64) -> Wall {
    Wall::from_millis(1_790_000_000_000 + secs as i64 * 1000)
}

fn state(book: &AlertBook) -> AlertState {
    book.active().next().map_or(AlertState::Inactive, |alert| alert.state)
}

fn fired() -> AlertBook {
    let mut book = AlertBook::new();
    at(&mut book, 0, vec![firing(120.0)]);
    at(&mut book, 30, vec![firing(120.0)]);
    assert_eq!(state(&book), AlertState::Firing);
    book
}

use AlertState::{Firing as Fires, Inactive, Pending, Resolving};

#[test]
fn alert_fires_after_its_for_and_resolves_after_its_hold() {
    let mut book = AlertBook::new();
    assert_eq!(at(&mut book, 0, vec![firing(120.0)]), [(Inactive, Pending)]);
    assert_eq!(at(&mut book, 29, vec![firing(100.0)]), []);
    assert_eq!(at(&mut book, 30, vec![firing(130.0)]), [(Pending, Fires)]);
    assert_eq!(at(&mut book, 90, vec![firing(130.0)]), []);
    assert_eq!(at(&mut book, 100, vec![]), [(Fires, Resolving)]);
    assert_eq!(at(&mut book, 114, vec![]), []);
    assert_eq!(at(&mut book, 115, vec![]), [(Resolving, Inactive)]);
    assert_eq!(book.active().count(), 0);
}

#[test]
fn alert_without_a_for_fires_at_once() {
    let mut book = AlertBook::new();
    assert_eq!(at(&mut book, 0, vec![Firing { for_s: 0, ..firing(100.0) }]), [(Inactive, Fires)]);
}

#[test]
fn value_between_the_thresholds_starts_nothing_and_ends_nothing() {
    let mut book = AlertBook::new();
    assert_eq!(at(&mut book, 0, vec![firing(90.0)]), []);
    at(&mut book, 10, vec![firing(120.0)]);
    assert_eq!(at(&mut book, 20, vec![firing(99.0)]), [(Pending, Inactive)], "the time begins anew");
    assert_eq!(at(&mut book, 39, vec![firing(120.0)]), [(Inactive, Pending)]);
    assert_eq!(at(&mut book, 41, vec![firing(120.0)]), []);
    at(&mut book, 69, vec![firing(120.0)]);
    assert_eq!(at(&mut book, 500, vec![firing(80.0)]), []);
    assert_eq!(state(&book), Fires);
    assert_eq!(
        at(&mut book, 501, vec![firing(79.0)]),
        [(Fires, Resolving)],
        "a value past `resolve_at` is absence"
    );
}

#[test]
fn condition_that_returns_while_resolving_fires_on() {
    let mut book = fired();
    at(&mut book, 100, vec![]);
    assert_eq!(at(&mut book, 110, vec![firing(85.0)]), [(Resolving, Fires)]);
    at(&mut book, 120, vec![]);
    assert_eq!(at(&mut book, 130, vec![]), [], "the hold begins anew");
    assert_eq!(at(&mut book, 135, vec![]), [(Resolving, Inactive)]);
}

#[test]
fn lower_bound_turns_all_signs() {
    let low = |value: f64| Firing { threshold: 20.0, resolve_at: 30.0, for_s: 0, ..firing(value) };
    let mut book = AlertBook::new();
    assert_eq!(at(&mut book, 0, vec![low(25.0)]), []);
    assert_eq!(at(&mut book, 1, vec![low(20.0)]), [(Inactive, Fires)]);
    assert_eq!(at(&mut book, 2, vec![low(30.0)]), []);
    assert_eq!(at(&mut book, 3, vec![low(31.0)]), [(Fires, Resolving)]);
}

#[test]
fn value_that_is_no_number_is_absence() {
    let mut book = AlertBook::new();
    let odd = |value, threshold| Firing { threshold, for_s: 0, ..firing(value) };
    assert_eq!(at(&mut book, 0, vec![odd(f64::NAN, 1.0), odd(1.0, f64::NAN)]), []);
    assert_eq!(book.active().count(), 0);
}

#[test]
fn order_of_labels_does_not_matter_and_their_values_do() {
    let with = |pairs: &[(&str, &str)]| Firing { labels: labels(pairs), ..firing(120.0) };
    let mut book = AlertBook::new();
    at(&mut book, 0, vec![with(&[("a", "1"), ("b", "2")]), with(&[("b", "2"), ("a", "1")])]);
    assert_eq!(book.active().count(), 1);
    at(&mut book, 1, vec![with(&[("b", "2"), ("a", "1")]), with(&[("a", "1"), ("b", "3")])]);
    assert_eq!(book.active().count(), 2);
}

#[test]
fn listing_shows_the_latest_words_and_since_when() {
    let mut book = fired();
    let louder = Firing { severity: Severity::Critical, title: "very slow".to_owned(), ..firing(900.0) };
    at(&mut book, 40, vec![louder]);
    let alert = book.active().next().unwrap();
    assert_eq!((alert.since, alert.value, alert.severity), (wall(30), 900.0, Severity::Critical));
    assert_eq!((alert.title.as_str(), alert.detail.as_str()), ("very slow", "900 ms"));
    assert_eq!(alert.fingerprint.labels, labels(&[("service", "a")]));
}

#[test]
fn faulted_alerter_leaves_its_alerts_stale_and_unresolved() {
    let mut book = fired();
    let other = Name::new("other").unwrap();
    book.evaluate(&other, vec![firing(120.0)], Mono::from_secs(31), wall(31));
    book.stale(&source());
    let stale: Vec<_> = book.active().map(|a| (a.fingerprint.source.clone(), a.state, a.stale)).collect();
    assert_eq!(stale, [(source(), Fires, true), (other.clone(), Pending, false)]);
    book.evaluate(&other, vec![], Mono::from_secs(500), wall(500));
    assert_eq!(state(&book), Fires, "another's evaluation resolves nothing");
    assert_eq!(at(&mut book, 501, vec![firing(120.0)]), []);
    assert!(!book.active().next().unwrap().stale);
}

#[test]
fn alerts_of_a_plugin_that_is_gone_go_with_it() {
    let mut book = fired();
    let other = Name::new("other").unwrap();
    book.evaluate(&other, vec![firing(120.0)], Mono::from_secs(31), wall(31));
    let gone = book.forget(&source());
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].from, gone[0].to, gone[0].alert.state), (Fires, Inactive, Inactive));
    assert_eq!(book.active().map(|alert| &alert.fingerprint.source).collect::<Vec<_>>(), [&other]);
}

#[test]
fn rule_has_at_most_a_hundred_alerts_and_keeps_those_it_has() {
    let of = |rule: &str, service: usize| Firing {
        rule: rule.to_owned(),
        labels: labels(&[("service", &format!("s{service:03}"))]),
        ..firing(120.0)
    };
    let mut book = AlertBook::new();
    at(&mut book, 0, (100..200).map(|i| of("slow", i)).collect());
    let first = Name::new("a-first").unwrap();
    assert_eq!(book.evaluate(&first, vec![of("slow", 0)], Mono::from_secs(0), wall(0)).len(), 1);
    book.forget(&first);
    assert_eq!(book.dropped(), 0);
    let crowd = (0..200).map(|i| of("slow", i)).chain([of("sloppy", 0), of("slower", 0)]).collect();
    assert_eq!(at(&mut book, 1, crowd).len(), 2, "other rules have room of their own");
    assert_eq!(book.dropped(), 100);
    assert!(book.active().all(|alert| alert.fingerprint.rule != "slow"
        || alert.fingerprint.labels[0].1.as_str() >= "s100"));
}

#[test]
fn restored_alert_neither_repeats_nor_forgets() {
    let stored = fired().active().next().unwrap().clone();
    let mut book = AlertBook::new();
    book.restore(stored.clone(), Mono::from_secs(1), wall(200));
    assert!(book.active().next().unwrap().stale);
    assert_eq!(at(&mut book, 2, vec![firing(120.0)]), []);

    let pending = Alert { state: Pending, since: wall(180), ..stored.clone() };
    let mut book = AlertBook::new();
    book.restore(pending.clone(), Mono::from_secs(1), wall(200));
    assert_eq!(at(&mut book, 10, vec![firing(120.0)]), []);
    assert_eq!(
        at(&mut book, 11, vec![firing(120.0)]),
        [(Pending, Fires)],
        "20 s before the restart, 10 s after"
    );
    at(&mut book, 12, vec![]);
    assert_eq!(at(&mut book, 13, vec![]), [], "the time of one state is no other's");

    let mut book = AlertBook::new();
    book.restore(pending, Mono::from_secs(1), wall(0));
    assert_eq!(at(&mut book, 30, vec![firing(120.0)]), [], "a clock set back lends no time");
    book.restore(Alert { state: Inactive, ..stored }, Mono::from_secs(1), wall(0));
    assert_eq!(state(&book), Pending);
}

proptest! {
    /// Against any series of values: firing needs the whole `for` at the threshold, resolving needs the whole hold
    /// of absence, and the changes reported are the whole story.
    #[test]
    fn alert_follows_its_level(
        series in prop::collection::vec((1u64..20, prop::option::of(60.0f64..140.0)), 1..200),
    ) {
        let mut book = AlertBook::new();
        let mut now = 0;
        let mut known = Inactive;
        let (mut reached_since, mut absent_since) = (None::<u64>, None::<u64>);
        for (gap, value) in series {
            now += gap;
            let value = value.unwrap_or(0.0);
            reached_since = (value >= 100.0).then(|| reached_since.unwrap_or(now));
            absent_since = (value < 80.0).then(|| absent_since.unwrap_or(now));
            let said = if value > 0.0 { vec![firing(value)] } else { vec![] };
            let changes = at(&mut book, now, said);
            prop_assert!(changes.len() <= 1);
            for (from, to) in changes {
                prop_assert_eq!(from, known);
                prop_assert_ne!(from, to);
                known = to;
                match (from, to) {
                    (Pending, Fires) => prop_assert!(now - reached_since.unwrap() >= 30),
                    (Resolving, Inactive) => prop_assert!(now - absent_since.unwrap() >= 15),
                    (Inactive, to) => prop_assert_eq!(to, Pending),
                    (Pending, to) => prop_assert_eq!(to, Inactive),
                    (Fires, to) => prop_assert_eq!(to, Resolving),
                    (Resolving, to) => prop_assert_eq!(to, Fires),
                }
            }
            prop_assert_eq!(state(&book), known);
            let overdue = reached_since.is_some_and(|since| now - since >= 30);
            prop_assert!(!overdue || known == Fires);
            let gone = absent_since.is_some_and(|since| now - since >= 15);
            prop_assert!(!gone || known == Inactive);
        }
    }
}
