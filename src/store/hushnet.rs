//! The application's own schema, for a database that has none: HushNet's tables and triggers, from
//! `sql/hushnet`.

use sqlx::{Connection, PgConnection};

/// Puts HushNet's tables and triggers in place, in one transaction, unless they are there. Returns
/// whether they were.
///
/// # Errors
/// The database's.
pub async fn ensure_schema(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let present: bool = sqlx::query_scalar(include_str!("../../sql/hushnet/present.sql"))
        .fetch_one(&mut *connection)
        .await?;
    if !present {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(include_str!("../../sql/hushnet/schema.sql"))
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(include_str!("../../sql/hushnet/triggers.sql"))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(present)
}
