//! Which of many nodes leads: an advisory lock, and the row that names the leader's run.
//!
//! The lock belongs to a session of its own. PostgreSQL ends that session when the process dies, when its connection breaks,
//! and, by `idle_session_timeout`, when the process is stopped although its kernel answers. Candidates try for the lock and
//! never wait for it: a waiting statement would hold back vacuum. Fails with the database's errors; a session that has
//! failed once holds nothing.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::deadline::{DeadlinePassed, within_deadline};
use super::reading::parse;
use super::unusable::Unusable;
use super::{Log, session};
use crate::protocol::{Cursor, Epoch};

/// The leader's session ends when it has asked nothing for so long.
pub const LEADER_IDLE_MAX: Duration = Duration::from_millis(1_500);
/// A check that takes longer has failed: the session may have ended.
const CHECK_DEADLINE: Duration = Duration::from_secs(1);

/// Tries for the leader's lock, on a connection that it keeps between two attempts.
#[derive(Debug)]
pub struct Candidate {
    log: Log,
    connection: Option<PgConnection>,
}

impl Candidate {
    /// Without a connection yet.
    #[must_use]
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            connection: None,
        }
    }

    /// Tries once. `None` if another session has the lock.
    ///
    /// # Errors
    /// The database's; also when it is in recovery. The next attempt connects anew.
    pub async fn try_take(&mut self) -> Result<Option<LeaderSession>, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => within_deadline(self.log.address().connect()).await?,
        };
        if !in_time(session::try_lead(&mut connection, LEADER_IDLE_MAX)).await? {
            self.connection = Some(connection);
            return Ok(None);
        }
        let mut taken = LeaderSession { connection };
        taken.check().await?;
        Ok(Some(taken))
    }

    /// Gives up its connection: there is no attempt soon, and the address may lead elsewhere by then.
    pub fn rest(&mut self) {
        self.connection = None;
    }
}

/// What the leader's session finds in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The number of the run that the database names, if there is one.
    pub run: Option<u64>,
    /// Whether its leader is asked to let another node lead.
    pub step_down: bool,
    /// The log's history, and the database's timeline.
    pub epoch: Epoch,
}

/// A session that holds the leader's lock. Dropping it ends the session, and frees the lock.
#[derive(Debug)]
pub struct LeaderSession {
    connection: PgConnection,
}

impl LeaderSession {
    /// Begins a term of this node, with a run of this number. Returns the term.
    ///
    /// # Errors
    /// The database's; a standby refuses. The term may have begun all the same.
    pub async fn lead(&mut self, node: Uuid, name: &str, run: u64) -> Result<u64, sqlx::Error> {
        let lead = sqlx::query_scalar("SELECT realtime.lead($1, $2, $3)");
        let lead = lead.bind(node).bind(name).bind(run.cast_signed());
        let term: i64 = in_time(lead.fetch_one(&mut self.connection)).await?;
        Ok(term.cast_unsigned())
    }

    /// Which run the database names, and which history the session is connected to.
    ///
    /// # Errors
    /// The database's; the session has ended, and the lock is another's. Also when the database is in recovery.
    pub async fn check(&mut self) -> Result<Named, sqlx::Error> {
        // A standby has no position in a log that it writes: CASE does not ask for one.
        let check = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN realtime.unflushed_cursor() END,
                            run, coalesce(step_down, false)
                     FROM (SELECT) AS one LEFT JOIN realtime.leader_now() ON true";
        let check = sqlx::query_as(check).fetch_one(&mut self.connection);
        let (cursor, run, step_down): (Option<String>, Option<i64>, bool) = in_time(check).await?;
        let cursor: Cursor = parse(&cursor.ok_or(Unusable::Recovery)?)?;
        Ok(Named {
            run: run.map(i64::cast_unsigned),
            step_down,
            epoch: cursor.epoch,
        })
    }

    /// Gives up the lock, so that it is free when this returns, and ends the session.
    pub async fn release(mut self) {
        // PostgreSQL frees the lock of a session that ends a little later.
        let unlock = "SELECT pg_advisory_unlock(realtime.leader_lock())";
        let unlock = sqlx::query(unlock).execute(&mut self.connection);
        if in_time(unlock).await.is_ok() {
            let _ = timeout(CHECK_DEADLINE, self.connection.close()).await;
        }
    }
}

async fn in_time<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let done = timeout(CHECK_DEADLINE, statement).await;
    done.unwrap_or_else(|_| Err(DeadlinePassed.into()))
}
