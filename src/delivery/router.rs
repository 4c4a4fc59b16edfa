//! The order of events: a new signal goes to the replay buffer and to the hub, once, and the position moves on.
//!
//! There is one router, owned by the listener; it never waits. It drops what it has routed before: the log and the
//! notifications bring the same events. An event of a transaction that the last barrier has seen was routed before it;
//! since then, events are known by id and text. It holds the position: a cursor such that
//! everything visible in its snapshot has been routed. Clients are given the cursors of barriers only. A
//! barrier has committed, so what it has seen is on the disk, and no crash makes PostgreSQL hand out those
//! transaction numbers again.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::feed::{Feed, HealthReport};
use super::hub::Hub;
use super::relay::Relay;
use super::replay_buffer::ReplayBuffer;
use super::routed_set::{self, Fingerprints, RoutedSet};
use super::served_shards::ServedShards;
use crate::metrics::Metrics;
use crate::protocol::{
    Cursor, EVENT_BYTES_MAX, HeldBytes, Label, Notification, Reset, ResetReason, Sequence,
    ShardSet, Signal, Snapshot, Subject,
};

/// The memory of the events that have been routed, in bytes.
pub const ROUTED_BYTES_MAX: usize = 2 * routed_set::bytes_max(SEEN_MAX);
/// Events that are remembered in each of two generations, six bytes each. Beyond it the older generation is forgotten, and an
/// event may be sent twice.
const SEEN_MAX: usize = 1 << 20;
/// The shortest segment of the replay buffer, however fast the position moves.
pub const SEGMENT_MIN: Duration = Duration::from_millis(500);

/// What events hold that connections have not sent yet, but for short ones: [`EVENT_BYTES_MAX`]. Of more, the connection
/// reads the event from the replay buffer or from the log, as if it had lagged.
pub const HELD_EVENTS_BYTES_MAX: usize = 64 << 20;
/// An event is held in as many encodings.
const ENCODINGS: usize = 3;

/// Puts events in order and hands them on.
#[derive(Debug)]
pub struct Router {
    hub: Hub,
    replay_buffer: ReplayBuffer,
    metrics: Arc<Metrics>,
    held: HeldBytes,
    /// Everything visible here has been routed. It is kept while the feed is away: the log is read from here.
    position: Option<Cursor>,
    /// The last completed barrier: the log is read from here after a loss.
    durable: Option<Cursor>,
    /// The barrier at the beginning of the replay buffer's open segment: the cursor that clients are given, so
    /// that the buffer knows it again when they come back.
    given: Option<Arc<Cursor>>,
    /// The position when the last barrier was completed. A barrier that does not cover it was sent before, and
    /// may not have seen everything that was routed before.
    position_at_barrier: Option<Snapshot>,
    /// The position when the open segment began.
    position_at_segment: Option<Snapshot>,
    feed: watch::Sender<Feed>,
    fingerprints: Fingerprints,
    /// What was routed since the last completed barrier.
    seen: RoutedSet,
    /// What was routed between the two completed barriers before.
    seen_before: RoutedSet,
    segment_began: Instant,
    /// Clients are given no newer cursor until they have been reset.
    holds_cursors: bool,
    /// A read of some shards: events that it sees may have been routed although the position does not see them.
    ahead: Option<Snapshot>,
    shards: ServedShards,
    /// Where what is routed goes as well.
    relay: Option<Box<dyn Relay>>,
    routed: u64,
}

impl Router {
    /// A router that has routed nothing, and a view of its feed.
    #[must_use]
    pub fn new(
        hub: Hub,
        replay_buffer: ReplayBuffer,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> (Self, watch::Receiver<Feed>) {
        let (feed, view) = watch::channel(Feed::default());
        let shards = ServedShards::new(replay_buffer.clone());
        let router = Self {
            hub,
            replay_buffer,
            metrics,
            held: HeldBytes::new(HELD_EVENTS_BYTES_MAX),
            position: None,
            durable: None,
            given: None,
            position_at_barrier: None,
            position_at_segment: None,
            feed,
            fingerprints: Fingerprints::default(),
            seen: RoutedSet::default(),
            seen_before: RoutedSet::default(),
            segment_began: now,
            holds_cursors: false,
            ahead: None,
            shards,
            relay: None,
            routed: 0,
        };
        (router, view)
    }

    /// Lets others report on the feed what they find.
    #[must_use]
    pub fn health_report(&self) -> HealthReport {
        HealthReport(self.feed.clone())
    }

    /// Routes the signal of a notification unless it has been routed.
    pub fn route(&mut self, mut notification: Notification<'_>) {
        self.metrics.kinds.resolve(&mut notification);
        if self.was_routed_before_barrier(&notification) {
            self.metrics.events_repeated.increment();
            return;
        }
        if let Some(event) = self.fingerprints.of(&notification) {
            if self.seen_before.contains(event) || !self.seen.insert(event) {
                self.metrics.events_repeated.increment();
                return;
            }
            if self.seen.len() > SEEN_MAX {
                self.forget_older_events();
            }
        }
        self.routed += 1;
        if let Some(relay) = &mut self.relay {
            relay.event(&notification);
        }
        let sequence = self.replay_buffer.push(&notification);
        let signal = || Arc::new(self.signal(notification, sequence));
        let connections = self.hub.publish(notification.user, signal);
        if let Subject::Event(kind) = notification.subject {
            self.metrics.event_routed(kind, connections);
        }
    }

    /// Has every connection look at what it depends on.
    pub fn wake_all(&self) {
        self.hub.publish_to_all(&Arc::new(Signal::Wake));
    }

    fn signal(&self, notification: Notification<'_>, sequence: Option<Sequence>) -> Signal {
        let bytes = notification.open_text.len();
        let signal = Signal::new(notification, sequence, self.given.clone());
        match signal {
            Signal::Event(event) if bytes > EVENT_BYTES_MAX => {
                let held = self.held.hold(ENCODINGS * bytes);
                held.map_or(Signal::Behind, |held| Signal::Event(event.held(held)))
            }
            signal => signal,
        }
    }

    /// The number of signals that were routed since the last call.
    pub fn take_routed(&mut self) -> u64 {
        mem::take(&mut self.routed)
    }

    /// Whether this event has been routed.
    #[must_use]
    pub fn has_seen(&self, notification: &Notification<'_>) -> bool {
        self.was_routed_before_barrier(notification)
            || self
                .fingerprints
                .of(notification)
                .is_some_and(|event| self.seen.contains(event) || self.seen_before.contains(event))
    }

    /// Whether the last completed barrier has seen the event's transaction.
    fn was_routed_before_barrier(&self, notification: &Notification<'_>) -> bool {
        notification
            .xid
            .zip(self.durable.as_ref())
            .is_some_and(|(xid, barrier)| barrier.snapshot.sees(xid))
    }

    /// What was routed before the barrier before the last one does not come again.
    fn forget_older_events(&mut self) {
        self.seen_before = mem::take(&mut self.seen);
    }

    /// Everything visible in the cursor's snapshot has been routed. What the first one sees must be on disk.
    pub fn advance(&mut self, cursor: Cursor, now: Instant) {
        let is_first = self.position.is_none();
        if !self.is_covered_by(&cursor) {
            return;
        }
        if is_first {
            self.durable = Some(cursor.clone());
            self.begin_segment(&cursor, now);
        }
        self.position = Some(cursor);
        self.feed_live();
    }

    /// Everything visible in this barrier's snapshot has been routed. A barrier that was sent before the last
    /// one was completed changes nothing.
    pub fn complete_barrier(&mut self, barrier: Cursor, now: Instant) {
        let known = self.position_at_barrier.as_ref();
        let same_history = |position: &Cursor| position.epoch == barrier.epoch;
        if !self.position.as_ref().is_some_and(same_history)
            || !known.is_some_and(|known| barrier.snapshot.covers(known))
        {
            return;
        }
        if self.is_covered_by(&barrier) {
            self.position = Some(barrier.clone());
        }
        // In the shortened form that clients are given, it must have seen all that came before this segment.
        let given = barrier.for_clients().snapshot;
        let known = self.position_at_segment.as_ref();
        if !self.holds_cursors
            && now.saturating_duration_since(self.segment_began) >= SEGMENT_MIN
            && known.is_none_or(|known| given.covers(known))
        {
            self.begin_segment(&barrier, now);
        }
        self.forget_older_events();
        self.position_at_barrier = self.farthest(None);
        self.shards.complete(&barrier);
        if let Some(relay) = &mut self.relay {
            relay.barrier(&barrier);
        }
        self.durable = Some(barrier);
        self.feed_live();
    }

    /// Gives clients no newer cursor until they are reset: what they are to be reset for is before it.
    pub fn hold_cursors(&mut self) {
        self.holds_cursors = true;
    }

    fn is_covered_by(&self, cursor: &Cursor) -> bool {
        self.position.as_ref().is_none_or(|position| {
            position.epoch == cursor.epoch && cursor.snapshot.covers(&position.snapshot)
        })
    }

    fn begin_segment(&mut self, cursor: &Cursor, now: Instant) {
        self.given = self.replay_buffer.begin_segment(cursor, now);
        self.segment_began = now;
        self.position_at_segment = self.farthest(Some(&cursor.snapshot));
        self.position_at_barrier
            .get_or_insert_with(|| cursor.snapshot.clone());
    }

    /// What is routed goes there as well from here on.
    pub fn set_relay(&mut self, relay: Option<Box<dyn Relay>>) {
        self.relay = relay;
    }

    /// Where what is routed goes as well.
    pub fn relay(&mut self) -> Option<&mut (dyn Relay + 'static)> {
        self.relay.as_deref_mut()
    }

    /// Nothing more is ready: what was routed goes there now.
    pub fn flush_relay(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.flush();
        }
    }

    /// The events of these shards come, and of no others.
    pub fn serve(&mut self, served: ShardSet) {
        self.feed
            .send_if_modified(|feed| mem::replace(&mut feed.served, served) != served);
    }

    /// The events of all shards come, from the position on.
    pub fn serve_all(&mut self) {
        if let Some(position) = &self.position {
            let snapshot = position.snapshot.clone();
            self.shards.take(ShardSet::ALL, snapshot);
        }
        self.serve(ShardSet::ALL);
    }

    /// The shards that the replay buffer is complete for.
    pub fn shards(&mut self) -> &mut ServedShards {
        &mut self.shards
    }

    /// What this snapshot sees of some shards has been routed.
    pub fn routed_ahead(&mut self, snapshot: Snapshot) {
        self.ahead = Some(snapshot);
    }

    /// What was routed is seen by this snapshot, or the last barrier was completed after it.
    fn farthest(&self, or: Option<&Snapshot>) -> Option<Snapshot> {
        let position = self.position.as_ref().map(|position| &position.snapshot);
        let position = position.or(or);
        match (position, &self.ahead) {
            (Some(position), Some(ahead)) if ahead.covers(position) => Some(ahead.clone()),
            (position, _) => position.cloned(),
        }
    }

    fn feed_live(&self) {
        self.feed.send_if_modified(|feed| {
            let changed = !feed.live || feed.cursor != self.given;
            feed.live = true;
            feed.cursor.clone_from(&self.given);
            changed
        });
        self.metrics.feed_live.set(true);
    }

    /// Events come, from a database that has no log and so no position.
    pub fn live_without_log(&mut self) {
        self.feed_live();
    }

    /// Events no longer come; the position stays.
    pub fn away(&mut self) {
        self.feed.send_modify(|feed| {
            feed.live = false;
            feed.cursor.clone_from(&self.given);
        });
        self.metrics.feed_live.set(false);
    }

    /// The position goes back to the last barrier: after a crash PostgreSQL gives out again the transaction numbers
    /// that later snapshots have seen. What was routed since comes again, and is known by id and text. Barriers from
    /// before must not return any more; one that is sent from now on sees everything of before that is left.
    pub fn go_back_to_durable(&mut self) {
        let Some(durable) = self.durable.clone() else {
            return;
        };
        self.position_at_barrier = Some(durable.snapshot.clone());
        self.position_at_segment = Some(durable.snapshot.clone());
        self.position = Some(durable);
        self.ahead = None;
    }

    /// Where the next read of the log begins; `None` before anything has been routed.
    #[must_use]
    pub fn position(&self) -> Option<&Cursor> {
        self.position.as_ref()
    }

    /// Where the next read of the log begins after a loss. The database may have crashed: only what a barrier
    /// has seen is certain to be on the disk.
    #[must_use]
    pub fn durable_position(&self) -> Option<&Cursor> {
        self.durable.as_ref()
    }

    /// What was routed and what comes cannot be joined: every v1 client gets a reset, fetches its state anew and
    /// goes on from `cursor`.
    pub fn restart(&mut self, reason: ResetReason, cursor: Option<Cursor>, now: Instant) {
        // Where the log goes on, its ids do too, and an event that was routed may still be notified.
        if !matches!(
            reason,
            ResetReason::Truncated | ResetReason::EventFailed | ResetReason::Retention
        ) {
            self.seen.clear();
            self.seen_before.clear();
        }
        self.holds_cursors = false;
        self.ahead = None;
        self.given = cursor.as_ref().map(|cursor| Arc::new(cursor.for_clients()));
        let sequence = match cursor {
            Some(_) => self.replay_buffer.restart(now),
            None => self.replay_buffer.lose_log(),
        };
        let reset = Reset::new(reason, sequence, self.given.clone());
        self.position = None;
        if let Some(cursor) = &cursor {
            self.begin_segment(cursor, now);
        }
        self.position_at_barrier = cursor.as_ref().map(|cursor| cursor.snapshot.clone());
        self.durable.clone_from(&cursor);
        self.position = cursor;
        if let Some(relay) = &mut self.relay {
            relay.restart(self.position.as_ref());
        }
        tracing::warn!(event = "clients_reset", reason = reason.as_str());
        self.hub.publish_to_all(&Arc::new(Signal::Reset(reset)));
        if reason == ResetReason::History {
            self.feed.send_if_modified(|feed| {
                feed.new_history = Some(sequence);
                false
            });
        }
        self.feed_live();
    }
}

#[cfg(test)]
mod tests;
