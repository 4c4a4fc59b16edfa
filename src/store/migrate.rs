//! The schema `realtime`: installed, removed, and its status.
//!
//! `sql/realtime/` holds the migrations. sqlx's migrator applies them and records them in
//! `realtime._sqlx_migrations`, apart from the application's own migrations. Each migration is one
//! transaction. On the application's tables it puts triggers and an index on `devices`, and changes
//! nothing else.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::address::Address;
use super::schema::{APPLIED_TABLE, Schema};
use super::session;
use super::triggers::{self, FaultyTrigger};
use super::unusable::Unusable;
use crate::config::DatabaseUrl;
use crate::store::is_undefined_table;

/// The step that failed, and its error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, or refuses the connection.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The database, its password masked.
        url: String,
        /// Why.
        cause: sqlx::Error,
    },
    /// A migration failed; it has changed nothing.
    #[error("the database refused the migration: {0}")]
    Migrate(#[from] MigrateError),
    /// Another product's schema has the name.
    #[error(
        "the schema realtime is another product's: it has objects, and none of this service's migrations; name \
         another database, or rename that schema"
    )]
    ForeignSchema,
    /// Triggers cannot serve this database.
    #[error("{fault}; {}", .fault.fault.advice())]
    NotServed {
        /// Why.
        fault: FaultyTrigger,
    },
    /// A statement outside the migrations failed.
    #[error("the database refused: {0}")]
    Statement(#[from] sqlx::Error),
}

/// One migration and whether the database has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether it is applied.
    pub applied: bool,
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("sql/realtime");
    migrator.dangerous_set_table_name(APPLIED_TABLE);
    migrator
}

async fn connect(url: &DatabaseUrl) -> Result<PgConnection, Error> {
    let connecting = async {
        let address = Address::new(url.options());
        match address.ready().await {
            // `status` reads.
            Err(error) if Unusable::of(&error) == Some(Unusable::Recovery) => {}
            ready => ready?,
        }
        let mut connection = address.options().connect().await?;
        session::migrating(&mut connection).await?;
        Ok(connection)
    };
    connecting.await.map_err(|cause| Error::Connect {
        url: url.masked(),
        cause,
    })
}

/// Applies the migrations that are missing, and puts every trigger that is not in its place there. Returns the tables
/// where one was not. A second call changes nothing.
///
/// # Errors
/// [`Error`].
pub async fn up(url: &DatabaseUrl) -> Result<Vec<String>, Error> {
    let mut connection = connect(url).await?;
    if let Some(fault) = triggers::not_served(&mut connection).await?.pop() {
        return Err(Error::NotServed { fault });
    }
    // Held until the end: another `migrate up` may be at work.
    connection.lock().await?;
    let mut migrator = migrator();
    match Schema::find(&mut connection).await? {
        Some(schema) if !schema.may_be_used(&mut connection, &migrator).await? => {
            return Err(Error::ForeignSchema);
        }
        // The role may not be allowed to create one.
        Some(schema) => schema.note(&mut connection).await?,
        None => {
            migrator.create_schema("realtime");
        }
    }
    migrator.run_direct(None, &mut connection, false).await?;
    let repaired = triggers::repair(&mut connection).await?;
    connection.close().await?;
    Ok(repaired)
}

/// Undoes everything: the application's tables and triggers are as they were before [`up`], and so is a schema that was
/// there before. Another product's schema is not touched.
///
/// # Errors
/// [`Error`].
pub async fn down(url: &DatabaseUrl) -> Result<(), Error> {
    let mut connection = connect(url).await?;
    if applied(&mut connection).await?.is_empty() {
        return Ok(connection.close().await?);
    }
    let migrator = migrator();
    let schema = Schema::find(&mut connection).await?;
    let schema = schema.ok_or(Error::ForeignSchema)?;
    if !schema.may_be_used(&mut connection, &migrator).await? {
        return Err(Error::ForeignSchema);
    }
    migrator.undo(&mut connection, 0).await?;
    schema.leave(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Every migration in order, and whether the database has it.
pub async fn status(url: &DatabaseUrl) -> Result<Vec<Status>, Error> {
    let mut connection = connect(url).await?;
    let applied = applied(&mut connection).await?;
    connection.close().await?;
    Ok(migrator()
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .map(|migration| Status {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// The versions that the database has; none without the schema.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, Error> {
    match connection.list_applied_migrations(APPLIED_TABLE).await {
        Ok(applied) => Ok(applied
            .into_iter()
            .map(|migration| migration.version)
            .collect()),
        Err(MigrateError::Execute(error)) if is_undefined_table(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
