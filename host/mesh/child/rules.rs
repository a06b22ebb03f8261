//! What a child's states are called, and what rules it has.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// Not running, and not about to: it waits for its turn, or was stopped, or ended by itself.
    Stopped,
    Starting,
    /// Starting, and seen to do something that takes its time.
    Installing,
    Ready,
    Stopping,
    /// Failed; the next try is soon.
    Backoff,
    /// Failed so often that the next try is late.
    Fatal,
    /// Cannot be started as things are; what was missing is looked for again, late.
    Skipped,
    /// Not running: the next call starts it.
    Idle,
}

impl ChildState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Installing => "installing",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Fatal => "fatal",
            Self::Skipped => "skipped",
            Self::Idle => "idle",
        }
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Unless it ended with 0 after it had been ready.
    #[default]
    OnFailure,
    Always,
    Never,
}

impl RestartPolicy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// When a child is started for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the proxy.
    #[default]
    Eager,
    /// With the first call, once it is known what it offers.
    Lazy,
}

impl Start {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Lazy => "lazy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub policy: RestartPolicy,
    /// So many failures within `window` park it.
    pub failures_max: usize,
    pub window: Duration,
    /// From its start to its first answer, without the time in which something was installed.
    pub startup: Duration,
    pub start: Start,
    /// Without a call, a session or a subscription for so long, it is stopped until the next call.
    pub idle_stop: Option<Duration>,
}

impl Rules {
    /// Whether calls may find it not running, and start it.
    pub const fn rests(&self) -> bool {
        matches!(self.start, Start::Lazy) || self.idle_stop.is_some()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::OnFailure,
            failures_max: 5,
            window: Duration::from_secs(60),
            startup: Duration::from_secs(30),
            start: Start::Eager,
            idle_stop: None,
        }
    }
}
