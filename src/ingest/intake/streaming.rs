//! What rows of the write-ahead log do to the router and to the schedule.
//!
//! A stream that begins is joined to what polls have read: until a poll's snapshot has reached a transaction that began after
//! the slot was made, its rows are held, and dropped when a poll has seen them. From then on they are routed as they come.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Intake, Next};
use crate::ingest::control_message::BarrierState;
use crate::protocol::{Kind, ReadinessReason, SkippedRow, Subject, Xid};
use crate::store::{ChunkRow, LogRow, StreamedRow};

/// Rows that are held until their stream is joined, in bytes. Beyond it the stream is given up.
pub const JOINING_BYTES_MAX: usize = 32 << 20;

/// A row that has been streamed.
#[derive(Debug)]
pub(in crate::ingest) enum Row {
    /// A row of the log.
    Log(StreamedRow),
    /// A barrier of this process that has returned.
    Barrier(Xid, BarrierState),
}

impl Row {
    fn xid(&self) -> Xid {
        match self {
            Self::Log(row) => row.xid(),
            Self::Barrier(xid, _) => *xid,
        }
    }

    fn bytes(&self) -> usize {
        let own = match self {
            Self::Log(row) => row.bytes(),
            Self::Barrier(_, state) => state.cursor.snapshot.bytes(),
        };
        2 * size_of::<Self>() + own
    }
}

/// The rows that have not been routed yet.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    rows: VecDeque<Row>,
    bytes: usize,
    /// A stream that is not joined yet: a poll's snapshot must have reached this transaction.
    until: Option<u64>,
    /// The position of the write-ahead log that the last rows reach to.
    end: u64,
}

impl Streamed {
    fn pop(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.bytes -= row.bytes();
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Intake {
    /// A stream begins, which is joined once a poll's snapshot has reached this transaction.
    pub(in crate::ingest) fn stream_began(&mut self, until: u64, now: Instant) {
        self.streamed.clear();
        self.streamed.until = Some(until);
        self.schedule.hasten(now);
    }

    /// The stream has ended, and its rows are read from the log.
    pub(in crate::ingest) fn stream_ended(&mut self, now: Instant) {
        self.streamed.clear();
        self.metrics.wal_streaming.set(false);
        if self.schedule.end_stream(now) {
            tracing::info!(event = "wal_stream_ended");
        }
    }

    /// Whether rows are routed as they come.
    pub(in crate::ingest) fn is_streaming(&self) -> bool {
        self.schedule.is_streaming()
    }

    /// Rows have come that reach to this position. Returns whether there is room for them: else the stream is over.
    pub(in crate::ingest) fn streamed(
        &mut self,
        rows: impl Iterator<Item = Row>,
        end: u64,
    ) -> bool {
        // One that nobody wants any more: polls read its rows.
        if self.streamed.until.is_none() && !self.is_streaming() {
            return true;
        }
        for row in rows {
            self.streamed.bytes += row.bytes();
            self.streamed.rows.push_back(row);
        }
        self.streamed.end = end;
        self.streamed.bytes <= JOINING_BYTES_MAX
    }

    /// The position of the write-ahead log up to which everything has been dealt with, if it is known.
    pub(in crate::ingest) fn settled(&self) -> Option<u64> {
        self.streamed.rows.is_empty().then_some(self.streamed.end)
    }

    /// A poll has routed everything that is visible in the position's snapshot.
    pub(super) fn join_stream(&mut self) {
        let (Some(until), Some(position)) = (self.streamed.until, self.router.position()) else {
            return;
        };
        let streamed = &mut self.streamed;
        streamed
            .rows
            .retain(|row| !position.snapshot.sees(row.xid()));
        streamed.bytes = streamed.rows.iter().map(Row::bytes).sum();
        if position.snapshot.xmin() >= until {
            self.streamed.until = None;
            self.schedule.stream();
            self.metrics.wal_streaming.set(true);
            self.router
                .health_report()
                .end(ReadinessReason::NotStreaming);
            tracing::info!(event = "wal_streaming");
        }
    }

    /// Routes what has come, up to a row that can only be read from the log.
    pub(in crate::ingest) fn pump(&mut self, now: impl Fn() -> Instant) -> Next {
        if !self.is_streaming() {
            return Next::Wait;
        }
        while let Some(row) = self.streamed.rows.front() {
            let position = self.router.position();
            if position.is_some_and(|position| position.snapshot.sees(row.xid())) {
                self.streamed.pop();
                continue;
            }
            let Some(row) = self.streamed.rows.pop_front() else {
                break;
            };
            self.streamed.bytes -= row.bytes();
            let next = match row {
                Row::Log(StreamedRow::Event(xid, row)) => {
                    if self.route_streamed(&row) {
                        continue;
                    }
                    self.streamed_again(Row::Log(StreamedRow::Unread(xid)));
                    Next::ReadLog
                }
                Row::Log(StreamedRow::Unread(xid)) => {
                    self.streamed_again(Row::Log(StreamedRow::Unread(xid)));
                    Next::ReadLog
                }
                Row::Log(StreamedRow::Barrier(..)) => continue,
                Row::Barrier(_, barrier) => self.streamed_barrier(barrier, now()),
            };
            if next != Next::Wait {
                return next;
            }
        }
        Next::Wait
    }

    /// Until the log has been read.
    fn streamed_again(&mut self, row: Row) {
        self.streamed.bytes += row.bytes();
        self.streamed.rows.push_front(row);
    }

    /// Returns whether the row could be routed. If not, a read of the log deals with it.
    fn route_streamed(&mut self, row: &ChunkRow) -> bool {
        let kinds = &self.metrics.kinds;
        let mut text = std::mem::take(&mut self.text);
        let is_routed = match row.body.read(row.id, row.xid, kinds, &mut text) {
            LogRow::Notification(of) if of.subject == Subject::Event(Kind::OTHER) => false,
            LogRow::Notification(notification) => {
                self.router.route(notification);
                true
            }
            LogRow::UnknownSource(_) | LogRow::Gap(_) => false,
            LogRow::Malformed => {
                self.skipped(row.id, SkippedRow::Malformed);
                true
            }
        };
        self.text = text;
        is_routed
    }

    /// Everything that the barrier has seen has been routed: it was committed before.
    fn streamed_barrier(&mut self, barrier: BarrierState, now: Instant) -> Next {
        if !self.is_of_history(&barrier.cursor) {
            return Next::Join;
        }
        self.router.complete_barrier(barrier.cursor, now);
        self.schedule.routed(self.router.take_routed(), false, now);
        if self.failed.are_due(now) {
            Next::ReadLog
        } else {
            Next::Wait
        }
    }
}
