//! The most recent signals, in memory: a client that comes back soon, or falls behind, costs no query.
//!
//! Signals are kept in the order in which they were routed: their texts one after another, in blocks, since
//! most of them will never be asked for. The buffer is complete from a barrier on: it holds every signal that this
//! barrier's snapshot does not see. A cursor that covers the barrier is given exactly the signals that the cursor does
//! not see, in whatever order signals and barriers came. When signals are forgotten, the buffer is complete from a newer
//! barrier that sees them all. A segment holds what was routed between one barrier and the next, and gives its signals
//! their cursor. Only the router writes here. The buffer is bounded by bytes and by age, whichever is less. What it no
//! longer holds is read from the log.

mod block;
mod buffer;
mod forgotten;
mod found;
mod segment;
mod shards;
#[cfg(test)]
mod tests;

pub use self::buffer::{Bounds, ReplayBuffer};
pub use self::forgotten::FORGOTTEN_BYTES_MAX;
pub use self::found::Found;
pub use self::segment::SEGMENT_BYTES_MAX;
