//! The log of events, `realtime.events`: every statement that reads it, and what else the service
//! asks PostgreSQL. The triggers write it (`sql/realtime/`).
//!
//! All reads are by snapshot: "visible now and not in the cursor's snapshot". Those are the events of
//! transactions that began after it or were running in it; asked for as such, and not from its oldest
//! running one on, a transaction that stays open makes no read longer. Each is bounded by a page.
//! Fails with the database's own error; nothing here retries.

use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::types::PgInterval;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::pools::{ACQUIRE_TIMEOUT, Pools};
use crate::config::{Ingest, UnknownIngest};
use crate::protocol::{Cursor, NotACursor, Notification, Signal, Snapshot};

/// Events in one page or chunk.
pub const PAGE_EVENTS: usize = 1_000;
/// The text of a page's events, the last one left out: there is always one.
pub const PAGE_BYTES_MAX: usize = 128 * 1024;
/// Chunks that are read before the first is taken.
pub const CHUNKS_AHEAD: usize = 2;

/// A database that has not taken a new connection and answered on it by then is away.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the log says of itself.
#[derive(Debug)]
pub struct State {
    /// The present.
    pub cursor: Cursor,
    /// How events reach the server.
    pub ingest: Ingest,
}

/// What a reader is told before the first event: where it is, and whether its place is good.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The snapshot in which the events are read.
    pub cursor: Cursor,
    /// Whether the log still reaches back to the reader's snapshot.
    pub retained: bool,
    /// Whether the reader's snapshot can have been taken in this history.
    pub known: bool,
}

impl Reading {
    fn of(epoch: &str, snapshot: &str, retained: bool, known: bool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            cursor: Cursor {
                epoch: parse(epoch)?,
                snapshot: parse(snapshot)?,
                from_stream: false,
            },
            retained,
            known,
        })
    }
}

/// A statement that reads the log for a reader whose snapshot is `$from`; its first columns are those of a
/// [`Reading`]. The epoch is of the connection, and asked for once: a server that is promoted takes no
/// part in it before.
macro_rules! read {
    ($from:literal, $events:expr) => {
        concat!(
            "WITH reading AS MATERIALIZED (
                 SELECT coalesce(nullif(current_setting('realtime.epoch', true), ''),
                                 set_config('realtime.epoch', realtime.epoch(), false)) AS epoch,
                        pg_current_snapshot()::text AS snapshot,
                        pg_snapshot_xmin(",
            $from,
            "::text::pg_snapshot) >= retained_from AS retained,
                        pg_snapshot_xmax(",
            $from,
            "::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()) AS known
                 FROM realtime.state WHERE singleton)
             SELECT epoch, snapshot, retained, known, id, payload",
            $events
        )
    };
}

/// Some of one user's events, read in one snapshot.
#[derive(Debug)]
pub struct Page {
    /// Where it was read.
    pub reading: Reading,
    /// Of a first page, how many events there were to read: its own and those after it.
    pub total: u64,
    /// In the order of their ids; at most [`PAGE_EVENTS`] and [`PAGE_BYTES_MAX`].
    pub signals: Vec<Signal>,
    /// Whether there are others after them.
    pub more: bool,
    /// The last event's id, where the next page begins; `None` for a page without events.
    pub last_id: Option<i64>,
}

/// A row of a user's page: the reading's columns, the event's id and payload, and how many there are.
type UserRow = (
    String,
    String,
    bool,
    bool,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

/// The log of one database. Cheap to clone; every clone uses the same connections.
#[derive(Debug, Clone)]
pub struct Log {
    options: PgConnectOptions,
    requests_max: u32,
    pools: Arc<RwLock<Pools>>,
}

/// Some of all users' events; all chunks of one read are of one snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// Where it was read.
    pub reading: Reading,
    /// Ids and payloads, at most [`PAGE_EVENTS`].
    pub rows: Vec<(i64, String)>,
}

impl Log {
    /// The log that this database has, or has not. Connects when first needed; for what clients ask, up
    /// to `requests_max` times.
    #[must_use]
    pub fn new(options: PgConnectOptions, requests_max: u32) -> Self {
        let pools = Pools::new(&options, requests_max);
        Self {
            options,
            requests_max,
            pools: Arc::new(RwLock::new(pools)),
        }
    }

    fn pools(&self) -> Pools {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.clone()
    }

    /// The connections for the service's own work: barriers, the listener's reads, maintenance.
    fn own(&self) -> PgPool {
        self.pools().own
    }

    /// The connections for what clients ask.
    #[must_use]
    pub fn requests(&self) -> PgPool {
        self.pools().requests
    }

    /// Gives up all connections and begins with new ones: after a network that swallows packets, the
    /// old ones may hang for as long as the kernel goes on trying.
    pub fn renew(&self) {
        let fresh = Pools::new(&self.options, self.requests_max);
        let old = std::mem::replace(
            &mut *self.pools.write().unwrap_or_else(PoisonError::into_inner),
            fresh,
        );
        tokio::spawn(async move {
            let _ = tokio::time::timeout(ACQUIRE_TIMEOUT, old.close()).await;
        });
    }

    /// Closes all connections, and waits for what they are doing.
    pub async fn close(&self) {
        self.pools().close().await;
    }

    /// What the log says of itself; `None` in a database that has none. Empties a log that was
    /// written by another database system.
    pub async fn state(&self) -> Result<Option<State>, sqlx::Error> {
        let found = sqlx::query_as::<_, (bool, String, String)>(
            "SELECT realtime.claim_history(), realtime.cursor(), ingest FROM realtime.state",
        )
        .fetch_one(&self.own())
        .await;
        let (emptied, cursor, ingest) = match found {
            Ok(row) => row,
            Err(error) if is_undefined_table(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if emptied {
            tracing::warn!(
                event = "log_emptied",
                reason = "written by another database system"
            );
        }
        let ingest = ingest
            .parse()
            .map_err(|error: UnknownIngest| sqlx::Error::Decode(error.into()))?;
        Ok(Some(State {
            cursor: parse(&cursor)?,
            ingest,
        }))
    }

    /// Writes how events are to reach the server.
    pub async fn set_ingest(&self, ingest: Ingest) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE realtime.state SET ingest = $1, ingest_since = pg_current_xact_id()
             WHERE ingest <> $1",
        )
        .bind(ingest.as_str())
        .execute(&self.own())
        .await
        .map(drop)
    }

    /// The events of all users that are visible now and were not in `from`, in the order of their ids
    /// and in one snapshot; the first chunk comes also when there is no event. Ends early when the
    /// receiver is dropped.
    #[must_use]
    pub fn read_all(&self, from: &Snapshot) -> mpsc::Receiver<Result<Chunk, sqlx::Error>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (pool, from) = (self.own(), from.to_string());
        tokio::spawn(async move {
            if let Err(error) = send_all(&pool, &from, &chunks).await {
                let _ = chunks.send(Err(error)).await;
            }
        });
        receiver
    }

    /// A page of the events of one user that are visible now and were not in `from`, after `last_id`.
    /// Pages after the first take its snapshot as `until`: what was committed since may follow from an
    /// event whose page has gone by, and both come live. Revocations are for connections that were there
    /// when they happened, not for those that came later.
    pub async fn read_user(
        &self,
        user_id: Uuid,
        from: &Snapshot,
        last_id: i64,
        until: Option<&Snapshot>,
        with_revocations: bool,
    ) -> Result<Page, sqlx::Error> {
        let page_events = i64::try_from(PAGE_EVENTS).unwrap_or(i64::MAX - 1);
        let rows = sqlx::query_as::<_, UserRow>(read!(
            "$2",
            ", total FROM reading LEFT JOIN LATERAL (
                 SELECT id, payload, total,
                        sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload)
                        AS bytes_before
                 FROM (SELECT id, payload, count(*) OVER () AS total
                       FROM (SELECT id, payload
                             FROM (SELECT * FROM realtime.events
                                   WHERE retained AND known AND user_id = $1
                                     AND xid >= pg_snapshot_xmax($2::text::pg_snapshot)
                                   UNION ALL
                                   SELECT * FROM realtime.events
                                   WHERE retained AND known AND user_id = $1
                                     AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($2::text::pg_snapshot)))
                             ) AS unseen
                             WHERE id > $3
                               AND ($5::text IS NULL
                                    OR pg_visible_in_snapshot(xid, (SELECT $5::text::pg_snapshot)))
                               AND ($6 OR kind <> 'revocation')
                             ORDER BY id LIMIT $8) AS counted
                       ORDER BY id LIMIT $4) AS page
             ) AS events ON bytes_before < $7
             ORDER BY id"
        ))
        .bind(user_id)
        .bind(from.to_string())
        .bind(last_id)
        .bind(page_events)
        .bind(until.map(ToString::to_string))
        .bind(with_revocations)
        .bind(i64::try_from(PAGE_BYTES_MAX).unwrap_or(i64::MAX))
        // Counted once, for the first page; then one more says that there is another page.
        .bind(until.map(|_| page_events + 1))
        .fetch_all(&self.requests())
        .await?;
        let (epoch, snapshot, retained, known, _, _, total) =
            rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let reading = Reading::of(epoch, snapshot, *retained, *known)?;
        let total = total.map_or(0, i64::unsigned_abs);
        let last_id = rows.last().and_then(|row| row.4);
        let more = total > rows.len() as u64;
        let signals = rows
            .into_iter()
            .filter_map(|row| Some(Signal::new(told(row.4?, row.5.as_deref()?)?, None, None)))
            .collect();
        Ok(Page {
            reading,
            total,
            signals,
            more,
            last_id,
        })
    }

    /// Notifies the control channel with this nonce and the snapshot of the same transaction, and
    /// returns when that has committed.
    pub async fn send_barrier(&self, nonce: &str) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT realtime.barrier($1)")
            .bind(nonce)
            .execute(&self.own())
            .await
            .map(drop)
    }

    /// The same in a database without a log: only the nonce comes back.
    pub async fn send_bare_barrier(&self, nonce: &str) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_notify('realtime_control', 'barrier ' || $1)")
            .bind(nonce)
            .execute(&self.own())
            .await
            .map(drop)
    }

    /// Whether the database takes a new connection and answers on it.
    pub async fn is_reachable(&self) -> bool {
        let ask = async { self.options.connect().await?.ping().await };
        tokio::time::timeout(REACH_TIMEOUT, ask)
            .await
            .is_ok_and(|answer| answer.is_ok())
    }

    /// Makes partitions ahead and drops those older than `retention`; returns how many were dropped.
    pub async fn maintain(&self, retention: Duration) -> Result<i32, sqlx::Error> {
        let retention = PgInterval::try_from(retention).map_err(sqlx::Error::Encode)?;
        sqlx::query_scalar("SELECT realtime.maintain($1)")
            .bind(retention)
            .fetch_one(&self.own())
            .await
    }

    /// When each of these events was written, in seconds since 1970, as (id, time). All must be of
    /// transactions from `xmin` on; an id that is not in the log is left out.
    pub async fn creation_times(
        &self,
        ids: &[i64],
        xmin: u64,
    ) -> Result<Vec<(i64, f64)>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE id = ANY($1) AND xid >= $2::text::xid8",
        )
        .bind(ids)
        .bind(xmin.to_string())
        .fetch_all(&self.own())
        .await
    }

    /// The same of one user's events, for what a client asks.
    pub async fn creation_times_of(
        &self,
        user_id: Uuid,
        ids: &[i64],
        xmin: u64,
    ) -> Result<Vec<(i64, f64)>, sqlx::Error> {
        sqlx::query_as(
            "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE user_id = $1 AND id = ANY($2) AND xid >= $3::text::xid8",
        )
        .bind(user_id)
        .bind(ids)
        .bind(xmin.to_string())
        .fetch_all(&self.requests())
        .await
    }

    /// The share of PostgreSQL's notification queue that is in use, 0 to 1.
    pub async fn notification_queue_usage(&self) -> Result<f64, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_notification_queue_usage()")
            .fetch_one(&self.own())
            .await
    }
}

/// Tells every server that events are about to be silent, then takes the doorbell's lock exclusively, as
/// soon as no event that is being written shares it. Held by the session until it ends.
pub async fn lock_doorbell(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify('realtime_control', 'awake')")
        .execute(&mut *connection)
        .await?;
    sqlx::query("SELECT pg_advisory_lock(realtime.doorbell())")
        .execute(connection)
        .await
        .map(drop)
}

/// Reads the log once, row by row as fast as the chunks are taken.
async fn send_all(
    pool: &PgPool,
    from: &str,
    chunks: &mpsc::Sender<Result<Chunk, sqlx::Error>>,
) -> Result<(), sqlx::Error> {
    let mut rows =
        sqlx::query_as::<_, (String, String, bool, bool, Option<i64>, Option<String>)>(read!(
            "$1",
            " FROM reading LEFT JOIN LATERAL (
                 SELECT id, payload FROM realtime.events
                 WHERE known AND xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                 UNION ALL
                 SELECT id, payload FROM realtime.events
                 WHERE known AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
             ) AS events ON true
             ORDER BY id"
        ))
        .bind(from)
        .fetch(pool);
    let mut chunk: Option<Chunk> = None;
    while let Some((epoch, snapshot, retained, known, id, payload)) = rows.try_next().await? {
        let current = match &mut chunk {
            Some(chunk) => chunk,
            None => chunk.insert(Chunk {
                reading: Reading::of(&epoch, &snapshot, retained, known)?,
                rows: Vec::new(),
            }),
        };
        current.rows.extend(id.zip(payload));
        if current.rows.len() >= PAGE_EVENTS
            && let Some(full) = chunk.take()
            && chunks.send(Ok(full)).await.is_err()
        {
            return Ok(());
        }
    }
    if let Some(last) = chunk {
        let _ = chunks.send(Ok(last)).await;
    }
    Ok(())
}

/// SQLSTATE 42P01: no such table, also when its schema is missing.
#[must_use]
pub fn is_undefined_table(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "42P01")
}

/// What a row tells. Nothing but our triggers writes the log: one that is no event is skipped and said.
#[must_use]
pub fn told(id: i64, payload: &str) -> Option<Notification<'_>> {
    Notification::parse(payload)
        .inspect_err(|error| tracing::warn!(event = "log_row_malformed", id, %error))
        .ok()
}

fn parse<T: FromStr<Err = NotACursor>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse()
        .map_err(|error: NotACursor| sqlx::Error::Decode(error.into()))
}
