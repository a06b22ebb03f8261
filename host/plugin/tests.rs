//! Behaviour of the room with real components: a hostile one that misbehaves as told, and broken files.

mod calls;
mod crashes;
mod files;
mod limits;
mod metrics;
mod pace;
mod probation;
mod replay;
mod rulings;
mod support;
mod tried_again;
