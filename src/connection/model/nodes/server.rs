//! What one node has of each part of the service.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::database::{Row, cursor};
use super::bus::Publishing;
use crate::delivery::{Bounds, Feed, Hub, ReplayBuffer, Router, SEGMENT_MIN};
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Notification, Snapshot};

/// No connection falls behind.
const CAPACITY: usize = 64;

/// A node's router with what it feeds, and a trace of everything that was done to it.
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) buffer: ReplayBuffer,
    pub(super) hub: Hub,
    pub(super) feed: watch::Receiver<Feed>,
    /// What the node publishes, if it does.
    pub(super) publishing: Option<Publishing>,
    pub(super) now: Instant,
    trace: u64,
}

impl Server {
    pub(super) fn new(present: Snapshot, now: Instant) -> Self {
        // They are large, and nothing here reads them.
        static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
        let metrics = METRICS.get_or_init(|| Arc::new(Metrics::new()));
        let bounds = Bounds {
            bytes_max: 1 << 16,
            age_max: Duration::from_hours(1),
        };
        let (hub, buffer) = (Hub::new(CAPACITY), ReplayBuffer::new(bounds, now));
        let (mut router, feed) = Router::new(hub.clone(), buffer.clone(), Arc::clone(metrics), now);
        router.advance(cursor(present, None), now);
        Self {
            router,
            buffer,
            hub,
            feed,
            publishing: None,
            now,
            trace: 0,
        }
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

    pub(super) fn route_row(&mut self, row: &Row) {
        self.trace(("row", row.id));
        self.router.route(Notification::parse(&row.text).unwrap());
    }

    /// Every barrier begins a segment.
    pub(super) fn complete_barrier(&mut self, barrier: Cursor) {
        self.trace(("barrier", barrier.to_string(), barrier.sent.is_some()));
        self.now += SEGMENT_MIN;
        self.router.complete_barrier(barrier, self.now);
    }

    /// The database names this node's run: what it routes is published from here on.
    pub(super) fn publish(&mut self, publishing: Publishing) {
        self.router.set_relay(Some(Box::new(publishing.clone())));
        self.publishing = Some(publishing);
    }

    pub(super) fn flush(&mut self) {
        if let Some(relay) = self.router.relay() {
            relay.flush();
        }
    }

    /// It reads the log itself: what `rows` are is visible in `until`, and not at the last barrier.
    pub(super) fn read_log(&mut self, rows: &[Row], until: Snapshot) {
        self.trace("read");
        self.router.away();
        self.router.go_back_to_durable();
        self.router.serve_all();
        for row in rows {
            self.route_row(row);
        }
        self.router.advance(cursor(until, None), self.now);
    }

    pub(super) fn durable(&self) -> Snapshot {
        self.router.durable_position().unwrap().snapshot.clone()
    }

    pub(super) fn given(&self) -> Option<Arc<Cursor>> {
        self.feed.borrow().cursor().cloned()
    }
}
