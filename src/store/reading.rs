//! What every read of the log has in common: the snapshot that it was made in, and whether the reader's
//! position is still good.
//!
//! A read returns the events that are visible now and were not in the reader's snapshot: those of
//! transactions that began after it or were running in it. The statements ask for these two sets by
//! their transaction numbers, and not for everything from the oldest running transaction on, so that a
//! transaction that stays open makes no read longer.

use std::str::FromStr;

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::protocol::{Cursor, Epoch, NotACursor, ResetReason};

/// Where a read was made, and whether the log could serve the reader's position.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The snapshot in which the events are read.
    pub cursor: Cursor,
    /// Whether the log still reaches back to the reader's snapshot.
    pub retained: bool,
    /// Whether the reader's snapshot can have been taken in this history.
    pub known: bool,
    /// Why the reader is reset although every event is there: something has changed since its snapshot of which there is
    /// no event. Of a read for one user; the listener reads the row itself.
    pub gap: Option<ResetReason>,
    /// Whether what the snapshot sees is on disk.
    pub durability: Durability,
}

/// Whether what a snapshot sees is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No crash takes it back.
    Flushed,
    /// The snapshot is no position for clients before [`super::Log::flush`] has returned: after a crash PostgreSQL
    /// gives out again the transaction numbers that are not on disk.
    Unflushed,
}

/// The columns of every read: after those of the reading the event's id, those of `stored`, and the statement's own.
pub(super) const ID: usize = 5;
pub(super) const STORED: usize = 6;
pub(super) const OWN: usize = 14;

impl Reading {
    /// Reads the first columns of a row.
    pub(super) fn of_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (epoch, snapshot) = (row.try_get(0)?, row.try_get(1)?);
        Self::new(
            epoch,
            snapshot,
            row.try_get(2)?,
            row.try_get(3)?,
            row.try_get(4)?,
        )
    }

    fn new(
        epoch: &str,
        snapshot: &str,
        retained: bool,
        known: bool,
        flushed: bool,
    ) -> Result<Self, sqlx::Error> {
        let epoch: Epoch = parse(epoch)?;
        if epoch.history == 0 {
            let text = "the log belongs to another database, and no new history has begun yet";
            return Err(sqlx::Error::Protocol(text.to_owned()));
        }
        Ok(Self {
            cursor: Cursor {
                epoch,
                snapshot: parse(snapshot)?,
                sent: None,
            },
            retained,
            known,
            gap: None,
            durability: if flushed {
                Durability::Flushed
            } else {
                Durability::Unflushed
            },
        })
    }

    /// Another statement of the same read has been made here. This one keeps its cursor, and is worth no more than the
    /// other.
    ///
    /// # Errors
    /// The database has become another: its transactions are not those of before.
    pub(super) fn join(&mut self, other: &Self) -> Result<(), sqlx::Error> {
        let is_same = other.cursor.epoch == self.cursor.epoch
            && other.cursor.snapshot.covers(&self.cursor.snapshot);
        if !is_same {
            let text = "the history changed while the log was read";
            return Err(sqlx::Error::Protocol(text.to_owned()));
        }
        self.retained &= other.retained;
        self.known &= other.known;
        Ok(())
    }

    /// Why the reader cannot go on from its position; `None` when the read has returned all events
    /// after it.
    #[must_use]
    pub fn reset_reason(&self) -> Option<ResetReason> {
        if !self.known {
            Some(ResetReason::History)
        } else if !self.retained {
            Some(ResetReason::Retention)
        } else {
            self.gap
        }
    }
}

/// A statement that reads the log for a reader whose snapshot is `$from`; its first columns are those of a [`Reading`],
/// then come the id and the columns of an event of the table `events` (`log_row.rs`: `stored`). Of these columns, those
/// that an older schema does not have are columns of `reading`. In the schema before migration 5 the names `history` and
/// `log_oid` are no columns of `realtime.state` and mean those of `absent`. At the beginning of a page of the write-ahead
/// log the position of the next record is past the page's header, which takes at most 40 bytes and need not be flushed.
///
/// A position is retained if every transaction up to `dropped_to` is visible in it, but for those that no event
/// has been dropped of (`realtime.forget` in `sql/realtime/`). In the schema before migration 2 the names
/// `dropped_to` and `dropped_running` are no columns of `realtime.state` and mean those of `absent`: then a
/// position is retained if it has seen every transaction before `retained_from`.
macro_rules! read_log {
    ($from:literal, $events:expr) => {
        concat!(
            "WITH reading AS MATERIALIZED (
                 SELECT epoch,
                        pg_current_snapshot()::text AS snapshot,
                        retained,
                        pg_snapshot_xmax(",
            $from,
            "::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()) AS known,
                        unflushed <= 0 OR unflushed <= 40
                            AND pg_wal_lsn_diff(flushed_to, '0/0') % current_setting('wal_block_size')::integer = 0
                            AS flushed,
                        NULL::smallint AS source, NULL::\"char\" AS op, NULL::text[] AS fields, NULL::text[] AS own_fields,
                        false AS asynchronous, false AS is_composed, NULL::integer AS bytes, NULL::bigint AS body
                 FROM (SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), lsn) AS unflushed, lsn AS flushed_to
                       FROM pg_current_wal_flush_lsn() AS lsn) AS wal,
                      (SELECT NULL::xid8 AS dropped_to, NULL::xid8[] AS dropped_running,
                              NULL::bigint AS history, NULL::oid AS log_oid) AS absent,
                      LATERAL (
                          SELECT CASE WHEN history IS NULL THEN realtime.epoch()
                          ELSE CASE WHEN log_oid = to_regclass('realtime.events') THEN history ELSE 0 END || '-'
                              || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
                          END AS epoch,
                          CASE WHEN dropped_to IS NULL THEN pg_snapshot_xmin(",
            $from,
            "::text::pg_snapshot) >= retained_from
                          ELSE pg_snapshot_xmax(",
            $from,
            "::text::pg_snapshot) > dropped_to AND NOT EXISTS (
                              SELECT FROM pg_snapshot_xip(",
            $from,
            "::text::pg_snapshot) AS xid
                              WHERE xid <= dropped_to AND xid <> ALL (dropped_running))
                          END AS retained
                          FROM realtime.state WHERE singleton) AS state)
             SELECT epoch, snapshot, retained, known, flushed, events.id,
                    events.payload, events.source, events.op, events.fields, events.asynchronous, events.user_id,
                    events.bytes, events.body",
            $events
        )
    };
}
pub(super) use read_log;

/// An id that only events of transactions which were running in the snapshot `$from` are below, of those that the
/// snapshot does not see.
///
/// An id is given to a row after its transaction has its number. So a transaction that began after the snapshot has
/// higher ids than any event that the snapshot sees: this is the id of the newest of these, less a margin for rows that
/// were written by hand.
macro_rules! newest_seen {
    ($from:literal) => {
        concat!(
            "coalesce((
                 SELECT max(newest.id) - 10000 FROM (
                     SELECT upper, coalesce(lag(upper) OVER (ORDER BY upper), '0'::xid8) AS lower
                     FROM (SELECT pg_snapshot_xip(",
            $from,
            "::text::pg_snapshot)
                           UNION ALL SELECT pg_snapshot_xmax(",
            $from,
            "::text::pg_snapshot)) AS bounds (upper)
                 ) AS seen, LATERAL (
                     SELECT id FROM realtime.events WHERE xid > lower AND xid < upper
                     ORDER BY xid DESC, id DESC LIMIT 1
                 ) AS newest
             ), -9223372036854775808)"
        )
    };
}
pub(super) use newest_seen;

pub(super) fn parse<T: FromStr<Err = NotACursor>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse()
        .map_err(|error: NotACursor| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_reset_unless_its_position_is_known_and_retained() {
        let read = |retained, known| Reading::new("1-1", "9:9:", retained, known, true).unwrap();
        let reason = |retained, known| read(retained, known).reset_reason();
        assert_eq!(reason(true, true), None);
        assert_eq!(reason(false, true), Some(ResetReason::Retention));
        assert_eq!(reason(true, false), Some(ResetReason::History));
        let mut with_gap = read(true, true);
        with_gap.gap = Some(ResetReason::Truncated);
        assert_eq!(with_gap.reset_reason(), Some(ResetReason::Truncated));
        // An unknown history says nothing about the retention.
        assert_eq!(reason(false, false), Some(ResetReason::History));
    }

    #[test]
    fn a_log_of_another_database_cannot_be_read() {
        assert!(Reading::new("0-1", "9:9:", true, true, true).is_err());
    }

    #[test]
    fn the_statements_of_one_read_are_joined_to_what_the_worst_of_them_is_worth() {
        let reading = |epoch, snapshot, retained| {
            let reading = Reading::new(epoch, snapshot, retained, true, true);
            reading.unwrap()
        };
        let mut first = reading("1-1", "9:9:", true);
        first.join(&reading("1-1", "12:12:", true)).unwrap();
        assert_eq!(first.cursor.to_string(), "1-1.9:9:");
        first.join(&reading("1-1", "12:12:", false)).unwrap();
        first.join(&reading("1-1", "12:12:", true)).unwrap();
        assert_eq!(first.reset_reason(), Some(ResetReason::Retention));
        // A promotion, and a crash that has taken transactions back.
        assert!(first.join(&reading("1-2", "12:12:", true)).is_err());
        assert!(first.join(&reading("1-1", "8:8:", true)).is_err());
    }
}
