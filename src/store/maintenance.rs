//! The log's ring of partitions, and PostgreSQL's notification queue.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::{FromRow, PgPool};

/// Blockers that are named at once.
const BLOCKERS_MAX: i64 = 5;

/// What [`super::Log::rotate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The next partition is open.
    Rotated,
    /// Nothing: the open partition is young, or another server is at it.
    NotDue,
    /// Nothing: no partition is free, and the open one goes on growing.
    Full,
}

/// A session or a prepared transaction that has a lock on a partition.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Blocker {
    pid: Option<i32>,
    gid: Option<String>,
    name: String,
    state: String,
    age: String,
}

impl Blocker {
    /// The statement that ends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match (&self.gid, self.pid) {
            (Some(gid), _) => format!(
                "COMMIT PREPARED or ROLLBACK PREPARED '{}'",
                gid.replace('\'', "''")
            ),
            (None, Some(pid)) => format!("SELECT pg_terminate_backend({pid})"),
            (None, None) => "see pg_locks".to_owned(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            gid,
            name,
            state,
            age,
        } = self;
        match (gid, pid) {
            (Some(gid), _) => write!(f, "prepared transaction '{gid}', {age} old"),
            (None, Some(pid)) => {
                write!(f, "session {pid} ({name}), {state}, transaction {age} old")
            }
            (None, None) => f.write_str("unknown"),
        }
    }
}

fn interval(retention: Duration) -> Result<PgInterval, sqlx::Error> {
    PgInterval::try_from(retention).map_err(sqlx::Error::Encode)
}

/// What [`super::Log::maintain`] does, on this pool.
pub(super) async fn maintain(pool: &PgPool, retention: Duration) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT realtime.maintain($1)")
        .bind(interval(retention)?)
        .fetch_one(pool)
        .await
}

/// What [`super::Log::rotate`] does, on this pool.
pub(super) async fn rotate(pool: &PgPool, retention: Duration) -> Result<Rotation, sqlx::Error> {
    let said: String =
        sqlx::query_scalar("SELECT realtime.rotate(greatest($1 / 8, interval '1 second'))")
            .bind(interval(retention)?)
            .fetch_one(pool)
            .await?;
    Ok(match said.as_str() {
        "rotated" => Rotation::Rotated,
        "full" => Rotation::Full,
        _ => Rotation::NotDue,
    })
}

/// What [`super::Log::expired`] does, on this pool.
pub(super) async fn expired(
    pool: &PgPool,
    retention: Duration,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT name::text FROM realtime.expired($1) AS name")
        .bind(interval(retention)?)
        .fetch_all(pool)
        .await
}

/// What [`super::Log::forget`] does, on this pool.
pub(super) async fn forget(pool: &PgPool, partition: &str) -> Result<(), sqlx::Error> {
    // A role may have another default, which the function refuses.
    let mut transaction = pool
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    sqlx::query("SELECT realtime.forget($1::name)")
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// What [`super::Log::blockers`] does, on this pool.
pub(super) async fn blockers(pool: &PgPool, partition: &str) -> Result<Vec<Blocker>, sqlx::Error> {
    // A lock of a prepared transaction has no process. Its number is known by the lock that each transaction has
    // on its own number.
    sqlx::query_as(
        "SELECT l.pid, p.gid,
                coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') AS name,
                coalesce(a.state, 'state unknown') AS state,
                coalesce(date_trunc('second', clock_timestamp() - coalesce(p.prepared, a.xact_start))::text,
                         'of unknown age') AS age
         FROM (SELECT DISTINCT pid, virtualtransaction FROM pg_locks
               WHERE locktype = 'relation' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND relation = to_regclass(format('realtime.%I', $1::text))
                 AND pid IS DISTINCT FROM pg_backend_pid()) AS l
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         LEFT JOIN LATERAL (
             SELECT gid, prepared FROM pg_prepared_xacts JOIN pg_locks own ON transactionid = transaction
             WHERE own.locktype = 'transactionid' AND own.pid IS NULL
               AND own.virtualtransaction = l.virtualtransaction LIMIT 1) AS p ON l.pid IS NULL
         ORDER BY coalesce(p.prepared, a.xact_start), l.pid LIMIT $2",
    )
    .bind(partition)
    .bind(BLOCKERS_MAX)
    .fetch_all(pool)
    .await
}

/// The share of PostgreSQL's notification queue that is in use, 0 to 1.
pub(super) async fn notification_queue_usage(pool: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()")
        .fetch_one(pool)
        .await
}
