//! Behaviour of the room with real components: a hostile one that misbehaves as told, and broken files.

mod calls;
mod files;
mod probation;
mod replay;
mod support;
