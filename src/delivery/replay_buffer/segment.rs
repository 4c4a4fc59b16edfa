//! What was routed between one barrier and the next.

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{Cursor, Snapshot};

/// The memory of a segment with the longest snapshot that a barrier brings, in bytes.
pub const SEGMENT_BYTES_MAX: usize =
    2 * size_of::<Segment>() + size_of::<Cursor>() + Snapshot::NOTIFIED_BYTES_MAX;

/// The beginning of a segment. The segment ends where the next one begins.
#[derive(Debug)]
pub(super) struct Segment {
    /// The snapshot of the barrier at its beginning. The first segment has none.
    pub(super) barrier: Option<Snapshot>,
    /// The barrier in the form that clients are given.
    pub(super) cursor: Option<Arc<Cursor>>,
    pub(super) began: Instant,
    /// The sequence number of the last signal before the segment.
    pub(super) after: u64,
}

impl Segment {
    pub(super) fn new(barrier: Option<&Cursor>, after: u64, now: Instant) -> Self {
        Self {
            barrier: barrier.map(|cursor| cursor.snapshot.clone()),
            cursor: barrier.map(|cursor| Arc::new(cursor.for_clients())),
            began: now,
            after,
        }
    }
}
