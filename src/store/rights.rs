//! The rights that roles have in schema `realtime`: which are needed, which are missing, and how they are granted.
//!
//! `sql/realtime_rights.sql` is the only list of them. Which roles have been granted what is kept nowhere but in the
//! rights themselves: a server's role may execute `realtime.begin_history()`, and a backend's `realtime.cursor()` and not
//! that. So a new function's rights are granted by the next `migrate up`, and a role that was dropped or renamed leaves
//! nothing behind.

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgExecutor};

/// Why nothing was granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is nobody to grant anything to.
    #[error("there is no role {role:?}: create it, or name another")]
    NoRole {
        /// As it was named.
        role: String,
    },
    /// The schema is not there, or is of a release that did not know roles.
    #[error("the database has nothing to grant yet: run `hushnet-realtime migrate up` first")]
    NoRights,
    /// PostgreSQL has not granted it.
    #[error("{right} was not granted: connect as the owner of the schema realtime")]
    NotGranted {
        /// As after GRANT.
        right: String,
    },
    /// A statement failed.
    #[error("the database refused: {0}")]
    Statement(#[from] sqlx::Error),
}

/// What a role does with the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Purpose {
    /// The role of `serve`
    Serve,
    /// The application's role, which reads cursors with its state
    Backend,
}

impl Purpose {
    /// As on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One right that a purpose needs.
#[derive(Debug)]
struct Right {
    /// As after GRANT.
    what: String,
    statement: String,
    is_held: bool,
}

/// The end of a right that only a database with a log has.
const STATE: &str = "ON TABLE realtime.state";

async fn rights(
    database: impl PgExecutor<'_>,
    role: Option<&str>,
    purpose: Purpose,
) -> Result<Vec<Right>, sqlx::Error> {
    let rows: Vec<(String, String, bool)> =
        sqlx::query_as(include_str!("../../sql/realtime_rights.sql"))
            .bind(role)
            .bind(purpose.as_str())
            .fetch_all(database)
            .await?;
    let right = |(what, statement, is_held)| Right {
        what,
        statement,
        is_held,
    };
    Ok(rows.into_iter().map(right).collect())
}

/// What the service's own role lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRights {
    /// The role's name.
    pub role: String,
    /// Each as after GRANT. Never empty.
    pub rights: Vec<String>,
    /// What an administrator does about it.
    pub remedy: String,
}

/// What the service's own role lacks, if it lacks anything.
pub(super) async fn missing(pool: &sqlx::PgPool) -> Result<Option<MissingRights>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let role: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&mut *connection)
        .await?;
    let mut rights = rights(&mut *connection, None, Purpose::Serve).await?;
    let has_log = rights.iter().any(|right| right.what.ends_with(STATE));
    rights.retain(|right| !right.is_held);
    if rights.is_empty() {
        return Ok(None);
    }
    let remedy = if has_log {
        let role = shell_word(&role);
        format!("hushnet-realtime migrate grant --role {role} --for serve")
    } else {
        let statements: Vec<_> = rights
            .iter()
            .map(|right| right.statement.as_str())
            .collect();
        statements.join("; ")
    };
    Ok(Some(MissingRights {
        role,
        rights: rights.into_iter().map(|right| right.what).collect(),
        remedy,
    }))
}

/// The name as one word of a shell's command line.
fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

/// Grants what the purpose needs, in one transaction. Returns each right, as after GRANT.
pub(super) async fn grant(
    connection: &mut PgConnection,
    role: &str,
    purpose: Purpose,
) -> Result<Vec<String>, GrantError> {
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)");
    if !exists.bind(role).fetch_one(&mut *connection).await? {
        return Err(GrantError::NoRole {
            role: role.to_owned(),
        });
    }
    if !is_ready_for(connection, purpose).await? {
        return Err(GrantError::NoRights);
    }
    let mut transaction = connection.begin().await?;
    let granted = grant_all(&mut transaction, role, purpose).await?;
    transaction.commit().await?;
    Ok(granted)
}

/// Whether the schema has what the purpose is granted. The schema before migration 6 has no functions for a role that
/// does not own it.
async fn is_ready_for(
    connection: &mut PgConnection,
    purpose: Purpose,
) -> Result<bool, sqlx::Error> {
    let function = match purpose {
        Purpose::Serve => "pending_messages",
        Purpose::Backend => "cursor",
    };
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'state'
             WHERE n.nspname = 'realtime' AND p.proname = $1)",
    )
    .bind(function)
    .fetch_one(connection)
    .await
}

/// PostgreSQL only warns where the grantor has no right to grant, so that the rights are looked up again.
async fn grant_all(
    connection: &mut PgConnection,
    role: &str,
    purpose: Purpose,
) -> Result<Vec<String>, GrantError> {
    for right in rights(&mut *connection, Some(role), purpose).await? {
        sqlx::raw_sql(AssertSqlSafe(right.statement))
            .execute(&mut *connection)
            .await?;
    }
    let granted = rights(&mut *connection, Some(role), purpose).await?;
    match granted.iter().find(|right| !right.is_held) {
        Some(refused) => Err(GrantError::NotGranted {
            right: refused.what.clone(),
        }),
        None => Ok(granted.into_iter().map(|right| right.what).collect()),
    }
}

/// The roles that have been granted something, and for what.
pub(super) async fn grantees(
    connection: &mut PgConnection,
) -> Result<Vec<(String, Purpose)>, sqlx::Error> {
    let grantees: Vec<(String, bool)> = sqlx::query_as(
        "SELECT pg_get_userbyid(acl.grantee)::text, bool_or(p.proname = 'begin_history')
         FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace, aclexplode(p.proacl) AS acl
         WHERE n.nspname = 'realtime' AND p.proname IN ('begin_history', 'cursor')
           AND acl.grantee NOT IN (0, p.proowner)
         GROUP BY acl.grantee ORDER BY 1",
    )
    .fetch_all(connection)
    .await?;
    let purpose = |is_server| {
        if is_server {
            Purpose::Serve
        } else {
            Purpose::Backend
        }
    };
    let grantees = grantees.into_iter();
    Ok(grantees
        .map(|(role, is_server)| (role, purpose(is_server)))
        .collect())
}

/// Grants the roles that have been granted something before what has become new since.
pub(super) async fn renew(connection: &mut PgConnection) -> Result<(), GrantError> {
    let grantees = grantees(connection).await?;
    let mut transaction = connection.begin().await?;
    for (role, purpose) in grantees {
        grant_all(&mut transaction, &role, purpose).await?;
    }
    Ok(transaction.commit().await?)
}

/// Takes back what these roles have on the schema itself, if it is still there.
pub(super) async fn take_back(
    connection: &mut PgConnection,
    grantees: &[(String, Purpose)],
) -> Result<(), sqlx::Error> {
    for (role, _) in grantees {
        let statement: Option<String> = sqlx::query_scalar(
            "SELECT format('REVOKE USAGE ON SCHEMA %I FROM %I', nspname, $1::text)
             FROM pg_namespace WHERE nspname = 'realtime'",
        )
        .bind(role)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(statement) = statement {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_s_name_is_one_word_of_the_command() {
        assert_eq!(shell_word("app_serve"), "app_serve");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
    }
}
