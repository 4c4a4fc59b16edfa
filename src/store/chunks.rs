//! The log for the listener: all users' events after a position and up to one snapshot, chunk by chunk.
//!
//! Few events come by one statement. More come by pages, each a statement of its own that reads a bounded part of the
//! log in the order of ids and says again whether the position is retained. So a read of any length ends no
//! statement by its timeout, a statement that fails is tried again from the last row on, and no page reads what
//! another has read.

use std::mem;

use futures_util::stream::{BoxStream, Fuse};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::postgres::PgRow;
use sqlx::{Executor, Row};
use tokio::time::{Instant, timeout_at};

use super::database::Database;
use super::deadline::{DeadlinePassed, ROW_DEADLINE};
use super::log_row::{Body, stored, stored_if};
use super::reading::{ID, OWN, Reading, STORED, newest_seen, read_log};
use super::user_pages::PAGE_BYTES_MAX;
use crate::protocol::{Snapshot, Xid};

/// Events in one chunk, and in a read that needs no pages.
const CHUNK_EVENTS: usize = super::user_pages::PAGE_EVENTS;
/// Rows of the log that one page looks at.
const PAGE_ROWS: u32 = 10_000;

/// Some of all users' events; all chunks of one read are of one snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// Where it was read. What the position is worth may get worse from chunk to chunk, never better.
    pub reading: Reading,
    /// At most a page of events, or about [`PAGE_BYTES_MAX`] and one more.
    pub rows: Vec<ChunkRow>,
}

/// An event of any user, as the log has it.
#[derive(Debug)]
pub struct ChunkRow {
    /// Its id.
    pub id: i64,
    /// The transaction that has written it.
    pub xid: Option<Xid>,
    /// What it tells.
    pub body: Body,
}

impl Chunk {
    /// Whether a transaction of these events committed without waiting for the disk.
    #[must_use]
    pub fn has_asynchronous(&self) -> bool {
        self.rows.iter().any(|row| row.body.is_asynchronous())
    }
}

/// The statement's own columns: whether there are too many events for one statement, whether the log has an index by id,
/// where the pages begin, and the row's transaction. A row without an event only says how far the page has come.
const MORE: usize = OWN;
const BY_ID: usize = OWN + 1;
const START: usize = OWN + 2;
const XID: usize = OWN + 3;

/// All unseen events, if they are few. `$2` is the bound.
///
/// A transaction that was running is compared from both sides and comes first in the order, so that the planner can take
/// no other index than the one by transaction: of `xid = running` it believes that it is true of most of a log that few
/// large transactions have written, and it would walk through all of that by id.
const FEW: &str = read_log!(
    "$1",
    concat!(
        ", more, to_regclass('realtime.events_id') IS NOT NULL AS by_id, NULL::bigint AS start, xid::text::bigint
     FROM reading LEFT JOIN LATERAL (
         SELECT *, count(*) OVER () > $2 AS more FROM (
             (SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
              WHERE known AND xid >= pg_snapshot_xmax($1::text::pg_snapshot)
              ORDER BY xid, id LIMIT $2 + 1)
             UNION ALL
             (SELECT older.*
              FROM pg_snapshot_xip($1::text::pg_snapshot) AS running, LATERAL (
                  SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
                  WHERE known AND xid >= running AND xid <= running ORDER BY xid, id LIMIT $2 + 1
              ) AS older LIMIT $2 + 1)
         ) AS unseen
     ) AS events ON true
     ORDER BY id"
    )
);

/// The next `$5` rows of the log by id after `$4`, without the events of those that the reader has seen and of those
/// that are not visible in `$2`.
///
/// The pages begin at the id of the newest event that the reader has seen (`$3`, once it is known). Events of the
/// transactions that were running then may be older, and are looked up by transaction.
const PAGE: &str = read_log!(
    "$1",
    concat!(
        ", NULL::boolean AS more, true AS by_id, start, xid::text::bigint
     FROM reading CROSS JOIN LATERAL (
         SELECT coalesce($3::bigint, ",
        newest_seen!("$1"),
        ") AS start
     ) AS begun LEFT JOIN LATERAL (
         SELECT id, xid, ",
        stored_if!("is_unseen"),
        " FROM (
             SELECT *, NOT pg_visible_in_snapshot(xid, (SELECT $1::text::pg_snapshot))
                       AND pg_visible_in_snapshot(xid, (SELECT $2::text::pg_snapshot)) AS is_unseen
             FROM (
                 (SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
                  WHERE known AND id > greatest(start, $4) ORDER BY id LIMIT $5)
                 UNION ALL
                 (SELECT older.*
                  FROM pg_snapshot_xip($1::text::pg_snapshot) AS running, LATERAL (
                      SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
                      WHERE known AND (events.xid, id) > (running, $4) AND (events.xid, id) <= (running, start)
                      ORDER BY events.xid, id LIMIT $5
                  ) AS older ORDER BY id LIMIT $5)
                 ORDER BY id LIMIT $5
             ) AS next
         ) AS scanned
     ) AS events ON true
     ORDER BY id"
    )
);

/// All the rest of the unseen events that are visible in `$2`, for a log without an index by id.
const REST: &str = read_log!(
    "$1",
    concat!(
        ", NULL::boolean AS more, false AS by_id, NULL::bigint AS start, xid::text::bigint
     FROM reading LEFT JOIN LATERAL (
         SELECT * FROM (
             SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
             WHERE known AND id > $3 AND xid >= pg_snapshot_xmax($1::text::pg_snapshot)
             UNION ALL
             SELECT id, xid, ",
        stored!(),
        " FROM realtime.events
             WHERE known AND id > $3 AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
         ) AS unseen WHERE pg_visible_in_snapshot(xid, (SELECT $2::text::pg_snapshot))
     ) AS events ON true
     ORDER BY id"
    )
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Few,
    Pages,
    Rest,
}

/// A statement that is under way.
struct Statement {
    rows: Fuse<BoxStream<'static, Result<PgRow, sqlx::Error>>>,
    way: Way,
    /// Whether no row has come.
    is_first: bool,
    /// Rows of the log that have come.
    scanned: u32,
    /// The events are too many for [`Way::Few`].
    more: bool,
    /// When it ends unless a row comes.
    deadline: Instant,
}

/// A read of the log that is under way. It goes on while [`Chunks::next`] is awaited; dropping it ends
/// the read.
pub struct Chunks {
    database: Database,
    from: Snapshot,
    /// Of the first statement, but for what the position is worth.
    reading: Option<Reading>,
    /// Whether the log has an index by id.
    by_id: bool,
    /// Where the pages begin.
    start: Option<i64>,
    /// The last row that has come.
    last_id: i64,
    rows: Vec<ChunkRow>,
    /// About the length of their JSON.
    bytes: usize,
    statement: Option<Statement>,
    has_ended: bool,
}

impl Chunks {
    pub(super) fn begin(database: Database, from: &Snapshot) -> Self {
        Self {
            database,
            from: from.clone(),
            reading: None,
            by_id: false,
            start: None,
            last_id: i64::MIN,
            rows: Vec::new(),
            bytes: 0,
            statement: None,
            has_ended: false,
        }
    }

    /// The next chunk; `None` after the last. The last may have no event.
    /// Cancel-safe: rows of a chunk that is not full are kept. So they are after an error, and the next call goes on
    /// with what has not come yet.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<Chunk>, sqlx::Error> {
        while !self.has_ended {
            if self.statement.is_none() {
                self.statement = Some(self.send());
            }
            let Some(statement) = &mut self.statement else {
                break;
            };
            let row = timeout_at(statement.deadline, statement.rows.try_next()).await;
            match row.unwrap_or_else(|_| Err(DeadlinePassed.into())) {
                Ok(Some(row)) => {
                    statement.deadline = Instant::now() + ROW_DEADLINE;
                    self.take(&row)?;
                }
                Ok(None) => self.statement_ended(),
                Err(error) => {
                    self.statement = None;
                    return Err(error);
                }
            }
            let is_full = self.rows.len() >= CHUNK_EVENTS || self.bytes >= PAGE_BYTES_MAX;
            if self.has_ended || is_full {
                let rows = mem::take(&mut self.rows);
                self.bytes = 0;
                let reading = self.reading.clone().ok_or(sqlx::Error::RowNotFound)?;
                return Ok(Some(Chunk { reading, rows }));
            }
        }
        Ok(None)
    }

    /// Begins the next statement.
    fn send(&self) -> Statement {
        let from = self.from.to_string();
        let until = self.reading.as_ref();
        let until = until.map(|reading| reading.cursor.snapshot.to_string());
        let (way, query) = match until {
            None => {
                let bound = i64::try_from(CHUNK_EVENTS).unwrap_or(i64::MAX - 1);
                (Way::Few, sqlx::query(FEW).bind(from).bind(bound))
            }
            Some(until) if self.by_id => {
                let page = sqlx::query(PAGE).bind(from).bind(until).bind(self.start);
                let page = page.bind(self.last_id).bind(i64::from(PAGE_ROWS));
                (Way::Pages, page)
            }
            Some(until) => {
                let rest = sqlx::query(REST).bind(from).bind(until);
                (Way::Rest, rest.bind(self.last_id))
            }
        };
        Statement {
            rows: self.database.own().fetch(query).fuse(),
            way,
            scanned: 0,
            more: false,
            is_first: true,
            deadline: Instant::now() + ROW_DEADLINE,
        }
    }

    fn take(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let Some(statement) = &mut self.statement else {
            return Ok(());
        };
        if mem::take(&mut statement.is_first) {
            let reading = Reading::of_row(row)?;
            match &mut self.reading {
                Some(first) => first.join(&reading)?,
                None => self.reading = Some(reading),
            }
            (self.by_id, self.start) = (row.try_get(BY_ID)?, row.try_get(START)?);
            statement.more = row.try_get::<Option<_>, _>(MORE)?.unwrap_or(false);
        }
        if let (Some(id), false) = (row.try_get(ID)?, statement.more) {
            statement.scanned += 1;
            self.last_id = id;
            let xid: Option<i64> = row.try_get(XID)?;
            let xid = xid.and_then(|xid| Xid::new(xid.unsigned_abs()));
            if let Some(body) = Body::of_columns(row, STORED)? {
                self.bytes += body.bytes();
                self.rows.push(ChunkRow { id, xid, body });
            }
        }
        Ok(())
    }

    fn statement_ended(&mut self) {
        if let Some(statement) = self.statement.take() {
            self.has_ended = match statement.way {
                Way::Few => !statement.more,
                Way::Pages => statement.scanned < PAGE_ROWS,
                Way::Rest => true,
            };
        }
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}
