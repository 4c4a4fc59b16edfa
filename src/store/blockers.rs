//! Who holds a lock that the service needs: sessions and prepared transactions, oldest first.

use std::fmt;

use sqlx::{FromRow, PgExecutor};

use super::error::one_line;

/// Blockers that are named at once.
const BLOCKERS_MAX: i64 = 5;

/// A session or a prepared transaction that holds a lock, or a snapshot, that the service waits for.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Blocker {
    pid: Option<i32>,
    gid: Option<String>,
    name: String,
    role: String,
    state: String,
    age: String,
    /// The session's last statement; null where the service's role may not see it.
    statement: Option<String>,
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

    /// Everything about it in one line, for whoever operates the database: the statement may hold a row's values.
    #[must_use]
    pub fn in_full(&self) -> String {
        let statement = self.statement.as_deref().map(one_line);
        let statement = statement.map_or(String::new(), |text| format!(", statement: {text}"));
        format!("{self}{statement} (end it with {})", self.remedy())
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            gid,
            name,
            role,
            state,
            age,
            ..
        } = self;
        match (gid, pid) {
            (Some(gid), _) => write!(f, "prepared transaction '{gid}' of role {role}, {age} old"),
            (None, Some(pid)) => write!(
                f,
                "session {pid} ({name}), {state}, role {role}, transaction {age} old"
            ),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// Who holds a lock on one of these relations. With `snapshots`, also whose snapshot keeps an index from being
/// completed. A prepared transaction has no process: it is known by the lock that each transaction has on its own
/// number.
const BLOCKERS: &str =
    "SELECT holder.pid, p.gid,
            coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') AS name,
            coalesce(p.owner, a.usename, 'unknown')::text AS role,
            coalesce(a.state, 'state hidden without pg_read_all_stats') AS state,
            coalesce(date_trunc('second', clock_timestamp() - coalesce(p.prepared, a.xact_start))::text,
                     'of unknown age') AS age,
            nullif(nullif(a.query, ''), '<insufficient privilege>') AS statement
     FROM (SELECT pid, virtualtransaction FROM pg_locks
           WHERE locktype = 'relation' AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND relation IN (
                 SELECT coalesce(part.relid, named.oid)
                 FROM (SELECT to_regclass(name) AS oid FROM unnest($1::text[]) AS name) AS named
                 LEFT JOIN LATERAL pg_partition_tree(named.oid) AS part ON true)
             AND pid IS DISTINCT FROM pg_backend_pid()
           UNION
           SELECT pid, NULL FROM pg_stat_activity
           WHERE $2 AND datname = current_database() AND backend_xmin IS NOT NULL
             AND backend_type = 'client backend' AND pid <> pg_backend_pid()) AS holder
     LEFT JOIN pg_stat_activity a ON a.pid = holder.pid
     LEFT JOIN LATERAL (
         SELECT gid, prepared, owner FROM pg_prepared_xacts JOIN pg_locks own ON transactionid = transaction
         WHERE own.locktype = 'transactionid' AND own.pid IS NULL
           AND own.virtualtransaction = holder.virtualtransaction LIMIT 1) AS p ON holder.pid IS NULL
     GROUP BY 1, 2, 3, 4, 5, 6, 7, coalesce(p.prepared, a.xact_start)
     ORDER BY coalesce(p.prepared, a.xact_start), holder.pid LIMIT $3";

/// Whose transaction has a number, anywhere in the cluster: making a replication slot waits for it.
const NUMBERED: &str =
    "SELECT holder.pid, p.gid,
            coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') AS name,
            coalesce(p.owner, a.usename, 'unknown')::text AS role,
            coalesce(a.state, 'state hidden without pg_read_all_stats') AS state,
            coalesce(date_trunc('second', clock_timestamp() - coalesce(p.prepared, a.xact_start))::text,
                     'of unknown age') AS age,
            nullif(nullif(a.query, ''), '<insufficient privilege>') AS statement
     FROM (SELECT pid, transactionid FROM pg_locks
           WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
             AND pid IS DISTINCT FROM pg_backend_pid()) AS holder
     LEFT JOIN pg_stat_activity a ON a.pid = holder.pid
     LEFT JOIN pg_prepared_xacts p ON holder.pid IS NULL AND p.transaction = holder.transactionid
     ORDER BY age(holder.transactionid) DESC LIMIT $1";

/// Whose transaction keeps a replication slot from being made, oldest first.
pub(super) async fn of_slots(executor: impl PgExecutor<'_>) -> Result<Vec<Blocker>, sqlx::Error> {
    sqlx::query_as(NUMBERED)
        .bind(BLOCKERS_MAX)
        .fetch_all(executor)
        .await
}

/// Who holds a lock on these relations or on their partitions; with `snapshots`, also whose snapshot is old.
pub(super) async fn of(
    executor: impl PgExecutor<'_>,
    relations: &[&str],
    snapshots: bool,
) -> Result<Vec<Blocker>, sqlx::Error> {
    sqlx::query_as(BLOCKERS)
        .bind(relations)
        .bind(snapshots)
        .bind(BLOCKERS_MAX)
        .fetch_all(executor)
        .await
}
