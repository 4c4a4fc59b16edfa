//! What turns commits into events: the listener, and what it knows of the database's state.

mod barrier;
pub mod injector;
mod listener;
mod schedule;
pub mod wake_lock;

pub use self::barrier::{Barriers, CONTROL_CHANNEL, Heard};
pub use self::listener::Listener;
