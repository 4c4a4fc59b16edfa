//! The log's partitions, and PostgreSQL's notification queue.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;

/// What [`super::Log::maintain`] does, on this pool.
pub(super) async fn maintain(pool: &PgPool, retention: Duration) -> Result<i32, sqlx::Error> {
    let retention = PgInterval::try_from(retention).map_err(sqlx::Error::Encode)?;
    sqlx::query_scalar("SELECT realtime.maintain($1)")
        .bind(retention)
        .fetch_one(pool)
        .await
}

/// The share of PostgreSQL's notification queue that is in use, 0 to 1.
pub(super) async fn notification_queue_usage(pool: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()")
        .fetch_one(pool)
        .await
}
