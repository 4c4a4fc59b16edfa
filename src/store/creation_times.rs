//! When events were written, for the measurement of latency and for the page.

use sqlx::PgPool;
use uuid::Uuid;

/// What [`super::Log::creation_times`] does, on this pool.
pub(super) async fn of_all(
    pool: &PgPool,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE id = ANY($1) AND xid >= $2::text::xid8",
    )
    .bind(ids)
    .bind(xmin.to_string())
    .fetch_all(pool)
    .await
}

/// What [`super::Log::creation_times_of`] does, on this pool.
pub(super) async fn of_user(
    pool: &PgPool,
    user_id: Uuid,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE user_id = $1 AND id = ANY($2) AND xid >= $3::text::xid8",
    )
    .bind(user_id)
    .bind(ids)
    .bind(xmin.to_string())
    .fetch_all(pool)
    .await
}
