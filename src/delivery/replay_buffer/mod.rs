//! The most recent signals, in memory: a client that comes back soon, or falls behind, costs no query.
//!
//! Signals are kept in the order in which they were routed: their texts one after another, in blocks, since
//! most of them will never be asked for. A segment holds what was routed between one barrier and the next.
//! A cursor that covers barrier *n* can be served from barrier *n − 1* on: an event that was routed before
//! that barrier had committed before barrier *n* took its snapshot. Only the router writes here. The buffer is
//! bounded by bytes and by age, whichever is less. What it no longer holds is read from the log.

mod block;
mod buffer;
mod found;
mod segment;
#[cfg(test)]
mod tests;

pub use self::buffer::{Bounds, ReplayBuffer};
pub use self::found::Found;
pub use self::segment::SEGMENT_BYTES_MAX;
