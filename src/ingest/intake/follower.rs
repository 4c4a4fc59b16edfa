//! The intake of a node that follows: what the bus brings and what repairs read.

use std::time::Instant;

use super::Intake;
use crate::config::Ingest;
use crate::delivery::Router;
use crate::ingest::schedule::Schedule;
use crate::protocol::{Cursor, Kind, Notification, ShardSet, Subject};
use crate::store::{Chunk, ChunkRow};

impl Intake {
    /// What routes the events.
    pub(in crate::ingest) fn router(&mut self) -> &mut Router {
        &mut self.router
    }

    /// The node follows from here on: nothing is listened to, and nothing polled.
    pub(in crate::ingest) fn follow(&mut self, now: Instant) {
        self.on_disk(u64::MAX);
        self.end_stream(now);
        self.schedule = Schedule::new(Ingest::Notify, now);
        self.wants.announce(&self.schedule);
        self.returned = None;
    }

    /// The node reads the log itself again, up to the position at least.
    pub(in crate::ingest) fn read_all_shards(&mut self) {
        if let Some(position) = self.router.position() {
            let snapshot = position.snapshot.clone();
            self.router.take_shards(ShardSet::ALL, snapshot);
        }
        self.router.serve(ShardSet::ALL);
    }

    /// Another node has routed this, and published it.
    pub(in crate::ingest) fn published(&mut self, mut notification: Notification<'_>) {
        self.metrics.kinds.resolve(&mut notification);
        if notification.subject == Subject::Event(Kind::OTHER) {
            // It is handed on as it is, and counted by its kind from then on.
            self.sources_doubt.begin();
        }
        self.router.route(notification);
    }

    /// The leader's barrier has been passed. Returns whether all shards are to be repaired, so that the clients can be reset.
    pub(in crate::ingest) fn pass(&mut self, barrier: Cursor, now: Instant) -> bool {
        self.router.complete_barrier(barrier, now);
        self.router.take_routed();
        self.failed.are_due(now)
    }

    /// Routes what a chunk has of these shards, up to the first row whose kind or source is not known. Returns how many rows
    /// were read.
    pub(in crate::ingest) fn repair(&mut self, chunk: &Chunk, shards: ShardSet) -> usize {
        if let Some(reason) = chunk.reading.reset_reason() {
            self.reset = Some(reason);
        }
        self.read_rows(&chunk.rows, shards, true)
    }

    /// Routes what these rows have of these shards.
    pub(in crate::ingest) fn repair_all(&mut self, rows: &[ChunkRow], shards: ShardSet) {
        self.read_rows(rows, shards, false);
    }

    /// A repair has read everything of its shards that this snapshot sees; `is_whole` says whether these are all shards of
    /// the node. Returns false if all of them are to be repaired, because the clients have to be reset.
    pub(in crate::ingest) fn repaired(
        &mut self,
        reached: Cursor,
        is_whole: bool,
        now: Instant,
    ) -> bool {
        self.router.routed_ahead(reached.snapshot.clone());
        if !self.resets(now) {
            return true;
        }
        let (Some(reason), true) = (self.reset, is_whole) else {
            self.router.hold_cursors();
            return false;
        };
        self.restart(reason, Some(reached), now);
        true
    }
}
