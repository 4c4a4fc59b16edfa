//! Who of many nodes leads: an advisory lock, and the row that names the leader's run.
//!
//! The lock belongs to a session of its own. PostgreSQL ends that session when the process dies, when its connection breaks,
//! and, by `idle_session_timeout`, when the process is stopped although its kernel answers. Candidates try for the lock and
//! never wait for it: a waiting statement would hold back vacuum.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::timeout;
use uuid::Uuid;

use super::deadline::{DeadlinePassed, within_deadline};
use super::{Log, session};

/// The leader's session ends when it has asked nothing for so long.
pub const LEADER_IDLE_MAX: Duration = Duration::from_millis(1_500);
/// A check that takes longer has failed: the session may have ended.
const CHECK_DEADLINE: Duration = Duration::from_secs(1);

/// A session that holds the leader's lock. Dropping it ends the session, and frees the lock.
#[derive(Debug)]
pub struct LeaderSession {
    connection: PgConnection,
}

impl LeaderSession {
    /// Takes the lock; `None` if another session has it.
    ///
    /// # Errors
    /// The database's; also when it is in recovery.
    pub async fn try_take(log: &Log) -> Result<Option<Self>, sqlx::Error> {
        let mut connection = within_deadline(log.address().connect()).await?;
        let lock = "SELECT pg_try_advisory_lock(realtime.leader_lock())";
        let lock = sqlx::query_scalar(lock).fetch_one(&mut connection);
        if !within_deadline(lock).await? {
            return Ok(None);
        }
        within_deadline(session::leading(&mut connection, LEADER_IDLE_MAX)).await?;
        let mut taken = Self { connection };
        taken.check().await?;
        Ok(Some(taken))
    }

    /// Begins a term of this node, with a run of this number. Returns the term.
    ///
    /// # Errors
    /// The database's. The term may have begun all the same.
    pub async fn lead(&mut self, node: Uuid, name: &str, run: u64) -> Result<u64, sqlx::Error> {
        let lead = sqlx::query_scalar("SELECT realtime.lead($1, $2, $3)");
        let lead = lead.bind(node).bind(name).bind(run.cast_signed());
        let term: i64 = in_time(lead.fetch_one(&mut self.connection)).await?;
        Ok(term.cast_unsigned())
    }

    /// The number of the run that the database names, if there is one.
    ///
    /// # Errors
    /// The database's; the session has ended, and the lock is another's. Also when the database is in recovery.
    pub async fn check(&mut self) -> Result<Option<u64>, sqlx::Error> {
        let check = "SELECT pg_is_in_recovery(), (SELECT run FROM realtime.leader_now())";
        let check = sqlx::query_as(check).fetch_one(&mut self.connection);
        let (recovers, run): (bool, Option<i64>) = in_time(check).await?;
        if recovers {
            let text = "the database is in recovery";
            return Err(sqlx::Error::Protocol(text.to_owned()));
        }
        Ok(run.map(i64::cast_unsigned))
    }

    /// Ends the session, so that the lock is free when this returns.
    pub async fn release(self) {
        use sqlx::Connection;
        // Dropping the connection frees the lock as well, a little later.
        let _ = timeout(CHECK_DEADLINE, self.connection.close()).await;
    }
}

async fn in_time<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let done = timeout(CHECK_DEADLINE, statement).await;
    done.unwrap_or_else(|_| Err(DeadlinePassed.into()))
}
