//! Instances, children and the machine itself go wrong, as they do; what the proxy makes of it, in figures.

mod floods;
mod kills;
#[path = "../support/mod.rs"]
mod support;
mod time;
