//! The stream of the write-ahead log, from a slot to the listener.
//!
//! A task of its own makes a temporary slot while the log is polled, and streams. PostgreSQL sends what is flushed, which is
//! before others see it: rows wait here until a snapshot sees their transaction, asked once for each batch. Whatever fails,
//! the session ends, the slot goes with it, and the log is polled until there is another: the log has everything.

mod awaiting_visible;
mod bounds;
mod inlet;
mod reader;
mod task;

pub use self::bounds::STREAM_BYTES_MAX;
pub use self::task::StreamTask;

pub(super) use self::inlet::{Inlet, Inlets};
