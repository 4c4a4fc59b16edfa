//! The intake as the model of many nodes drives it: what the model has read takes the place of the database.

use std::sync::Arc;
use std::time::Instant;

use super::bus_intake::BusIntake;
use super::catch_up::reset_reason;
use super::intake::Intake;
use super::presents::Presents;
use crate::config::Ingest;
use crate::delivery::Router;
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Notification, ShardSet, Snapshot};
use crate::store::{Chunk, ChunkRow};

/// The intake of a node that has a log.
pub(crate) struct Driven {
    intake: Intake,
    presents: Presents,
}

impl Driven {
    /// It begins here.
    pub(crate) fn new(router: Router, metrics: Arc<Metrics>, begin: Cursor, now: Instant) -> Self {
        let mut intake = Intake::new(router, metrics, now);
        intake.reconnected(Ingest::Notify, now);
        intake.begin(begin, now);
        Self {
            intake,
            presents: Presents::default(),
        }
    }

    pub(crate) fn router(&mut self) -> &mut Router {
        self.intake.router()
    }

    pub(crate) fn position(&self) -> &Cursor {
        self.intake.position().unwrap()
    }

    pub(crate) fn durable_position(&self) -> &Cursor {
        self.intake.durable_position().unwrap()
    }

    pub(crate) fn is_of_history(&self, cursor: &Cursor) -> bool {
        self.intake.is_of_history(cursor)
    }

    /// A row came by itself.
    pub(crate) fn route_row(&mut self, row: &ChunkRow) {
        assert!(self.intake.route_row(row), "no row is of an unknown kind");
    }

    /// There is a new connection: the position goes back to the last barrier.
    pub(crate) fn reconnected(&mut self, now: Instant) {
        self.intake.reconnected(Ingest::Notify, now);
    }

    pub(crate) fn away(&mut self) {
        self.intake.away();
    }

    /// Everything has been read from the position on.
    pub(crate) fn catch_up(&mut self, chunk: &Chunk, now: Instant) {
        let completed = self.intake.begin_read(now);
        let reset = reset_reason(&self.intake, &chunk.reading);
        assert!(self.intake.read(&chunk.rows).is_empty());
        let reached = chunk.reading.cursor.clone();
        if let Some(reason) = reset {
            self.intake.restart(reason, Some(reached.clone()), now);
        }
        self.intake.resets().reason_by(now);
        self.intake.read_to(reached, completed, now);
    }

    /// It follows a leader from here on.
    pub(crate) fn stop_reading(&mut self, now: Instant) {
        self.intake.stop_reading(now);
        self.presents = Presents::default();
    }

    /// A look that began at this time has found this snapshot.
    pub(crate) fn looked(&mut self, began: Instant, present: Snapshot) {
        self.presents.push(began, present);
    }

    fn bus(&mut self) -> BusIntake<'_> {
        BusIntake {
            intake: &mut self.intake,
        }
    }

    pub(crate) fn published(&mut self, notification: Notification<'_>) {
        self.bus().published(notification);
    }

    pub(crate) fn pass(&mut self, mut barrier: Cursor, now: Instant) -> bool {
        barrier.sent = self.presents.take_covered(&barrier.snapshot);
        self.bus().pass(barrier, now)
    }

    pub(crate) fn repair(&mut self, chunk: &Chunk, shards: ShardSet) {
        assert_eq!(self.bus().repair(chunk, shards), chunk.rows.len());
    }

    pub(crate) fn repaired(&mut self, reached: Cursor, is_whole: bool, now: Instant) -> bool {
        self.bus().repaired(reached, is_whole, now)
    }
}
