//! Whose the schema `realtime` is: the name is one that other products use too.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{FromRow, PgConnection};

/// The table of applied migrations.
pub(super) const APPLIED_TABLE: &str = "realtime._sqlx_migrations";

/// Noted at the table of applied migrations where the schema was there before them, with and without USAGE for all.
const FOUND: &str = "the schema was here before, without usage for all";
const FOUND_OPEN: &str = "the schema was here before, with usage for all";

/// The schema as it is in the database.
#[derive(Debug, FromRow)]
pub(super) struct Schema {
    objects: i64,
    has_migrations: bool,
    noted: Option<String>,
    /// Whether every role may use it.
    is_open: bool,
}

impl Schema {
    /// The schema of that name, if there is one.
    pub(super) async fn find(connection: &mut PgConnection) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query_as(include_str!("../../sql/realtime_state.sql"))
            .fetch_optional(connection)
            .await
    }

    /// Whether the table of applied migrations is there.
    pub(super) fn has_migrations(&self) -> bool {
        self.has_migrations
    }

    /// Whether the schema is ours or empty: nothing of another product is in it.
    pub(super) async fn may_be_used(
        &self,
        connection: &mut PgConnection,
        migrator: &Migrator,
    ) -> Result<bool, MigrateError> {
        if !self.has_migrations {
            return Ok(self.objects == 0);
        }
        let applied = connection.list_applied_migrations(APPLIED_TABLE).await?;
        let Some(first) = applied.first() else {
            // The first migration has failed before.
            return Ok(self.objects == 1);
        };
        let is_same =
            |version, checksum: &[u8]| version == first.version && checksum == &*first.checksum;
        Ok(migrator
            .iter()
            .any(|known| is_same(known.version, &known.checksum)))
    }

    /// Notes that the schema was there before the first migration.
    pub(super) async fn note(&self, connection: &mut PgConnection) -> Result<(), MigrateError> {
        if self.has_migrations {
            return Ok(());
        }
        connection.ensure_migrations_table(APPLIED_TABLE).await?;
        let noted = if self.is_open { FOUND_OPEN } else { FOUND };
        let statement = format!("COMMENT ON TABLE realtime._sqlx_migrations IS '{noted}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Removes what is left when the last migration is undone. A schema that was there before stays, empty.
    pub(super) async fn leave(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statements = match self.noted.as_deref() {
            Some(FOUND) => "DROP TABLE realtime._sqlx_migrations",
            Some(FOUND_OPEN) => {
                "DROP TABLE realtime._sqlx_migrations; GRANT USAGE ON SCHEMA realtime TO PUBLIC"
            }
            _ => include_str!("../../sql/realtime_gone.sql"),
        };
        sqlx::raw_sql(statements)
            .execute(connection)
            .await
            .map(drop)
    }
}
