//! What a node that follows does with the intake: it routes what the bus brings and what repairs read.

use std::time::Instant;

use super::intake::Intake;
use crate::protocol::{Cursor, Kind, Notification, ShardSet, Subject};
use crate::store::{Chunk, ChunkRow};

/// The intake, while the node follows.
#[derive(Debug)]
pub(super) struct BusIntake<'a> {
    pub(super) intake: &'a mut Intake,
}

impl BusIntake<'_> {
    /// Another node has routed this, and published it.
    pub(super) fn published(&mut self, mut notification: Notification<'_>) {
        self.intake.resolve(&mut notification);
        if notification.subject == Subject::Event(Kind::OTHER) {
            // It is handed on as it is, and counted by its kind from then on.
            self.intake.sources_doubt().begin();
        }
        self.intake.router().route(notification);
    }

    /// The leader's barrier has been passed. Returns whether all shards are to be repaired, so that the clients can be reset.
    pub(super) fn pass(&mut self, barrier: Cursor, now: Instant) -> bool {
        self.intake.router().complete_barrier(barrier, now);
        self.intake.router().take_routed();
        self.intake.resets().are_due(now)
    }

    /// Routes what a chunk has of these shards, up to the first row whose kind or source is not known. Returns how many rows
    /// were read.
    pub(super) fn repair(&mut self, chunk: &Chunk, shards: ShardSet) -> usize {
        if let Some(reason) = chunk.reading.reset_reason() {
            self.intake.resets().at_end(reason);
        }
        self.intake.read_rows(&chunk.rows, shards, true)
    }

    /// Routes what these rows have of these shards.
    pub(super) fn repair_all(&mut self, rows: &[ChunkRow], shards: ShardSet) {
        self.intake.read_rows(rows, shards, false);
    }

    /// A repair has read everything of its shards that this snapshot sees; `is_whole` says whether these are all shards of
    /// the node. Returns false if all of them are to be repaired, because the clients have to be reset.
    pub(super) fn repaired(&mut self, reached: Cursor, is_whole: bool, now: Instant) -> bool {
        self.intake.router().routed_ahead(reached.snapshot.clone());
        match self.intake.resets().reason_by(now) {
            None => true,
            Some(reason) if is_whole => {
                self.intake.restart(reason, Some(reached), now);
                true
            }
            Some(_) => {
                self.intake.router().hold_cursors();
                false
            }
        }
    }
}
