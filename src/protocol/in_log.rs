//! Large events: what the queues hold of one is where the log has the rest.

use super::Op;

/// The longest JSON of an event that the queues hold. Of a longer one they hold a [`InLog`], and the connection reads the
/// event when it is its turn.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// The longest event that any setting lets through. The log keeps no longer one.
pub const LARGE_BYTES_MAX: usize = 1 << 20;

/// Where the log has a large event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InLog {
    /// The id of the row that has its values, or its JSON. Those of several users may have one.
    pub body: i64,
    /// The number of its source; `None` where the log has its JSON.
    pub source: Option<i16>,
    /// What was done to the row.
    pub op: Op,
    /// Whether the log has its key alone.
    pub truncated: bool,
    /// The length of its JSON, at most [`LARGE_BYTES_MAX`] and some more.
    pub bytes: u32,
}
