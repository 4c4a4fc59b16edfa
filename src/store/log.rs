//! The log of events, `realtime.log`, and what else the service asks of its database.
//!
//! The triggers write the log (`sql/realtime/`). All reads are by snapshot, and each is bounded by a
//! page or a chunk. Every statement ends by itself in time. Fails with the database's own error; nothing here retries.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::address::Address;
use super::blockers::{self, Blocker};
use super::bodies::Bodies;
use super::chunks::Chunks;
use super::creation_times::Logged;
use super::database::Database;
use super::deadline::within_deadline;
use super::devices::Devices;
use super::log_state::LogState;
use super::maintenance::Rotation;
use super::nodes::{self, Leader, NodeRow, NodeState};
use super::rights::MissingRights;
use super::triggers::FaultyTrigger;
use super::user_pages::UserPages;
use super::{control, creation_times, log_state, maintenance, rights, sources, triggers};
use crate::config::Ingest;
use crate::protocol::{Cursor, Epoch, InLog, Kinds, Recipient, Snapshot, UserKey};

/// The log of one database. Cheap to clone; every clone uses the same connections.
#[derive(Debug, Clone)]
pub struct Log {
    database: Database,
    bodies: Bodies,
}

impl Log {
    /// The log of this database, whether or not it has one. Connects when first needed; for requests of
    /// clients, up to `requests_max` times.
    #[must_use]
    pub fn new(options: PgConnectOptions, requests_max: u32) -> Self {
        Self {
            database: Database::new(options, requests_max),
            bodies: Bodies::default(),
        }
    }

    /// The application's devices and users, over the connections for look-ups of identities.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices::new(self.database.clone())
    }

    /// The connections for requests of clients.
    #[must_use]
    pub fn requests(&self) -> PgPool {
        self.database.requests()
    }

    /// The kinds of events that are known by name.
    #[must_use]
    pub fn known_kinds(&self) -> Arc<Kinds> {
        self.database.kinds()
    }

    /// The database's address.
    pub(super) fn address(&self) -> &Address {
        self.database.address()
    }

    /// Returns when a probe of the database's address has passed: nothing is SET for a session before.
    ///
    /// # Errors
    /// Why the address cannot be used, or the database's.
    pub async fn ready(&self) -> Result<(), sqlx::Error> {
        self.address().ready().await
    }

    /// The address may lead elsewhere by now: it is probed before the next connection is made.
    pub fn distrust_address(&self) {
        self.address().forget();
    }

    /// Gives up all connections and begins with new ones: in a network that swallows packets, the old
    /// ones may hang for as long as the kernel retries.
    pub fn renew(&self) {
        self.database.renew();
    }

    /// Closes all connections, and waits for their queries.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Asks over a new connection whether a barrier waits for a lock. The error says why the database takes no new
    /// connection, or does not answer on it.
    pub async fn reach(&self) -> Result<bool, sqlx::Error> {
        self.database.reach().await
    }

    /// What the log says of itself; `None` in a database that has none. Empties a log that belongs to another database
    /// or was put in the place of the one before, and begins a new history there.
    pub async fn state(&self) -> Result<Option<LogState>, sqlx::Error> {
        within_deadline(log_state::read(&self.database.own())).await
    }

    /// Who was last elected to read the log and to publish events; `None` before the first election. In the schema before
    /// migration 12 the function is undefined.
    pub async fn leader(&self) -> Result<Option<Leader>, sqlx::Error> {
        within_deadline(nodes::leader(&self.database.own())).await
    }

    /// Asks the leader of this run to let another node lead. Returns whether it is still the run of the last elected.
    pub async fn ask_to_step_down(&self, run: u64) -> Result<bool, sqlx::Error> {
        within_deadline(nodes::ask_to_step_down(&self.database.own(), run)).await
    }

    /// Writes this node's row, and returns the id of another live node of its name.
    pub async fn announce(&self, state: &NodeState) -> Result<Option<Uuid>, sqlx::Error> {
        within_deadline(nodes::announce(&self.database.own(), state)).await
    }

    /// The nodes of the last minute.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, sqlx::Error> {
        within_deadline(nodes::all(&self.database.own())).await
    }

    /// Deletes this node's row.
    pub async fn leave(&self, node: Uuid) -> Result<(), sqlx::Error> {
        within_deadline(nodes::leave(&self.database.own(), node)).await
    }

    /// The log's present, which need not be on disk: no position.
    pub async fn present(&self) -> Result<Cursor, sqlx::Error> {
        within_deadline(log_state::present(&self.database.own())).await
    }

    /// Reads which kinds of events the triggers of the log write, and how these are made of its columns; from then on
    /// both are known, and so is the type of the users' ids. Returns whether clients may have come as users of another type.
    pub async fn read_kinds(&self) -> Result<bool, sqlx::Error> {
        let kinds = self.database.kinds();
        within_deadline(sources::read_kinds(&self.database.own(), &kinds)).await
    }

    /// Returns when everything that was written to the database before is on disk.
    pub async fn flush(&self) -> Result<(), sqlx::Error> {
        within_deadline(log_state::flush(&self.database.own())).await
    }

    /// Begins a new history: every cursor that was given out before gets a reset. With `former`, only if that is the
    /// present one. Returns the new history's id, `None` if it began none.
    pub async fn renew_history(&self, former: Option<Epoch>) -> Result<Option<u64>, sqlx::Error> {
        within_deadline(log_state::renew_history(&self.database.own(), former)).await
    }

    /// Writes how events are to reach the server.
    pub async fn set_ingest(&self, ingest: Ingest) -> Result<(), sqlx::Error> {
        within_deadline(log_state::set_ingest(&self.database.own(), ingest)).await
    }

    /// The events of all users that are visible now and were not in `from`, in the order of their ids
    /// and in one snapshot.
    #[must_use]
    pub fn read_all(&self, from: &Snapshot) -> Chunks {
        Chunks::begin(self.database.clone(), from)
    }

    /// The events of one user that are visible now and were not in `from`, page by page, in the order of their ids and
    /// in one snapshot.
    ///
    /// An event that was committed since may follow from another whose page is past; both come live. Revocations
    /// concern connections that existed when they happened, so a replay for a new connection is
    /// `with_revocations: false`.
    #[must_use]
    pub fn read_user(
        &self,
        recipient: impl Into<Recipient>,
        from: &Snapshot,
        with_revocations: bool,
    ) -> UserPages {
        let (database, recipient) = (self.database.clone(), recipient.into());
        UserPages::begin(database, recipient, from, with_revocations)
    }

    /// The JSON of a large event of this user, without its closing brace, at most as long as clients are sent it.
    /// `beginning` is what the queues hold of it. Its history is that of `cursor`.
    ///
    /// # Errors
    /// The database's; [`sqlx::Error::RowNotFound`] where that history's log no longer has the event.
    pub async fn read_large(
        &self,
        event: (UserKey, i64, InLog),
        beginning: &str,
        cursor: &Cursor,
    ) -> Result<String, sqlx::Error> {
        let bodies = &self.bodies;
        bodies
            .open_text(&self.database, event, beginning, cursor)
            .await
    }

    /// Notifies the control channel with this nonce and the snapshot of the same transaction, and
    /// returns when that has committed.
    pub async fn send_barrier(&self, nonce: &str) -> Result<(), sqlx::Error> {
        self.ready().await?;
        control::send_barrier(&self.database.own(), nonce).await
    }

    /// The same, and the barrier is a row of the log as well.
    pub async fn send_stream_barrier(&self, nonce: &str) -> Result<(), sqlx::Error> {
        self.ready().await?;
        control::send_stream_barrier(&self.database.own(), nonce).await
    }

    /// Proposes a way of ingest, which is taken unless somebody has chosen another.
    pub async fn propose_ingest(&self, ingest: Ingest) -> Result<(), sqlx::Error> {
        within_deadline(log_state::propose_ingest(&self.database.own(), ingest)).await
    }

    /// Whether a server that is to choose by itself could still propose `wal`: nobody has chosen, and no server has proposed it.
    pub async fn may_propose_wal(&self) -> Result<bool, sqlx::Error> {
        within_deadline(log_state::may_propose_wal(&self.database.own())).await
    }

    /// The connections for the service's own work.
    pub(super) fn own(&self) -> PgPool {
        self.database.own()
    }

    /// Whether the database has a log.
    pub async fn exists(&self) -> Result<bool, sqlx::Error> {
        within_deadline(control::has_log(&self.database.own())).await
    }

    /// Sends a barrier in a database without a log. It comes back with its snapshot, and with whether there is a log
    /// by now.
    pub async fn send_bare_barrier(&self, nonce: &str) -> Result<(), sqlx::Error> {
        self.ready().await?;
        control::send_bare_barrier(&self.database.own(), nonce).await
    }

    /// Whether a barrier waits for a synchronous standby. PostgreSQL ends such a wait only with its session.
    pub async fn awaits_standby(&self) -> Result<bool, sqlx::Error> {
        within_deadline(control::awaits_standby(&self.database.own())).await
    }

    /// Closes the open partition when it is older than an eighth of `retention` and opens the next one.
    pub async fn rotate(&self, retention: Duration) -> Result<Rotation, sqlx::Error> {
        within_deadline(maintenance::rotate(&self.database.own(), retention)).await
    }

    /// The names of the partitions whose events are all older than `retention`, oldest first.
    pub async fn expired(&self, retention: Duration) -> Result<Vec<String>, sqlx::Error> {
        within_deadline(maintenance::expired(&self.database.own(), retention)).await
    }

    /// Drops the events of a closed partition. Fails when its lock is not to be had within 0.2 s.
    pub async fn forget(&self, partition: &str) -> Result<(), sqlx::Error> {
        within_deadline(maintenance::forget(&self.database.own(), partition)).await
    }

    /// What has a lock on a partition, oldest first; the first few.
    pub async fn blockers(&self, partition: &str) -> Result<Vec<Blocker>, sqlx::Error> {
        let partition = format!("realtime.{partition}");
        let pool = self.database.own();
        within_deadline(blockers::of(&pool, &[&partition], false)).await
    }

    /// Rotates, and drops the events of one partition that are older than `retention`; returns how many
    /// partitions were dropped. In the schema before migration 2: makes partitions ahead and drops the old.
    pub async fn maintain(&self, retention: Duration) -> Result<i32, sqlx::Error> {
        within_deadline(maintenance::maintain(&self.database.own(), retention)).await
    }

    /// When each of these events was written, in seconds since 1970, as (id, time). All must be of
    /// transactions from `xmin` on; an id that is not in the log is left out.
    pub async fn creation_times(
        &self,
        ids: &[i64],
        xmin: u64,
    ) -> Result<Vec<(i64, f64)>, sqlx::Error> {
        within_deadline(creation_times::of_all(&self.database.own(), ids, xmin)).await
    }

    /// The same of one user's events, for a request of a client.
    pub async fn creation_times_of(
        &self,
        user: UserKey,
        ids: &[i64],
        xmin: u64,
    ) -> Result<Vec<(i64, f64)>, sqlx::Error> {
        within_deadline(creation_times::of_user(
            &self.database.requests(),
            user,
            ids,
            xmin,
        ))
        .await
    }

    /// The same of events of any users and any age.
    pub async fn creation_times_of_each(
        &self,
        events: &[Logged],
    ) -> Result<Vec<(i64, f64)>, sqlx::Error> {
        within_deadline(creation_times::of_each(&self.database.own(), events)).await
    }

    /// The kinds that events may have, those of retired sources included; none in a database without a log.
    pub async fn kinds(&self) -> Result<Vec<String>, sqlx::Error> {
        within_deadline(sources::kinds(&self.database.own())).await
    }

    /// What is wrong with the triggers that write the log.
    pub async fn trigger_faults(&self) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
        within_deadline(triggers::faults(&self.database.own())).await
    }

    /// What the service's own role lacks, if it lacks anything.
    pub async fn missing_rights(&self) -> Result<Option<MissingRights>, sqlx::Error> {
        within_deadline(rights::missing(&self.database.own())).await
    }

    /// The share of PostgreSQL's notification queue that is in use, 0 to 1.
    pub async fn notification_queue_usage(&self) -> Result<f64, sqlx::Error> {
        within_deadline(maintenance::notification_queue_usage(&self.database.own())).await
    }
}
