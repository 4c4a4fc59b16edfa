//! The demo users of `run`, and the rows that the application would write for them, by the statements in
//! `sql/demo`.

use sqlx::PgExecutor;
use uuid::Uuid;

/// The demo user that sends.
pub const SENDER: &str = "alice";
/// The demo user that receives.
pub const RECIPIENT: &str = "bob";

/// Adds [`SENDER`] and [`RECIPIENT`] with a device each and a chat, unless they exist.
///
/// # Errors
/// The database's.
pub async fn add_users(database: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("../../sql/demo/users.sql"))
        .execute(database)
        .await
        .map(drop)
}

/// The id of the user of that name.
///
/// # Errors
/// The database's.
pub async fn user_id(
    database: impl PgExecutor<'_>,
    name: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(include_str!("../../sql/demo/user_id.sql"))
        .bind(name)
        .fetch_optional(database)
        .await
}

/// Inserts one message row for each device of the user named `to`; returns their ids. Inserts none when
/// one of the users does not exist or the recipient has no device.
///
/// # Errors
/// The database's.
pub async fn send(
    database: impl PgExecutor<'_>,
    from: &str,
    to: &str,
    text: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(include_str!("../../sql/demo/send.sql"))
        .bind(from)
        .bind(to)
        .bind(text)
        .fetch_all(database)
        .await
}
