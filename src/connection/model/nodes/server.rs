//! What one node has of each part of the service.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::database::{ALL_USERS, Database, Row};
use super::bus::Publishing;
use crate::delivery::{Bounds, Feed, Hub, ReplayBuffer, Router, SEGMENT_MIN};
use crate::ingest::Driven;
use crate::metrics::Metrics;
use crate::nodes::Run;
use crate::protocol::{Cursor, Snapshot};
use crate::store::Chunk;

/// No connection falls behind.
const CAPACITY: usize = 64;

/// A node's intake with what it feeds, and a trace of everything that was done to it.
pub(super) struct Server {
    pub(super) intake: Driven,
    pub(super) buffer: ReplayBuffer,
    pub(super) hub: Hub,
    pub(super) feed: watch::Receiver<Feed>,
    /// What the node publishes, if it does.
    pub(super) publishing: Option<Publishing>,
    pub(super) now: Instant,
    trace: u64,
}

impl Server {
    pub(super) fn new(present: Cursor, now: Instant) -> Self {
        // They are large, and nothing here reads them.
        static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
        let metrics = METRICS.get_or_init(|| Arc::new(Metrics::new()));
        let bounds = Bounds {
            bytes_max: 1 << 16,
            age_max: Duration::from_hours(1),
        };
        let (hub, buffer) = (Hub::new(CAPACITY), ReplayBuffer::new(bounds, now));
        let (router, feed) = Router::new(hub.clone(), buffer.clone(), Arc::clone(metrics), now);
        Self {
            intake: Driven::new(router, Arc::clone(metrics), present, now),
            buffer,
            hub,
            feed,
            publishing: None,
            now,
            trace: 0,
        }
    }

    pub(super) fn router(&mut self) -> &mut Router {
        self.intake.router()
    }

    /// Remembers what was done to it, so that states can be compared.
    pub(super) fn trace(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.trace, what).hash(&mut hasher);
        self.trace = hasher.finish();
    }

    /// A number for everything that was done to it, in this order.
    pub(super) fn traced(&self) -> u64 {
        self.trace
    }

    /// A row came by itself. One for all users has the log read.
    pub(super) fn route_row(&mut self, row: &Row, database: &Database) {
        self.trace(("row", row.id));
        if row.user == ALL_USERS {
            self.catch_up(database);
        } else {
            self.intake.route_row(&row.in_log());
        }
    }

    /// Every barrier begins a segment.
    pub(super) fn tick_barrier(&mut self, barrier: &Cursor) {
        self.trace(("barrier", barrier.to_string(), barrier.sent.is_some()));
        self.now += SEGMENT_MIN;
    }

    /// What it routes is published from here on.
    pub(super) fn publish(&mut self, publishing: Publishing) {
        self.router().set_relay(Some(Box::new(publishing.clone())));
        self.publishing = Some(publishing);
    }

    /// The run in which it publishes.
    pub(super) fn publishes(&self) -> Option<Run> {
        self.publishing.as_ref().and_then(Publishing::run)
    }

    /// What it routes is published no more.
    pub(super) fn end_publishing(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            publishing.end();
        }
        self.router().set_relay(None);
    }

    pub(super) fn flush(&mut self) {
        self.router().flush_relay();
    }

    /// It reads the log from its position on.
    fn catch_up(&mut self, database: &Database) {
        let chunk = database.chunk(&self.intake.position().snapshot);
        self.trace_read("read", &chunk);
        self.intake.catch_up(&chunk, self.now);
    }

    pub(super) fn trace_read(&mut self, what: &str, chunk: &Chunk) {
        let ids: Vec<_> = chunk.rows.iter().map(|row| row.id).collect();
        let reading = &chunk.reading;
        self.trace((what, ids, reading.cursor.to_string(), reading.retained));
    }

    /// It has a new connection, and reads the log from the last barrier on.
    pub(super) fn join(&mut self, database: &Database) {
        self.trace("join");
        self.intake.reconnected(self.now);
        self.catch_up(database);
        self.router().serve_all();
    }

    pub(super) fn durable(&self) -> Snapshot {
        self.intake.durable_position().snapshot.clone()
    }

    pub(super) fn given(&self) -> Option<Arc<Cursor>> {
        self.feed.borrow().cursor().cloned()
    }
}
