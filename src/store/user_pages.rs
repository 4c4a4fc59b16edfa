//! The log for one user's replay, page by page.
//!
//! A page costs about what it returns, however many of the user's events are left and however many events of others
//! the log has. The first page, and all pages of a replay that is short enough, look up the user's unseen events and
//! sort them. For a longer one it depends on what the log holds ([`Way`]). So no replay of any length ends a
//! statement by its timeout, and a statement that fails is tried again from where the read has come to.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;

use super::database::Database;
use super::deadline::within_deadline;
use super::log_state;
use super::reading::{Durability, LogRow, Reading, newest_seen, parse_row, read_log};
use crate::protocol::{Recipient, Signal, Snapshot, Subject};

/// Events in one page.
pub const PAGE_EVENTS: usize = 1_000;
/// The text of a page's events without the last one: a page has at least one event, however long.
pub const PAGE_BYTES_MAX: usize = 128 * 1024;
/// Up to this many events of a replay are counted.
pub const COUNTED_MAX: usize = 100_000;
/// Transactions that are merged: each page then looks at no more events than a count does.
const TRANSACTIONS_MAX: usize = COUNTED_MAX / PAGE_EVENTS;
/// Rows of the log that one page of [`Way::Scanned`] looks at.
const SCANNED_ROWS: usize = 10_000;

/// Some of one user's events.
#[derive(Debug)]
pub struct Page {
    /// Where it was read. Of a first page, what the snapshot sees is on disk.
    pub reading: Reading,
    /// Of a first page, how many events of the wanted kinds there are to read, at most [`COUNTED_MAX`].
    pub total: u64,
    /// In the order of their ids; at most [`PAGE_EVENTS`] and [`PAGE_BYTES_MAX`]. A page before the last may have none.
    pub signals: Vec<Signal>,
    /// Whether another page follows.
    pub more: bool,
}

/// A row: the reading's columns, the event's id and payload, how many rows there are, whether it is the last that
/// the page looks at, whether a table was emptied, and how many rows are of the wanted kinds.
type Row = (
    String,
    String,
    bool,
    bool,
    bool,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<bool>,
    bool,
    Option<i64>,
);

/// A statement that reads a page. `$1` is the reader's snapshot, `$2` the user, `$3` the last id, `$4` whether
/// revocations are wanted, `$5` the events of a page, `$6` its bytes. `$rows` is a query for id, payload,
/// `is_bound` and `is_wanted`.
macro_rules! read_page {
    ($truncated:literal, $rows:expr) => {
        read_log!(
            "$1",
            concat!(
                ", total, is_bound, ",
                $truncated,
                " AS truncated, wanted
                 FROM reading LEFT JOIN LATERAL (
                     SELECT id, payload, total, wanted, is_bound,
                            coalesce(sum(octet_length(payload)) OVER (
                                ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
                     FROM (SELECT id, payload, is_bound, count(*) OVER () AS total,
                                  count(*) FILTER (WHERE is_wanted) OVER () AS wanted FROM (",
                $rows,
                ") AS found ORDER BY id LIMIT $5) AS page
                 ) AS events ON bytes_before < $6
                 ORDER BY id"
            )
        )
    };
}

/// The user's events that are visible now and were not in the reader's snapshot.
macro_rules! unseen {
    () => {
        "(SELECT * FROM realtime.events
          WHERE retained AND known AND user_id = $2
            AND xid >= pg_snapshot_xmax($1::text::pg_snapshot)
          UNION ALL
          SELECT * FROM realtime.events
          WHERE retained AND known AND user_id = $2
            AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))) AS unseen"
    };
}

/// The first page, and the count: of `$7` events at most. If there are more, they are not in order. `$8` names the kinds
/// that are wanted; null is all.
const FIRST: &str = read_page!(
    "(SELECT known AND (
          EXISTS (SELECT FROM realtime.events
                  WHERE user_id IS NULL AND xid >= pg_snapshot_xmax($1::text::pg_snapshot))
          OR EXISTS (SELECT FROM realtime.events
                     WHERE user_id IS NULL
                       AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))))))",
    concat!(
        "SELECT id, payload, false AS is_bound, $8::text[] IS NULL OR kind = ANY ($8) AS is_wanted FROM ",
        unseen!(),
        " WHERE id > $3 AND ($4 OR kind <> 'revocation') LIMIT $7"
    )
);

/// A later page of few events, those visible in `$7`.
const SORTED: &str = read_page!(
    "false",
    concat!(
        "SELECT id, payload, false AS is_bound, true AS is_wanted FROM ",
        unseen!(),
        " WHERE id > $3 AND ($4 OR kind <> 'revocation')
            AND pg_visible_in_snapshot(xid, (SELECT $7::text::pg_snapshot))
          ORDER BY id LIMIT $5 + 1"
    )
);

/// A later page of the transactions `$7`. The index by user has each one's events of this user in the order of ids. The
/// rows are compared whole, so that the planner can take no other index: in one by transaction the events of others lie
/// between.
const MERGED: &str = read_page!(
    "false",
    "SELECT own.id, own.payload, false AS is_bound, true AS is_wanted
     FROM unnest($7::text::xid8[]) AS unseen (xid), LATERAL (
         SELECT id, payload FROM realtime.events
         WHERE retained AND known
           AND (user_id, events.xid, id) > ($2, unseen.xid, $3)
           AND (user_id, events.xid, id) <= ($2, unseen.xid, 9223372036854775807)
           AND ($4 OR kind <> 'revocation')
         ORDER BY user_id, events.xid, id LIMIT $5 + 1
     ) AS own
     ORDER BY id LIMIT $5 + 1"
);

/// A later page of the events visible in `$7`: the next `$9` rows of the log by id, from `$8` on, of which the last one
/// is returned in any case. The scan ends when the page is full.
const SCANNED: &str = read_page!(
    "false",
    "SELECT id, CASE WHEN is_unseen THEN payload END AS payload, number = $9 AS is_bound,
            true AS is_wanted
     FROM (SELECT id, payload, number,
                  user_id = $2 AND ($4 OR kind <> 'revocation')
                  AND NOT pg_visible_in_snapshot(xid, (SELECT $1::text::pg_snapshot))
                  AND pg_visible_in_snapshot(xid, (SELECT $7::text::pg_snapshot)) AS is_unseen
           FROM (SELECT *, row_number() OVER (ORDER BY id) AS number
                 FROM (SELECT id, xid, user_id, kind, payload FROM realtime.events
                       WHERE retained AND known AND id > greatest($3, $8) ORDER BY id LIMIT $9) AS next
           ) AS numbered
     ) AS scanned
     WHERE is_unseen OR number = $9
     ORDER BY id LIMIT $5 + 1"
);

/// Why one way is better than another: the user's unseen transactions that are visible in `$3`, unless there are more
/// than `$4`, each found at once in the index; whether the log has an index by id; and an id that no unseen event of the
/// user is below.
const SURVEY: &str = concat!(
    "WITH RECURSIVE begun (xid) AS (
         (SELECT xid FROM realtime.events
          WHERE (user_id, xid) >= ($2, pg_snapshot_xmax($1::text::pg_snapshot)) AND user_id <= $2
          ORDER BY user_id, xid LIMIT 1)
         UNION ALL
         SELECT (SELECT next.xid FROM realtime.events AS next
                 WHERE (user_id, next.xid) > ($2, begun.xid) AND user_id <= $2
                 ORDER BY user_id, next.xid LIMIT 1)
         FROM begun WHERE begun.xid IS NOT NULL
     ), running (xid, first_id) AS (
         SELECT upper, (SELECT id FROM realtime.events
                        WHERE (user_id, xid) >= ($2, upper) AND (user_id, xid) <= ($2, upper)
                        ORDER BY user_id, xid, id LIMIT 1)
         FROM pg_snapshot_xip($1::text::pg_snapshot) AS upper
     ), unseen (xid) AS (
         (SELECT xid FROM running WHERE first_id IS NOT NULL)
         UNION ALL
         (SELECT xid FROM begun WHERE xid IS NOT NULL LIMIT $4 + 1)
     )
     SELECT (SELECT CASE WHEN count(*) <= $4 THEN array_agg(xid)
                         FILTER (WHERE pg_visible_in_snapshot(xid, $3::text::pg_snapshot))::text END
             FROM unseen),
            to_regclass('realtime.events_id') IS NOT NULL,
            least((SELECT min(first_id) - 1 FROM running), ",
    newest_seen!("$1"),
    ")"
);

/// How the pages after the first are read.
#[derive(Debug, Clone)]
enum Way {
    /// The user's unseen events are looked up and sorted.
    Sorted,
    /// The unseen events are of these transactions, an array. Each one's are read in order.
    Merged(String),
    /// The log is read by id from here on, all users' events: the user has many in it.
    Scanned(i64),
}

/// A read of one user's events that is under way.
#[derive(Debug)]
pub struct UserPages {
    database: Database,
    recipient: Recipient,
    from: Snapshot,
    with_revocations: bool,
    /// The snapshot of the first page: all pages end there.
    until: Option<Snapshot>,
    /// More than are counted.
    are_many: bool,
    way: Option<Way>,
    /// How far the read has come.
    last_id: i64,
    /// The first page, until what its snapshot sees is on disk.
    unflushed: Option<Page>,
}

impl UserPages {
    pub(super) fn begin(
        database: Database,
        recipient: Recipient,
        from: &Snapshot,
        with_revocations: bool,
    ) -> Self {
        Self {
            database,
            recipient,
            from: from.clone(),
            with_revocations,
            until: None,
            are_many: false,
            way: None,
            last_id: i64::MIN,
            unflushed: None,
        }
    }

    /// Whether the next page is the first one.
    #[must_use]
    pub fn is_at_begin(&self) -> bool {
        self.until.is_none()
    }

    /// The next page, while the one before says that there is one. After an error the next call reads what this one
    /// would have.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Page, sqlx::Error> {
        if self.unflushed.is_none() {
            let is_first = self.until.is_none();
            let page = within_deadline(self.read_page()).await?;
            if !is_first || page.reading.durability == Durability::Flushed {
                return Ok(page);
            }
            self.unflushed = Some(page);
        }
        within_deadline(log_state::flush(&self.database.own())).await?;
        self.unflushed.take().ok_or(sqlx::Error::RowNotFound)
    }

    async fn read_page(&mut self) -> Result<Page, sqlx::Error> {
        let Some(until) = self.until.as_ref().map(ToString::to_string) else {
            let read = self.statement(FIRST).bind(bound(COUNTED_MAX + 1));
            let read = read.bind(self.kind_names());
            let rows = read.fetch_all(&self.database.requests()).await?;
            return self.take_first(rows);
        };
        let way = match &self.way {
            Some(way) => way.clone(),
            None => self.survey(&until).await?,
        };
        let read = match &way {
            Way::Sorted => self.statement(SORTED).bind(until),
            Way::Merged(transactions) => self.statement(MERGED).bind(transactions.clone()),
            Way::Scanned(start) => {
                let scanned = self.statement(SCANNED).bind(until);
                scanned.bind(*start).bind(bound(SCANNED_ROWS))
            }
        };
        let rows = read.fetch_all(&self.database.requests()).await?;
        self.way = Some(way);
        self.take(rows)
    }

    /// One of the statements, with the parameters that all have in common.
    fn statement(&self, sql: &'static str) -> QueryAs<'static, Postgres, Row, PgArguments> {
        sqlx::query_as(sql)
            .bind(self.from.to_string())
            .bind(self.recipient.user_id)
            .bind(self.last_id)
            .bind(self.with_revocations)
            .bind(bound(PAGE_EVENTS))
            .bind(bound(PAGE_BYTES_MAX))
    }

    async fn survey(&self, until: &str) -> Result<Way, sqlx::Error> {
        let survey = sqlx::query_as(SURVEY)
            .bind(self.from.to_string())
            .bind(self.recipient.user_id)
            .bind(until)
            .bind(bound(TRANSACTIONS_MAX));
        let (transactions, by_id, start): (Option<String>, bool, i64) =
            survey.fetch_one(&self.database.requests()).await?;
        Ok(match transactions {
            Some(transactions) => Way::Merged(transactions),
            // The schema before migration 4 has no index by id.
            None if self.are_many && by_id => Way::Scanned(start),
            None => Way::Sorted,
        })
    }

    fn take_first(&mut self, mut rows: Vec<Row>) -> Result<Page, sqlx::Error> {
        let total = rows.first().and_then(|row| row.7).unwrap_or(0);
        let wanted = rows.first().and_then(|row| row.10).unwrap_or(0);
        self.are_many = total > bound(COUNTED_MAX);
        if self.are_many {
            // They are any of the events, not the first.
            rows.truncate(1);
            rows[0].5 = None;
        }
        let mut page = self.take(rows)?;
        page.more |= self.are_many;
        page.total = wanted.unsigned_abs().min(COUNTED_MAX as u64);
        self.until = Some(page.reading.cursor.snapshot.clone());
        Ok(page)
    }

    fn take(&mut self, rows: Vec<Row>) -> Result<Page, sqlx::Error> {
        let (epoch, snapshot, retained, known, flushed, _, _, total, _, truncated, _) =
            rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let mut reading = Reading::new(epoch, snapshot, *retained, *known, *flushed)?;
        // Later pages go on from a first page that was not truncated; what was emptied since comes live.
        reading.truncated = *truncated;
        let found = total.map_or(0, i64::unsigned_abs);
        let last = rows.last().filter(|row| row.5.is_some());
        let more = found > rows.len() as u64 || last.is_some_and(|row| row.8 == Some(true));
        self.last_id = last.and_then(|row| row.5).unwrap_or(self.last_id);
        let signals = rows.into_iter();
        let signals = signals.filter_map(|row| self.signal(row.5?, row.6.as_deref()?));
        let signals = signals.collect();
        Ok(Page {
            reading,
            total: 0,
            signals,
            more,
        })
    }

    /// The kinds of events that are wanted; `None` for all.
    fn kind_names(&self) -> Option<Vec<String>> {
        let kinds = self.recipient.kinds.as_ref();
        let kinds = kinds.filter(|kinds| !kinds.are_all())?;
        Some(kinds.names().map(str::to_owned).collect())
    }

    /// The signal of a row; `None` if the client is not sent it.
    fn signal(&self, id: i64, payload: &str) -> Option<Signal> {
        let LogRow::Notification(mut notification) = parse_row(id, None, payload)? else {
            return None;
        };
        self.database.kinds().resolve(&mut notification);
        if let (Some(wanted), Subject::Event(kind)) = (&self.recipient.kinds, notification.subject)
            && !wanted.admit(kind, notification.open_text)
        {
            return None;
        }
        Some(Signal::new(notification, None, None))
    }
}

/// As PostgreSQL takes it.
fn bound(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX - 1)
}
