//! How a stream of the write-ahead log is joined to what polls have read, and what its rows do. Pure.
//!
//! Until a poll's snapshot has reached a transaction that began after the slot was made, the rows of a stream are held, and
//! dropped when a poll has seen them. From then on they are routed as they come. A row that can only be read from the log
//! asks for a read, which brings those behind it as well.

use std::collections::VecDeque;
use std::time::Instant;

use super::control_message::BarrierState;
use super::intake::{Intake, Next};
use crate::protocol::Xid;
use crate::store::StreamedRow;

/// Rows that are held until their stream is joined, in bytes. Beyond it the stream is given up.
pub const JOINING_BYTES_MAX: usize = 32 << 20;

/// A row that has been streamed.
#[derive(Debug)]
pub(super) enum Row {
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
pub(super) struct Streaming {
    rows: VecDeque<Row>,
    bytes: usize,
    /// A stream that is not joined yet: a poll's snapshot must have reached this transaction.
    until: Option<u64>,
    /// The position of the write-ahead log that the last rows reach to.
    end: u64,
}

impl Streaming {
    /// A stream begins, which is joined once a poll's snapshot has reached this transaction.
    pub(super) fn begin(&mut self, until: u64) {
        *self = Self::default();
        self.until = Some(until);
    }

    /// The stream has ended, and its rows are read from the log.
    pub(super) fn end(&mut self, intake: &mut Intake, now: Instant) {
        *self = Self::default();
        intake.end_stream(now);
    }

    /// Rows have come that reach to this position. Returns whether there is room for them: else the stream is over.
    pub(super) fn push(
        &mut self,
        intake: &Intake,
        rows: impl Iterator<Item = Row>,
        end: u64,
    ) -> bool {
        // Of a stream that nobody wants any more: polls read its rows.
        if self.until.is_none() && !intake.is_streaming() {
            return true;
        }
        for row in rows {
            self.bytes += row.bytes();
            self.rows.push_back(row);
        }
        self.end = end;
        self.bytes <= JOINING_BYTES_MAX
    }

    /// The position of the write-ahead log up to which everything has been dealt with, if it is known.
    pub(super) fn settled(&self) -> Option<u64> {
        self.rows.is_empty().then_some(self.end)
    }

    /// A poll has routed everything that is visible in the position's snapshot.
    pub(super) fn polled(&mut self, intake: &mut Intake) {
        let (Some(until), Some(position)) = (self.until, intake.position()) else {
            return;
        };
        let snapshot = &position.snapshot;
        self.rows.retain(|row| !snapshot.sees(row.xid()));
        self.bytes = self.rows.iter().map(Row::bytes).sum();
        if snapshot.xmin() >= until {
            self.until = None;
            intake.begin_stream();
        }
    }

    /// Routes what has come, up to a row that can only be read from the log.
    pub(super) fn pump(&mut self, intake: &mut Intake, now: impl Fn() -> Instant) -> Next {
        while intake.is_streaming()
            && let Some(row) = self.rows.pop_front()
        {
            self.bytes -= row.bytes();
            let position = intake.position();
            if position.is_some_and(|position| position.snapshot.sees(row.xid())) {
                continue;
            }
            let next = match row {
                Row::Log(StreamedRow::Event(xid, row)) => {
                    if intake.route_row(&row) {
                        continue;
                    }
                    self.await_read(xid)
                }
                Row::Log(StreamedRow::Unread(xid)) => self.await_read(xid),
                Row::Log(StreamedRow::Barrier(..)) => continue,
                Row::Barrier(_, barrier) => intake.streamed_barrier(barrier, now()),
            };
            if next != Next::Wait {
                return next;
            }
        }
        Next::Wait
    }

    /// The row of this transaction comes with a read of the log.
    fn await_read(&mut self, xid: Xid) -> Next {
        let row = Row::Log(StreamedRow::Unread(xid));
        self.bytes += row.bytes();
        self.rows.push_front(row);
        Next::ReadLog
    }
}
