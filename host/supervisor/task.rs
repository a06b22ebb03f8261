//! The one task that owns the children. Whatever wakes it, it looks at all of them and does what is due.

mod fix;
mod hung;
mod kept;
mod needs;
mod rest;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Happening, Report};
use super::{ChildStatus, Children, Command, First, Order, OrderError, QUEUE, Startup};
use crate::clock;
use crate::config::ChildConfig;
use crate::mesh::child::{ChildState, Effect, Event};
use crate::mesh::dependency;
use crate::mesh::ids::Name;
use crate::mesh::observe;
use crate::mesh::time::Mono;
use crate::process::installing;
use crate::registry::{Instance, Registry};
use crate::upstream::{Process, SendError, chain};
use kept::Kept;
use needs::Needs;

/// Children that are starting at once.
const PARALLEL: usize = 8;
/// How long one that starts keeps others from their turn.
const TURN: Duration = Duration::from_secs(5);
/// Distance of looks at what starting children do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One that is due may have to wait for its turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// How long calls to a child that leaves may take.
const RETIRES: Duration = Duration::from_secs(30);
/// Reports that may wait.
const REPORTS: usize = 256;
/// When the start is reported at the latest, with those that are still on their way.
const REPORT_AFTER: Duration = Duration::from_secs(30);

/// What the supervisor needs to begin.
pub struct Settings {
    pub registry: Registry,
    pub events: mpsc::Sender<observe::Event>,
    /// Of the services whose processes it starts.
    pub services: BTreeMap<Name, ChildConfig>,
}

/// Who gave an order, and what is answered once it can be seen what came of it.
type Obeyed = (oneshot::Sender<Result<(), OrderError>>, Result<(), OrderError>);

/// Owns the children. Run by `app`.
pub struct Task {
    registry: Registry,
    events: mpsc::Sender<observe::Event>,
    /// In the order of their services.
    children: Vec<Kept>,
    commands: mpsc::Receiver<Command>,
    shown: watch::Sender<Arc<[ChildStatus]>>,
    reports: mpsc::Sender<Report>,
    reported: mpsc::Receiver<Report>,
    lives: JoinSet<()>,
    began: Mono,
    looked: Mono,
    /// Numbers of lives are never given out again.
    lives_begun: u64,
    start_told: bool,
    /// Orders that were obeyed since the children were last shown.
    obeyed: Vec<Obeyed>,
    /// Everything ends; who waits for it.
    ending: Option<Vec<oneshot::Sender<()>>>,
}

impl Task {
    pub fn new(settings: Settings) -> (Children, Self) {
        let Settings { registry, events, services } = settings;
        let children = children_of(&registry, &services, Vec::new());
        let shown = watch::Sender::new(children.iter().map(Kept::status).collect());
        let (commands, queue) = mpsc::channel(QUEUE);
        let (reports, reported) = mpsc::channel(REPORTS);
        let view = Children { shown: shown.subscribe(), commands };
        let task = Self {
            registry,
            events,
            start_told: children.is_empty(),
            children,
            commands: queue,
            shown,
            reports,
            reported,
            lives: JoinSet::new(),
            began: clock::mono(),
            looked: clock::mono(),
            lives_begun: 0,
            obeyed: Vec::new(),
            ending: None,
        };
        (view, task)
    }

    /// Runs until `stop`; children that are there still are killed then.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.look_at_all().await;
            let pause = self.pause();
            tokio::select! {
                () = stop.cancelled() => return,
                Some((name, life, happening)) = self.reported.recv() => self.note(&name, life, happening),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                // Ended lives are only cleared away.
                Some(_) = self.lives.join_next() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // Many things happen at once: one look does for all of them.
            while let Ok((name, life, happening)) = self.reported.try_recv() {
                self.note(&name, life, happening);
            }
        }
    }

    /// Until something is due by time alone.
    fn pause(&self) -> Duration {
        let now = clock::mono();
        let next = self.children.iter().filter_map(|kept| kept.machine.next_try());
        let next = next.min().map_or(LOOK_EVERY, |next| next.since(now));
        next.clamp(SHORTEST_PAUSE, LOOK_EVERY)
    }

    async fn look_at_all(&mut self) {
        self.tick().await;
        self.end_what_is_hung();
        self.let_rest();
        self.wake_what_is_needed();
        self.launch_whose_turn_it_is();
        let needs = Needs::of(&self.children, &self.registry);
        for kept in &mut self.children {
            kept.lacks = kept.config.needs.iter().find_map(|need| needs.lack(need));
            kept.settle();
        }
        for at in 0..self.children.len() {
            if let Some(sight) = self.children[at].take_news() {
                let instance = Arc::clone(&self.children[at].instance);
                self.registry.child(&instance, sight).await;
            }
        }
        self.shown.send_replace(self.children.iter().map(Kept::status).collect());
        // Who went away meanwhile needs no answer.
        self.obeyed.drain(..).for_each(|(done, answer)| drop(done.send(answer)));
        self.tell_start();
        let all_ended = self.children.iter().all(|kept| kept.machine.state() == ChildState::Stopped);
        if let Some(waiting) = self.ending.as_mut().filter(|_| all_ended) {
            // Who does not wait any more need not know.
            waiting.drain(..).for_each(|done| done.send(()).unwrap_or_default());
        }
    }

    /// Time went by, for all; once a second it is looked at whether something is being installed.
    async fn tick(&mut self) {
        let now = clock::mono();
        let looks = now.since(self.looked) >= LOOK_EVERY;
        let mut at_work = Vec::new();
        if looks {
            self.looked = now;
            let starting = self.children.iter().filter(|kept| kept.is_starting());
            let sessions: Vec<_> =
                starting.filter_map(|kept| Some(kept.process.as_ref()?.session())).collect();
            if !sessions.is_empty() {
                let looking = tokio::task::spawn_blocking(move || installing(&sessions));
                // What cannot be seen is no sign.
                at_work = looking.await.unwrap_or_default();
            }
        }
        for at in 0..self.children.len() {
            let kept = &mut self.children[at];
            let busy = kept.is_starting() && (kept.has_written() || kept.is_among(&at_work));
            let effect = kept.machine.step(Event::Tick { busy }, clock::mono(), fastrand::u64(..));
            self.carry_out(at, effect);
        }
    }

    fn launch_whose_turn_it_is(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let now = clock::mono();
        let takes_turn = |kept: &&Kept| {
            kept.machine.state() == ChildState::Starting
                && kept.machine.since().is_some_and(|since| now.since(since) < TURN)
        };
        let mut free = PARALLEL.saturating_sub(self.children.iter().filter(takes_turn).count());
        let needs = Needs::of(&self.children, &self.registry);
        for kept in self.children.iter_mut().filter(|kept| kept.machine.wants_launch(now)) {
            if let Some(why) = kept.config.needs.iter().find_map(|need| needs.unsettled(need)) {
                kept.machine.waits(&why);
            } else if free == 0 {
                kept.machine.waits("it waits for its turn");
            } else {
                free -= 1;
                kept.machine.step(Event::Launch, now, 0);
                self.lives_begun += 1;
                let number = self.lives_begun;
                kept.begin_life(number);
                let attempt = Attempt {
                    instance: kept.instance.name().clone(),
                    number,
                    peer: Arc::clone(&kept.instance.peer),
                    reports: self.reports.clone(),
                };
                kept.attempt = Some(self.lives.spawn(attempt.run()));
            }
        }
    }

    fn note(&mut self, name: &Name, life: u64, happening: Happening) {
        let Some(at) = self.children.iter().position(|kept| kept.instance.name() == name) else { return };
        let kept = &mut self.children[at];
        if kept.life != life {
            return;
        }
        let event = match happening {
            Happening::Launched(process) => {
                kept.process = Some(process);
                // It may have been stopped meanwhile.
                let ends = kept.machine.state() == ChildState::Stopping;
                return self.carry_out(at, ends.then_some(Effect::End));
            }
            Happening::NotLaunched(error) => {
                kept.start_fix = fix::of_start(&error, &kept.instance.spec.service);
                let is_missing = matches!(error, SendError::Missing(_));
                let why = chain(&error);
                if is_missing { Event::Missing(why) } else { Event::NotStarted(why) }
            }
            Happening::Met(spoken) => {
                kept.meet(spoken);
                Event::Answered
            }
            Happening::Unfit(why) => Event::Unfit(why),
            Happening::Wanted => {
                kept.is_watched = false;
                Event::Wake
            }
            Happening::Lingers => {
                kept.lingers = true;
                return;
            }
            Happening::Ended(exit) => {
                kept.start_fix = kept.fix_of_end(exit);
                let windows = if kept.start_fix.is_some() { " (the file has Windows line ends)" } else { "" };
                let why = kept.obituary(exit) + windows;
                kept.process = None;
                kept.lingers = false;
                Event::Ended { why, clean: exit.is_clean() }
            }
        };
        let before = kept.machine.state();
        let effect = kept.machine.step(event, clock::mono(), fastrand::u64(..));
        let (state, reason) = (kept.machine.state(), kept.machine.reason());
        match state {
            ChildState::Ready => tracing::info!(instance = %name, "child is ready"),
            ChildState::Backoff | ChildState::Skipped => {
                tracing::warn!(instance = %name, state = state.as_str(), reason, "child is not ready");
            }
            // At the end all are stopped, and nobody needs to hear of each.
            _ if before != state && self.ending.is_none() => {
                tracing::info!(instance = %name, state = state.as_str(), reason, "child changed");
            }
            _ => {}
        }
        self.carry_out(at, effect);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Order { name, order, done } => {
                let found = self.children_called(&name);
                for at in &found {
                    let event = match order {
                        Order::Start => Event::Start,
                        Order::Stop => Event::Stop,
                        Order::Restart => Event::Restart,
                    };
                    self.step(*at, event);
                }
                let answer = if found.is_empty() { Err(OrderError::NoChild(name)) } else { Ok(()) };
                self.obeyed.push((done, answer));
            }
            Command::Configure { services } => self.configure(&services),
            Command::StopAll { done } => {
                self.ending.get_or_insert_default().push(done);
                (0..self.children.len()).for_each(|at| self.step(at, Event::Stop));
            }
        }
    }

    fn configure(&mut self, services: &BTreeMap<Name, ChildConfig>) {
        if self.ending.is_some() {
            return;
        }
        let before = std::mem::take(&mut self.children);
        let snapshot = self.registry.snapshot();
        let is_member = |kept: &Kept| {
            let now = snapshot.instance(kept.instance.name().as_str());
            now.is_some_and(|now| now.id == kept.instance.id)
        };
        let (stay, leave): (Vec<Kept>, Vec<Kept>) = before.into_iter().partition(is_member);
        for kept in leave {
            // One that has no process yet must not get one.
            if let Some(attempt) = kept.attempt.filter(|_| kept.process.is_none()) {
                attempt.abort();
            }
            if kept.process.is_none() {
                kept.instance.peer.stand_down("it was taken out of the configuration");
            }
            self.lives.spawn(retire(kept.instance, kept.process));
        }
        self.children = children_of(&self.registry, services, stay);
    }

    fn children_called(&self, name: &str) -> Vec<usize> {
        let of = |is: &dyn Fn(&Kept) -> bool| {
            let found = self.children.iter().enumerate().filter(|(_, kept)| is(kept));
            found.map(|(at, _)| at).collect::<Vec<usize>>()
        };
        let service = of(&|kept| kept.instance.spec.service.as_str() == name);
        if service.is_empty() { of(&|kept| kept.instance.name().as_str() == name) } else { service }
    }

    fn step(&mut self, at: usize, event: Event) {
        let effect = self.children[at].machine.step(event, clock::mono(), fastrand::u64(..));
        self.carry_out(at, effect);
    }

    fn carry_out(&mut self, at: usize, effect: Option<Effect>) {
        let kept = &self.children[at];
        match effect {
            // One that is still being launched is ended as soon as it is there.
            Some(Effect::End) => {
                if let Some(process) = kept.process.clone() {
                    self.lives.spawn(async move { process.stop().await });
                }
            }
            Some(Effect::Park) => {
                let (name, reason) = (kept.instance.name(), kept.machine.reason());
                tracing::error!(instance = %name, reason, "child failed too often and is parked");
                let detail = format!("failed too often, now tried every 5 minutes: {reason}");
                let service = kept.instance.spec.service.clone();
                self.emit("child_parked", Some(service), Some(name.clone()), detail);
            }
            None => {}
        }
    }

    /// Says once what became of the start.
    fn tell_start(&mut self) {
        let children = self.shown.borrow().clone();
        let report = Startup::of(&children);
        let late = clock::mono().since(self.began) >= REPORT_AFTER;
        if self.start_told || self.ending.is_some() || !report.pending.is_empty() && !late {
            return;
        }
        self.start_told = true;
        for child in children
            .iter()
            .filter(|child| child.required && !matches!(child.first, Some(First::Started | First::Idle)))
        {
            tracing::error!(service = %child.service, state = child.state.as_str(), reason = child.reason, "required service is not ready");
        }
        let list = |names: &[Name]| match names {
            [] => "none".to_owned(),
            names => names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
        };
        let Startup { started, failed, skipped, idle, pending } = &report;
        let (started, failed, skipped) = (list(started), list(failed), list(skipped));
        let (idle, pending) = (list(idle), list(pending));
        tracing::info!(started, failed, skipped, idle, pending, "services by command were started");
        let detail = format!(
            "started: {started}; failed: {failed}; skipped: {skipped}; idle: {idle}; pending: {pending}"
        );
        self.emit("startup", None, None, detail);
    }

    /// An event that finds the channel full is dropped; the states are seen all the same.
    fn emit(&self, kind: &'static str, service: Option<Name>, instance: Option<Name>, detail: String) {
        let event = observe::Event { at: clock::wall(), kind, service, instance, detail };
        if self.events.try_send(event).is_err() {
            tracing::debug!(kind, "event dropped");
        }
    }
}

/// A child for each supervised instance, in the order of the services; those that there are stay as they are.
fn children_of(
    registry: &Registry,
    services: &BTreeMap<Name, ChildConfig>,
    mut there: Vec<Kept>,
) -> Vec<Kept> {
    let needs = services.iter().map(|(name, config)| (name.clone(), config.needs.clone())).collect();
    let circles = dependency::circles(&needs);
    let snapshot = registry.snapshot();
    let mut children = Vec::new();
    for (service, config) in services {
        let instances = snapshot.service(service.as_str()).map(|service| &service.instances[..]);
        let supervised = instances.unwrap_or_default().iter();
        for instance in supervised.filter(|one| one.configured && one.peer.is_supervised()) {
            if let Some(at) = there.iter().position(|kept| kept.instance.id == instance.id) {
                let mut kept = there.swap_remove(at);
                kept.config = config.clone();
                kept.machine.rule_by(config.rules);
                // What was in its way may be gone.
                if kept.machine.state() == ChildState::Skipped && !circles.contains_key(service) {
                    kept.machine.step(Event::Start, clock::mono(), 0);
                }
                children.push(kept);
                continue;
            }
            let mut kept = Kept::new(instance, config);
            if let Some(way) = circles.get(service) {
                let why = format!("it needs itself: {way}; take one of them out of the other's `depends_on`");
                kept.machine.step(Event::Barred(why), clock::mono(), 0);
            }
            children.push(kept);
        }
    }
    children
}

/// Ends the process of an instance that is no member any more, once the calls that are on their way to it are over.
async fn retire(instance: Arc<Instance>, process: Option<Arc<Process>>) {
    let Some(process) = process else { return };
    let idle = async {
        while instance.core.live.in_flight() > 0 {
            tokio::time::sleep(SHORTEST_PAUSE).await;
        }
    };
    // What takes longer is cut.
    tokio::time::timeout(RETIRES, idle).await.ok();
    process.stop().await;
}
