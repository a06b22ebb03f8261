use std::cell::{Cell, RefCell};

use super::*;

#[derive(Default)]
struct Memory {
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    writes: Cell<u32>,
    full: Cell<bool>,
}

impl Store for Memory {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.values.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        assert!(key.len() <= 256 && value.len() <= 64 * 1024, "{key}: {}", value.len());
        self.writes.set(self.writes.get() + 1);
        if self.full.get() {
            return Err("quota exceeded".into());
        }
        self.values.borrow_mut().insert(key.to_owned(), value.to_vec());
        Ok(())
    }
}

fn settings(by: &[Label], series_max: u32) -> Settings {
    Settings { by: by.to_vec(), series_max }
}

fn call(service: &str, tool: &str) -> Call {
    Call {
        service: service.into(),
        tool: tool.into(),
        client: "ci".into(),
        us: 250_000,
        failed: false,
        request_bytes: 100,
        response_bytes: 1000,
    }
}

fn points(usage: &Usage) -> Vec<(&'static str, String, f64)> {
    let mut points = Vec::new();
    usage.each_point(|metric, labels, value| {
        points.push((description::METRICS[metric as usize].name, labels.join("/"), value));
    });
    points
}

fn calls(usage: &Usage) -> Vec<(String, f64)> {
    let calls = points(usage).into_iter().filter(|(name, ..)| *name == "meshwright_usage_calls_total");
    calls.map(|(_, labels, value)| (labels, value)).collect()
}

#[test]
fn calls_are_summed_by_their_labels() {
    let mut usage = Usage::new(Settings::default());
    usage.add(call("github", "get"));
    usage.add(Call { failed: true, response_bytes: 0, ..call("github", "get") });
    usage.add_dropped(3);
    let series = "github/get".to_owned();
    assert_eq!(
        points(&usage),
        [
            ("meshwright_usage_calls_total", series.clone(), 2.0),
            ("meshwright_usage_errors_total", series.clone(), 1.0),
            ("meshwright_usage_request_bytes_total", series.clone(), 200.0),
            ("meshwright_usage_response_bytes_total", series.clone(), 1000.0),
            ("meshwright_usage_time_seconds_total", series.clone(), 0.5),
            ("meshwright_usage_response_bytes_mean", series, 500.0),
            ("meshwright_usage_dropped_total", String::new(), 3.0),
        ]
    );
}

#[test]
fn series_beyond_the_limit_are_counted_together() {
    let mut usage = Usage::new(settings(&[Label::Service], 2));
    for service in ["a", "b", "c", "d", "a"] {
        usage.add(call(service, "t"));
    }
    assert_eq!(calls(&usage), [("other".into(), 2.0), ("a".into(), 2.0), ("b".into(), 1.0)]);
}

#[test]
fn without_labels_there_is_one_series_of_everything() {
    let mut usage = Usage::new(settings(&[], 5));
    usage.add(call("a", "t"));
    usage.add(call("b", "t"));
    assert_eq!(calls(&usage), [(String::new(), 2.0)]);
}

#[test]
fn totals_survive_a_reload_and_go_on() {
    let (store, settings) = (Memory::default(), settings(&[Label::Service, Label::Tool, Label::Client], 200));
    let mut before = Usage::load(settings.clone(), &store).0;
    for n in 0..300 {
        before.add(call(&format!("{n}{}", "s".repeat(300)), &"t".repeat(999)));
    }
    before.add_dropped(7);
    before.save(&store).expect("there is room");
    let (mut after, unreadable) = Usage::load(settings, &store);
    assert_eq!((points(&after), unreadable), (points(&before), 0));
    after.add(call("new", "t"));
    assert_eq!(calls(&after)[0].1, 101.0, "the overflow goes on too");
}

#[test]
fn only_what_changed_is_written() {
    let store = Memory::default();
    let mut usage = Usage::new(settings(&[Label::Service], 200));
    for n in 0..200 {
        usage.add(call(&n.to_string(), "t"));
    }
    usage.save(&store).expect("there is room");
    assert_eq!(store.writes.replace(0), 4);
    usage.add(call("150", "t"));
    usage.save(&store).expect("there is room");
    assert_eq!(store.writes.replace(0), 1);
    usage.save(&store).expect("nothing to do");
    assert_eq!(store.writes.get(), 0);
}

#[test]
fn a_refused_write_is_tried_again() {
    let store = Memory::default();
    let mut usage = Usage::new(Settings::default());
    usage.add(call("a", "t"));
    store.full.set(true);
    assert_eq!(usage.save(&store), Err("quota exceeded".into()));
    store.full.set(false);
    assert_eq!(usage.save(&store), Ok(()));
    assert_eq!(calls(&Usage::load(Settings::default(), &store).0), calls(&usage));
}

#[test]
fn a_block_that_cannot_be_read_is_counted_and_the_rest_is_kept() {
    let store = Memory::default();
    let mut usage = Usage::new(settings(&[Label::Service], 200));
    for n in 0..100 {
        usage.add(call(&n.to_string(), "t"));
    }
    usage.save(&store).expect("there is room");
    store.values.borrow_mut().insert("totals/service/0".into(), vec![9, 9]);
    let (loaded, unreadable) = Usage::load(settings(&[Label::Service], 200), &store);
    assert_eq!((calls(&loaded).len(), unreadable), (37, 1));
}

#[test]
fn a_lowered_limit_moves_stored_series_to_the_overflow() {
    let store = Memory::default();
    let mut usage = Usage::new(settings(&[Label::Service], 10));
    for n in 0..10 {
        usage.add(call(&n.to_string(), "t"));
    }
    usage.save(&store).expect("there is room");
    let (loaded, _) = Usage::load(settings(&[Label::Service], 4), &store);
    assert_eq!(calls(&loaded)[0], ("other".into(), 6.0));
    assert_eq!(calls(&loaded).len(), 5);
}

#[test]
fn what_moved_to_another_block_is_not_counted_twice() {
    let store = Memory::default();
    let mut usage = Usage::new(settings(&[Label::Service], 200));
    for n in 0..200 {
        usage.add(call(&n.to_string(), "t"));
    }
    usage.save(&store).expect("there is room");
    for _ in 0..3 {
        let (mut lowered, _) = Usage::load(settings(&[Label::Service], 4), &store);
        assert_eq!(calls(&lowered).iter().map(|(_, calls)| calls).sum::<f64>(), 200.0);
        lowered.save(&store).expect("there is room");
    }
}

#[test]
fn every_panel_shows_metrics_that_exist() {
    for panel in &description::PANELS {
        assert!(panel.metrics.iter().all(|metric| (*metric as usize) < description::METRICS.len()));
    }
    for (index, name) in
        [(description::DROPPED, "dropped_total"), (description::TIME_SECONDS, "time_seconds_total")]
    {
        assert!(description::METRICS[index as usize].name.ends_with(name));
    }
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
