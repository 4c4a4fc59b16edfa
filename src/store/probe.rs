//! The probe of an address: whether a session keeps its connection to PostgreSQL, and whether the database is a
//! primary.
//!
//! A pooler in transaction mode gives the connection of a session to other sessions between two transactions. No pooler
//! says of itself that it is one, so the probe recognises it by its behaviour, in this order:
//!
//! 1. One session sets a value of the probe's own, and a second session reads the value. Most poolers give the second
//!    session the connection that was used last. Step 1 also recognises a pooler in statement mode.
//! 2. The second session holds a transaction open. If it has the first session's connection, it reads the value. Else
//!    the first session's next statements get other connections, where the value is lost. There are several statements,
//!    because a pooler may hand out its free connections in turn.
//!
//! Others who take connections in between may hide it from both steps, so that they are done several times.
//!
//! 3. While the transaction is open, the first session listens and notifies itself. That needs no third connection.
//!    PostgreSQL sends the notification before it is ready for the next statement, so only a slow proxy is waited for.
//!
//! Step 3 is the last, because a pooler would leave the LISTEN on a connection of other sessions. Its commit needs the
//! lock that all notifying commits share. A commit that does not get the lock in time proves nothing, and the probe
//! passes: the barriers show whether notifications return.
//!
//! Everything else is SET for a single transaction only. Every statement is sent by the simple protocol, since a pooler
//! would lose a prepared statement. The value means nothing to other sessions, and the probe takes it back.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgExecutor, Row};
use tokio::time::timeout;
use uuid::Uuid;

use super::error;
use super::unusable::Unusable;

/// One attempt to connect; sqlx itself retries where PostgreSQL has no connection left.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the first two steps are done.
const ROUNDS: u32 = 4;
/// Statements of the first session while the second one holds its transaction open.
const READS: u32 = 4;
/// How many connections of others are looked at for the probe's value.
const CONNECTIONS_SEARCHED: u32 = 16;
/// Time for the probe's notification to commit, and again for it to return.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(1);
/// The probe's own channel, on which only a nonce is sent.
const CHANNEL: &str = "hushnet_realtime_probe";

/// The probe's own value, and whether the database is in recovery.
const READ: &str =
    "SELECT coalesce(pg_catalog.current_setting('hushnet_realtime.probe', true), ''),
                           pg_catalog.pg_is_in_recovery()";
/// The same in a transaction that stays open. No timeout of the role's may end it.
const BEGIN_AND_READ: &str = "BEGIN;
    SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
    WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout');
    SELECT coalesce(pg_catalog.current_setting('hushnet_realtime.probe', true), ''), pg_catalog.pg_is_in_recovery()";

/// Whether the service may use this address.
///
/// # Errors
/// The database's.
pub(super) async fn run(options: &PgConnectOptions) -> Result<Result<(), Unusable>, sqlx::Error> {
    // First: a pool hides why it cannot connect.
    let mut second = options.connect().await?;
    let mut first = listener(options).await?;
    let nonce = Uuid::new_v4().simple().to_string();
    let mut found = Ok(());
    for round in 0..ROUNDS {
        if round > 0 {
            sqlx::raw_sql("ROLLBACK").execute(&mut second).await?;
        }
        found = keeps_its_settings(&mut first, &mut second, &nonce).await?;
        if found.is_err() {
            break;
        }
    }
    if found == Err(Unusable::Pooler) {
        // What fails here is the next probe's to find.
        let _ = take_back(&mut second, &nonce).await;
        return Ok(found);
    }
    let is_notified = found.is_err() || is_notified(&mut first, &nonce).await?;
    // PostgreSQL logs a connection that is lost within a transaction.
    let _ = second.close().await;
    Ok(if is_notified {
        found
    } else {
        Err(Unusable::Pooler)
    })
}

/// A session that sqlx hands the notifications of.
async fn listener(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_lazy_with(options.clone());
    match PgListener::connect_with(&pool).await {
        Err(sqlx::Error::PoolTimedOut) => {
            let again = timeout(CONNECT_TIMEOUT, options.connect()).await;
            let why = again.ok().and_then(Result::err);
            Err(why.unwrap_or(sqlx::Error::PoolTimedOut))
        }
        connected => {
            let mut listener = connected?;
            // sqlx would replace a lost connection, and with it the session.
            listener.eager_reconnect(false);
            Ok(listener)
        }
    }
}

/// Whether the first session keeps its value, and whether the database is a primary.
async fn keeps_its_settings(
    first: &mut PgListener,
    second: &mut PgConnection,
    nonce: &str,
) -> Result<Result<(), Unusable>, sqlx::Error> {
    let set = format!("SET hushnet_realtime.probe = '{nonce}'");
    sqlx::raw_sql(AssertSqlSafe(set))
        .execute(&mut *first)
        .await?;
    if read(&mut *second, READ).await?.value == nonce {
        return Ok(Err(Unusable::Pooler));
    }
    match read(&mut *second, BEGIN_AND_READ).await {
        Ok(seen) if seen.value == nonce => return Ok(Err(Unusable::Pooler)),
        // PostgreSQL itself takes every BEGIN: a pooler in statement mode does not.
        Err(error) if error::is_protocol_violation(&error) => return Ok(Err(Unusable::Pooler)),
        seen => drop(seen?),
    }
    let mut is_in_recovery = false;
    for _ in 0..READS {
        let seen = read(&mut *first, READ).await?;
        if seen.value != nonce {
            return Ok(Err(Unusable::Pooler));
        }
        is_in_recovery = seen.is_in_recovery;
    }
    Ok(if is_in_recovery {
        Err(Unusable::Recovery)
    } else {
        Ok(())
    })
}

/// Takes the probe's value back from the connections of others where it is: a free connection that was used last, or
/// those that the pooler hands out in turn.
async fn take_back(session: &mut PgConnection, nonce: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
    let take_back = format!(
        "SELECT pg_catalog.set_config('hushnet_realtime.probe', '', false)
         WHERE pg_catalog.current_setting('hushnet_realtime.probe', true) = '{nonce}'"
    );
    for _ in 0..CONNECTIONS_SEARCHED {
        let taking = sqlx::raw_sql(AssertSqlSafe(take_back.as_str()));
        taking.execute(&mut *session).await?;
    }
    Ok(())
}

/// What a session sees.
struct Seen {
    value: String,
    is_in_recovery: bool,
}

async fn read(session: impl PgExecutor<'_>, statement: &'static str) -> Result<Seen, sqlx::Error> {
    let rows = sqlx::raw_sql(statement).fetch_all(session).await?;
    let row = rows.last().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Seen {
        value: row.try_get(0)?,
        is_in_recovery: row.try_get(1)?,
    })
}

/// Whether a session that listens gets what it notifies itself of. True also where it could not notify.
async fn is_notified(session: &mut PgListener, nonce: &str) -> Result<bool, sqlx::Error> {
    session.listen(CHANNEL).await?;
    // The lock is that of all notifying commits, which may wait for a synchronous standby. This one does not.
    let notify = format!(
        "BEGIN; SET LOCAL lock_timeout = '900ms'; SET LOCAL synchronous_commit = local;
         NOTIFY {CHANNEL}, '{nonce}'; COMMIT"
    );
    let notifying = sqlx::raw_sql(AssertSqlSafe(notify)).execute(&mut *session);
    match timeout(NOTIFICATION_TIMEOUT, notifying).await {
        Ok(Ok(_)) => {}
        Err(_) | Ok(Err(sqlx::Error::Database(_))) => return Ok(true),
        Ok(Err(error)) => return Err(error),
    }
    let returned = async {
        // Other servers may probe the same database.
        while let Some(notification) = session.try_recv().await? {
            if notification.payload() == nonce {
                return Ok(true);
            }
        }
        Err(sqlx::Error::WorkerCrashed)
    };
    timeout(NOTIFICATION_TIMEOUT, returned)
        .await
        .unwrap_or(Ok(false))
}
