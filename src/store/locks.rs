//! Locks on tables that others write to, taken so that nobody waits long for them.
//!
//! A request for a lock makes everyone wait who comes after it, however short they are. So all tables of a step are
//! asked for at once, for [`ATTEMPT`] in all. An attempt that fails gives back what it has, and the next one comes
//! after [`PAUSE`], in which the others go on. [`ATTEMPT`] is less than PostgreSQL's `deadlock_timeout` (1 s), so that no
//! transaction of the application is ended for a deadlock with us.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::Instant;

use super::blockers::{self, Blocker};
use super::error::{is_lock_not_available, is_query_canceled};

/// The time for all locks of one attempt.
const ATTEMPT: Duration = Duration::from_millis(200);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// The blocker is reported when the attempts have failed for so long.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// How long to try, and where progress is reported.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The time after which a lock is given up.
    pub wait: Duration,
    /// Reports what takes long, in one line.
    pub report: fn(&str),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            report: |_| (),
        }
    }
}

/// Tables and the mode in which they are locked together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locks<'a> {
    /// The tables that are locked, in this order. Those that are not there are left out.
    pub(super) tables: &'a [&'a str],
    /// The mode, as LOCK TABLE has it.
    pub(super) mode: &'a str,
}

/// Others have what a migration needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} in use by others for {} s: {}; nothing has been changed by this step: run it again when they have ended",
    .waited.as_secs(),
    named(.blockers)
)]
pub struct Blocked {
    what: String,
    waited: Duration,
    blockers: Vec<Blocker>,
}

/// Why locks were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error(transparent)]
    Blocked(Blocked),
    #[error(transparent)]
    Statement(#[from] sqlx::Error),
}

impl Blocked {
    /// Looks up who holds these tables.
    pub(super) async fn find(
        connection: &mut PgConnection,
        tables: &[&str],
        snapshots: bool,
        waited: Duration,
    ) -> Result<Self, sqlx::Error> {
        let are = if tables.len() == 1 { "is" } else { "are" };
        Ok(Self {
            what: format!("{} {are}", tables.join(", ")),
            waited,
            blockers: blockers::of(connection, tables, snapshots).await?,
        })
    }
}

fn named(blockers: &[Blocker]) -> String {
    if blockers.is_empty() {
        return "by transactions that have ended meanwhile".to_owned();
    }
    let named: Vec<_> = blockers.iter().map(Blocker::in_full).collect();
    named.join("; ")
}

/// Takes the locks in the connection's open transaction, which keeps them. Other settings of the transaction are as
/// they were, but `lock_timeout`, which is [`ATTEMPT`] from now on.
pub(super) async fn take(
    transaction: &mut PgConnection,
    locks: Locks<'_>,
    patience: &Patience,
) -> Result<(), LockError> {
    let tables = present(transaction, locks.tables).await?;
    if tables.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let mut reported = false;
    loop {
        if attempt(transaction, &tables, locks.mode).await? {
            return Ok(());
        }
        let waited = begun.elapsed();
        if waited >= patience.wait || waited >= REPORT_AFTER && !reported {
            let blocked = Blocked::find(transaction, locks.tables, false, waited).await?;
            if waited >= patience.wait {
                return Err(LockError::Blocked(blocked));
            }
            reported = true;
            (patience.report)(&format!(
                "{} in use by others, trying again: {}",
                blocked.what,
                named(&blocked.blockers)
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One attempt; false when it took too long.
async fn attempt(
    transaction: &mut PgConnection,
    tables: &[String],
    mode: &str,
) -> Result<bool, sqlx::Error> {
    let ms = ATTEMPT.as_millis();
    let before = format!(
        "SAVEPOINT attempt; SET LOCAL lock_timeout = '{ms}ms'; SET LOCAL statement_timeout = '{ms}ms'"
    );
    execute(transaction, before).await?;
    // PostgreSQL gives each table's lock the whole of `lock_timeout`, and all of them together `statement_timeout`.
    let lock = format!("LOCK TABLE {} IN {mode} MODE", tables.join(", "));
    match execute(transaction, lock).await {
        Ok(()) => {
            let after = "RELEASE SAVEPOINT attempt; SET LOCAL statement_timeout = 0";
            execute(transaction, after.to_owned()).await?;
            Ok(true)
        }
        Err(error) if is_lock_not_available(&error) || is_query_canceled(&error) => {
            execute(transaction, "ROLLBACK TO SAVEPOINT attempt".to_owned()).await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Those of these tables that are there, quoted.
async fn present(
    transaction: &mut PgConnection,
    tables: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname)
         FROM unnest($1::text[]) WITH ORDINALITY AS named (name, number)
         JOIN pg_class c ON c.oid = to_regclass(name) JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY number",
    )
    .bind(tables)
    .fetch_all(transaction)
    .await
}

async fn execute(transaction: &mut PgConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(transaction)
        .await
        .map(drop)
}
