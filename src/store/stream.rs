//! The log's rows from PostgreSQL's write-ahead log: a temporary slot, its stream, and what is asked beside it.
//!
//! PostgreSQL sends a transaction when it is flushed, which is before others see it. So a witness, a session of the
//! service's own role, says what is visible. The slot belongs to the session that streams: nothing is left of it when that
//! ends, and what it would have sent is in the log. Fails with a [`StreamError`], which says what to do.

use std::time::{Duration, Instant};

use hushnet_replication::{Change, Connection, Endpoint, Error, Received, Row, Stream};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::deadline::within_deadline;
use super::reading::parse;
use super::streamed_row::{Rows, StreamedRow};
use super::{Blocker, Log, blockers, error, session};
use crate::protocol::{Snapshot, StreamFault};

/// Time to connect, and time for each command.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to make a slot. PostgreSQL gives up before, where it waits for a transaction (`session`).
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);
/// The beginning of the slots' names.
const SLOT: &str = "hushnet_realtime_";
/// The publication of the log's table.
const PUBLICATION: &str = "realtime_log";

/// Why there is no stream, or why it has ended.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct StreamError {
    /// Why.
    pub fault: StreamFault,
    /// In one line, for whoever operates the database.
    pub detail: String,
}

impl StreamError {
    /// With what was seen.
    #[must_use]
    pub fn new(fault: StreamFault, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { fault, detail }
    }
}

impl From<Error> for StreamError {
    fn from(error: Error) -> Self {
        let fault = match &error {
            Error::Io(_) | Error::Closed | Error::Tls(_) => StreamFault::Unreachable,
            Error::Login(_) => StreamFault::Privilege,
            Error::Server(error) => StreamFault::of_sqlstate(&error.code, &error.message),
            Error::Protocol(_) | Error::TooLong { .. } => StreamFault::Refused,
        };
        Self::new(fault, error.to_string())
    }
}

/// Of a session of the service's own role.
impl From<sqlx::Error> for StreamError {
    fn from(error: sqlx::Error) -> Self {
        Self::new(StreamFault::Unreachable, error::summary(&error))
    }
}

/// Which publication there is, if it is as `migrate up` makes it. Whoever alters it and puts it back makes another of it: the
/// stream lacks what was committed between.
macro_rules! publication {
    () => {
        "(SELECT concat_ws(' ', p.oid, p.xmin, r.oid, r.xmin) FROM pg_publication AS p
          JOIN pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid = to_regclass('realtime.log')
          WHERE p.pubname = 'realtime_log' AND p.pubinsert AND p.pubviaroot AND NOT p.puballtables
            AND r.prqual IS NULL AND r.prattrs IS NULL)"
    };
}

/// Whether the server writes enough to its log, and what there is of the publication.
const OBSTACLES: &str = concat!(
    "SELECT current_setting('wal_level'), EXISTS (SELECT FROM pg_publication WHERE pubname = 'realtime_log'), ",
    publication!(),
    " IS NOT NULL"
);

/// The witness's look at the slot, a transaction of its own, and the publication from there on.
const JOINED: &str = concat!(
    "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()),
            pg_current_xact_id()::text::bigint, ",
    publication!()
);

/// What is visible now, and which publication there is then.
const SNAPSHOT: &str = concat!("SELECT pg_current_snapshot()::text, ", publication!());

const SLOT_STATE: &str = concat!(
    "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, restart_lsn::text, ",
    publication!(),
    " FROM (SELECT) AS one LEFT JOIN pg_replication_slots ON slot_name = $1"
);

/// Whether what PostgreSQL keeps from this position of the write-ahead log on is more than it keeps for a slot. It counts whole
/// segments, at a checkpoint.
const KEPT: &str = "SELECT pg_wal_lsn_diff(now, kept)::bigint, current_setting('max_slot_wal_keep_size'),
        bound >= 0 AND div(now - '0/0', segment) - div(kept - '0/0', segment) > div(bound, segment)
    FROM (SELECT pg_current_wal_lsn(), $1::pg_lsn, pg_size_bytes(current_setting('max_slot_wal_keep_size'))::numeric,
                 pg_size_bytes(current_setting('wal_segment_size'))::numeric) AS own (now, kept, bound, segment)";

/// In milliseconds; 0 is without end.
const WAL_SENDER_TIMEOUT: &str =
    "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";

/// A session that says what is visible.
#[derive(Debug)]
pub struct Witness {
    connection: PgConnection,
    slot: String,
    /// The publication when the stream began.
    publication: String,
    /// From where on PostgreSQL kept the write-ahead log when the slot was last looked at.
    kept_from: Option<String>,
}

impl Witness {
    /// What is visible now.
    ///
    /// # Errors
    /// The session is lost, or the publication was altered: of what is visible the stream may lack something.
    pub async fn snapshot(&mut self) -> Result<Snapshot, StreamError> {
        let ask = sqlx::query_as(SNAPSHOT);
        let (text, publication): (String, Option<String>) =
            within_deadline(ask.fetch_one(&mut self.connection)).await?;
        self.check_publication(publication.as_deref())?;
        Ok(parse(&text)?)
    }

    /// How much of the write-ahead log PostgreSQL keeps for the slot, in bytes; `None` for a slot that is gone or invalid.
    ///
    /// # Errors
    /// The session is lost, or the publication was altered.
    pub async fn slot_lag(&mut self) -> Result<Option<i64>, StreamError> {
        let ask = sqlx::query_as(SLOT_STATE).bind(&self.slot);
        let (lag, kept_from, publication): (_, Option<String>, Option<String>) =
            within_deadline(ask.fetch_one(&mut self.connection)).await?;
        self.kept_from = kept_from.or(self.kept_from.take());
        self.check_publication(publication.as_deref())?;
        Ok(lag)
    }

    fn check_publication(&self, present: Option<&str>) -> Result<(), StreamError> {
        if present == Some(&self.publication) {
            return Ok(());
        }
        let detail = format!("the publication {PUBLICATION} was altered while its rows came");
        Err(StreamError::new(StreamFault::PublicationAltered, detail))
    }

    /// What there is to say where PostgreSQL kept more for the slot than `max_slot_wal_keep_size` allows: a checkpoint ends
    /// the walsender of such a slot, and the session has no other word for it than for any end.
    ///
    /// # Errors
    /// The session is lost.
    pub async fn kept_too_much(&mut self) -> Result<Option<String>, StreamError> {
        let ask = sqlx::query_as(KEPT).bind(self.kept_from.as_deref());
        let (kept, bound, is_more): (Option<i64>, String, Option<bool>) =
            within_deadline(ask.fetch_one(&mut self.connection)).await?;
        let kept = kept.filter(|_| is_more == Some(true));
        Ok(kept.map(|bytes| {
            format!(
                "PostgreSQL kept {bytes} bytes of its write-ahead log for the slot, and max_slot_wal_keep_size is {bound}"
            )
        }))
    }

    /// Ends the session.
    pub async fn close(self) {
        // What fails here is over all the same.
        let _ = timeout(ENDPOINT_TIMEOUT, self.connection.close()).await;
    }
}

/// What a stream brings.
#[derive(Debug)]
pub enum Streamed {
    /// A row of the log.
    Row(StreamedRow),
    /// A transaction begins. Its commit is here in the write-ahead log.
    Begin(u64),
    /// The transaction has ended: everything up to this position has come.
    End(u64),
    /// Nothing has to be sent up to this position; PostgreSQL may want an answer.
    Idle {
        /// The position.
        end: u64,
        /// Whether it does.
        reply: bool,
    },
}

/// The log's rows, in the order of commits.
#[derive(Debug)]
pub struct RowStream {
    stream: Stream,
    rows: Rows,
    /// PostgreSQL's `wal_sender_timeout`; zero is without end.
    answer_within: Duration,
    /// When PostgreSQL last asked for an answer, which it does after half of that time without one.
    asked: Option<Instant>,
    /// Whether the connection broke.
    is_broken: bool,
    /// Whether PostgreSQL has said why it ends the stream.
    has_said_why: bool,
}

impl RowStream {
    /// Makes a slot and begins to stream. Returns also the witness, and the number of a transaction that began after the
    /// slot was made: once a snapshot's xmin has reached it, everything that the slot does not bring is visible there.
    ///
    /// # Errors
    /// Why there is no stream.
    pub async fn open(log: &Log, endpoint: &Endpoint) -> Result<(Self, Witness, u64), StreamError> {
        look_for_obstacles(log).await?;
        let mut connection = connect(endpoint).await?;
        let answer_within = within(ENDPOINT_TIMEOUT, connection.query(WAL_SENDER_TIMEOUT)).await?;
        let slot = format!("{SLOT}{}", Uuid::new_v4().simple());
        let Ok(made) = timeout(SLOT_TIMEOUT, connection.create_slot(&slot)).await else {
            let detail = "transactions have kept the slot from being made, one after another";
            return Err(StreamError::new(StreamFault::Blocked, detail));
        };
        made?;
        let mut witness = within_deadline(log.address().connect()).await?;
        let ask = sqlx::query_as(JOINED).bind(&slot);
        let (is_here, number, publication): (bool, i64, Option<String>) =
            within_deadline(ask.fetch_one(&mut witness)).await?;
        if !is_here {
            let detail = "the slot that was made there is none of this database's";
            return Err(StreamError::new(StreamFault::Elsewhere, detail));
        }
        let publication = publication.ok_or_else(not_as_made)?;
        let stream = within(
            ENDPOINT_TIMEOUT,
            Stream::start(connection, &slot, PUBLICATION),
        )
        .await?;
        let witness = Witness {
            connection: witness,
            slot,
            publication,
            kept_from: None,
        };
        let stream = Self {
            stream,
            rows: Rows::default(),
            answer_within: milliseconds(&answer_within),
            asked: None,
            is_broken: false,
            has_said_why: false,
        };
        Ok((stream, witness, number.unsigned_abs()))
    }

    /// Whether there could be a stream, as far as can be seen without one.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(log: &Log, endpoint: &Endpoint) -> Result<(), StreamError> {
        look_for_obstacles(log).await?;
        connect(endpoint).await.map(drop)
    }

    /// The next of what comes. Cancel-safe.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub async fn next(&mut self) -> Result<Streamed, StreamError> {
        loop {
            let received = self.stream.next().await;
            let received = received.map_err(|error| self.ended(error))?;
            if let Some(streamed) = self.read(received)? {
                return Ok(streamed);
            }
        }
    }

    /// The same, if it has been received already.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub fn next_received(&mut self) -> Result<Option<Streamed>, StreamError> {
        loop {
            let received = self.stream.next_received();
            let Some(received) = received.map_err(|error| self.ended(error))? else {
                return Ok(None);
            };
            if let Some(streamed) = self.read(received)? {
                return Ok(Some(streamed));
            }
        }
    }

    /// Tells PostgreSQL that everything up to this position has been dealt with.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub async fn confirm(&mut self, position: u64) -> Result<(), StreamError> {
        let confirmed = within(ENDPOINT_TIMEOUT, self.stream.confirm(position)).await;
        self.is_broken |= confirmed.is_err();
        confirmed
    }

    /// What PostgreSQL last said on a stream that has failed: why it ended the stream, if it said so.
    pub async fn last_words(&mut self) -> Option<StreamError> {
        let read = async {
            while !self.has_said_why {
                if let Err(error) = self.next().await {
                    return self.has_said_why.then_some(error);
                }
            }
            None
        };
        timeout(ENDPOINT_TIMEOUT, read).await.unwrap_or_default()
    }

    /// PostgreSQL's `wal_sender_timeout`, where PostgreSQL has ended the stream as it does when no answer has reached it in that
    /// time: it has asked for one, and then closed the connection without a word.
    #[must_use]
    pub fn unanswered(&self) -> Option<Duration> {
        let is_silent = self.is_broken && !self.has_said_why;
        let within = self.answer_within;
        let was_asked = self.asked.is_some_and(|asked| asked.elapsed() <= within);
        (is_silent && was_asked).then_some(within)
    }

    fn ended(&mut self, error: Error) -> StreamError {
        match &error {
            Error::Io(_) | Error::Closed => self.is_broken = true,
            Error::Server(_) => self.has_said_why = true,
            _ => {}
        }
        error.into()
    }

    fn read(&mut self, received: Received) -> Result<Option<Streamed>, StreamError> {
        Ok(match received {
            Received::KeepAlive { end, reply } => {
                if reply {
                    self.asked = Some(Instant::now());
                }
                Some(Streamed::Idle { end, reply })
            }
            Received::Change(Change::Begin { commit }) => {
                self.rows.begin();
                Some(Streamed::Begin(commit))
            }
            Received::Change(Change::Commit { end }) => Some(Streamed::End(end)),
            Received::Change(Change::Relation(relation)) => {
                self.rows.describe(relation);
                None
            }
            Received::Change(Change::Insert { relation, values }) => {
                let row = self.rows.read(relation, &values).map_err(|error| {
                    StreamError::new(StreamFault::PublicationAltered, error.to_string())
                })?;
                row.map(Streamed::Row)
            }
            Received::Change(Change::Other) => None,
        })
    }
}

/// Whose transactions keep a slot from being made.
///
/// # Errors
/// The database's.
pub async fn slot_blockers(log: &Log) -> Result<Vec<Blocker>, sqlx::Error> {
    within_deadline(blockers::of_slots(&log.own())).await
}

async fn look_for_obstacles(log: &Log) -> Result<(), StreamError> {
    let ask = sqlx::query_as(OBSTACLES);
    let (wal_level, exists, is_as_made): (String, bool, bool) =
        within_deadline(ask.fetch_one(&log.own())).await?;
    let (fault, detail) = if wal_level != "logical" {
        (StreamFault::WalLevel, format!("wal_level is {wal_level}"))
    } else if !exists {
        let detail = format!("there is no publication {PUBLICATION}");
        (StreamFault::NoPublication, detail)
    } else if !is_as_made {
        return Err(not_as_made());
    } else {
        return Ok(());
    };
    Err(StreamError::new(fault, detail))
}

fn not_as_made() -> StreamError {
    let detail = format!("the publication {PUBLICATION} is not the one of migrate up");
    StreamError::new(StreamFault::PublicationAltered, detail)
}

/// A session for replication.
async fn connect(endpoint: &Endpoint) -> Result<Connection, StreamError> {
    let mut connection = within(ENDPOINT_TIMEOUT, hushnet_replication::open(endpoint)).await?;
    within(ENDPOINT_TIMEOUT, connection.query(session::STREAMING)).await?;
    Ok(connection)
}

/// A setting in milliseconds, as the only value of an answer.
fn milliseconds(answer: &[Row]) -> Duration {
    let text = answer.first().and_then(|row| row.first()?.as_deref());
    Duration::from_millis(text.and_then(|text| text.parse().ok()).unwrap_or_default())
}

async fn within<T>(
    time: Duration,
    doing: impl Future<Output = Result<T, Error>>,
) -> Result<T, StreamError> {
    let Ok(done) = timeout(time, doing).await else {
        let detail = "PostgreSQL has not answered in time";
        return Err(StreamError::new(StreamFault::Unreachable, detail));
    };
    Ok(done?)
}
