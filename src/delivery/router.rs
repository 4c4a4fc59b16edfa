//! The order of events: what is new goes to memory and to the hub, once, and the place moves on.
//!
//! There is one router, owned by the listener; it never waits. It drops what it has routed before,
//! known by its id: the log and the notifications tell of the same events. And it holds the position:
//! a cursor such that everything visible in its snapshot has been routed. Clients are only given
//! barriers' cursors: a barrier has committed, so what it has seen is on the disk, and no crash makes
//! PostgreSQL hand out those transaction numbers again.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::delivery::{Hub, Recent};
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Event, Notification, ResetReason, Snapshot};

use super::feed::{CommitHealth, Feed};
use super::id_set::IdSet;

/// Ids that are remembered in each of two generations; beyond it the older half is forgotten, and an
/// event may be sent twice.
const SEEN_MAX: usize = 1 << 20;
/// How often memory begins a new segment, however fast the position moves.
const SEGMENT_MIN: Duration = Duration::from_millis(500);

/// Puts events in order and hands them on.
#[derive(Debug)]
pub struct Router {
    hub: Hub,
    recent: Recent,
    metrics: Arc<Metrics>,
    /// Kept while the feed is away: where the log is read from next.
    position: Option<Cursor>,
    /// The last barrier: where the log is read from after a loss.
    durable: Option<Cursor>,
    /// The barrier at the beginning of memory's open segment: what clients are given, so that memory
    /// knows it again when they come back.
    passed: Option<Arc<Cursor>>,
    /// The position when that barrier was passed. One that does not cover it was sent before, and may
    /// not have seen all that has been routed before.
    position_then: Option<Snapshot>,
    /// The position when the open segment began.
    segment_position: Option<Snapshot>,
    feed: watch::Sender<Feed>,
    /// Ids routed since the last barrier was passed, and between the two before.
    seen: IdSet,
    seen_before: IdSet,
    segment_begun: Instant,
    routed: u64,
}

impl Router {
    /// A router that has routed nothing, and a view of its feed.
    #[must_use]
    pub fn new(hub: Hub, recent: Recent, metrics: Arc<Metrics>) -> (Self, watch::Receiver<Feed>) {
        let (feed, view) = watch::channel(Feed::default());
        let router = Self {
            hub,
            recent,
            metrics,
            position: None,
            durable: None,
            passed: None,
            position_then: None,
            segment_position: None,
            feed,
            seen: IdSet::default(),
            seen_before: IdSet::default(),
            segment_begun: Instant::now(),
            routed: 0,
        };
        (router, view)
    }

    /// Lets the barriers set on the feed whether they commit.
    #[must_use]
    pub fn commit_health(&self) -> CommitHealth {
        CommitHealth(self.feed.clone())
    }

    /// Routes an event unless it has been.
    pub fn route(&mut self, told: Notification<'_>) {
        if let Some(id) = told.id {
            if self.seen_before.contains(id) || !self.seen.insert(id) {
                self.metrics.event_repeated();
                return;
            }
            if self.seen.len() > SEEN_MAX {
                self.turn_seen();
            }
        }
        self.routed += 1;
        let sequence = self.recent.push(&told);
        let event = || Arc::new(Event::new(told, sequence, self.passed.clone()));
        let connections = self.hub.publish_to(told.user_id, event);
        self.metrics.event_routed(told.kind, connections);
    }

    /// How many events have been routed since the last call.
    pub fn take_routed(&mut self) -> u64 {
        mem::take(&mut self.routed)
    }

    /// Whether this id has been routed lately.
    #[must_use]
    pub fn has_seen(&self, id: i64) -> bool {
        self.seen.contains(id) || self.seen_before.contains(id)
    }

    /// What was routed before the barrier before the last one is never told of again.
    fn turn_seen(&mut self) {
        self.seen_before = mem::take(&mut self.seen);
    }

    /// Everything visible in the cursor's snapshot has been routed.
    pub fn advance(&mut self, cursor: Cursor) {
        let began = self.position.is_none();
        if !self.covered_by(&cursor) {
            return;
        }
        if began {
            self.begin_segment(&cursor);
        }
        self.position = Some(cursor);
        self.feed_live();
    }

    /// Everything visible in this barrier's snapshot has been routed. One that was sent before the last
    /// was passed changes nothing.
    pub fn pass(&mut self, barrier: Cursor) {
        let known = self.position_then.as_ref();
        let same_history = |position: &Cursor| position.epoch == barrier.epoch;
        if !self.position.as_ref().is_some_and(same_history)
            || !known.is_some_and(|known| barrier.snapshot.covers(known))
        {
            return;
        }
        if self.covered_by(&barrier) {
            self.position = Some(barrier.clone());
        }
        // In the form in which it is given out, it must have seen all that stands before this segment.
        let given = barrier.heard().snapshot;
        let known = self.segment_position.as_ref();
        if self.segment_begun.elapsed() >= SEGMENT_MIN && known.is_none_or(|k| given.covers(k)) {
            self.begin_segment(&barrier);
        }
        self.turn_seen();
        self.position_then = self.position.as_ref().map(|p| p.snapshot.clone());
        self.durable = Some(barrier);
        self.feed_live();
    }

    fn covered_by(&self, cursor: &Cursor) -> bool {
        self.position.as_ref().is_none_or(|position| {
            position.epoch == cursor.epoch && cursor.snapshot.covers(&position.snapshot)
        })
    }

    fn begin_segment(&mut self, cursor: &Cursor) {
        self.passed = self.recent.barrier(cursor);
        self.segment_begun = Instant::now();
        let position = self.position.as_ref().unwrap_or(cursor);
        self.segment_position = Some(position.snapshot.clone());
        self.position_then
            .get_or_insert_with(|| cursor.snapshot.clone());
    }

    fn feed_live(&self) {
        self.feed.send_if_modified(|feed| {
            let changed = !feed.live || feed.cursor != self.passed;
            feed.live = true;
            feed.cursor.clone_from(&self.passed);
            changed
        });
        self.metrics.feed_live(true);
    }

    /// Events come, from a database that has no log and so no position.
    pub fn live_without_log(&mut self) {
        self.feed_live();
    }

    /// Events no longer come; the position stays.
    pub fn away(&mut self) {
        self.feed.send_modify(|feed| {
            feed.live = false;
            feed.cursor.clone_from(&self.passed);
        });
        self.metrics.feed_live(false);
    }

    /// Where the next read of the log begins; `None` before anything has been routed.
    #[must_use]
    pub fn position(&self) -> Option<&Cursor> {
        self.position.as_ref()
    }

    /// Where it begins after a loss: the database may have crashed, and begun anew at the last commit.
    #[must_use]
    pub fn durable_position(&self) -> Option<&Cursor> {
        self.durable.as_ref().or(self.position.as_ref())
    }

    /// What was routed and what comes cannot be joined: every v1 client is told to fetch its state
    /// anew and goes on from `cursor`.
    pub fn begin_anew(&mut self, reason: ResetReason, cursor: Option<Cursor>) {
        self.seen.clear();
        self.seen_before.clear();
        self.passed = cursor.as_ref().map(|cursor| Arc::new(cursor.heard()));
        let reset = self
            .recent
            .begin_anew(Event::reset(reason, self.passed.clone()));
        self.position = None;
        if let Some(cursor) = &cursor {
            self.begin_segment(cursor);
        }
        self.position_then = cursor.as_ref().map(|cursor| cursor.snapshot.clone());
        self.durable.clone_from(&cursor);
        self.position = cursor;
        tracing::warn!(event = "clients_reset", reason = reason.as_str());
        self.hub.publish_to_all(&reset);
        self.feed_live();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Bounds;

    fn router() -> (Router, watch::Receiver<Feed>) {
        let recent = Recent::new(Bounds {
            bytes_max: 1 << 20,
            age_max: Duration::from_mins(1),
        });
        Router::new(Hub::new(16), recent, Arc::new(Metrics::new()))
    }

    fn cursor(snapshot: &str) -> Cursor {
        format!("1-1.{snapshot}").parse().unwrap()
    }

    fn durable(router: &Router) -> String {
        router.durable_position().unwrap().to_string()
    }

    #[test]
    fn after_a_loss_the_log_is_read_from_the_last_barrier() {
        let (mut router, _feed) = router();
        router.advance(cursor("5:5:"));
        router.pass(cursor("8:8:"));
        router.advance(cursor("20:20:"));
        assert_eq!(durable(&router), "1-1.8:8:");
        assert_eq!(router.position(), Some(&cursor("20:20:")));
        router.pass(cursor("15:15:"));
        assert_eq!(durable(&router), "1-1.15:15:");
        assert_eq!(router.position(), Some(&cursor("20:20:")));
    }

    #[test]
    fn a_barrier_that_was_sent_before_the_last_was_passed_changes_nothing() {
        let (mut router, _feed) = router();
        router.advance(cursor("5:5:"));
        router.advance(cursor("20:20:"));
        router.pass(cursor("15:15:"));
        let event = format!(
            r#"{{"type":"device","user_id":"{}","id":1}}"#,
            uuid::Uuid::nil()
        );
        router.route(Notification::parse(&event).unwrap());
        for _ in 0..3 {
            // What was read up to 20 was routed before 15 was passed, and 18 has not seen it.
            router.pass(cursor("18:18:"));
        }
        assert_eq!(durable(&router), "1-1.15:15:");
        assert!(router.has_seen(1), "it may be told of again from 15 on");
        router.pass(cursor("25:25:"));
        assert!(router.has_seen(1));
        router.pass(cursor("30:30:"));
        assert!(!router.has_seen(1));
    }

    #[test]
    fn clients_are_given_a_barrier_that_has_seen_all_before_the_last_one_given() {
        let (mut router, feed) = router();
        let given = || feed.borrow().cursor().unwrap().to_string();
        let running: Vec<String> = (0..60).map(|n| (1_001 + 2 * n).to_string()).collect();
        let running = running.join(",");
        router.advance(cursor("5:5:"));
        let mut pass = |snapshot: &str| {
            router.segment_begun -= SEGMENT_MIN;
            let (epoch, snapshot) = (cursor("1:1:").epoch, snapshot.parse().unwrap());
            router.pass(Cursor {
                epoch,
                snapshot,
                heard: false,
            });
        };
        pass(&format!("1001:2000:{running}"));
        let first = given();
        assert!(first.starts_with("1-1.1001:1021:1001,"), "{first}");
        // Cut as it is given out, it has not seen all that the first had.
        pass(&format!("1003:3000:{}", &running["1001,".len()..]));
        assert_eq!(given(), first);
        pass("4000:4000:");
        assert_eq!(given(), "1-1.4000:4000:~");
    }
}
