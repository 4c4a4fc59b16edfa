//! The stream of the write-ahead log, from a slot to the listener.
//!
//! A task of its own makes a temporary slot while the log is polled, and streams. PostgreSQL sends what is flushed, which is
//! before others see it: rows wait here until a snapshot sees their transaction, asked once for each batch. Whatever fails,
//! the session ends, the slot goes with it, and the log is polled until there is another: the log has everything.

mod awaiting_visible;
mod inlet;
mod reader;
mod task;

pub use self::task::StreamTask;

pub(super) use self::inlet::{Inlet, Inlets};

/// Rows that wait to be visible, in bytes. Beyond it the slot is given up: the log is polled.
const AWAITING_BYTES_MAX: usize = 16 << 20;
/// A batch is handed on from so many bytes on.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that the listener has not taken yet. Then the stream is not read either.
const BATCHES_MAX: usize = 16;
/// A batch with one row more, in bytes.
const BATCH_BYTES_MAX: usize = BATCH_BYTES + crate::protocol::LARGE_BYTES_MAX;
/// The memory of the stream, in bytes: what waits to be visible, the batches on their way to the listener, and a message.
pub const STREAM_BYTES_MAX: usize =
    AWAITING_BYTES_MAX + (BATCHES_MAX + 2) * BATCH_BYTES_MAX + 2 * crate::config::MESSAGE_BYTES_MAX;
