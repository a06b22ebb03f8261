//! Where connections come in: accept loops, the workers that serve them, and the guard that every request passes.
//! Data-path requests go to `proxy`, all others to the page router of `http`.
//!
//! Must not know what a request means beyond which of the two it is for.

mod guard;
mod listen;
mod patience;
mod serve;
mod workers;

pub use guard::Guard;
pub use listen::{BindError, Bound, bind};
pub use serve::{Edge, Port, Surface};
pub use workers::{Ends, Workers};
