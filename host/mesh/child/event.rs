//! What happens to a child, and what must be done about it.

/// What happened to a child, or what is wanted of it. Reasons are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Start,
    Stop,
    Restart,
    /// Nobody needs it now: it is to run again when somebody does.
    Rest,
    /// Somebody needs it.
    Wake,
    /// Its turn has come: [`Child::wants_launch`](super::Child::wants_launch) said so.
    Launch,
    /// Its command is not there.
    Missing(String),
    /// It cannot be started as it is written.
    Barred(String),
    /// There is no process: it could not be started.
    NotStarted(String),
    /// The process lives and does not answer as it should.
    Unfit(String),
    Answered,
    /// `clean`: with 0.
    Ended {
        why: String,
        clean: bool,
    },
    /// Time went by; `busy`: something was seen to happen since the last tick.
    Tick {
        busy: bool,
    },
}

/// What must be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The process must end, and [`Event::Ended`] follow.
    End,
    /// It failed so often that it is parked.
    Park,
}
