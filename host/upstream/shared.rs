//! The process that all clients of an instance share, for whoever supervises it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::child::{Log, Shared, Standing, Stdio};
use super::peer::{Link, Peer, Spoken};
use super::stdio::Process;
use super::{SendError, Times};

/// How long a process is asked the modern question alone: one that is slow, or deaf to what it does not know, is
/// then asked the legacy one, too.
const MODERN_ALONE: Duration = Duration::from_secs(5);

impl Shared {
    /// There is no process that anybody may speak to.
    pub(super) fn stand(&self, not_up: Standing) {
        self.standing.send_if_modified(|standing| {
            let differs = *standing != not_up;
            *standing = not_up;
            differs
        });
        self.process.store(None);
    }
}

impl Peer {
    pub(super) fn stdio(&self) -> Option<&Stdio> {
        match &self.link {
            Link::Http(_) => None,
            Link::Stdio(stdio) => Some(stdio),
        }
    }

    /// Whether it is a process that must be started and watched by somebody.
    pub fn is_supervised(&self) -> bool {
        self.is_process() && !self.starts_one_for_each()
    }

    /// What its processes wrote beside the protocol; `None` when it is none.
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.stdio().map(|stdio| &stdio.log)
    }

    /// The command as people know it; `None` when it is none.
    pub fn program(&self) -> Option<&Arc<str>> {
        self.stdio().map(|stdio| &stdio.command.program)
    }

    /// Starts the process. Nobody else speaks to it before [`Peer::meet`] has.
    ///
    /// # Errors
    /// The program is not there, or cannot be started.
    pub async fn launch(&self) -> Result<Arc<Process>, SendError> {
        match self.stdio() {
            Some(stdio) => stdio.start().await,
            None => Err(SendError::NotSent(std::io::ErrorKind::Unsupported.into())),
        }
    }

    /// Finds out how the process is spoken to.
    ///
    /// # Errors
    /// It does not answer as it should.
    pub async fn meet(&self, process: &Arc<Process>, times: &Times) -> Result<Arc<Spoken>, SendError> {
        self.greet_once(process, times).await.map(Arc::new)
    }

    /// From now on everybody may speak to the process, and so.
    pub fn stand_up(&self, process: &Arc<Process>, spoken: &Arc<Spoken>) {
        if let Some(stdio) = self.stdio() {
            stdio.shared.process.store(Some(Arc::clone(process)));
            self.spoken.store(Some(Arc::clone(spoken)));
            stdio.shared.standing.send_replace(Standing::Up);
        }
    }

    /// Nobody speaks to the process any more; whoever wants to is told why.
    pub fn stand_down(&self, why: &str) {
        if let Some(stdio) = self.stdio() {
            stdio.shared.stand(Standing::Down(why.into()));
            self.begin_anew();
        }
    }

    /// Tells when the process comes up or goes down; `None` when it is none that is shared.
    pub fn standings(&self) -> Option<watch::Receiver<Standing>> {
        self.stdio().filter(|_| self.is_supervised()).map(|stdio| stdio.shared.standing.subscribe())
    }

    async fn greet_once(&self, process: &Arc<Process>, times: &Times) -> Result<Spoken, SendError> {
        if self.legacy_first.load(Ordering::Relaxed) {
            let greeted = self.initialize("{}", Some(Arc::clone(process)), times).await;
            self.remember_death(process, false);
            return greeted.map(|(spoken, _)| spoken);
        }
        let mut discover = pin!(self.discover(Some(Arc::clone(process)), times));
        let found = tokio::time::timeout(MODERN_ALONE, &mut discover).await;
        let is_slow = found.is_err();
        if let Some(modern) = found.unwrap_or(Ok(None))? {
            return Ok(modern);
        }
        self.remember_death(process, true);
        let mut initialize = pin!(self.initialize("{}", Some(Arc::clone(process)), times));
        if !is_slow {
            return initialize.await.map(|(spoken, _)| spoken);
        }
        tokio::select! {
            found = &mut discover => match found? {
                Some(modern) => Ok(modern),
                None => initialize.await.map(|(spoken, _)| spoken),
            },
            greeted = &mut initialize => match greeted {
                Ok((spoken, _)) => Ok(spoken),
                // It may know the modern question alone, and be slow to answer it.
                Err(error) => discover.await?.ok_or(error),
            },
        }
    }

    /// Some servers end when the first thing they hear is not `initialize`: they are asked that first the next time.
    fn remember_death(&self, process: &Process, legacy_first: bool) {
        if process.is_gone() {
            self.legacy_first.store(legacy_first, Ordering::Relaxed);
        }
    }
}
