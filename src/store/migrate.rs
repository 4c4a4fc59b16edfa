//! The schema `realtime`: installed, removed, and its status.
//!
//! On the tables that have sources `up` puts triggers, and an index on HushNet's `devices`, and changes nothing else.
//! Nobody waits long for it:
//!
//! - The index is built CONCURRENTLY, before everything else.
//! - Where there is no log, all migrations are one transaction, which makes the log and at its end takes the locks for
//!   the triggers. Until it commits nothing is there for others to see.
//! - Where there is a log, each migration is one transaction, which takes its locks first.
//! - Locks are taken as `locks` says. While they are held, nothing is waited for and no table is read through; the one
//!   exception is migration 2, which copies up to 100,000 events.
//!
//! Each step that has failed, or was ended, is done again by the next `up`.

use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::Instant;

use super::address::Address;
use super::locks::{self, Blocked, LockError, Locks, Patience};
use super::migrations::{self, OF_DEVICES};
use super::plan::{self, Step};
use super::rights::{self, GrantError, Purpose};
use super::schema::{APPLIED_TABLE, Schema};
use super::session;
use super::sources::{self, Source, Stage};
use super::triggers::{self, FaultyTrigger};
use super::unusable::Unusable;
use crate::config::DatabaseUrl;

/// Between two attempts to be the only `migrate` at work.
const TURN_PAUSE: Duration = Duration::from_millis(200);

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
    /// Not all text of this database is UTF-8.
    #[error(
        "the database's encoding is {0}, and events are JSON in UTF-8: create one WITH TEMPLATE template0 ENCODING \
         'UTF8' and restore a dump of this one into it; a dump of another encoding than SQL_ASCII is converted"
    )]
    Encoding(String),
    /// Triggers cannot serve this database.
    #[error("{fault}; {}", .fault.fault.advice())]
    NotServed {
        /// Why.
        fault: FaultyTrigger,
    },
    /// Another `migrate` is at work.
    #[error("another migrate has been at work for {} s; wait for its end, then run it again", .0.as_secs())]
    Busy(Duration),
    /// Others have what is needed, for longer than was to be waited.
    #[error(transparent)]
    Blocked(Blocked),
    /// Rights could not be granted.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// A statement outside the migrations failed.
    #[error("the database refused: {0}")]
    Statement(#[from] sqlx::Error),
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Blocked(blocked) => Self::Blocked(blocked),
            LockError::Statement(error) => Self::Statement(error),
        }
    }
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

pub(super) async fn connect(url: &DatabaseUrl) -> Result<PgConnection, Error> {
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

/// Applies the migrations that are missing, and puts every trigger that is not in its place there, those of sources that
/// were added among them. Returns the tables where one was not. A second call changes nothing.
///
/// # Errors
/// [`Error`].
pub async fn up(url: &DatabaseUrl) -> Result<Vec<String>, Error> {
    up_with(url, &Patience::default()).await
}

/// What [`up`] does, with another patience.
///
/// # Errors
/// [`Error`].
pub async fn up_with(url: &DatabaseUrl, patience: &Patience) -> Result<Vec<String>, Error> {
    let mut connection = connect(url).await?;
    take_turn(&mut connection, patience).await?;
    let (schema, applied) = found(&mut connection).await?;
    if sources::has_devices(&mut connection).await? {
        OF_DEVICES.build(&mut connection, patience).await?;
        OF_DEVICES.complete(&mut connection, patience).await?;
    }
    let repaired = if applied.is_empty() {
        install(&mut connection, schema, patience).await?;
        Vec::new()
    } else {
        upgrade(&mut connection, &applied, patience).await?;
        repair(&mut connection, patience).await?
    };
    rights::renew(&mut connection).await?;
    connection.close().await?;
    Ok(repaired)
}

/// The schema and the migrations that the database has.
///
/// # Errors
/// Where `up` is refused.
async fn found(connection: &mut PgConnection) -> Result<(Option<Schema>, Vec<i64>), Error> {
    let schema = Schema::find(connection).await?;
    let applied = match &schema {
        Some(schema) if !schema.may_be_used(connection, &migrations::all()).await? => {
            return Err(Error::ForeignSchema);
        }
        Some(schema) => known(connection, schema).await?,
        None => Vec::new(),
    };
    if applied.is_empty() {
        check_encoding(connection).await?;
    }
    let stage = Stage::of(&applied);
    if let Some(fault) = triggers::not_served(connection, stage).await?.pop() {
        return Err(Error::NotServed { fault });
    }
    Ok((schema, applied))
}

/// In another encoding a row may have text that no client can be sent. A database that has a log already is upgraded.
async fn check_encoding(connection: &mut PgConnection) -> Result<(), Error> {
    let encoding = "SELECT pg_catalog.current_setting('server_encoding')";
    let encoding: String = sqlx::query_scalar(encoding).fetch_one(connection).await?;
    match encoding.as_str() {
        "UTF8" => Ok(()),
        _ => Err(Error::Encoding(encoding)),
    }
}

/// Waits until no other `migrate` is at work; none is until the connection ends. A session that waits for a lock has a
/// snapshot, for which an index that is built CONCURRENTLY waits: so this one asks again and again.
async fn take_turn(connection: &mut PgConnection, patience: &Patience) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let taken: bool = sqlx::query_scalar(
            "SELECT pg_try_advisory_lock(hashtextextended('realtime.migrate', 0))",
        )
        .fetch_one(&mut *connection)
        .await?;
        if taken {
            // For programs of before, which know only this one.
            return Ok(connection.lock().await?);
        }
        if begun.elapsed() >= patience.wait {
            return Err(Error::Busy(begun.elapsed()));
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
}

/// The log and its triggers, in one transaction.
async fn install(
    connection: &mut PgConnection,
    schema: Option<Schema>,
    patience: &Patience,
) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    let mut migrator = migrations::at_first();
    match schema {
        // The role may not be allowed to create one.
        Some(schema) => schema.note(&mut transaction).await?,
        None => {
            migrator.create_schema("realtime");
        }
    }
    migrator.run_direct(None, &mut *transaction, false).await?;
    place_triggers(&mut transaction, patience).await?;
    Ok(transaction.commit().await?)
}

/// Each migration that is missing, in a transaction of its own.
async fn upgrade(
    connection: &mut PgConnection,
    applied: &[i64],
    patience: &Patience,
) -> Result<(), Error> {
    let migrator = migrations::all();
    for (version, _) in migrations::pending(applied) {
        if let Some(index) = migrations::index_before(version) {
            index.build(connection, patience).await?;
        }
        let mut transaction = connection.begin().await?;
        if let Some(locks) = migrations::locks_of(version) {
            locks::take(&mut transaction, locks, patience).await?;
        }
        apply(&migrator, version, &mut transaction).await?;
        // With the migration: the servers that run may call what is new to them at once.
        rights::renew(&mut transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn apply(
    migrator: &Migrator,
    version: i64,
    transaction: &mut PgConnection,
) -> Result<(), MigrateError> {
    migrator.run_direct(Some(version), transaction, false).await
}

/// Puts every trigger that is not in its place there. Returns the tables where one was not.
async fn repair(connection: &mut PgConnection, patience: &Patience) -> Result<Vec<String>, Error> {
    let mut transaction = connection.begin().await?;
    let repaired = place_triggers(&mut transaction, patience).await?;
    transaction.commit().await?;
    Ok(repaired)
}

/// The same in a transaction, after all migrations. Locks only tables whose triggers it changes.
async fn place_triggers(
    transaction: &mut PgConnection,
    patience: &Patience,
) -> Result<Vec<String>, Error> {
    let changes = triggers::misplaced(transaction, Stage::Present).await?;
    let locks = Locks {
        tables: &triggers::tables(&changes),
        mode: "ACCESS EXCLUSIVE",
    };
    locks::take(transaction, locks, patience).await?;
    Ok(triggers::repair(transaction, &changes).await?)
}

/// The sources after [`up`]: which make events, and why the others of the preset make none.
///
/// # Errors
/// [`Error`].
pub async fn sources(url: &DatabaseUrl) -> Result<Vec<Source>, Error> {
    let mut connection = connect(url).await?;
    let sources = sources::all(&mut connection).await?;
    connection.close().await?;
    Ok(sources)
}

/// What [`up`] would do, in order. Changes nothing.
///
/// # Errors
/// Where [`up`] would be refused.
pub async fn plan(url: &DatabaseUrl) -> Result<Vec<Step>, Error> {
    let mut connection = connect(url).await?;
    let mut transaction = connection.begin_with("BEGIN READ ONLY").await?;
    let (_, applied) = found(&mut transaction).await?;
    let steps = plan::steps(&mut transaction, &applied).await?;
    transaction.rollback().await?;
    connection.close().await?;
    Ok(steps)
}

/// Undoes everything in one transaction: the application's tables and triggers are as they were before [`up`], and so
/// is a schema that was there before. Another product's schema is not touched.
///
/// # Errors
/// [`Error`].
pub async fn down(url: &DatabaseUrl) -> Result<(), Error> {
    down_with(url, &Patience::default()).await
}

/// What [`down`] does, with another patience.
///
/// # Errors
/// [`Error`].
pub async fn down_with(url: &DatabaseUrl, patience: &Patience) -> Result<(), Error> {
    let mut connection = connect(url).await?;
    take_turn(&mut connection, patience).await?;
    let migrator = migrations::at_last();
    let schema = Schema::find(&mut connection).await?;
    if let Some(schema) = schema.filter(Schema::has_migrations) {
        if !schema.may_be_used(&mut connection, &migrator).await? {
            return Err(Error::ForeignSchema);
        }
        let mut transaction = connection.begin().await?;
        let tables = triggers::used_tables(&mut transaction).await?;
        let locks = Locks {
            tables: &tables.iter().map(String::as_str).collect::<Vec<_>>(),
            mode: "ACCESS EXCLUSIVE",
        };
        locks::take(&mut transaction, locks, patience).await?;
        let grantees = rights::grantees(&mut transaction).await?;
        migrator.undo(&mut *transaction, 0).await?;
        schema.leave(&mut transaction).await?;
        rights::take_back(&mut transaction, &grantees).await?;
        transaction.commit().await?;
    }
    OF_DEVICES.remove(&mut connection, patience).await?;
    Ok(connection.close().await?)
}

/// Grants the role what it needs in the schema for the purpose; another role's rights stay as they are. Returns each
/// right, as after GRANT. A second call changes nothing.
///
/// # Errors
/// [`Error`]; nothing is granted then.
pub async fn grant(url: &DatabaseUrl, role: &str, purpose: Purpose) -> Result<Vec<String>, Error> {
    let mut connection = connect(url).await?;
    let granted = rights::grant(&mut connection, role, purpose).await?;
    connection.close().await?;
    Ok(granted)
}

/// Every migration in order, and whether the database has it.
pub async fn status(url: &DatabaseUrl) -> Result<Vec<Status>, Error> {
    let mut connection = connect(url).await?;
    let applied = match Schema::find(&mut connection).await? {
        Some(schema) => applied(&mut connection, &schema).await?,
        None => Vec::new(),
    };
    connection.close().await?;
    Ok(migrations::all()
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .map(|migration| Status {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// The versions that the database has; none without the table of applied migrations.
async fn applied(connection: &mut PgConnection, schema: &Schema) -> Result<Vec<i64>, MigrateError> {
    if !schema.has_migrations() {
        return Ok(Vec::new());
    }
    let applied = connection.list_applied_migrations(APPLIED_TABLE).await?;
    Ok(applied.into_iter().map(|one| one.version).collect())
}

/// The same, where each is one of this program's.
async fn known(connection: &mut PgConnection, schema: &Schema) -> Result<Vec<i64>, MigrateError> {
    let versions = applied(connection, schema).await?;
    if versions.is_empty() {
        return Ok(versions);
    }
    let migrator = migrations::all();
    for one in connection.list_applied_migrations(APPLIED_TABLE).await? {
        let own = migrator
            .iter()
            .find(|own| own.version == one.version && own.migration_type.is_up_migration());
        match own {
            None => return Err(MigrateError::VersionMissing(one.version)),
            Some(own) if own.checksum != one.checksum => {
                return Err(MigrateError::VersionMismatch(one.version));
            }
            Some(_) => {}
        }
    }
    Ok(versions)
}
