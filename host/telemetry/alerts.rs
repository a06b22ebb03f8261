//! Asking alerters what deserves attention, and remembering it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::events::EventLog;
use super::series::Windows;
use crate::clock;
use crate::mesh::alert::{Alert, AlertBook, AlertChange, AlertState, Fingerprint};
use crate::mesh::child::ChildState;
use crate::mesh::ids::Name;
use crate::mesh::observe::{Event, Firing, Sample};
use crate::mesh::time::Wall;
use crate::policy::status::PluginStatus;
use crate::policy::{Alerter, PolicyFault};
use crate::registry::{Registry, Snapshot};
use crate::store::{Change, Store};

/// Distance of the values that windows are made of.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// Alerters are asked with every so many values.
const EVALUATE_EVERY: u32 = 5;
/// Alerts of an earlier run wait so long for an alerter that is not there yet.
const RESTORED_WAITS: Duration = Duration::from_secs(120);

/// Who says what the proxy itself finds alarming.
pub const CORE: &str = "meshwright";

/// All alerts that are not inactive.
pub type Alerts = Arc<ArcSwap<Vec<Alert>>>;
/// Asks what the proxy itself finds alarming now.
pub type Conditions = Arc<dyn Fn() -> Vec<Firing> + Send + Sync>;
/// Asks for the state of all plugins.
pub type PluginList = Arc<dyn Fn() -> Vec<PluginStatus> + Send + Sync>;

/// Runs until `stop`, which comes before the instances of a proxy that stops are ended: that is no outage. Run by `app`.
pub struct Alerting {
    pub registry: Registry,
    pub plugins: PluginList,
    pub conditions: Conditions,
    pub events: EventLog,
    pub alerts: Alerts,
    pub store: Store,
    /// Those of the run before.
    pub restored: Vec<Alert>,
}

/// Which alerts there are, and since when each is as it is.
type Standing = Vec<(Fingerprint, AlertState, Wall)>;

struct Question {
    alerter: Arc<dyn Alerter>,
    samples: Vec<Sample>,
    events: Vec<Event>,
}

impl Alerting {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RECORD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut windows = Windows::default();
        let mut book = AlertBook::new();
        let (started, wall) = (clock::mono(), clock::wall());
        let mut unheard: HashSet<Name> =
            self.restored.iter().map(|alert| alert.fingerprint.source.clone()).collect();
        self.restored.drain(..).for_each(|alert| book.restore(alert, started, wall));
        self.alerts.store(Arc::new(book.active().cloned().collect()));
        let mut written = standing(&book);
        let mut heard: HashMap<Name, u64> = HashMap::new();
        let mut round: u32 = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let snapshot = self.registry.snapshot();
            let mut alerters = snapshot.policies.alerters.clone();
            // Its alerts would take the place of the proxy's own.
            alerters.retain(|alerter| alerter.source().name.as_str() != CORE);
            windows.want(alerters.iter().flat_map(|alerter| alerter.wants()));
            windows.record(clock::mono(), &snapshot, &(self.plugins)());
            round = round.wrapping_add(1);
            if round.is_multiple_of(EVALUATE_EVERY) {
                self.evaluate(alerters, &windows, &mut book, &mut heard).await;
                unheard.retain(|source| source.as_str() != CORE && !heard.contains_key(source));
                if clock::mono().since(started) > RESTORED_WAITS {
                    unheard.drain().for_each(|source| book.forget(&source).iter().for_each(log));
                }
                self.alerts.store(Arc::new(book.active().cloned().collect()));
                self.keep(&book, &mut written).await;
            }
        }
    }

    /// Writes down what changed.
    async fn keep(&self, book: &AlertBook, written: &mut Standing) {
        let now = standing(book);
        // What fails is tried with the next evaluation; the store says so to people.
        if *written != now
            && self.store.commit(vec![Change::Alerts(book.active().cloned().collect())]).await.is_ok()
        {
            *written = now;
        }
    }

    async fn evaluate(
        &self,
        alerters: Vec<Arc<dyn Alerter>>,
        windows: &Windows,
        book: &mut AlertBook,
        heard: &mut HashMap<Name, u64>,
    ) {
        let present: HashSet<Name> = alerters.iter().map(|alerter| alerter.source().name.clone()).collect();
        let gone: Vec<Name> = heard.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            heard.remove(&name);
            book.forget(&name).iter().for_each(log);
        }
        let now = clock::mono();
        let core = Name::new(CORE).expect("a good name");
        book.evaluate(&core, (self.conditions)(), now, clock::wall()).iter().for_each(log);
        let questions: Vec<Question> = alerters
            .into_iter()
            .map(|alerter| {
                let from = heard.entry(alerter.source().name.clone()).or_default();
                let (events, next) = self.events.since(*from);
                *from = next;
                Question { samples: windows.samples(now, alerter.wants()), events, alerter }
            })
            .collect();
        let asked = tokio::task::spawn_blocking(move || {
            let wall = clock::wall();
            questions.into_iter().map(|question| question.ask(wall)).collect::<Vec<_>>()
        });
        let Ok(answers) = asked.await else {
            tracing::error!("alert evaluation panicked");
            return;
        };
        let snapshot = self.registry.snapshot();
        for (source, answer) in answers {
            match answer {
                Ok(mut firings) => {
                    firings.iter_mut().for_each(|firing| explain(firing, &snapshot));
                    book.evaluate(&source, firings, now, clock::wall()).iter().for_each(log);
                }
                // The fault is counted where it happened; what the alerter said before is stale, not resolved.
                Err(_) => book.stale(&source),
            }
        }
    }
}

fn standing(book: &AlertBook) -> Standing {
    book.active().map(|alert| (alert.fingerprint.clone(), alert.state, alert.since)).collect()
}

impl Question {
    fn ask(self, now: Wall) -> (Name, Result<Vec<Firing>, PolicyFault>) {
        let answer = self.alerter.evaluate(now, &self.samples, &self.events);
        (self.alerter.source().name.clone(), answer)
    }
}

/// Alerters are told numbers; why a process is not ready is known only here.
fn explain(firing: &mut Firing, snapshot: &Snapshot) {
    let named = firing.labels.iter().find(|(key, _)| key == "instance");
    let instance = named.and_then(|(_, name)| snapshot.instance(name));
    let Some((instance, (state, _))) = instance.and_then(|one| Some((one, one.child?))) else { return };
    let why = instance.why();
    if state != ChildState::Ready && !why.is_empty() {
        firing.detail = format!("{}: {} ({why})", firing.detail, state.as_str());
    }
}

fn log(change: &AlertChange) {
    let alert = &change.alert;
    let (rule, title, detail) = (&alert.fingerprint.rule, &alert.title, &alert.detail);
    match change.to {
        AlertState::Firing if change.from != AlertState::Resolving => {
            tracing::warn!(rule, title, detail, severity = ?alert.severity, "alert firing");
        }
        AlertState::Inactive => tracing::info!(rule, title, "alert resolved"),
        _ => tracing::debug!(rule, title, state = change.to.as_str(), "alert changed"),
    }
}
