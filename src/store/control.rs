//! The control channel, and the barriers that are sent over it.

use sqlx::{PgConnection, PgPool};

/// The channel on which servers notify themselves and one another.
pub const CONTROL_CHANNEL: &str = "realtime_control";

/// Notifies the control channel with this nonce and the snapshot of the same transaction.
pub(super) async fn send_barrier(pool: &PgPool, nonce: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT realtime.barrier($1)")
        .bind(nonce)
        .execute(pool)
        .await
        .map(drop)
}

/// The same, and the barrier is a row of the log as well.
pub(super) async fn send_stream_barrier(pool: &PgPool, nonce: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT realtime.stream_barrier($1)")
        .bind(nonce)
        .execute(pool)
        .await
        .map(drop)
}

/// Whether the database has a log. Looked up in the catalogue, which needs no right on the schema. A migration makes
/// and drops everything at once.
macro_rules! has_log {
    () => {
        "EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'realtime' AND c.relname = 'state')"
    };
}

/// Whether the database has a log.
pub(super) async fn has_log(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(concat!("SELECT ", has_log!()))
        .fetch_one(pool)
        .await
}

/// Notifies the control channel with this nonce, whether the database has a log by now, and the snapshot of the same
/// transaction, in its conservative form where NOTIFY would not take it.
pub(super) async fn send_bare_barrier(pool: &PgPool, nonce: &str) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "SELECT pg_notify('realtime_control', format('barrier %s %s %s', $1,
             CASE WHEN ",
        has_log!(),
        " THEN 'log' ELSE 'no_log' END,
             CASE WHEN length(s::text) <= 7000 THEN s::text
                  ELSE format('%1$s:%1$s:', pg_snapshot_xmin(s)) END))
         FROM pg_current_snapshot() AS s"
    ))
    .bind(nonce)
    .execute(pool)
    .await
    .map(drop)
}

/// The condition for a session of ours that commits a barrier and waits meanwhile.
macro_rules! barrier_waits {
    ($wait:literal) => {
        concat!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                 WHERE usename = current_user AND datname = current_database() AND state = 'active' AND ",
            $wait,
            " AND (query LIKE 'SELECT realtime.barrier(%'
                   OR query LIKE 'SELECT realtime.stream_barrier(%'
                   OR query LIKE 'SELECT pg_notify(''realtime_control''%'))"
        )
    };
}

/// Whether a barrier of this role, in this database, has written what it had to and waits for a synchronous standby.
pub(super) async fn awaits_standby(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(barrier_waits!("wait_event = 'SyncRep'"))
        .fetch_one(pool)
        .await
}

/// Whether a barrier waits for a lock.
pub(super) async fn awaits_lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(barrier_waits!("wait_event_type = 'Lock'"))
        .persistent(false)
        .fetch_one(connection)
        .await
}
