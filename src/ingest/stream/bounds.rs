//! The memory of a stream.

use crate::config::MESSAGE_BYTES_MAX;
use crate::protocol::LARGE_BYTES_MAX;

/// Rows that wait to be visible, in bytes. Beyond it the slot is given up: the log is polled.
pub(super) const AWAITING_BYTES_MAX: usize = 16 << 20;
/// A batch is handed on from so many bytes on.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// Batches that the listener has not taken yet. Then the stream is not read either.
pub(super) const BATCHES_MAX: usize = 16;
/// A batch with one row more, in bytes.
const BATCH_BYTES_MAX: usize = BATCH_BYTES + LARGE_BYTES_MAX;
/// The memory of the stream, in bytes: what waits to be visible, the batches on their way to the listener, and a message.
pub const STREAM_BYTES_MAX: usize =
    AWAITING_BYTES_MAX + (BATCHES_MAX + 2) * BATCH_BYTES_MAX + 2 * MESSAGE_BYTES_MAX;
