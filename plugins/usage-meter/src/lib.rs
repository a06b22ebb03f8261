//! Meter of usage; `usage` has the logic and knows no bindings.
//!
//! Totals live in memory and are written to the host's `kv` with each collection, so that they survive a reload.
//! They are read from there when the plugin is first used, not when it is configured: until then another
//! generation may still be counting.

mod settings;
mod usage;

use std::cell::RefCell;

use bindings::exports::meshwright::plugin::{lifecycle, meter};
use bindings::meshwright::plugin::{kv, log};
use settings::Settings;
use usage::{Call, Store, Usage, description};

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "metering" });

    #[cfg(target_arch = "wasm32")]
    export!(UsageMeter with_types_in self);
    #[cfg(target_arch = "wasm32")]
    use super::UsageMeter;
}

#[derive(Default)]
struct State {
    settings: Settings,
    usage: Option<Usage>,
    /// Whether the last write failed: told once, not each second.
    unsaved: bool,
}

impl State {
    fn usage(&mut self) -> &mut Usage {
        self.usage.get_or_insert_with(|| {
            let (usage, unreadable) = Usage::load(self.settings.clone(), &HostStore);
            if unreadable > 0 {
                let message = format!("{unreadable} blocks of stored totals are not readable and start anew");
                log::emit(log::Level::Warn, &message);
            }
            usage
        })
    }

    fn save(&mut self) {
        match self.usage().save(&HostStore) {
            Ok(()) => self.unsaved = false,
            Err(_) if self.unsaved => {}
            Err(error) => {
                self.unsaved = true;
                let message = format!("totals are not stored, a reload would lose them: {error}");
                log::emit(log::Level::Warn, &message);
            }
        }
    }
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

struct HostStore;

impl Store for HostStore {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        kv::get(key)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        kv::set(key, value, 0)
    }
}

struct UsageMeter;

impl lifecycle::Guest for UsageMeter {
    fn metadata() -> String {
        meshwright_sdk::metadata!(schema: "config.schema.json").into()
    }

    fn configure(config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        match Settings::read(&config_json) {
            Ok(settings) => {
                STATE.set(State { settings, ..State::default() });
                Ok(())
            }
            Err(issues) => Err(issues
                .into_iter()
                .map(|issue| lifecycle::Issue { path: issue.path, message: issue.message })
                .collect()),
        }
    }

    fn self_test() -> Result<(), String> {
        usage::self_test()
    }
}

impl meter::Guest for UsageMeter {
    fn describe() -> (Vec<meter::Metric>, Vec<meter::Panel>) {
        STATE.with_borrow(|state| {
            let metrics = description::METRICS.iter().map(|metric| meter::Metric {
                name: metric.name.into(),
                help: metric.help.into(),
                unit: metric.unit.into(),
                kind: if metric.is_counter { meter::Kind::Counter } else { meter::Kind::Gauge },
                labels: match metric.by_series {
                    true => state.settings.by.iter().map(|label| label.name().to_owned()).collect(),
                    false => Vec::new(),
                },
                // One more for the overflow.
                series_max: if metric.by_series { state.settings.series_max + 1 } else { 1 },
            });
            let panels = description::PANELS.iter().map(|panel| meter::Panel {
                title: panel.title.into(),
                chart: match panel.chart {
                    description::Chart::Line => meter::Chart::Line,
                    description::Chart::Bar => meter::Chart::Bar,
                    description::Chart::Table => meter::Chart::Table,
                },
                metrics: panel.metrics.to_vec(),
                unit: panel.unit.into(),
            });
            (metrics.collect(), panels.collect())
        })
    }

    fn on_calls(calls: Vec<meter::Finished>, dropped: u32) {
        STATE.with_borrow_mut(|state| {
            let usage = state.usage();
            usage.add_dropped(dropped);
            for call in calls {
                usage.add(Call {
                    service: call.service,
                    tool: call.tool,
                    client: call.client,
                    us: call.us,
                    failed: call.status >= 400,
                    request_bytes: call.request_bytes,
                    response_bytes: call.response_bytes,
                });
            }
        });
    }

    fn collect(_now_ms: u64) -> Vec<meter::Point> {
        STATE.with_borrow_mut(|state| {
            state.save();
            let mut points = Vec::new();
            state.usage().each_point(|metric, labels, value| {
                points.push(meter::Point { metric, labels: labels.to_vec(), value });
            });
            points
        })
    }
}
