//! The control channel: barriers, and the announcement of the wake lock.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

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

/// The wake lock, on a connection of its own. Dropping it ends the session, and with it the lock.
#[derive(Debug)]
pub struct HeldWakeLock {
    connection: PgConnection,
}

impl HeldWakeLock {
    /// Announces to every server that events are about to be silent, then waits for the lock: it is
    /// exclusive, and each event that is being written shares it. The announcement comes first because
    /// events are silent from the moment that the lock is waited for. Dropping the future withdraws the
    /// request.
    ///
    /// # Errors
    /// The database's.
    pub async fn take(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = options.connect().await?;
        sqlx::query("SELECT pg_notify('realtime_control', 'awake')")
            .execute(&mut connection)
            .await?;
        sqlx::query("SELECT pg_advisory_lock(realtime.doorbell())")
            .execute(&mut connection)
            .await?;
        Ok(Self { connection })
    }

    /// Fails when the connection is lost, and the lock with it.
    ///
    /// # Errors
    /// The database's.
    pub async fn check(&mut self) -> Result<(), sqlx::Error> {
        self.connection.ping().await
    }
}
