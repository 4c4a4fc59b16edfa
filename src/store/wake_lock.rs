//! The wake lock in the database, and its announcement over the control channel.

use sqlx::PgConnection;

use super::deadline::within_deadline;
use super::{Log, error};
use crate::protocol::DatabaseFault;

/// The wake lock, on a connection of its own. Dropping it ends the session, and with it the lock.
#[derive(Debug)]
pub struct HeldWakeLock {
    connection: PgConnection,
}

impl HeldWakeLock {
    /// Announces to every server that events are about to be silent, then waits for the lock: it is
    /// exclusive, and each event that is being written shares it. The announcement comes first because
    /// events are silent from the moment that the lock is waited for. PostgreSQL ends each wait after a few
    /// seconds, and the next one begins at once. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// The database's.
    pub async fn take(log: &Log) -> Result<Self, sqlx::Error> {
        let mut connection = within_deadline(log.address().connect()).await?;
        let announce = sqlx::query("SELECT pg_notify('realtime_control', 'awake')");
        within_deadline(announce.execute(&mut connection)).await?;
        loop {
            let lock = sqlx::query("SELECT pg_advisory_lock(realtime.doorbell())");
            match within_deadline(lock.execute(&mut connection)).await {
                Ok(_) => return Ok(Self { connection }),
                // A transaction that writes events is long.
                Err(error @ sqlx::Error::Database(_))
                    if error::fault(&error) == DatabaseFault::Timeout => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Fails when the connection is lost, and the lock with it, or when the database takes no writes any more: it is
    /// no primary now.
    ///
    /// # Errors
    /// The database's.
    pub async fn check(&mut self) -> Result<(), sqlx::Error> {
        let writable = sqlx::query_scalar("SELECT NOT pg_is_in_recovery()");
        if within_deadline(writable.fetch_one(&mut self.connection)).await? {
            Ok(())
        } else {
            Err(sqlx::Error::Protocol(
                "the database is in recovery".to_owned(),
            ))
        }
    }
}
