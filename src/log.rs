//! The log of events, `realtime.events`: the statements that read it, and what else the service asks
//! PostgreSQL. The triggers write it (`sql/realtime/`). Fails with the database's own error.

use sqlx::PgPool;

/// When each of these events was written, in seconds since 1970, as (id, time); an id that is not in
/// the log is left out.
pub async fn creation_times(pool: &PgPool, ids: &[i64]) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events WHERE id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await
}

/// The share of PostgreSQL's notification queue that is in use, 0 to 1.
pub async fn notification_queue_usage(pool: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()")
        .fetch_one(pool)
        .await
}
