//! What the service's sessions set for themselves, so that no setting of a role or of a database changes what they do.
//!
//! [`own`], [`try_lead`], [`migrating`], [`wait_for_locks`] and [`STREAMING`] are the only places of the crate that SET
//! anything for a session. Whoever opens a connection for the service calls one of them before its first statement, and
//! only after the address was probed (`address`). What is set stays with the session: behind a pooler in transaction mode
//! it would leak into others' transactions.

use std::time::Duration;

use sqlx::PgConnection;

/// A statement that sets these (name, value) for the session, without those that this version of PostgreSQL lacks.
/// All names are qualified: the search path is still the role's.
macro_rules! set {
    ($settings:expr) => {
        concat!(
            "SELECT pg_catalog.set_config(known.name, own.value, false)
             FROM pg_catalog.pg_settings AS known JOIN (VALUES
                 ('lock_timeout', '5s'),
                 ('idle_in_transaction_session_timeout', '0'),
                 ('transaction_timeout', '0'),
                 ('idle_session_timeout', '0'),
                 ('default_transaction_isolation', 'read committed'),
                 ('default_transaction_read_only', 'off'),
                 ('default_transaction_deferrable', 'off'),
                 ('row_security', 'off'),
                 ('jit', 'off'),
                 ('extra_float_digits', '1'),
                 ",
            $settings,
            ") AS own (name, value) ON known.name = own.name
             WHERE known.name <> 'synchronous_commit' OR known.setting = 'off'"
        )
    };
}

/// - `statement_timeout` is less than [`super::deadline::STATEMENT_DEADLINE`] without the wait for a connection: so
///   PostgreSQL ends a statement that the service gives up, and no backend is left waiting for a lock.
///   `lock_timeout` is less again, and holds also while a transaction commits. A role's limits on the session or on
///   its transactions would end the listener's and the wake lock's connections.
/// - `client_connection_check_interval`: a statement whose connection was dropped ends as well. Not every platform
///   has it, and PostgreSQL refuses it there.
/// - `default_transaction_read_only`: a primary takes barriers whatever its role's default is. A standby refuses them
///   all the same (25006), and so shows that it is none.
/// - `row_security`: off, so that a read that would be filtered fails (42501). A filtered log would lose events
///   without a word.
/// - `synchronous_commit`: a barrier's commit must reach the disk, because clients are given its snapshot as their
///   position. After a crash PostgreSQL hands out again the numbers of transactions that were not flushed.
/// - `enable_seqscan` and `jit`: the planner's estimates are far off for a log that grows faster than it is analysed.
///   JIT would then compile for hundreds of milliseconds, and a sequential scan would read a day's events, where the
///   index answers in less than one millisecond.
const OWN: &str = set!(
    "('statement_timeout', '6s'),
     ('client_connection_check_interval',
      CASE WHEN pg_catalog.version() LIKE '%linux%' THEN '1s' ELSE '0' END),
     ('synchronous_commit', 'on'),
     ('enable_seqscan', 'off'),
     ('search_path', 'pg_catalog, pg_temp')"
);

/// For migrations. Their statements may take long, and wait for locks as they say themselves. They keep the role's
/// search path, because what PostgreSQL prints of the application's triggers depends on it. A statement ends with the
/// program, so that the next one finds its locks free.
const MIGRATING: &str = set!(
    "('statement_timeout', '0'),
     ('client_connection_check_interval',
      CASE WHEN pg_catalog.version() LIKE '%linux%' THEN '1s' ELSE '0' END)"
);

/// For a session that streams. Making a slot waits for transactions, as for locks.
pub(super) const STREAMING: &str =
    "SET lock_timeout = '5s'; SET statement_timeout = 0; SET idle_session_timeout = 0;
     SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog, pg_temp";

/// Makes a new connection one of the service's own.
pub(super) async fn own(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    set(connection, OWN).await
}

/// Tries for the leader's lock. In the same statement the session becomes the leader's: PostgreSQL ends it when it is asked
/// nothing for so long, so that a process that is stopped does not keep the lock. Returns whether it has the lock.
pub(super) async fn try_lead(
    connection: &mut PgConnection,
    idle: Duration,
) -> Result<bool, sqlx::Error> {
    // CASE evaluates its settings only where the lock was to be had.
    sqlx::query_scalar(
        "SELECT CASE WHEN pg_catalog.pg_try_advisory_lock(realtime.leader_lock()) THEN
             pg_catalog.set_config('idle_session_timeout', $1, false) IS NOT NULL
             AND pg_catalog.set_config('application_name', 'hushnet-realtime leader', false) IS NOT NULL
         ELSE false END",
    )
    .bind(format!("{}ms", idle.as_millis()))
    .fetch_one(connection)
    .await
}

/// Makes a new connection one for migrations.
pub(super) async fn migrating(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    set(connection, MIGRATING).await
}

/// Has a migration's statements wait so long for each lock. At least 1 ms: 0 is without end.
pub(super) async fn wait_for_locks(
    connection: &mut PgConnection,
    wait: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_catalog.set_config('lock_timeout', $1, false)")
        .bind(format!("{}ms", wait.as_millis().max(1)))
        .execute(connection)
        .await
        .map(drop)
}

async fn set(connection: &mut PgConnection, settings: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(settings).execute(connection).await.map(drop)
}
