//! The log for one user's replay, page by page.
//!
//! A page costs about what it returns, however many of the user's events are left and however many events of others
//! the log has. The first page, and all pages of a replay that is short enough, look up the user's unseen events and
//! sort them. For a longer one it depends on what the log holds ([`Way`]). So no replay of any length ends a
//! statement by its timeout, and a statement that fails is tried again from where the read has come to.

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};

use super::database::Database;
use super::deadline::within_deadline;
use super::log_row::{Body, LogRow, skip_unknown};
use super::reading::{Durability, ID, OWN, Reading, STORED};
use super::user_page_statements::{FIRST, MERGED, SCANNED, SORTED, SURVEY};
use super::{log_state, sources};
use crate::protocol::{
    Notification, Recipient, ResetReason, Signal, SkippedRow, Snapshot, Subject,
};

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
    /// Rows that could not be read, by their ids. Each has been logged.
    pub skipped: Vec<(i64, SkippedRow)>,
    /// Whether another page follows.
    pub more: bool,
}

/// The statement's own columns.
const TOTAL: usize = OWN;
const IS_BOUND: usize = OWN + 1;
const GAP: usize = OWN + 2;
const WANTED: usize = OWN + 3;

/// What a statement has found.
struct Found {
    reading: Reading,
    /// How many rows there are, and how many are of the wanted kinds.
    total: u64,
    wanted: u64,
    /// The first of them by id.
    rows: Vec<Row>,
}

/// A row of the log that a page looks at.
struct Row {
    id: i64,
    /// `None` for a row that only says how far the page has come.
    body: Option<Body>,
    /// Whether it is the last that the page may look at.
    is_bound: bool,
}

impl Found {
    /// Reads what the first row says of all.
    fn begin(row: &PgRow) -> Result<Self, sqlx::Error> {
        let mut reading = Reading::of_row(row)?;
        // Later pages go on from a first page without a gap; what there is since comes live.
        let gap: Option<&str> = row.try_get(GAP)?;
        reading.gap = gap.map(ResetReason::of_row_for_all);
        let count = |column| {
            row.try_get(column)
                .map(|count: Option<i64>| count.unwrap_or(0))
        };
        Ok(Self {
            reading,
            total: count(TOTAL)?.unsigned_abs(),
            wanted: count(WANTED)?.unsigned_abs(),
            rows: Vec::new(),
        })
    }

    fn take(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        if let Some(id) = row.try_get(ID)? {
            self.rows.push(Row {
                id,
                body: Body::of_columns(row, STORED)?,
                is_bound: row.try_get(IS_BOUND)?,
            });
        }
        Ok(())
    }
}

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
            let found = self.find(self.first()).await?;
            return Ok(self.take_first(found));
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
        let found = self.find(read).await?;
        self.way = Some(way);
        Ok(self.take(found))
    }

    /// The statement for the first page.
    fn first(&self) -> Query<'static, Postgres, PgArguments> {
        let wanted = self.recipient.kinds.as_ref();
        let wanted = wanted.filter(|kinds| !kinds.are_all());
        let names = wanted.map(|kinds| kinds.names().map(str::to_owned).collect::<Vec<_>>());
        let (known, of_wanted) = wanted
            .map(|kinds| self.database.kinds().wanted_sources(kinds))
            .unwrap_or_default();
        let first = self.statement(FIRST).bind(bound(COUNTED_MAX + 1));
        first.bind(names).bind(known).bind(of_wanted)
    }

    /// One of the statements, with the parameters that all have in common.
    fn statement(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql)
            .bind(self.from.to_string())
            .bind(self.recipient.user.uuid())
            .bind(self.last_id)
            .bind(self.with_revocations)
            .bind(bound(PAGE_EVENTS))
            .bind(bound(PAGE_BYTES_MAX))
    }

    /// What the statement finds. Where a row's source is not known, it is new since the sources were read.
    async fn find(
        &self,
        read: Query<'static, Postgres, PgArguments>,
    ) -> Result<Found, sqlx::Error> {
        let (pool, kinds) = (self.database.requests(), self.database.kinds());
        let mut found = None;
        let mut rows = read.fetch(&pool);
        while let Some(row) = rows.try_next().await? {
            let found: &mut Found = match &mut found {
                Some(found) => found,
                none => none.insert(Found::begin(&row)?),
            };
            found.take(&row)?;
        }
        drop(rows);
        let found: Found = found.ok_or(sqlx::Error::RowNotFound)?;
        let mut bodies = found.rows.iter().filter_map(|row| row.body.as_ref());
        if bodies.any(|body| !body.is_known(&kinds)) {
            sources::read_kinds(&pool, &kinds).await?;
        }
        Ok(found)
    }

    async fn survey(&self, until: &str) -> Result<Way, sqlx::Error> {
        let survey = sqlx::query_as(SURVEY)
            .bind(self.from.to_string())
            .bind(self.recipient.user.uuid())
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

    fn take_first(&mut self, mut found: Found) -> Page {
        self.are_many = found.total > COUNTED_MAX as u64;
        if self.are_many {
            // They are any of the events, not the first.
            found.rows.clear();
        }
        let total = found.wanted.min(COUNTED_MAX as u64);
        let page = self.take(found);
        self.until = Some(page.reading.cursor.snapshot.clone());
        Page { total, ..page }
    }

    fn take(&mut self, found: Found) -> Page {
        let mut more = found.total > found.rows.len() as u64;
        let (mut signals, mut skipped) = (Vec::new(), Vec::new());
        let (mut text, mut bytes) = (String::new(), 0);
        for row in found.rows {
            // The statement knows only about how long they are.
            if bytes >= PAGE_BYTES_MAX {
                more = true;
                break;
            }
            self.last_id = row.id;
            more |= row.is_bound;
            let notification = match self.read_row(&row, &mut text) {
                Ok(Some(notification)) => notification,
                Ok(None) => continue,
                Err(why) => {
                    skipped.push((row.id, why));
                    continue;
                }
            };
            bytes += notification.open_text.len();
            if self.is_wanted(&notification) {
                signals.push(Signal::new(notification, None, None));
            }
        }
        Page {
            reading: found.reading,
            total: 0,
            signals,
            skipped,
            more,
        }
    }

    fn read_row<'a>(
        &self,
        row: &'a Row,
        text: &'a mut String,
    ) -> Result<Option<Notification<'a>>, SkippedRow> {
        let Some(body) = &row.body else {
            return Ok(None);
        };
        match body.read(row.id, None, &self.database.kinds(), text) {
            LogRow::Notification(notification) => Ok(Some(notification)),
            LogRow::Gap(_) => Ok(None),
            LogRow::UnknownSource(source) => {
                skip_unknown(row.id, source);
                Err(SkippedRow::UnknownSource)
            }
            LogRow::Malformed => Err(SkippedRow::Malformed),
        }
    }

    /// Whether the client is sent it.
    fn is_wanted(&self, notification: &Notification<'_>) -> bool {
        match (&self.recipient.kinds, notification.subject) {
            (Some(wanted), Subject::Event(kind)) => wanted.admit(kind, notification.open_text),
            _ => true,
        }
    }
}

/// As PostgreSQL takes it.
fn bound(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX - 1)
}
