//! Indexes of tables that others write to, built while they write.
//!
//! CREATE INDEX CONCURRENTLY takes a lock that no reader and no writer waits for. It waits itself for every transaction
//! that is older. When it fails it leaves an invalid index, which is dropped and built again. It cannot be used on a
//! partitioned table: there each partition's index is built, and CREATE INDEX on the whole table, which comes after,
//! only puts them together.

use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};

use super::error::is_lock_not_available;
use super::locks::{self, Blocked, LockError, Locks, Patience};
use super::session;

/// An index of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Index {
    /// The table, with its schema.
    pub(super) table: &'static str,
    /// The index's own name; it is in the table's schema.
    pub(super) name: &'static str,
    /// The column.
    pub(super) column: &'static str,
}

/// What has to be done for an index of a table or partition.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Part {
    /// The table or the partition, quoted.
    pub(super) relation: String,
    /// The index that is to be built, quoted.
    name: String,
    /// An index that was not completed, or that is on another table: it has to go first.
    pub(super) former: Option<String>,
    /// About how many rows there are; less than 0 where nothing is known.
    pub(super) rows: i64,
    /// The size of the rows, for people.
    pub(super) size: String,
}

/// The parts that have no valid index yet. Of a partitioned table these are its leaves.
const PARTS: &str = "
    WITH leaf AS (
        SELECT c.oid, c.reltuples, c.relnamespace, format('%I.%I', c.relnamespace::regnamespace, c.relname) AS name,
               CASE WHEN c.oid = t.oid THEN $2 ELSE left(c.relname, 30) || '_realtime_' || $3 END AS index_name
        FROM (SELECT to_regclass($1)::oid AS oid) AS t
        LEFT JOIN LATERAL pg_partition_tree(t.oid) AS part ON true
        JOIN pg_class c ON c.oid = coalesce(part.relid, t.oid)
        WHERE c.relkind = 'r'
    ), found AS (
        SELECT i.indrelid, i.indisvalid AND i.indisready AS valid, c.relname, c.relnamespace
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indnatts = 1
        JOIN pg_am am ON am.oid = c.relam
        WHERE a.attname = $3 AND am.amname = 'btree' AND NOT i.indisunique AND i.indpred IS NULL
    )
    SELECT leaf.name AS relation, quote_ident(index_name) AS name,
           (SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM found
            WHERE relname = index_name AND relnamespace = leaf.relnamespace) AS former,
           leaf.reltuples::bigint AS rows, pg_size_pretty(pg_table_size(leaf.oid)) AS size
    FROM leaf
    WHERE NOT EXISTS (SELECT FROM found WHERE indrelid = leaf.oid AND valid
                      AND (leaf.oid <> to_regclass($1) OR relname = index_name))
    ORDER BY leaf.oid";

/// The indexes that are named as ours are, those of a whole partitioned table first.
const LEFT: &str = "
    SELECT format('%I.%I', x.relnamespace::regnamespace, x.relname), x.relkind = 'I'
    FROM (SELECT to_regclass($1)::oid AS oid) AS t
    LEFT JOIN LATERAL pg_partition_tree(t.oid) AS part ON true
    JOIN pg_class c ON c.oid = coalesce(part.relid, t.oid)
    JOIN pg_index i ON i.indrelid = c.oid AND i.indnatts = 1
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE a.attname = $3
      AND x.relname = CASE WHEN c.oid = t.oid THEN $2 ELSE left(c.relname, 30) || '_realtime_' || $3 END
    ORDER BY x.relkind = 'I' DESC";

impl Index {
    /// The parts that have no valid index.
    pub(super) async fn missing(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<Part>, sqlx::Error> {
        sqlx::query_as(PARTS)
            .bind(self.table)
            .bind(self.name)
            .bind(self.column)
            .fetch_all(connection)
            .await
    }

    /// Builds what is missing. Of a partitioned table it builds the partitions' indexes.
    pub(super) async fn build(
        &self,
        connection: &mut PgConnection,
        patience: &Patience,
    ) -> Result<(), LockError> {
        for part in self.missing(connection).await? {
            (patience.report)(&format!(
                "building an index on {} ({}), while others write",
                part.relation, part.size
            ));
            self.build_part(connection, &part, patience).await?;
        }
        Ok(())
    }

    async fn build_part(
        &self,
        connection: &mut PgConnection,
        part: &Part,
        patience: &Patience,
    ) -> Result<(), LockError> {
        let create = format!(
            "CREATE INDEX CONCURRENTLY {} ON {} ({})",
            part.name, part.relation, self.column
        );
        let former = part.former.as_deref();
        let drop = former.map(|former| format!("DROP INDEX CONCURRENTLY {former}"));
        for statement in drop.into_iter().chain([create]) {
            waiting(connection, statement, &part.relation, patience).await?;
        }
        Ok(())
    }

    /// Puts the partitions' indexes together where the table is partitioned and has no index of this name.
    pub(super) async fn complete(
        &self,
        connection: &mut PgConnection,
        patience: &Patience,
    ) -> Result<(), LockError> {
        let Self {
            table,
            name,
            column,
        } = self;
        let is_missing: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass($1) AND c.relkind = 'p' AND NOT EXISTS (
                 SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                 WHERE i.indrelid = c.oid AND x.relname = $2))",
        )
        .bind(table)
        .bind(name)
        .fetch_one(&mut *connection)
        .await?;
        if is_missing {
            let mut transaction = connection.begin().await?;
            let locks = Locks {
                tables: &[table],
                mode: "SHARE",
            };
            locks::take(&mut transaction, locks, patience).await?;
            let create = format!("CREATE INDEX {name} ON {table} ({column})");
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Drops what attempts have left without a log, completed or not.
    pub(super) async fn remove(
        &self,
        connection: &mut PgConnection,
        patience: &Patience,
    ) -> Result<(), LockError> {
        let left: Vec<(String, bool)> = sqlx::query_as(LEFT)
            .bind(self.table)
            .bind(self.name)
            .bind(self.column)
            .fetch_all(&mut *connection)
            .await?;
        for (index, is_whole) in left {
            if !is_whole {
                let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
                waiting(connection, drop, self.table, patience).await?;
                continue;
            }
            // CONCURRENTLY drops no index of a partitioned table. With it go those of the partitions.
            let mut transaction = connection.begin().await?;
            let locks = Locks {
                tables: &[self.table],
                mode: "ACCESS EXCLUSIVE",
            };
            locks::take(&mut transaction, locks, patience).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP INDEX {index}")))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// Executes a statement that waits for older transactions, outside a transaction. It is given up when one wait takes
/// longer than the patience lasts.
async fn waiting(
    connection: &mut PgConnection,
    statement: String,
    relation: &str,
    patience: &Patience,
) -> Result<(), LockError> {
    session::wait_for_locks(connection, patience.wait).await?;
    match sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut *connection)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_lock_not_available(&error) => {
            let blocked = Blocked::find(connection, &[relation], true, patience.wait).await?;
            Err(LockError::Blocked(blocked))
        }
        Err(error) => Err(error.into()),
    }
}
