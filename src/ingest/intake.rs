//! What notifications, barriers and reads of the log do to the router and to the schedule, and whether
//! they ask for a read of the log.
//!
//! Without I/O and without a clock: the listener's loop passes in what it has received, and the answer says whether
//! to read the log.

use std::sync::Arc;
use std::time::Instant;

use super::awaiting_disk::AwaitingDisk;
use super::control_message::{BareBarrierState, BarrierState, ControlMessage};
use super::resets::Resets;
use super::schedule::Schedule;
use super::sources_doubt::SourcesDoubt;
use super::wants::Wants;
use super::without_id::WithoutId;
use crate::config::Ingest;
use crate::delivery::Router;
use crate::metrics::Metrics;
use crate::protocol::{
    Channel, Cursor, Gap, Kind, Notification, ReadinessReason, ResetReason, Shard, ShardSet,
    SkippedRow, Snapshot, Subject,
};
use crate::store::{ChunkRow, LogRow, skip_unknown};

/// Share of PostgreSQL's notification queue from which on events had better be silent.
const QUEUE_USAGE_HIGH: f64 = 0.5;
/// What is left to do after a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, or the log is read soon anyway.
    Wait,
    /// The log has something that was not notified.
    ReadLog,
    /// The database has a log by now, or a new history has begun: what was routed before has to be joined to it.
    Join,
}

/// The router and the schedule of one process, and what connects them.
#[derive(Debug)]
pub(super) struct Intake {
    router: Router,
    schedule: Schedule,
    metrics: Arc<Metrics>,
    wants: Wants,
    /// A barrier that has returned and is completed by the next read of the log.
    returned: Option<Cursor>,
    resets: Resets,
    /// Notified events that are not on disk yet.
    awaiting_disk: AwaitingDisk,
    /// Notifications without an id, since the last barrier that found the log.
    without_id: WithoutId,
    /// The last barrier over this connection that found no log: everything visible to it has been routed.
    without_log: Option<Snapshot>,
    sources_doubt: SourcesDoubt,
}

impl Intake {
    pub(super) fn new(router: Router, metrics: Arc<Metrics>, now: Instant) -> Self {
        Self {
            resets: Resets::new(Arc::clone(&metrics)),
            router,
            schedule: Schedule::new(Ingest::Notify, now),
            metrics,
            wants: Wants::nothing(),
            returned: None,
            awaiting_disk: AwaitingDisk::default(),
            without_id: WithoutId::default(),
            without_log: None,
            sources_doubt: SourcesDoubt::default(),
        }
    }

    /// What is wanted of other tasks.
    pub(super) fn wants(&self) -> &Wants {
        &self.wants
    }

    /// When to read the log next; `None` while events notify.
    pub(super) fn next_read(&self) -> Option<Instant> {
        self.schedule.next_read()
    }

    /// Where a read of the log begins; `None` in a database without a log.
    pub(super) fn position(&self) -> Option<&Cursor> {
        self.router.position()
    }

    /// Whether this cursor can be compared with the position.
    pub(super) fn is_of_history(&self, cursor: &Cursor) -> bool {
        self.position()
            .is_some_and(|position| position.epoch == cursor.epoch)
    }

    /// Where it begins after a loss.
    pub(super) fn durable_position(&self) -> Option<&Cursor> {
        self.router.durable_position()
    }

    /// The last barrier over this connection that found no log.
    pub(super) fn without_log(&self) -> Option<&Snapshot> {
        self.without_log.as_ref()
    }

    /// Whether the sources may have changed: the control channel says so, or its notifications were dropped.
    pub(super) fn sources_doubt(&mut self) -> &mut SourcesDoubt {
        &mut self.sources_doubt
    }

    /// The type of the users is another than it was taken for: connections see whose they are.
    pub(super) fn user_type_changed(&self) {
        self.router.wake_all();
    }

    /// There is a new connection, or a new log, to a database with this way of ingest.
    pub(super) fn reconnected(&mut self, ingest: Ingest, now: Instant) {
        self.schedule.reconnected(ingest, now);
        self.router.go_back_to_durable();
        self.returned = None;
        self.awaiting_disk.clear();
        self.end_stream(now);
        self.wants.announce(&self.schedule);
    }

    /// Events no longer come.
    pub(super) fn away(&mut self) {
        self.router.away();
        self.without_log = None;
    }

    /// The log has gone, or events of a database without a log were missed. No cursor is worth anything any more. What
    /// was notified without an id since the last barrier that found the log came from HushNet's own triggers.
    pub(super) fn leave_log(&mut self, now: Instant) {
        // Without the log, every event is sent as it comes.
        self.on_disk(u64::MAX);
        self.stop_reading(now);
        self.restart(ResetReason::NoLog, None, now);
        for payload in self.without_id.take() {
            if let Ok(notification) = Notification::parse(&payload) {
                self.router.route(notification);
            }
        }
    }

    /// Events come, from a database without a log.
    pub(super) fn live_without_log(&mut self) {
        self.router.live_without_log();
    }

    /// The stream begins here.
    pub(super) fn begin(&mut self, cursor: Cursor, now: Instant) {
        self.router.advance(cursor, now);
    }

    /// Events were missed that cannot be read: the stream restarts here.
    pub(super) fn restart(&mut self, reason: ResetReason, cursor: Option<Cursor>, now: Instant) {
        self.awaiting_disk.clear();
        self.router.restart(reason, cursor, now);
        self.resets.done(now);
    }

    /// What routes the events.
    pub(super) fn router(&mut self) -> &mut Router {
        &mut self.router
    }

    /// The log is neither listened to nor polled from here on.
    pub(super) fn stop_reading(&mut self, now: Instant) {
        self.awaiting_disk.clear();
        self.end_stream(now);
        self.schedule = Schedule::new(Ingest::Notify, now);
        self.wants.announce(&self.schedule);
        self.returned = None;
    }

    /// Gives the notification the number of its kind, if that has one.
    pub(super) fn resolve(&self, notification: &mut Notification<'_>) {
        self.metrics.kinds.resolve(notification);
    }

    /// An event was notified. The clock is asked only where it matters.
    ///
    /// Any role may notify. So a notification moves no position, and what it says is routed only where every
    /// event notifies. Even there a revocation is read from the log: a forged one would close connections.
    pub(super) fn notified(
        &mut self,
        channel: Channel,
        payload: &str,
        now: impl FnOnce() -> Instant,
    ) -> Next {
        let mut notification = match Notification::parse(payload) {
            Ok(notification) => notification,
            Err(error) => {
                self.metrics.notification_malformed(channel);
                tracing::warn!(
                    event = "notification_malformed",
                    channel = self.metrics.channels().name(channel),
                    %error
                );
                return Next::Wait;
            }
        };
        self.metrics.kinds.resolve(&mut notification);
        let only_rings =
            notification.by_reference || matches!(notification.subject, Subject::Revocation { .. });
        if self.router.position().is_none() {
            if !only_rings {
                self.router.route(notification);
            }
            return Next::Wait;
        }
        let trusts = self.schedule.trusts_notifications();
        if notification.id.is_none() {
            if trusts && self.is_only_notified(&notification) {
                self.router.route(notification);
            } else {
                self.without_id.hold(channel, payload, &self.metrics);
            }
            return Next::Wait;
        }
        // The read of the log asks what kinds there are by now.
        let is_unknown = notification.subject == Subject::Event(Kind::OTHER);
        if trusts && !only_rings && !is_unknown {
            return self.trusted(notification, payload);
        }
        // Some events are silent: this one only says that there is something to read. Routed by itself
        // it could overtake a silent event that was committed before it was written.
        if !self.router.has_seen(&notification) && !self.schedule.hasten(now()) {
            return Next::ReadLog;
        }
        Next::Wait
    }

    /// Whether no trigger of the log writes events of this kind: a trigger of the application's own notifies them, and
    /// they are handed on as they are.
    fn is_only_notified(&self, notification: &Notification<'_>) -> bool {
        match notification.subject {
            Subject::Event(kind) => !self.metrics.kinds.is_logged(kind),
            Subject::Revocation { .. } => false,
        }
    }

    /// A commit that waits for the disk waits for everything that was committed before it, too.
    fn trusted(&mut self, notification: Notification<'_>, payload: &str) -> Next {
        if notification.asynchronous {
            if self.router.has_seen(&notification) || self.awaiting_disk.hold(payload) {
                return Next::Wait;
            }
            return Next::ReadLog;
        }
        if self.awaiting_disk.newest().is_some() {
            self.on_disk(u64::MAX);
        }
        self.router.route(notification);
        Next::Wait
    }

    /// The number of the newest event that waits for the disk.
    pub(super) fn awaits_disk(&self) -> Option<u64> {
        self.awaiting_disk.newest()
    }

    /// The events up to this number are on disk.
    pub(super) fn on_disk(&mut self, through: u64) {
        while let Some(payload) = self.awaiting_disk.take(through) {
            if let Ok(notification) = Notification::parse(&payload) {
                self.router.route(notification);
            }
        }
    }

    /// The earliest time for a read that only a notification asks for.
    pub(super) fn rung_read(&self) -> Instant {
        self.schedule.rung_read()
    }

    /// A message came over the control channel.
    pub(super) fn controlled(&mut self, message: ControlMessage, now: Instant) -> Next {
        match message {
            ControlMessage::BareBarrier(state) => self.bare_barrier(state, now),
            ControlMessage::Awake => {
                self.schedule.silence_announced(now);
                Next::Wait
            }
            ControlMessage::Sources => {
                self.sources_doubt.begin();
                if let Some(relay) = self.router.relay() {
                    relay.sources();
                }
                Next::Wait
            }
            ControlMessage::Changed => {
                if self.schedule.hasten(now) {
                    Next::Wait
                } else {
                    Next::ReadLog
                }
            }
            ControlMessage::Barrier(state) if !self.is_of_history(&state.cursor) => Next::Join,
            ControlMessage::Barrier(state) => {
                self.on_disk(u64::MAX);
                self.without_id.drop_foreign(&self.metrics, now);
                self.barrier(state, now)
            }
        }
    }

    /// Notifications come in the order of commits: what HushNet's own triggers have notified before the log was there
    /// has been routed when the barrier says that it is there.
    fn bare_barrier(&mut self, barrier: BareBarrierState, now: Instant) -> Next {
        if self.router.position().is_some() {
            self.leave_log(now);
        }
        if barrier.has_log {
            return Next::Join;
        }
        self.without_log = Some(barrier.snapshot);
        Next::Wait
    }

    fn barrier(&mut self, barrier: BarrierState, now: Instant) -> Next {
        let filling = barrier.queue_usage >= QUEUE_USAGE_HIGH;
        self.schedule
            .routed(self.router.take_routed(), filling, now);
        let completed = self.schedule.barrier(&barrier, now);
        self.wants.announce(&self.schedule);
        if self.is_streaming() {
            // Its row completes it.
            return Next::Wait;
        }
        if completed {
            self.router.complete_barrier(barrier.cursor, now);
            return if self.resets.are_due(now) {
                Next::ReadLog
            } else {
                Next::Wait
            };
        }
        self.returned = Some(barrier.cursor);
        // Where the log is being read anyway, the barrier needs no read of its own.
        if self.schedule.next_read().is_some() {
            Next::Wait
        } else {
            Next::ReadLog
        }
    }

    /// Every row of the log comes by itself from here on.
    pub(super) fn begin_stream(&mut self) {
        self.schedule.stream();
        self.metrics.wal_streaming.set(true);
        let health = self.router.health_report();
        health.end(ReadinessReason::NotStreaming);
        tracing::info!(event = "wal_streaming");
    }

    /// Rows no longer come by themselves, and the log is polled.
    pub(super) fn end_stream(&mut self, now: Instant) {
        self.metrics.wal_streaming.set(false);
        if self.schedule.end_stream(now) {
            tracing::info!(event = "wal_stream_ended");
        }
    }

    /// Whether every row of the log comes by itself.
    pub(super) fn is_streaming(&self) -> bool {
        self.schedule.is_streaming()
    }

    /// Routes a row that has come by itself. Returns whether that could be: if not, a read of the log deals with it.
    pub(super) fn route_row(&mut self, row: &ChunkRow) -> bool {
        self.read_rows(std::slice::from_ref(row), ShardSet::ALL, true) == 1
    }

    /// Everything that the barrier has seen has been routed: it was committed before, and its row comes after.
    pub(super) fn streamed_barrier(&mut self, barrier: BarrierState, now: Instant) -> Next {
        if !self.is_of_history(&barrier.cursor) {
            return Next::Join;
        }
        self.without_id.drop_foreign(&self.metrics, now);
        self.schedule.barrier(&barrier, now);
        self.wants.announce(&self.schedule);
        self.router.complete_barrier(barrier.cursor, now);
        if self.resets.are_due(now) {
            Next::ReadLog
        } else {
            Next::Wait
        }
    }

    /// A read begins now. Returns the barrier that it completes: one that has returned, so that the read sees
    /// everything that it saw.
    pub(super) fn begin_read(&mut self, now: Instant) -> Option<Cursor> {
        self.schedule.begin_read(now);
        self.returned.take()
    }

    /// Routes events of the log, up to the first whose kind or source is not known. Returns the others.
    pub(super) fn read<'a>(&mut self, rows: &'a [ChunkRow]) -> &'a [ChunkRow] {
        let known = self.read_rows(rows, ShardSet::ALL, true);
        self.metrics.events_caught_up.add(known as u64);
        &rows[known..]
    }

    /// Routes events of the log, of whatever kinds. One of an unknown source cannot be read and is skipped.
    pub(super) fn read_all(&mut self, rows: &[ChunkRow]) {
        let read = self.read_rows(rows, ShardSet::ALL, false);
        self.metrics.events_caught_up.add(read as u64);
    }

    /// Returns how many rows were read.
    pub(super) fn read_rows(
        &mut self,
        rows: &[ChunkRow],
        shards: ShardSet,
        only_known: bool,
    ) -> usize {
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            let kinds = &self.metrics.kinds;
            match row.body.read(row.id, row.xid, kinds, &mut text) {
                LogRow::Notification(notification)
                    if !shards.contains(Shard::of(notification.user)) => {}
                LogRow::Notification(notification) => {
                    if only_known && notification.subject == Subject::Event(Kind::OTHER) {
                        return number;
                    }
                    self.router.route(notification);
                }
                LogRow::UnknownSource(_) if only_known => return number,
                LogRow::UnknownSource(source) => {
                    skip_unknown(row.id, source);
                    self.skipped(row.id, SkippedRow::UnknownSource);
                }
                LogRow::Malformed => self.skipped(row.id, SkippedRow::Malformed),
                LogRow::Gap(Gap::EventFailed { source, .. })
                    if only_known && kinds.source(source).is_none() =>
                {
                    return number;
                }
                LogRow::Gap(gap) => self.gap(gap, Instant::now()),
            }
        }
        rows.len()
    }

    /// Something has changed of which there is no event.
    fn gap(&mut self, gap: Gap, now: Instant) {
        if let Some(relay) = self.router.relay() {
            relay.row_for_all();
        }
        let Gap::EventFailed { source, sqlstate } = gap else {
            return self.resets.at_end(ResetReason::Truncated);
        };
        let health = self.router.health_report();
        if !self.resets.event_failed(source, &sqlstate, &health, now) {
            self.router.hold_cursors();
        }
    }

    /// Why clients are reset at the end of a read.
    pub(super) fn resets(&mut self) -> &mut Resets {
        &mut self.resets
    }

    fn skipped(&self, id: i64, why: SkippedRow) {
        self.metrics.log_rows_skipped.increment(why);
        let health = self.router.health_report();
        health.events_skipped(id, why, Instant::now());
    }

    /// Everything visible in this snapshot has been read and routed. If something has changed of which there is no event,
    /// every v1 client fetches its state anew and goes on from this snapshot. `completed` is the barrier that had
    /// returned before the read. Returns the snapshot, where the next read begins.
    pub(super) fn read_to(
        &mut self,
        reached: Cursor,
        completed: Option<Cursor>,
        now: Instant,
    ) -> Snapshot {
        let snapshot = reached.snapshot.clone();
        // What had been notified before the read is in it.
        self.awaiting_disk.clear();
        match self.resets.reason() {
            Some(reason) => self.restart(reason, Some(reached), now),
            None => self.router.advance(reached, now),
        }
        if let Some(barrier) = completed {
            self.router.complete_barrier(barrier, now);
        }
        let routed = self.router.take_routed();
        self.schedule.read(&snapshot, routed, now);
        self.schedule.routed(routed, false, now);
        self.wants.announce(&self.schedule);
        snapshot
    }
}

#[cfg(test)]
mod tests;
